"""Whether probabilities mean what they say, and what acting on them would be worth. Statistics only, no files.

References
----------
Van Calster et al. 2016, doi:10.1016/j.jclinepi.2015.12.005 (calibration in the large, and the slope).
Vickers & Elkin 2006, doi:10.1177/0272989X06295361 (decision curves).
Wilson 1927, doi:10.1080/01621459.1927.10502953 (interval of a proportion).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from features.bundle import Estimate
from training.evaluation import patient_resamples
from training.paired import estimate_from, is_clustered

# A probability of exactly 0 or 1 has no logit; a model that says so is taken to mean one in a million.
NEAREST_TO_CERTAIN = 1e-6
STEPS, LONGEST_STEP, CONVERGED = 60, 3.0, 1e-10
MOST_GROUPS, SAMPLES_PER_GROUP = 10, 10
ONE_CLASS = "only one class is there"
SEPARATED = "the probabilities part the classes without an error, or are all equal"


@dataclass(frozen=True)
class Calibration:
    """How far a model's probabilities are from the shares of events.

    Attributes
    ----------
    intercept : Estimate
        In the large: what must be added to every logit so that as many events are expected as were seen; 0 is right, below 0
        the model says too much.
    slope : Estimate
        Of the outcome on the logit: 1 is right, below 1 the probabilities are too extreme, above 1 too timid.
    ratio : Estimate
        Events seen for each that was expected; 1 is right.
    """

    intercept: Estimate
    slope: Estimate
    ratio: Estimate


def calibration(predictions: pd.DataFrame, rng: np.random.Generator, count: int = 1000, level: float = 0.95) -> Calibration:
    """Calibration in the large, slope, and observed to expected, with percentile intervals over resamples of patients.

    Parameters
    ----------
    predictions : DataFrame
        With columns patient, label and probability.
    count : int
        Resamples.
    """
    weights, _ = patient_resamples(predictions, count, rng)
    every = np.vstack([np.ones((1, len(predictions))), weights])
    y, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
    expected = every @ probability
    ratio = np.where(expected > 0, every @ y / np.where(expected > 0, expected, 1), np.nan)
    return Calibration(
        intercept=estimate_from(intercepts(y, probability, every), level, ONE_CLASS),
        slope=estimate_from(slopes(y, probability, every), level, SEPARATED),
        ratio=estimate_from(ratio, level, "no event is expected"),
    )


def intercepts(y: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Calibration in the large per weighting: the intercept of a logistic regression with the logit as offset.

    Parameters
    ----------
    weights : ndarray of shape (n_weightings, n_samples)

    Returns
    -------
    ndarray of shape (n_weightings,)
        NaN where a weighting has one class.

    Examples
    --------
    >>> y, half = np.array([1, 1, 1, 0]), np.full(4, 0.5)
    >>> intercepts(y, half, np.ones((1, 4))).round(4)  # log(3)
    array([1.0986])
    """
    x = _logits(probability)
    found = np.zeros(len(weights))
    for _ in range(STEPS):
        expected = expit(found[:, None] + x)
        step = (weights * (y - expected)).sum(axis=1) / np.maximum((weights * expected * (1 - expected)).sum(axis=1), 1e-12)
        found += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        if np.abs(step).max(initial=0.0) < CONVERGED:
            break
    events = weights @ y
    return np.where((events > 0) & (events < weights.sum(axis=1)), found, np.nan)


