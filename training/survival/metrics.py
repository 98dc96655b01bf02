"""Measures of a predicted risk against follow-up, each computed for many weightings of the patients at once.

As in ``training.metrics``, a bootstrap resample is a vector that says how often each patient was drawn; a patient of
weight two counts as two patients with the same data. To add a measure: a ``Metric`` line in ``SURVIVAL_METRICS``.

The convention at tied times is that of R's survival package: who is censored at a time outlives an event at that time. So a
patient who is censored exactly at the horizon, as all are whose follow-up was cut there, is known to have passed it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from training.metrics import Metric, ratio
from training.survival.slopes import cox_slopes

NEAREST_TO_CERTAIN = 1e-6
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class SurvivalPredictions:
    """Predicted risks of patients under several weightings.

    Attributes
    ----------
    time : ndarray of shape (n_patients,)
        Follow-up, above zero.
    event : ndarray of shape (n_patients,), bool
        Whether the event happened then; else the patient was censored.
    risk : ndarray of shape (n_patients,)
        Predicted probability of the event by the horizon; for those measures that need ranks, any score that is higher
        where the event is expected earlier.
    called : ndarray of shape (n_patients,), bool
        Whether the patient belongs to the group of higher risk.
    weights : ndarray of shape (n_weightings, n_patients)
        How often each patient counts: whole numbers.
    horizon : float or None
        In the unit of `time`. None: what is asked of a horizon is undefined.
    """

    time: np.ndarray
    event: np.ndarray
    risk: np.ndarray
    called: np.ndarray
    weights: np.ndarray
    horizon: float | None

    def __post_init__(self) -> None:
        if self.event.dtype != np.bool_:  # the complement of a number is another number
            raise TypeError(f"event must be an array of bool, not of {self.event.dtype}")

    @cached_property
    def censoring(self) -> CensoringCurves:
        return censoring_curves(self.time, self.event, self.weights)

    @cached_property
    def passed(self) -> np.ndarray:
        """Whether a patient is known to have passed the horizon without the event."""
        horizon = np.inf if self.horizon is None else self.horizon
        return (self.time > horizon) | ((self.time == horizon) & ~self.event)

    @cached_property
    def struck(self) -> np.ndarray:
        """Whether a patient is known to have had the event by the horizon."""
        return self.event & (self.time <= (np.inf if self.horizon is None else self.horizon))

    @cached_property
    def counted(self) -> np.ndarray:
        """Whether a patient had the event by the horizon and was drawn, shape (n_weightings, n_patients)."""
        return self.struck & (self.weights > 0)

    @cached_property
    def weights_of_struck(self) -> np.ndarray:
        """Each event's weight over its chance of not having been censored before, shape (n_weightings, n_patients)."""
        return np.where(self.counted, self.weights / self.censoring.before(self.time), 0.0)

    @cached_property
    def horizon_is_reached(self) -> np.ndarray:
        """Whether somebody is known to have passed the horizon, shape (n_weightings,)."""
        return np.asarray(self.weights @ self.passed > 0)


@dataclass(frozen=True)
class CensoringCurves:
    """Kaplan-Meier curves of not being censored, one per weighting; events at a time come before censoring at it.

    Attributes
    ----------
    times : ndarray of shape (n_times,)
        Distinct times, ascending.
    free : ndarray of shape (n_weightings, n_times + 1)
        Chance of not being censored before the first time, then after each time.
    """

    times: np.ndarray
    free: np.ndarray

    def before(self, at: np.ndarray) -> np.ndarray:
        """Chance of not being censored before each of these times, shape (n_weightings, n); NaN where it is zero."""
        found = self.free[:, np.searchsorted(self.times, at, side="left")]
        return np.where(found > 0, found, np.nan)


