"""Covariates as a matrix of numbers, with what was done to get there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from features.errors import InputError


@dataclass(frozen=True)
class Design:
    """Covariates of complete cases.

    Attributes
    ----------
    columns : DataFrame of shape (n_complete, n_columns)
        Numbers. A category gives one column per level but its first, named "stage=III".
    terms : dict of str to tuple of str
        Columns of each covariate.
    complete : ndarray of shape (n_patients,), bool
        Who has all covariates.
    notes : tuple of str
        What was left out, in words.
    """

    columns: pd.DataFrame
    terms: dict[str, tuple[str, ...]]
    complete: np.ndarray
    notes: tuple[str, ...]


def design_of(covariates: pd.DataFrame) -> Design:
    """Numbers from covariates that may be categories.

    Parameters
    ----------
    covariates : DataFrame of shape (n_patients, n_covariates)
        Numbers, booleans, text or categories. The first category, or the first text in order, is the reference.

    Raises
    ------
    InputError
        There is no covariate or no patient who has all, a covariate has one value only, or one follows from the others.

    Examples
    --------
    >>> design_of(pd.DataFrame({"stage": ["I", "II", "III", "I"], "age": [60, 70, 65, 50]})).columns.columns.tolist()
    ['stage=II', 'stage=III', 'age']
    """
    if covariates.shape[1] == 0:
        raise InputError("A Cox model needs a covariate, and none is given.")
    numbers = covariates.select_dtypes("number").to_numpy(dtype=float, na_value=np.nan)
    complete = covariates.notna().all(axis=1).to_numpy() & np.isfinite(numbers).all(axis=1)
    lacking = int((~complete).sum())
    if lacking == len(covariates):
        raise InputError(f"Not one of the {len(covariates)} patients has a value of every covariate; leave some covariates out.")
    parts = {str(name): _numbers(covariates.loc[complete, name], str(name)) for name in covariates.columns}
    columns = pd.concat(parts.values(), axis=1)
    _check_independent(columns)
    notes = (f"{lacking} of {len(covariates)} patients have a missing covariate and are left out",) if lacking else ()
    return Design(columns, {name: tuple(part.columns) for name, part in parts.items()}, complete, notes)


def _numbers(covariate: pd.Series, name: str) -> pd.DataFrame:
    if covariate.nunique() < 2:
        raise InputError(f"Covariate {name!r} has one value in all {len(covariate)} patients, so it tells nothing; leave it out.")
    if is_numeric_dtype(covariate) or is_bool_dtype(covariate):
        return covariate.astype(float).to_frame(name)
    levels = covariate.astype("category").cat.remove_unused_categories()
    return pd.get_dummies(levels, prefix=name, prefix_sep="=", drop_first=True).astype(float)


def _check_independent(columns: pd.DataFrame) -> None:
    centred = columns.to_numpy() - columns.to_numpy().mean(axis=0)
    scaled = centred / np.sqrt((centred**2).sum(axis=0))
    for count in range(2, columns.shape[1] + 1):
        if np.linalg.matrix_rank(scaled[:, :count], tol=1e-7) < count:
            raise InputError(f"Covariate {columns.columns[count - 1]!r} follows from those before it; leave one of them out.")
