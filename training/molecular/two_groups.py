"""What a comparison of gene expression between two groups asks of its values, checked once at the door."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.errors import InputError
from training.molecular.grouping import FEWEST_PATIENTS


def check_two_groups(groups: np.ndarray, n_patients: int) -> np.ndarray:
    """Groups as booleans, each of four patients or more.

    Parameters
    ----------
    groups : array-like of shape (n_patients,)
        True, or 1, for the group of interest; False, or 0, for the other.

    Returns
    -------
    ndarray of shape (n_patients,), bool

    Raises
    ------
    InputError
        A patient is of neither group, or a group has fewer than four patients.

    Examples
    --------
    >>> check_two_groups([1, 1, 1, 0, 0, 0, 0], 7)
    Traceback (most recent call last):
    features.errors.InputError: Two groups of 4 patients or more can be compared, and these have 3 (the group of interest) and \
4; combine groups, or leave this one out.
    """
    asked = np.asarray(groups)
    if asked.shape != (n_patients,) or not np.isin(asked, (0, 1)).all():
        raise InputError(
            f"Each of the {n_patients} patients must be of the group of interest (1) or of the other (0); leave out those who "
            "are of neither."
        )
    members = asked == 1
    inside, outside = int(members.sum()), int((~members).sum())
    if min(inside, outside) < FEWEST_PATIENTS:
        raise InputError(
            f"Two groups of {FEWEST_PATIENTS} patients or more can be compared, and these have {inside} (the group of interest) "
            f"and {outside}; combine groups, or leave this one out."
        )
    return np.asarray(members)


def usable_genes(values: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The genes that every patient has a value of, and that are not the same in all.

    Nothing is imputed: a gene with gaps is left out. So is one without any spread, which tells no groups apart.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Expression, log2.

    Returns
    -------
    values : DataFrame of shape (n_patients, n_usable_genes), float
    notes : tuple of str
        How many genes were left out, and why, in sentences.

    Raises
    ------
    InputError
        A column is not of numbers or is there twice, a value is infinite, or no gene is left.

    Examples
    --------
    >>> table = pd.DataFrame({"CA9": [1.0, 2, 3], "LDHA": [7.0, 7, 7], "STC2": [1, np.nan, 2]})
    >>> kept, notes = usable_genes(table)
    >>> list(kept), notes[0]
    (['CA9'], '1 gene without a value in some patients was left out.')
    """
    _refuse_unusable(values)
    matrix = values.to_numpy(dtype=float)
    gaps = np.isnan(matrix).any(axis=0)
    constant = ~gaps & (np.ptp(np.where(gaps, 0.0, matrix), axis=0) == 0)
    kept = values.loc[:, ~gaps & ~constant].astype(float)
    if kept.empty:
        raise InputError(
            f"None of the {values.shape[1]} genes has a value in all {len(values)} patients and differs between any two of them; "
            "check the table, or fill its gaps before."
        )
    notes = (_left_out(gaps, "without a value in some patients"), _left_out(constant, "with the same value in all patients"))
    return kept, tuple(note for note in notes if note)


def _refuse_unusable(values: pd.DataFrame) -> None:
    # Read by position: a name that is there twice would give a table.
    others = [name for name, kind in zip(values.columns, values.dtypes, strict=True) if not pd.api.types.is_numeric_dtype(kind)]
    if others:
        raise InputError(
            f"The expression of {str(others[0])!r} is not a number in every patient; leave out columns that are no genes."
        )
    twice = values.columns[values.columns.duplicated()]
    if len(twice):
        raise InputError(f"Gene {str(twice[0])!r} has several columns; make one of them, such as that with the highest mean.")
    infinite = values.columns[np.isinf(values.to_numpy(dtype=float)).any(axis=0)]
    if len(infinite):
        raise InputError(
            f"Gene {str(infinite[0])!r} has infinite values, as the logarithm of 0 is; add 1 before taking logarithms."
        )


def _left_out(which: np.ndarray, why: str) -> str:
    number = int(which.sum())
    return f"{number} {'gene' if number == 1 else 'genes'} {why} {'was' if number == 1 else 'were'} left out." if number else ""
