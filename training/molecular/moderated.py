"""Moderated t statistics (limma): variances of genes are drawn towards what is usual for a gene of this table.

The other way to compare two groups, by a distribution where SAM has permutations; no library with a free licence has it.

References
----------
Smyth 2004, doi:10.2202/1544-6115.1027; the R package limma 3.54, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import digamma, polygamma
from scipy.stats import false_discovery_control, t

from features.errors import InputError
from training.molecular.two_groups import check_two_groups, usable_genes

# Variances of zero have no logarithm: limma takes this share of the median one for them.
LEAST_VARIANCE = 1e-5
# Newton's method, and where the limits of the trigamma function are exact to rounding.
STEPS, TOLERANCE, LARGE, SMALL = 50, 1e-8, 1e7, 1e-6


@dataclass(frozen=True)
class Moderated:
    """Genes of two groups, compared.

    Attributes
    ----------
    table : DataFrame
        One row per gene, by falling absolute t. ``difference``: mean of the group of interest less that of the other, log2;
        ``fold_change``: 2 to that power; ``t``, moderated; ``p_value``, two-sided; ``q_value`` (Benjamini-Hochberg);
        ``called``: q_value at most the false discovery rate asked for, and the fold change large enough.
    prior_variance : float
        What variances are drawn towards, in squared units of the values.
    prior_freedom : float
        How strongly, in degrees of freedom: 0 leaves t as it was, infinite gives all genes one variance.
    notes : tuple of str
        What was left out, in sentences.
    """

    table: pd.DataFrame
    prior_variance: float
    prior_freedom: float
    notes: tuple[str, ...] = ()


def moderated_t(
    values: pd.DataFrame, groups: np.ndarray, *, false_discovery: float = 0.05, fold_change: float = 1.0
) -> Moderated:
    """Compare two groups gene by gene.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Expression, log2. Genes with gaps, and those with the same value in all patients, are left out.
    groups : array-like of shape (n_patients,), bool
        True for the group of interest. Four patients or more in each group.
    false_discovery : float
        Expected share of false genes among those called.
    fold_change : float
        Genes with a smaller one, up or down, are not called; 1 for no such limit.

    Raises
    ------
    InputError
        The values are no complete numbers, a group has fewer than four patients, or most genes do not vary within the groups.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = pd.DataFrame(rng.normal(size=(20, 600))).add_prefix("gene ")
    >>> groups = np.arange(20) < 10
    >>> values.loc[groups, "gene 7"] += 4
    >>> moderated_t(values, groups).table.query("called").round(2)[["difference", "t"]]
            difference      t
    gene 7        4.52  10.13
    """
    groups = check_two_groups(groups, len(values))
    values, notes = usable_genes(values)
    inside, outside = values.to_numpy()[groups], values.to_numpy()[~groups]
    difference = inside.mean(axis=0) - outside.mean(axis=0)
    freedom = len(values) - 2
    variance = ((len(inside) - 1) * inside.var(axis=0, ddof=1) + (len(outside) - 1) * outside.var(axis=0, ddof=1)) / freedom
    prior_variance, prior_freedom = fit_prior(variance, freedom)
    moderated = _drawn_together(variance, freedom, prior_variance, prior_freedom)
    statistic = difference / np.sqrt(moderated * (1 / len(inside) + 1 / len(outside)))
    # All residuals together have no more degrees of freedom than this.
    p_value = 2 * t.sf(np.abs(statistic), min(freedom + prior_freedom, freedom * len(variance)))
    q_value = false_discovery_control(p_value)
    table = pd.DataFrame(
        {
            "difference": difference,
            "fold_change": 2**difference,
            "t": statistic,
            "p_value": p_value,
            "q_value": q_value,
            "called": (q_value <= false_discovery) & (np.abs(difference) >= np.log2(fold_change)),
        },
        index=values.columns,
    )
    return Moderated(table.iloc[np.argsort(-np.abs(statistic), kind="stable")], prior_variance, prior_freedom, notes)


def fit_prior(variance: np.ndarray, freedom: int) -> tuple[float, float]:
    """Scaled F distribution of the genes' variances, by the moments of their logarithms.

    Parameters
    ----------
    variance : ndarray of shape (n_genes,)
        Within the groups, each with `freedom` degrees of freedom.

    Returns
    -------
    prior_variance, prior_freedom : float
        The latter is infinite where variances differ no more than by chance, and 0 of a single gene.

    Raises
    ------
    InputError
        Half of the genes or more do not vary.

    Examples
    --------
    >>> fit_prior(np.array([1.0, 1.0, 1.0]), 10)
    (1.0, inf)
    """
    middle = float(np.median(variance))
    if middle == 0:
        raise InputError(
            "Half of the genes or more do not vary within the two groups, so there is no usual variance; check the values."
        )
    if len(variance) == 1:
        return middle, 0.0
    variance = np.maximum(variance, LEAST_VARIANCE * middle)
    logarithm = np.log(variance) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(logarithm.var(ddof=1) - polygamma(1, freedom / 2))
    if excess <= 0:
        return float(variance.mean()), np.inf
    half = _inverse_trigamma(excess)
    return float(np.exp(logarithm.mean() + digamma(half) - np.log(half))), 2 * half


def _drawn_together(variance: np.ndarray, freedom: int, prior_variance: float, prior_freedom: float) -> np.ndarray:
    if np.isinf(prior_freedom):
        return np.full(len(variance), prior_variance)
    return (freedom * variance + prior_freedom * prior_variance) / (freedom + prior_freedom)


def _inverse_trigamma(x: float) -> float:
    """Where the trigamma function is x, by Newton's method on its reciprocal, which is nearly straight."""
    if x > LARGE:
        return 1 / float(np.sqrt(x))
    if x < SMALL:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(STEPS):
        there = float(polygamma(1, y))
        step = there * (1 - there / x) / float(polygamma(2, y))
        y += step
        if -step / y < TOLERANCE:
            break
    return y
