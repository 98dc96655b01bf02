"""A column of a user's table, and its values as they are meant."""

from __future__ import annotations

import pandas as pd

from features.errors import InputError, did_you_mean


def column(frame: pd.DataFrame, name: str, key: str) -> pd.Series:
    """A column of a table.

    Parameters
    ----------
    key : str
        Dotted path of the setting that names it, for the message.

    Raises
    ------
    InputError
        It is not there.
    """
    if name not in frame.columns:
        raise InputError(f"Column {name!r} ({key}) is not in the table{did_you_mean(name, list(map(str, frame.columns)))}.")
    return frame[name]


def meant(value: object) -> float | str:
    """A value such that 1, 1.0, True and '1' are the same: a column of 0 and 1 is read as floats when a row has none.

    Examples
    --------
    >>> meant("1") == meant(True) == meant(1.0), meant("yes")
    (True, 'yes')
    """
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
