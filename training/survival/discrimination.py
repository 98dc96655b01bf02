"""How well a predicted risk tells who has the event first, and whether its numbers can be taken at their word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from features.bundle import Estimate
from features.errors import InputError
from features.partial_likelihood import PartialLikelihood
from training.survival.checks import check_outcome
from training.survival.curves import kaplan_meier
from training.survival.metrics import (
    NO_MAXIMUM,
    CensoringCurves,
    SurvivalPredictions,
    above,
    auc_at_horizon,
    brier_at_horizon,
    c_index,
    censoring_curves,
    concordances,
    later,
    log_minus_log,
    uno_weights,
)

NO_PAIR = "no two patients can be compared"


@dataclass(frozen=True)
class Measure:
    """A number, or the reason why there is none.

    Attributes
    ----------
    value : float or None
    reason : str or None
    standard_error : float or None
        Where it is known.
    """

    value: float | None
    reason: str | None = None
    standard_error: float | None = None

    def __float__(self) -> float:
        """The value, NaN where there is none."""
        return float("nan") if self.value is None else self.value


def harrell_c(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> Measure:
    """Harrell's concordance: of two patients, how often the one with the earlier event has the higher risk.

    Ties in risk count half. Of two patients with one time, one with the event and one censored, the latter outlived the former;
    two events at one time are no pair. This is ``survival::concordance`` of R, with its jackknife standard error.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
        Follow-up above zero, 1 for an event.
    risk : array-like of shape (n_patients,)
        Any score that is higher where the event is expected earlier.

    Returns
    -------
    Measure
        0.5 for a risk that tells nothing, 1 for one that is always right; no value where no two patients can be compared.

    Raises
    ------
    InputError
        The outcome cannot be used, nobody had the event, or a risk is missing.

    References
    ----------
    Harrell et al. 1996, doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4.

    Examples
    --------
    >>> harrell_c([1, 2, 3, 4], [1, 1, 0, 1], [0.9, 0.2, 0.4, 0.1]).value
    0.8
    """
    predictions = _plain(time, event, risk, None)
    value = float(c_index(predictions)[0])
    if np.isnan(value):
        return Measure(None, NO_PAIR)
    return Measure(value, None, _jackknifed(predictions, value))


def uno_c(
    time: np.ndarray,
    event: np.ndarray,
    risk: np.ndarray,
    tau: float | None,
    censoring: tuple[np.ndarray, np.ndarray] | None = None,
) -> Measure:
    """Uno's concordance up to a time: as Harrell's, but what it estimates does not depend on who was censored when.

    Parameters
    ----------
    time, event, risk : array-like of shape (n_patients,)
        As in ``harrell_c``.
    tau : float or None
        Only events up to then count; None for all of them, which lets the few last ones weigh much.
    censoring : tuple of (time, event), optional
        Follow-up of the patients from whom the distribution of censoring is learnt; these patients when left out.

    Returns
    -------
    Measure
        No value where no two patients can be compared, or an event falls where nobody of `censoring` was followed.

    Raises
    ------
    InputError
        As ``harrell_c``.

    References
    ----------
    Uno et al. 2011, doi:10.1002/sim.4154.

    Examples
    --------
    >>> round(uno_c([1, 2, 3, 4], [1, 0, 1, 1], [0.9, 0.2, 0.1, 0.4], tau=4).value, 4)
    0.5714
    """
    predictions = _plain(time, event, risk, tau)
    learnt = predictions.censoring if censoring is None else _censoring_of(*censoring)
    if censoring is not None and np.nanmax(np.asarray(censoring[0])) < predictions.time[predictions.struck].max(initial=0.0):
        return Measure(None, "an event comes after the last follow-up of those from whom censoring is learnt")
    found = concordances(
        predictions.time, predictions.event, predictions.risk, predictions.weights, uno_weights(predictions, learnt)
    )
    return _measured(found, NO_PAIR)


def auc_at(time: np.ndarray, event: np.ndarray, risk: np.ndarray, horizon: float) -> Measure:
    """Chance that a patient with the event by the horizon has a higher risk than one who passes it.

    Cumulative cases and dynamic controls; a case is weighed by one over its chance of not having been censored before, by
    Kaplan-Meier. Who is censored exactly at the horizon has passed it.

    Parameters
    ----------
    time, event, risk : array-like of shape (n_patients,)
        As in ``harrell_c``.
    horizon : float
        In the unit of `time`.

    Returns
    -------
    Measure
        No value where nobody had the event by the horizon, or nobody was followed up to it.

    Raises
    ------
    InputError
        As ``harrell_c``.

    References
    ----------
    Uno et al. 2007, doi:10.1198/016214507000000149; Blanche et al. 2013, doi:10.1002/sim.5958.

    Examples
    --------
    >>> auc_at([1, 2, 3, 4], [1, 1, 0, 0], [0.9, 0.2, 0.4, 0.1], horizon=3).value
    0.75
    """
    predictions = _plain(time, event, risk, horizon)
    return _measured(auc_at_horizon(predictions), _why_undefined(predictions))


def brier_at(time: np.ndarray, event: np.ndarray, risk_probability: np.ndarray, horizon: float) -> Measure:
    """Mean squared difference between the predicted risk and whether the event came by the horizon.

    Patients who were censored before count through those who were seen: one over the chance of not being censored.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
    risk_probability : array-like of shape (n_patients,)
        Predicted probability of the event by the horizon.
    horizon : float

    Returns
    -------
    Measure
        0 is best; the same risk for all gives at best p (1 - p). No value where nobody was followed up to the horizon.

    Raises
    ------
    InputError
        As ``harrell_c``, or a risk is below 0 or above 1.

    References
    ----------
    Graf et al. 1999, doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5.

    Examples
    --------
    >>> round(brier_at([1, 2, 3, 4], [1, 1, 0, 0], [0.9, 0.7, 0.4, 0.1], horizon=3).value, 4)
    0.0675
    """
    predictions = _probable(time, event, risk_probability, horizon)
    return _measured(brier_at_horizon(predictions), _why_undefined(predictions))


def integrated_brier(time: np.ndarray, event: np.ndarray, risk_probability: np.ndarray, times: np.ndarray) -> Measure:
    """Brier score averaged over a span of horizons, by the trapezoidal rule.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
    risk_probability : array-like of shape (n_patients, n_times)
        Predicted probability of the event by each of the times.
    times : array-like of shape (n_times,)
        Ascending, two or more.

    Returns
    -------
    Measure
        No value where one of the scores has none.

    Raises
    ------
    InputError
        As ``brier_at``, or the times are fewer than two or do not ascend.

    Examples
    --------
    >>> risks = np.array([[0.9, 0.9], [0.2, 0.7], [0.2, 0.4], [0.1, 0.1]])
    >>> round(integrated_brier([1, 2, 3, 4], [1, 1, 0, 0], risks, [1, 3]).value, 4)
    0.0463
    """
    times, risk_probability = np.asarray(times, dtype=float), np.asarray(risk_probability, dtype=float)
    if len(times) < 2 or (np.diff(times) <= 0).any() or risk_probability.shape != (len(time), len(times)):
        raise InputError(
            f"An average over time needs two ascending times or more, with one risk per patient and time "
            f"(got {len(times)} times and risks of shape {risk_probability.shape})."
        )
    scores = [brier_at(time, event, risk, at) for risk, at in zip(risk_probability.T, times, strict=True)]
    undefined = next((score.reason for score in scores if score.value is None), None)
    if undefined:
        return Measure(None, undefined)
    return Measure(float(np.trapezoid([float(score) for score in scores], times) / (times[-1] - times[0])))


def calibration_at(
    time: np.ndarray, event: np.ndarray, risk_probability: np.ndarray, horizon: float, groups: int = 5, level: float = 0.95
) -> pd.DataFrame:
    """Predicted and observed risk by the horizon in groups of patients with similar predictions.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
    risk_probability : array-like of shape (n_patients,)
    horizon : float
    groups : int
        Of about equal size; fewer where predictions are tied.

    Returns
    -------
    DataFrame of shape (n_groups, 5)
        Columns: expected (mean prediction), observed (one less Kaplan-Meier's estimate), lower, upper (its interval), n.
        Observed is missing in a group where nobody was followed up to the horizon.

    Raises
    ------
    InputError
        As ``brier_at``.

    Examples
    --------
    >>> table = calibration_at([1, 2, 3, 4], [1, 1, 0, 0], [0.9, 0.7, 0.4, 0.1], horizon=3, groups=2)
    >>> table[["expected", "observed", "n"]].round(2).values.tolist()
    [[0.25, 0.0, 2.0], [0.8, 1.0, 2.0]]
    """
    predictions = _probable(time, event, risk_probability, horizon)
    # One prediction for all has no quantiles to cut at.
    cut = pd.qcut(predictions.risk, max(1, min(groups, len(predictions.risk))), labels=False, duplicates="drop")
    codes = np.nan_to_num(np.asarray(cut, dtype=float)).astype(int)
    rows = []
    for code in np.unique(codes):
        own = codes == code
        curve = kaplan_meier(predictions.time[own], predictions.event[own], level=level).at(horizon)
        rows.append(
            {
                "expected": float(predictions.risk[own].mean()),
                "observed": 1 - curve.survival,
                "lower": 1 - curve.upper,
                "upper": 1 - curve.lower,
                "n": int(own.sum()),
            }
        )
    return pd.DataFrame(rows)


def calibration_slope(time: np.ndarray, event: np.ndarray, risk_probability: np.ndarray, level: float = 0.95) -> Estimate:
    """Slope of a Cox regression on the complementary log-log of the predicted risk.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
    risk_probability : array-like of shape (n_patients,)
        Predicted probability of the event by one horizon.

    Returns
    -------
    Estimate
        1 where risks are right relative to each other, below 1 where they are too extreme, above 1 where they are too mild; no
        value where the likelihood has no maximum.

    Raises
    ------
    InputError
        As ``brier_at``.

    References
    ----------
    van Houwelingen 2000, doi:10.1002/1097-0258(20001230)19:24<3401::AID-SIM554>3.0.CO;2-2.

    Examples
    --------
    >>> print(calibration_slope([1, 2, 3, 4, 5], [1, 1, 0, 1, 0], [0.9, 0.2, 0.4, 0.5, 0.1]))
    1.109 (-0.617 to 2.836)
    """
    predictions = _probable(time, event, risk_probability, None)
    likelihood = PartialLikelihood(log_minus_log(predictions.risk)[:, None], predictions.time, predictions.event)
    beta = likelihood.maximum()
    if beta is None:
        return Estimate(value=None, level=level, reason=NO_MAXIMUM)
    slope, half = float(beta[0]), float(norm.ppf((1 + level) / 2) / np.sqrt(likelihood.at(beta).information[0, 0]))
    return Estimate(value=slope, lower=slope - half, upper=slope + half, level=level)


def observed_over_expected(time: np.ndarray, event: np.ndarray, risk_probability: np.ndarray, horizon: float) -> Measure:
    """Share of patients with the event by the horizon, by Kaplan-Meier, over the mean predicted risk.

    Returns
    -------
    Measure
        1 where the risks are right on average, above 1 where they are too low. No value where nobody was followed up to the
        horizon or no event is predicted.

    Raises
    ------
    InputError
        As ``brier_at``.

    Examples
    --------
    >>> round(observed_over_expected([1, 2, 3, 4], [1, 1, 0, 0], [0.9, 0.7, 0.4, 0.1], horizon=3).value, 4)
    0.9524
    """
    predictions = _probable(time, event, risk_probability, horizon)
    observed = 1 - kaplan_meier(predictions.time, predictions.event).at(horizon).survival
    if np.isnan(observed) or not predictions.risk.any():
        return Measure(None, "nobody was followed up to the horizon" if np.isnan(observed) else "no event is predicted")
    return Measure(float(observed / predictions.risk.mean()))


def _plain(time: np.ndarray, event: np.ndarray, risk: np.ndarray, horizon: float | None) -> SurvivalPredictions:
    time, event = check_outcome(time, event)
    risk = np.asarray(risk, dtype=float)
    if risk.shape != time.shape or not np.isfinite(risk).all():
        raise InputError(f"Each of the {len(time)} patients needs a finite predicted risk; leave out those without one.")
    return SurvivalPredictions(time, event, risk, np.zeros(len(time), dtype=bool), np.ones((1, len(time))), horizon)


def _probable(time: np.ndarray, event: np.ndarray, risk: np.ndarray, horizon: float | None) -> SurvivalPredictions:
    predictions = _plain(time, event, risk, horizon)
    if predictions.risk.min() < 0 or predictions.risk.max() > 1:
        raise InputError("A predicted risk must be a probability between 0 and 1; turn a score into one first.")
    return predictions


def _censoring_of(time: np.ndarray, event: np.ndarray) -> CensoringCurves:
    time, event = check_outcome(time, event, needs_event=False)
    return censoring_curves(time, event, np.ones((1, len(time))))


def _measured(found: np.ndarray, reason: str) -> Measure:
    return Measure(None, reason) if np.isnan(found[0]) else Measure(float(found[0]))


def _why_undefined(predictions: SurvivalPredictions) -> str:
    if not predictions.passed.any():
        return f"nobody was followed up to {predictions.horizon:g}"
    return f"nobody had the event by {predictions.horizon:g}"


def _jackknifed(predictions: SurvivalPredictions, value: float) -> float:
    """Root of the summed squares of what each patient's weight moves (infinitesimal jackknife)."""
    p = predictions
    comparable = later(p.time, p.event, p.time, p.event).astype(float)
    excess = comparable * (above(p.risk, p.risk) - value)
    influence = (excess.sum(axis=0) + excess.sum(axis=1)) / comparable.sum()
    return float(np.sqrt((influence**2).sum()))
