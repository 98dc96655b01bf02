"""Kaplan-Meier, Aalen-Johansen and the log-rank test."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import chi2 as chi_square
from scipy.stats import norm

from features.errors import InputError
from training.survival.checks import check_groups, check_outcome

ROUNDING = 1e-10

Transform = Literal["log-log", "log", "plain"]


@dataclass(frozen=True)
class Point:
    """A curve at one time: its value and interval; NaN where nobody was followed so far."""

    survival: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Median:
    """Time by which half have had the event, with its interval; infinite where a curve stays above one half."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Curve:
    """A step function of time, with one entry per distinct time of follow-up.

    Attributes
    ----------
    times : ndarray of shape (n_times,)
        Distinct times, ascending: of events and of censoring.
    survival, lower, upper : ndarray of shape (n_times,)
        From each time on, its pointwise interval beside it: the share without the event (of ``cumulative_incidence`` the share
        with it).
    at_risk : ndarray of shape (n_times,)
        Patients followed up to each time or longer.
    events, censored : ndarray of shape (n_times,)
        How many had the event, or were censored, at each time. A competing event is neither.
    start : float
        Value before the first time: 1 of a share without the event, 0 of a share with it.
    level : float
    transform : {"log-log", "log", "plain"}
        Scale on which the interval is symmetrical. It has no width before the first event, and there is none once all have had
        the event.
    """

    times: np.ndarray
    survival: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    censored: np.ndarray
    start: float
    level: float
    transform: Transform

    def at(self, t: float) -> Point:
        """The curve at one time; NaN after the last follow-up, unless nobody is left who could still have the event."""
        position = int(np.searchsorted(self.times, t, side="right")) - 1
        if position < 0:
            return Point(self.start, self.start, self.start)
        ended = position == len(self.times) - 1 and self.survival[position] in (0.0, 1.0) and not self.censored[position]
        if t > self.times[-1] and not ended:
            return Point(np.nan, np.nan, np.nan)
        return Point(*(float(curve[position]) for curve in (self.survival, self.lower, self.upper)))

    @property
    def median(self) -> Median:
        """Where a share without the event crosses one half, and where its interval does."""
        return Median(*(self._crossing(curve) for curve in (self.survival, self.lower, self.upper)))

    def _crossing(self, curve: np.ndarray) -> float:
        # A level stretch at one half has no single time: its middle, as in R.
        reached = np.flatnonzero(curve <= 0.5 + ROUNDING)
        if not len(reached):
            return float("inf")
        below = np.flatnonzero(curve < 0.5 - ROUNDING)
        level = abs(curve[reached[0]] - 0.5) <= ROUNDING and len(below)
        return float((self.times[reached[0]] + self.times[below[0]]) / 2 if level else self.times[reached[0]])


def kaplan_meier(time: np.ndarray, event: np.ndarray, *, level: float = 0.95, transform: Transform = "log-log") -> Curve:
    """Share of patients without the event over time, with Greenwood's interval.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
        Follow-up above zero, 1 for an event. That nobody had it is no error: the curve stays at one.
    level : float
    transform : {"log-log", "log", "plain"}
        Scale on which the interval is symmetrical: "log-log" stays between 0 and 1 (lifelines' default), "log" is R's default.
        "plain" is symmetrical on the page.

    Raises
    ------
    InputError
        The outcome cannot be used.

    References
    ----------
    Kaplan & Meier 1958, doi:10.1080/01621459.1958.10501452; the scales: Borgan & Liestol 1990.

    Examples
    --------
    >>> curve = kaplan_meier(np.array([1, 2, 2, 3]), np.array([1, 1, 0, 0]))
    >>> curve.survival.tolist(), curve.at_risk.tolist(), curve.median.value
    ([0.75, 0.5, 0.5], [4, 3, 1], 2.0)
    """
    time, event = check_outcome(time, event, needs_event=False)
    times, at_risk, events, censored = _life_table(time, event)
    survival = np.cumprod(1 - events / at_risk)
    with np.errstate(divide="ignore"):  # infinite where the last patient has the event: the interval is missing there
        error = np.sqrt(np.cumsum(events / (at_risk * (at_risk - events).astype(float))))
    lower, upper = _interval(survival, error, float(norm.ppf((1 + level) / 2)), transform)
    return Curve(times, survival, lower, upper, at_risk, events, censored, 1.0, level, transform)


