"""The cutpoint of one biomarker that separates best, with p values that know that it was searched for.

Whoever tries all cutpoints and reports the best log-rank test finds p below 0.05 in four of ten biomarkers that mean nothing.
The statistics here are compared with the distribution of the largest of all of them.

References
----------
Lausen & Schumacher 1992, doi:10.2307/2532740. Lausen, Sauerbrei & Schumacher 1994, in Computational Statistics, Physica,
pp. 483-496. Hothorn & Lausen 2003, doi:10.1016/S0167-9473(02)00225-6 (the R package maxstat).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from features.errors import InputError
from training.survival.checks import check_outcome

# Sums of the same scores in another order.
ROUNDING = 1e-9


@dataclass(frozen=True)
class MaximallySelected:
    """The best cutpoint of a biomarker.

    Attributes
    ----------
    statistic : float
        Largest absolute standardised log-rank statistic over the cutpoints.
    cutpoint : float
        Largest value of the lower group, as R's maxstat reports it.
    cutoff : float
        Halfway from there to the next value: the upper group is at or above it.
    higher_is_worse : bool
        Whether the upper group has more events than expected.
    p_lausen92 : float
        By the approximation of 1992, for a biomarker without ties.
    p_lausen94 : float
        By the improved Bonferroni inequality of 1994, for the cutpoints that there are; 1 where it exceeds that.
    p_permutation : float or None
        Share of permutations of the outcome with as large a statistic, (1 + number) / (1 + permutations).
    naive_p : float
        As if the cutpoint had been given beforehand: too small.
    n_cutpoints : int
        Cutpoints that were tried.
    """

    statistic: float
    cutpoint: float
    cutoff: float
    higher_is_worse: bool
    p_lausen92: float
    p_lausen94: float
    p_permutation: float | None
    naive_p: float
    n_cutpoints: int


def maximally_selected(
    x: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    permutations: int,
    rng: np.random.Generator,
    *,
    min_share: float = 0.1,
    max_share: float = 0.9,
) -> MaximallySelected:
    """Maximally selected log-rank statistic of one biomarker, two-sided.

    Each cutpoint's statistic is the sum of the log-rank scores of the lower group, standardised by its mean and variance over
    permutations.

    Parameters
    ----------
    x : ndarray of shape (n_patients,)
        Biomarker, in any unit.
    time, event : ndarray of shape (n_patients,)
        Follow-up above zero, 1 for an event.
    permutations : int
        Of the outcome; 0 for none.
    min_share, max_share : float
        Of the patients that the lower group may hold.

    Raises
    ------
    InputError
        The outcome cannot be used, a value is missing, or no cutpoint is left.

    Examples
    --------
    >>> x = np.arange(20.0)
    >>> time = np.where(x < 12, 30 + (x * 7) % 12, 1 + (x * 5) % 8)
    >>> found = maximally_selected(x, time, np.ones(20), 199, np.random.default_rng(0))
    >>> found.cutoff, found.higher_is_worse, found.p_permutation
    (11.5, True, 0.02)
    """
    time, event = check_outcome(time, event)
    x = np.asarray(x, dtype=float)
    if x.shape != time.shape or not np.isfinite(x).all():
        raise InputError(f"A cutpoint needs a value of the biomarker for each of {len(time)} patients; leave out those without.")
    order = np.argsort(x, kind="stable")
    below = _sizes_below(x[order], min_share, max_share)
    scores = log_rank_scores(time, event)[order]
    standardised = _standardised(scores[None], below)[0]
    best = int(np.argmax(np.abs(standardised)))
    statistic = float(abs(standardised[best]))
    low, high = x[order][below[best] - 1], x[order][below[best]]
    return MaximallySelected(
        statistic,
        float(low),
        float(low + (high - low) / 2) if low + (high - low) / 2 > low else float(high),
        bool(standardised[best] < 0),
        lausen92(statistic, min_share, max_share),
        lausen94(statistic, len(x), below),
        _permutation_p(scores, below, statistic, permutations, rng) if permutations else None,
        float(2 * norm.sf(statistic)),
        len(below),
    )


def log_rank_scores(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Event less the Nelson-Aalen cumulative hazard at the time, per patient; their sum is 0.

    Parameters
    ----------
    time : ndarray of shape (n_patients,)
    event : ndarray of shape (n_patients,), bool

    Examples
    --------
    >>> log_rank_scores(np.array([1.0, 2.0, 3.0]), np.array([True, False, True])).round(3)
    array([ 0.667, -0.333, -0.333])
    """
    times, position = np.unique(time, return_inverse=True)
    events = np.bincount(position, weights=event, minlength=len(times))
    at_risk = np.bincount(position, minlength=len(times))[::-1].cumsum()[::-1]
    return np.asarray(event - np.cumsum(events / at_risk)[position])


def lausen92(statistic: float, min_share: float = 0.1, max_share: float = 0.9) -> float:
    """P value of the largest of all cutpoints between two shares of the patients, in large samples.

    Examples
    --------
    >>> round(lausen92(3.0, 0.1, 0.9), 8)
    0.05784388
    """
    if statistic < 1:  # below, the approximation means nothing
        return 1.0
    density = float(norm.pdf(statistic))
    span = float(np.log(max_share * (1 - min_share) / ((1 - max_share) * min_share)))
    return float(np.clip(4 * density / statistic + density * (statistic - 1 / statistic) * span, 0, 1))


def lausen94(statistic: float, n_patients: int, below: np.ndarray) -> float:
    """Upper limit of the p value, from the correlations of neighbouring cutpoints.

    Parameters
    ----------
    below : ndarray of shape (n_cutpoints,), int
        Patients in the lower group of each cutpoint, ascending.

    Examples
    --------
    >>> round(lausen94(3.0, 100, np.arange(10, 91)), 7)
    0.066601
    """
    fewer, more = below[:-1].astype(float), below[1:].astype(float)
    t = np.sqrt(1 - fewer * (n_patients - more) / ((n_patients - fewer) * more))
    steps = np.exp(-(statistic**2) / 2) / np.pi * (t - (statistic**2 / 4 - 1) * t**3 / 6)
    return float(np.clip(2 * norm.sf(statistic) + steps.sum(), 0, 1))


def _sizes_below(ordered: np.ndarray, min_share: float, max_share: float) -> np.ndarray:
    """Patients in the lower group of each cutpoint; those with one value stay together."""
    n = len(ordered)
    below = np.flatnonzero(ordered[1:] > ordered[:-1]) + 1
    below = below[(below >= max(1, np.floor(n * min_share))) & (below <= np.floor(n * max_share))]
    if not len(below):
        raise InputError(
            f"No cutpoint of the biomarker leaves between {min_share:.0%} and {max_share:.0%} of {n} patients below it; "
            "widen the shares, or give a biomarker that varies more."
        )
    return below


def _standardised(scores: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Statistic of each cutpoint, negative where the lower group has fewer events than expected; (n_outcomes, n_cutpoints)."""
    n = scores.shape[1]
    mean = scores[0].mean()
    variance = below * (n - below) / (n * (n - 1)) * ((scores[0] - mean) ** 2).sum()
    return np.asarray((np.cumsum(scores, axis=1)[:, below - 1] - below * mean) / np.sqrt(variance))


def _permutation_p(scores: np.ndarray, below: np.ndarray, statistic: float, permutations: int, rng: np.random.Generator) -> float:
    dealt = rng.permuted(np.tile(scores, (permutations, 1)), axis=1)
    largest = np.abs(_standardised(dealt, below)).max(axis=1)
    return (1 + int((largest >= statistic - ROUNDING).sum())) / (1 + permutations)
