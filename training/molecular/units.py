"""Units of expression: whether a difference of two means is the logarithm of a fold change."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.errors import InputError
from features.expression import RAW_LARGEST, RAW_PERCENTILE
from training.molecular.study import MolecularSettings, Units

# Of the genes of a table of z scores: the largest median of their means' sizes, what the median of their standard deviations is
# between, and the largest ratio of its quartiles. Log ratios have genes that lie off zero, or that vary more and less.
Z_MEAN, Z_SD, Z_SPREAD = 0.25, (0.8, 1.25), 1.5
LOGARITHMS = "set molecular.units: log2 if they are logarithms or log ratios"


def units_of(settings: MolecularSettings, expression: pd.DataFrame | None) -> tuple[Units, tuple[str, ...]]:
    """Units of the expression: what the study says, else what the values look like.

    Returns
    -------
    units : {"log2", "other"}
    notes : tuple of str
        A sentence where the values look like no logarithms.

    Raises
    ------
    InputError
        A fold change is asked for of such values.
    """
    if expression is None:
        return "log2", ()
    if settings.units is not None:
        return settings.units, ()
    look = _no_logarithms(expression)
    if look is None:
        return "log2", ()
    if settings.fold_change > 1:
        raise InputError(
            f"molecular.fold_change is {settings.fold_change:g}, but {look}, and differences of such values are no fold changes; "
            f"take fold_change out, or {LOGARITHMS}."
        )
    return "other", (f"Differences are in the table's units and no fold changes are given, since {look}; {LOGARITHMS}.",)


def looks_like_z_scores(expression: pd.DataFrame) -> bool:
    """Whether the genes of a table have means of about 0, and standard deviations that are about 1 and much alike.

    Parameters
    ----------
    expression : DataFrame of shape (n_samples, n_genes)
        Genes that are the same in all samples say nothing.

    Examples
    --------
    >>> values = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 200)))
    >>> looks_like_z_scores(values), looks_like_z_scores(values * np.linspace(0.3, 2, 200)), looks_like_z_scores(values + 8)
    (True, False, False)
    """
    spread = expression.std(ddof=1)
    spread, means = spread[spread > 0], expression.mean()[spread > 0]
    if spread.empty:
        return False
    quarter, middle, most = spread.quantile([0.25, 0.5, 0.75])
    return bool(means.abs().median() <= Z_MEAN and Z_SD[0] <= middle <= Z_SD[1] and most <= Z_SPREAD * quarter)


def _no_logarithms(expression: pd.DataFrame) -> str | None:
    """What shows that values are no logarithms to the base 2, if anything does."""
    if looks_like_z_scores(expression):
        return "the expression looks like z scores (genes have means of about 0 and standard deviations of about 1)"
    values = expression.to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if values.size and (np.quantile(values, 0.99) > RAW_PERCENTILE or (values.min() >= 0 and values.max() > RAW_LARGEST)):
        return "the expression looks raw"
    return None