def cumulative_incidence(time: np.ndarray, state: np.ndarray, *, level: float = 0.95) -> Curve:
    """Share of patients with the event over time where another event can forestall it (Aalen-Johansen).

    One less Kaplan-Meier's estimate would be too high: it takes those who died of something else for patients who may still
    have the event.

    Parameters
    ----------
    time : array-like of shape (n_patients,)
        Follow-up above zero.
    state : array-like of shape (n_patients,)
        What ended it: 0 censoring, 1 the event, 2 a competing event.
    level : float
        Of the interval, which is symmetrical on the log-log scale.

    Returns
    -------
    Curve
        Its `survival` is the share *with* the event, from 0 upwards; `events` counts the event alone.

    Raises
    ------
    InputError
        The times cannot be used, or a state is none of these.

    References
    ----------
    Aalen & Johansen 1978; the variance: Marubini & Valsecchi 1995, as the jackknife of R's survfit.

    Examples
    --------
    >>> cumulative_incidence(np.array([1, 2, 3, 4]), np.array([1, 2, 1, 0])).survival.tolist()
    [0.25, 0.25, 0.5, 0.5]
    """
    state = np.asarray(state)
    if not np.isin(state, (0, 1, 2)).all():
        raise InputError("The state at the end of follow-up must be 0 (censored), 1 (the event) or 2 (a competing event).")
    time, ended = check_outcome(time, state > 0, needs_event=False)
    times, at_risk, any_event, censored = _life_table(time, ended)
    events = np.bincount(np.searchsorted(times, time), state == 1, len(times)).astype(int)
    before = np.r_[1.0, np.cumprod(1 - any_event / at_risk)[:-1]]
    share = np.cumsum(before * events / at_risk)
    share = np.where(share > 1 - ROUNDING, 1.0, share)
    error = np.sqrt(_variance_of_incidence(share, before, events, any_event, at_risk.astype(float)))
    relative = np.divide(error, share, out=np.zeros(len(times)), where=share > 0)
    lower, upper = _interval(share, relative, float(norm.ppf((1 + level) / 2)), "log-log")
    lower, upper = (np.select([share == 0, share == 1], [0.0, np.nan], bound) for bound in (lower, upper))
    return Curve(times, share, lower, upper, at_risk, events, censored, 0.0, level, "log-log")


def _variance_of_incidence(
    share: np.ndarray, before: np.ndarray, events: np.ndarray, any_event: np.ndarray, at_risk: np.ndarray
) -> np.ndarray:
    """Delta-method variance at each time, from running sums over the times before."""
    left = at_risk - any_event
    leaving = np.divide(any_event, at_risk * left, out=np.zeros(len(share)), where=left > 0)
    own, mixed = before**2 * (at_risk - events) * events / at_risk**3, before * events / at_risk**2
    later = share**2 * np.cumsum(leaving) - 2 * share * np.cumsum(share * leaving) + np.cumsum(share**2 * leaving)
    found = later + np.cumsum(own) - 2 * (share * np.cumsum(mixed) - np.cumsum(share * mixed))
    return np.maximum(found, 0.0)