def censoring_curves(time: np.ndarray, event: np.ndarray, weights: np.ndarray) -> CensoringCurves:
    """Distribution of censoring under each weighting.

    Parameters
    ----------
    time : ndarray of shape (n_patients,)
    event : ndarray of shape (n_patients,), bool
    weights : ndarray of shape (n_weightings, n_patients)

    Examples
    --------
    >>> curves = censoring_curves(np.array([1.0, 2, 3]), np.array([True, False, True]), np.ones((1, 3)))
    >>> curves.before(np.array([2.0, 3.0]))
    array([[1. , 0.5]])
    """
    order = np.argsort(time, kind="stable")
    ordered, weights, event = time[order], weights[:, order], event[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    died = np.add.reduceat(weights * event, starts, axis=1)
    censored = np.add.reduceat(weights * ~event, starts, axis=1)
    leaving = died + censored
    exposed = np.cumsum(leaving[:, ::-1], axis=1)[:, ::-1] - died
    factors = 1 - censored / np.where(exposed > 0, exposed, 1.0)
    free = np.cumprod(np.concatenate([np.ones((len(weights), 1)), factors], axis=1), axis=1)
    return CensoringCurves(ordered[starts], free)


def concordances(time: np.ndarray, event: np.ndarray, risk: np.ndarray, weights: np.ndarray, of_first: np.ndarray) -> np.ndarray:
    """Share of comparable pairs of which the one with the earlier event has the higher risk, ties in risk half.

    A pair is comparable where the earlier time is an event; at one time, where one had the event and the other was censored.

    Parameters
    ----------
    time, risk : ndarray of shape (n_patients,)
    event : ndarray of shape (n_patients,), bool
    weights : ndarray of shape (n_weightings, n_patients)
    of_first : ndarray, broadcast to (n_weightings, n_patients)
        What a pair counts by its earlier patient: ones for Harrell's measure.

    Returns
    -------
    ndarray of shape (n_weightings,)
        NaN without a comparable pair.
    """
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    counted = weights * of_first
    for start in range(0, len(time), ROWS_AT_ONCE):  # in blocks, since all pairs of many patients do not fit in memory
        own = slice(start, start + ROWS_AT_ONCE)
        comparable = later(time[own], event[own], time, event).astype(float)
        right += ((counted[:, own] @ (comparable * above(risk[own], risk))) * weights).sum(axis=1)
        pairs += ((counted[:, own] @ comparable) * weights).sum(axis=1)
    return ratio(right, pairs)


def later(time: np.ndarray, event: np.ndarray, other_time: np.ndarray, other_event: np.ndarray) -> np.ndarray:
    """Whether the second of each pair is known to outlive the event of the first, shape (n, n_other)."""
    tied = (time[:, None] == other_time) & ~other_event
    return event[:, None] & ((time[:, None] < other_time) | tied)


def above(risk: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where the first of each pair has the higher risk, a half where they are equal, shape (n, n_other)."""
    return (risk[:, None] > other) + 0.5 * (risk[:, None] == other)


def c_index(predictions: SurvivalPredictions) -> np.ndarray:
    """Harrell's concordance: share of comparable pairs whose earlier event has the higher risk."""
    p = predictions
    return concordances(p.time, p.event, p.risk, p.weights, np.ones(len(p.time)))


def uno_c(predictions: SurvivalPredictions) -> np.ndarray:
    """Uno's concordance up to the horizon: pairs weighed so that it does not depend on who was censored."""
    p = predictions
    return concordances(p.time, p.event, p.risk, p.weights, uno_weights(p, p.censoring))


def uno_weights(predictions: SurvivalPredictions, censoring: CensoringCurves) -> np.ndarray:
    """What a pair counts by its earlier event: one over the squared chance of not being censored before it."""
    return np.where(predictions.counted, censoring.before(predictions.time) ** -2.0, 0.0)


def auc_at_horizon(predictions: SurvivalPredictions) -> np.ndarray:
    """Chance that who has the event by the horizon has a higher risk than who passes it (cumulative and dynamic)."""
    p = predictions
    right = np.zeros(len(p.weights))
    passed = p.weights[:, p.passed]
    rows = np.flatnonzero(p.struck)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        own = rows[start : start + ROWS_AT_ONCE]
        right += ((p.weights_of_struck[:, own] @ above(p.risk[own], p.risk[p.passed])) * passed).sum(axis=1)
    return ratio(right, p.weights_of_struck.sum(axis=1) * passed.sum(axis=1))


def brier_at_horizon(predictions: SurvivalPredictions) -> np.ndarray:
    """Mean squared difference between the risk and what came by the horizon, weighed by the chance of being seen."""
    p = predictions
    if p.horizon is None or ((p.risk < 0) | (p.risk > 1)).any():
        return np.full(len(p.weights), np.nan)
    free = p.censoring.before(np.array([p.horizon]))[:, 0]
    with np.errstate(invalid="ignore"):
        passed = (p.weights @ np.where(p.passed, p.risk**2, 0.0)) / free
    total = p.weights_of_struck @ (1 - p.risk) ** 2 + passed
    return np.where(p.horizon_is_reached, ratio(total, p.weights.sum(axis=1)), np.nan)


def hazard_ratio(predictions: SurvivalPredictions) -> np.ndarray:
    """Hazard of those called over that of the others, by Cox regression with Efron's rule for ties."""
    p = predictions
    return np.exp(cox_slopes(p.time, p.event, p.called.astype(float), p.weights))


def calibration_slope(predictions: SurvivalPredictions) -> np.ndarray:
    """Slope of a Cox regression on the complementary log-log of the risk: 1 where risks are neither too extreme nor too mild."""
    p = predictions
    if ((p.risk < 0) | (p.risk > 1)).any():
        return np.full(len(p.weights), np.nan)
    return cox_slopes(p.time, p.event, log_minus_log(p.risk), p.weights)


def log_minus_log(risk: np.ndarray) -> np.ndarray:
    """Complementary log-log of a risk: the linear predictor of a proportional-hazards model, but for a constant."""
    return np.asarray(np.log(-np.log1p(-np.clip(risk, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN))))


def _metric(
    name: str,
    title: str,
    function: Callable[[SurvivalPredictions], np.ndarray],
    greater_is_better: bool,
    needs: Literal["ranks", "calls", "probabilities"],
    undefined: str,
) -> Metric:
    # Metric is written for the predictions of classes; the same description serves those of survival.
    return Metric(name, title, cast(Any, function), greater_is_better, needs, undefined)


NOBODY_PASSED = "no horizon is set, nobody had the event by it, or nobody was followed up to it"
NO_MAXIMUM = "one group has no event or no patient, or the events part the groups without an overlap"

SURVIVAL_METRICS = (
    _metric("c_index", "Harrell's C", c_index, True, "ranks", "no two patients can be compared"),
    _metric("uno_c", "Uno's C", uno_c, True, "ranks", "no two patients can be compared before the horizon"),
    _metric("auc_at_horizon", "AUC at the horizon", auc_at_horizon, True, "ranks", NOBODY_PASSED),
    _metric("brier_at_horizon", "Brier score at the horizon", brier_at_horizon, False, "probabilities", NOBODY_PASSED),
    _metric("hazard_ratio", "Hazard ratio, called or not", hazard_ratio, True, "calls", NO_MAXIMUM),
    _metric("calibration_slope", "Calibration slope", calibration_slope, True, "probabilities", NO_MAXIMUM),
)
SURVIVAL_METRIC = {metric.name: metric for metric in SURVIVAL_METRICS}
