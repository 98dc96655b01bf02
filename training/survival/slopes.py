"""Cox models of one covariate under many weightings of the patients at once.

This is another computation than :mod:`features.partial_likelihood`, which knows neither weights nor more than one model at a
time: here a bootstrap of a hazard ratio is one array operation per Newton step, eleven times faster than a loop over the
resamples (1000 of 118 patients: 0.06 s for 0.7 s). The tests hold the two to the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.partial_likelihood import relative_hazards

STEPS = 60
FARTHEST = 1e6  # no maximum lies beyond
LONGEST_STEP = 1.5  # of the log hazard ratio per standard deviation
CONVERGED = 1e-10


@dataclass(frozen=True)
class _Deaths:
    """One entry per event and weighting, with Efron's share of the tied events that has already left the risk set.

    Attributes
    ----------
    weighting : ndarray of shape (n_entries,), int
    moment : ndarray of shape (n_entries,), int
        Position of the event's time among the distinct event times.
    gone : ndarray of shape (n_entries,)
        0 for the first of the events at one time, 1/d for the second of d, and so on.
    """

    weighting: np.ndarray
    moment: np.ndarray
    gone: np.ndarray


def cox_slopes(time: np.ndarray, event: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log hazard ratio per unit of one covariate under each weighting, with Efron's rule for ties.

    A patient of weight two counts as two patients with the same data, whose events are tied.

    Parameters
    ----------
    time, x : ndarray of shape (n_patients,)
    event : ndarray of shape (n_patients,), bool
    weights : ndarray of shape (n_weightings, n_patients)
        Whole numbers.

    Returns
    -------
    ndarray of shape (n_weightings,)
        NaN where the partial likelihood has no maximum: no event, one value of the covariate in every risk set, or a
        covariate that always is highest (or always lowest) in whom the event strikes.

    References
    ----------
    Efron 1977, doi:10.1080/01621459.1977.10480613.

    Examples
    --------
    >>> time, event = np.array([1.0, 2, 3, 4]), np.array([True, True, True, False])
    >>> cox_slopes(time, event, np.array([1.0, 0, 1, 0]), np.ones((1, 4))).round(4)
    array([0.9406])
    """
    spread = float(np.std(x))
    if spread == 0 or not event.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(-time, kind="stable")
    time, event, weights = time[order], event[order], np.rint(weights[:, order])
    z = (x[order] - np.mean(x)) / spread
    last = np.flatnonzero(np.r_[time[1:] != time[:-1], True])  # position of the last of each distinct time, latest first
    deaths = _deaths(weights * event, last)
    observed = (weights * event) @ z
    found = np.full(len(weights), np.nan)
    estimable = _estimable(z, weights, last, deaths, observed)
    found[estimable] = _maxima(z, event, weights[estimable], last, observed[estimable])
    return found / spread


def _deaths(dead: np.ndarray, last: np.ndarray) -> _Deaths:
    counts = np.diff(np.cumsum(dead, axis=1)[:, last], axis=1, prepend=0.0).astype(int)
    weighting, moment = np.nonzero(counts)
    tied = counts[weighting, moment]
    number = np.arange(tied.sum()) - np.repeat(np.cumsum(tied) - tied, tied)
    return _Deaths(np.repeat(weighting, tied), np.repeat(moment, tied), number / np.repeat(tied, tied))


def _estimable(z: np.ndarray, weights: np.ndarray, last: np.ndarray, deaths: _Deaths, observed: np.ndarray) -> np.ndarray:
    """Where the score falls from above zero to below it: its limits are sums of the extremes of the risk sets."""
    limits = []
    for fold, missing in ((np.maximum, -np.inf), (np.minimum, np.inf)):
        extreme = fold.accumulate(np.where(weights > 0, z, missing), axis=1)[:, last]
        limits.append(np.bincount(deaths.weighting, extreme[deaths.weighting, deaths.moment], len(weights)))
    slack = 1e-9 * (1 + np.abs(observed))
    return (observed < limits[0] - slack) & (observed > limits[1] + slack)


def _maxima(z: np.ndarray, event: np.ndarray, weights: np.ndarray, last: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Newton's method for all weightings at once; a step that leaves the bracket of the maximum halves it instead."""
    deaths = _deaths(weights * event, last)
    slope = np.zeros(len(weights))
    lowest, highest = np.full(len(weights), -FARTHEST), np.full(len(weights), FARTHEST)
    for _ in range(STEPS):
        mean, variance = _expected(slope, z, event, weights, last, deaths)
        score = observed - mean
        lowest, highest = np.where(score > 0, slope, lowest), np.where(score < 0, slope, highest)
        step = np.clip(score / np.maximum(variance, 1e-300), -LONGEST_STEP, LONGEST_STEP)
        reached = slope + step
        outside = ((reached <= lowest) | (reached >= highest)) & (np.abs(step) > CONVERGED)
        slope = np.where(outside, (lowest + highest) / 2, reached)
        if np.abs(step).max(initial=0.0) < CONVERGED:
            break
    return slope


def _expected(
    slope: np.ndarray, z: np.ndarray, event: np.ndarray, weights: np.ndarray, last: np.ndarray, deaths: _Deaths
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over the events of the covariate's mean and variance in the risk set, each of shape (n_weightings,)."""
    hazard = weights * relative_hazards(slope[:, None] * z)[1]
    first, chosen = np.r_[0, last[:-1] + 1], (deaths.weighting, deaths.moment)
    moments = []
    for power in range(3):
        part = hazard * z**power
        at_risk = np.cumsum(part, axis=1)[:, last]
        tied = np.add.reduceat(part * event, first, axis=1)  # differences of cumulative sums would lose what is small
        moments.append(at_risk[chosen] - deaths.gone * tied[chosen])
    mean, square = moments[1] / moments[0], moments[2] / moments[0]
    return (
        np.bincount(deaths.weighting, mean, len(slope)),
        np.bincount(deaths.weighting, square - mean**2, len(slope)),
    )