def numbers_at_risk(time: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Patients followed up to each of some times or longer.

    Parameters
    ----------
    time : array-like of shape (n_patients,)
    at : array-like of shape (n_times,)

    Returns
    -------
    ndarray of shape (n_times,), int

    Examples
    --------
    >>> numbers_at_risk([1, 2, 2, 3], [0, 2, 2.5]).tolist()
    [4, 3, 1]
    """
    return np.asarray((np.asarray(time)[None, :] >= np.asarray(at)[:, None]).sum(axis=1))


def _life_table(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct times, patients at risk, events and censored at each."""
    times, codes = np.unique(time, return_inverse=True)
    events, leaving = np.bincount(codes, event, len(times)).astype(int), np.bincount(codes, minlength=len(times))
    return times, np.cumsum(leaving[::-1])[::-1], events, leaving - events


def _interval(survival: np.ndarray, error: np.ndarray, z: float, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise interval from the standard error of the logarithm of the share."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # shares of 0 and 1 are set below
        if transform == "plain":
            half = z * np.where(survival > 0, survival * error, 0.0)
            lower, upper = survival - half, survival + half
        elif transform == "log":
            lower, upper = survival * np.exp(-z * error), survival * np.exp(z * error)
        else:
            factor = np.exp(z * error / np.log(survival))
            lower, upper = survival ** (1 / factor), survival**factor
    known = np.where((survival > 0) | (transform == "plain"), 1.0, np.nan)
    lower, upper = (np.where(survival == 1, 1.0, np.clip(bound, 0, 1)) * known for bound in (lower, upper))
    return lower, upper


@dataclass(frozen=True)
class LogRank:
    """A log-rank test.

    Attributes
    ----------
    chi2 : float
    df : int
    p_value : float
        Two-sided.
    groups : ndarray of shape (n_groups,)
        Labels in the order of the other arrays.
    observed, expected : ndarray of shape (n_groups,)
        Events that happened, and that would have if all groups had one hazard.
    z : float or None
        Of two groups: above zero where the second has more events than expected; its square is `chi2`.
    """

    chi2: float
    df: int
    p_value: float
    groups: np.ndarray
    observed: np.ndarray
    expected: np.ndarray
    z: float | None


def log_rank(time: np.ndarray, event: np.ndarray, group: np.ndarray) -> LogRank:
    """Whether groups differ in their hazard, with the hypergeometric variance.

    Parameters
    ----------
    time, event, group : array-like of shape (n_patients,)
        Follow-up above zero, 1 for an event, and a label; two groups or more.

    Raises
    ------
    InputError
        The outcome cannot be used, nobody had the event, or there is one group.

    References
    ----------
    Mantel 1966; Peto & Peto 1972, doi:10.2307/2344317.

    Examples
    --------
    >>> test = log_rank(np.arange(1, 9), np.ones(8), np.array([1, 1, 1, 0, 1, 0, 0, 0]))
    >>> round(test.chi2, 4), test.observed.tolist()
    (4.9176, [4.0, 4.0])
    """
    time, event = check_outcome(time, event)
    labels, codes = check_groups(group, len(time))
    difference, variance, observed, expected = _observed_less_expected(time, event, codes, len(labels))
    found = np.linalg.pinv(variance[1:, 1:], hermitian=True)
    chi2 = float(difference[1:] @ found @ difference[1:])
    df = int(np.linalg.matrix_rank(variance[1:, 1:], hermitian=True))
    z = float(np.sign(difference[1]) * np.sqrt(chi2)) if len(labels) == 2 else None
    # Without a patient of each group at risk at some event there is no variance, and nothing speaks against equality.
    return LogRank(chi2, df, float(chi_square.sf(chi2, df)) if df else 1.0, labels, observed, expected, z)


def pairwise_log_rank(time: np.ndarray, event: np.ndarray, group: np.ndarray) -> pd.DataFrame:
    """Log-rank tests of all pairs of groups.

    Returns
    -------
    DataFrame of shape (n_pairs,)
        Columns: first, second, chi2, p_value, p_holm (corrected for the number of pairs by Holm's rule). Without a number
        where neither of the two groups had an event.

    Raises
    ------
    InputError
        As ``log_rank``.

    Examples
    --------
    >>> pairs = pairwise_log_rank(np.arange(1, 9), np.ones(8), np.array([1, 1, 1, 0, 1, 0, 0, 0]))
    >>> pairs[["first", "second", "p_holm"]].round(4).values.tolist()
    [[0.0, 1.0, 0.0266]]
    """
    time, event = check_outcome(time, event)
    labels, codes = check_groups(group, len(time))
    rows = []
    for a, b in combinations(range(len(labels)), 2):
        own = (codes == a) | (codes == b)
        test = log_rank(time[own], event[own], codes[own]) if event[own].any() else None
        chi2, p_value = (test.chi2, test.p_value) if test else (np.nan, np.nan)
        rows.append({"first": labels[a], "second": labels[b], "chi2": chi2, "p_value": p_value})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p_value"].to_numpy()))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of those p-values that there are."""
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    corrected = np.full(len(p_values), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(known), 0, -1)), 1.0)
    return corrected


def _observed_less_expected(
    time: np.ndarray, event: np.ndarray, codes: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Difference (n_groups,), its variance (n_groups, n_groups), events observed and expected (n_groups,)."""
    member = np.eye(n_groups)[codes]
    moments = np.unique(time[event])
    at_risk = (time[None, :] >= moments[:, None]) @ member
    died = ((time[None, :] == moments[:, None]) & event) @ member
    n, d = at_risk.sum(axis=1), died.sum(axis=1)
    share = at_risk / n[:, None]
    expected = (share * d[:, None]).sum(axis=0)
    spread = d * (n - d) / np.maximum(n - 1, 1)
    variance = np.diag(spread @ share) - (share * spread[:, None]).T @ share
    observed = died.sum(axis=0)
    return observed - expected, variance, observed, expected