def slopes(y: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Calibration slope per weighting: of a logistic regression of the outcome on the logit.

    Parameters
    ----------
    weights : ndarray of shape (n_weightings, n_samples)

    Returns
    -------
    ndarray of shape (n_weightings,)
        NaN where it is not defined: one class, classes parted without an error, or one probability for all.
    """
    x = _logits(probability)
    spread = float(x.std())
    if spread == 0:
        return np.full(len(weights), np.nan)
    z = (x - x.mean()) / spread
    overlapping = _overlapping(y, z, weights)
    found = np.full(len(weights), np.nan)
    found[overlapping] = _regressed(y, z, weights[overlapping]) / spread
    return found


def reliability(predictions: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Share of events among samples with similar probabilities, in groups of about equal size.

    Returns
    -------
    DataFrame of shape (n_groups,)
        Columns: expected (mean probability), observed (share of events), lower, upper (Wilson's interval; missing where
        patients have several samples, since those are not independent), n.
    """
    groups = max(1, min(MOST_GROUPS, len(predictions) // SAMPLES_PER_GROUP))
    cut = pd.qcut(predictions["probability"], groups, duplicates="drop")
    # One probability for all has no quantiles to cut at.
    key = pd.Series(0, index=predictions.index) if cut.isna().all() else cut
    table = predictions.groupby(key, observed=True).agg(
        expected=("probability", "mean"), observed=("label", "mean"), n=("label", "size")
    )
    z = norm.ppf((1 + level) / 2)
    share, n = table["observed"], table["n"]
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    known = np.nan if is_clustered(predictions) else 1.0
    lower, upper = (centre - half).clip(0, 1) * known, (centre + half).clip(0, 1) * known
    return table.assign(lower=lower, upper=upper).reset_index(drop=True)


def decision_curve(predictions: pd.DataFrame, thresholds: np.ndarray) -> pd.DataFrame:
    """Net benefit of treating by the model, of treating all and of treating none.

    Parameters
    ----------
    thresholds : ndarray of shape (n_thresholds,)
        Probabilities at and above which one would treat, each below 1.

    Returns
    -------
    DataFrame of shape (n_thresholds,)
        Columns: threshold, model, treat_all, treat_none: true positives a sample, less false positives weighed by the odds
        of the threshold.

    Examples
    --------
    >>> sure = pd.DataFrame({"label": [0, 0, 0, 1], "probability": [0.1, 0.1, 0.1, 0.9]})
    >>> decision_curve(sure, np.array([0.2])).to_numpy().tolist()
    [[0.2, 0.25, 0.0625, 0.0]]
    """
    y, probability = predictions["label"].to_numpy() == 1, predictions["probability"].to_numpy()
    treated = probability[None, :] >= thresholds[:, None]
    odds = thresholds / (1 - thresholds)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "model": (treated & y).mean(axis=1) - odds * (treated & ~y).mean(axis=1),
            "treat_all": y.mean() - odds * (1 - y.mean()),
            "treat_none": 0.0,
        }
    )


def _logits(probability: np.ndarray) -> np.ndarray:
    return np.asarray(logit(np.clip(probability, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)))


def _overlapping(y: np.ndarray, z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weightings under which the classes overlap, so that a finite slope exists (Albert & Anderson 1984)."""
    drawn, event = weights > 0, y == 1
    lowest, highest = (
        [extreme(np.where(drawn & side, z, missing), axis=1) for side in (event, ~event)]
        for extreme, missing in ((np.min, np.inf), (np.max, -np.inf))
    )
    return (highest[1] > lowest[0]) & (highest[0] > lowest[1])


def _regressed(y: np.ndarray, z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slopes of weighted logistic regressions on one standardised variable, by Newton's method for all at once."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        expected = expit(a[:, None] + b[:, None] * z)
        rest, curve = weights * (y - expected), weights * expected * (1 - expected)
        g0, g1 = rest.sum(axis=1), rest @ z
        h00, h01, h11 = curve.sum(axis=1), curve @ z, curve @ z**2
        determinant = np.maximum(h00 * h11 - h01**2, 1e-12)
        steps = np.array([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0]) / determinant
        longest = np.abs(steps).max(axis=0)
        steps *= np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))
        a, b = a + steps[0], b + steps[1]
        if longest.max(initial=0.0) < CONVERGED:
            return b
    return np.where(longest < CONVERGED**0.5, b, np.nan)
