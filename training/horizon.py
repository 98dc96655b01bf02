"""How far risks by a horizon are from what came, with censored patients counted by Kaplan-Meier. Statistics only, no files.

References
----------
Kaplan & Meier 1958, doi:10.1080/01621459.1958.10501452.
McLernon et al. 2023, doi:10.7326/M22-0844 (observed to expected, slope and Brier score of a predicted risk).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.bundle import Estimate
from training.calibration import Calibration
from training.evaluation import patient_resamples
from training.paired import estimate_from, is_clustered, measured
from training.survival.discrimination import calibration_at
from training.survival.metrics import NO_MAXIMUM

MOST_GROUPS, PATIENTS_PER_GROUP = 5, 20
OF_CLASSES = "of two classes only; see observed to expected"


def observed_risks(time: np.ndarray, event: np.ndarray, weights: np.ndarray, horizon: float) -> np.ndarray:
    """Share of patients with the event by the horizon, by Kaplan-Meier, under several weightings of the patients.

    Parameters
    ----------
    time : ndarray of shape (n_patients,)
        Follow-up, above zero.
    event : ndarray of shape (n_patients,)
        1 where the event happened then.
    weights : ndarray of shape (n_weightings, n_patients)
        How often each patient counts.

    Returns
    -------
    ndarray of shape (n_weightings,)
        NaN where nobody is known to have been followed up to the horizon.

    Examples
    --------
    >>> observed_risks(np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 0]), np.ones((1, 4)), horizon=3)
    array([0.625])
    """
    order = np.argsort(time, kind="stable")
    ordered, weights, event = time[order], weights[:, order], np.asarray(event)[order] == 1
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    at_risk = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1][:, starts]
    struck = np.add.reduceat(weights * event, starts, axis=1)
    factors = 1 - struck / np.where(at_risk > 0, at_risk, 1.0)
    survival = np.prod(factors[:, ordered[starts] <= horizon], axis=1)
    reached = weights @ (ordered >= horizon) > 0
    return np.where(reached | (survival == 0), 1 - survival, np.nan)


def observed_risk(predictions: pd.DataFrame, horizon: float) -> float:
    """The same of one table of predictions of times to an event; NaN where nobody was followed up to the horizon."""
    time, event = predictions["time"].to_numpy(), predictions["label"].to_numpy()
    return float(observed_risks(time, event, np.ones((1, len(time))), horizon)[0])


def calibration_by_horizon(
    predictions: pd.DataFrame, horizon: float, rng: np.random.Generator, count: int = 1000, level: float = 0.95
) -> Calibration:
    """Calibration slope, and observed to expected by the horizon, with percentile intervals over resamples of patients.

    Parameters
    ----------
    predictions : DataFrame
        As in ``Evaluation.predictions``, of times to an event.
    count : int
        Resamples.

    Returns
    -------
    Calibration
        Without the calibration in the large, which is that of a logistic regression.
    """
    weights, _ = patient_resamples(predictions, count, rng)
    every = np.vstack([np.ones((1, len(predictions))), weights])
    time, event, risk = (predictions[name].to_numpy() for name in ("time", "label", "probability"))
    expected = every @ risk / every.sum(axis=1)
    ratio = observed_risks(time, event, every, horizon) / np.where(expected > 0, expected, np.nan)
    return Calibration(
        intercept=Estimate(value=None, level=level, reason=OF_CLASSES),
        slope=estimate_from(measured(predictions, "calibration_slope", every, horizon), level, NO_MAXIMUM),
        ratio=estimate_from(ratio, level, "nobody was followed up to the horizon, or no event is expected"),
    )


def reliability_by_horizon(predictions: pd.DataFrame, horizon: float, level: float = 0.95) -> pd.DataFrame:
    """Observed risk among patients with similar predicted risks, in groups of about equal size.

    Returns
    -------
    DataFrame of shape (n_groups, 5)
        As of ``calibration_at``; intervals are missing where patients have several rows, since those are not independent.
    """
    groups = max(1, min(MOST_GROUPS, len(predictions) // PATIENTS_PER_GROUP))
    time, event, risk = (predictions[name].to_numpy() for name in ("time", "label", "probability"))
    table = calibration_at(time, event, risk, horizon, groups, level)
    return table.assign(lower=np.nan, upper=np.nan) if is_clustered(predictions) else table
