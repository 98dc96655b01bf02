"""Two models on the same patients: how much better one is than the other, and how sure that is. Statistics only, no files.

A comparison of two models is paired when both scored the same samples of the same patients. Differences are then taken
within each resample of patients, so that what is hard about a patient is hard for both and cancels.

References
----------
DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595 (covariance of correlated areas under the curve).
Sun & Xu 2014, doi:10.1109/LSP.2014.2337313 (the same by mid-ranks, in n log n).
Holm 1979, Scand J Stat 6(2):65-70 (several comparisons).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from features.bundle import Estimate
from features.errors import InputError
from training.evaluation import metric_of, patient_resamples
from training.metrics import Metric, WeightedPredictions
from training.survival.metrics import SurvivalPredictions

# Below either, no number is printed: with 9 events one patient moves the sensitivity by 11 points, and percentile intervals
# no longer cover what they say they cover.
LEAST_PATIENTS, LEAST_EVENTS = 20, 10
NO_VARIANCE = 1e-14
SAME_TIME = 1e-9


@dataclass(frozen=True)
class DeLong:
    """DeLong's test of two areas under the ROC curve on the same samples.

    Attributes
    ----------
    auc : tuple of float
        Of the first and the second model.
    difference, lower, upper : float
        Second minus first, with its interval.
    z, p_value : float
        Two-sided.
    """

    auc: tuple[float, float]
    difference: float
    lower: float
    upper: float
    level: float
    z: float
    p_value: float


def delong_interval(y: np.ndarray, score: np.ndarray, level: float = 0.95) -> Estimate:
    """Area under the ROC curve with DeLong's interval, cut at 0 and 1 as R's pROC does.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        1 for the event, 0 otherwise; one sample per patient.
    score : ndarray of shape (n_samples,)
        Higher is more likely an event.

    Examples
    --------
    >>> print(delong_interval(np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.9])))
    0.778 (0.291 to 1.000)
    """
    events, others = _by_class(y)
    if not len(events) or not len(others):
        return Estimate(value=None, level=level, reason=metric_of("roc_auc").undefined)
    if min(len(events), len(others)) < 2:
        area = float(_areas(y, score[None, :])[0][0])
        return Estimate(value=area, level=level, reason="no interval: only one sample of a class is there")
    areas, covariance = _areas(y, score[None, :])
    half = norm.ppf((1 + level) / 2) * np.sqrt(covariance[0, 0])
    lower, upper = np.clip([areas[0] - half, areas[0] + half], 0, 1)
    return Estimate(value=float(areas[0]), lower=float(lower), upper=float(upper), level=level)


def delong_test(y: np.ndarray, score_a: np.ndarray, score_b: np.ndarray, level: float = 0.95) -> DeLong:
    """DeLong's paired test of two areas under the ROC curve, two-sided; it needs one sample per patient.

    Where the difference has no variance (equal rankings, or both without an error), p is 1 for equal areas and else 0.

    Raises
    ------
    InputError
        A class has fewer than two samples.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1, 1, 1])
    >>> test = delong_test(y, np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.9]), np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    >>> round(test.difference, 3), round(test.p_value, 3)
    (0.222, 0.371)
    """
    if min(map(len, _by_class(y))) < 2:
        raise InputError("DeLong's test needs two samples of each class at least; compare the models on more patients.")
    areas, covariance = _areas(y, np.vstack([score_a, score_b]))
    difference = float(areas[1] - areas[0])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance < NO_VARIANCE:
        same = abs(difference) < NO_VARIANCE
        z, deviation = (0.0 if same else float(np.copysign(np.inf, difference))), 0.0
    else:
        deviation = float(np.sqrt(variance))
        z = difference / deviation
    half = float(norm.ppf((1 + level) / 2)) * deviation
    auc = (float(areas[0]), float(areas[1]))
    return DeLong(auc, difference, difference - half, difference + half, level, z, float(2 * norm.sf(abs(z))))


def same_patients(predictions: Sequence[pd.DataFrame]) -> pd.Index:
    """Samples that all tables of predictions hold, if they are the same samples of the same patients with the same labels.

    Parameters
    ----------
    predictions : sequence of DataFrame
        With columns sample, patient and label, one row per sample; of times to an event also time.

    Returns
    -------
    Index of str
        In the order of the first table.

    Raises
    ------
    InputError
        They differ; the message says in what, by counts, and the way out.
    """
    tables = [_by_sample(one) for one in predictions]
    first = tables[0]
    if len({"time" in one for one in tables}) > 1:
        raise InputError(
            "One model is of times to an event and another of two classes, which have no measure in common; compare models of "
            "one kind."
        )
    for number, other in enumerate(tables[1:], start=2):
        shared = first.index.intersection(other.index)
        if len(shared) < len(first) or len(shared) < len(other):
            raise InputError(
                f"The models were judged on different patients: model 1 on {_counts(first)}, model {number} on {_counts(other)}, "
                f"{len(shared)} samples on both sides. A paired comparison needs the same; score all models on one labelled "
                "table with --on TABLE."
            )
        differing, words = _difference(first, other.loc[first.index])
        if differing:
            raise InputError(
                f"{differing} of {len(first)} samples of model 1 {words} for model {number}; a paired comparison needs one "
                "truth. Score all models on one labelled table with --on TABLE."
            )
    return first.index


def _difference(first: pd.DataFrame, other: pd.DataFrame) -> tuple[int, str]:
    """Of how many samples two tables in one order tell another truth, and in what."""
    for column, words in (("patient", "belong to another patient"), ("label", "have another label")):
        differing = int((other[column].astype(str) != first[column].astype(str)).sum())
        if differing:
            return differing, words
    if "time" not in first:
        return 0, ""
    return int((~np.isclose(other["time"], first["time"], rtol=SAME_TIME, atol=0)).sum()), "have another follow-up"


def aligned(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of predictions in the order of the first, after ``same_patients``."""
    samples = same_patients([a, b])
    return tuple(_by_sample(one).loc[samples].reset_index() for one in (a, b))  # type: ignore[return-value]


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str,
    rng: np.random.Generator,
    count: int = 2000,
    level: float = 0.95,
    horizon: float | None = None,
) -> Estimate:
    """Difference of a measure, b minus a, with a percentile interval over resamples of patients drawn alike for both.

    Parameters
    ----------
    a, b : DataFrame
        Predictions of the same samples (see ``same_patients``).
    metric : str
        Name of a metric; the sign is that of the measure (for the Brier score, negative is better for b).
    count : int
        Resamples.
    horizon : float, optional
        Of models of times to an event.
    """
    return estimate_from(paired_values(a, b, metric, rng, count, horizon), level, metric_of(metric).undefined)


def paired_values(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str,
    rng: np.random.Generator,
    count: int = 2000,
    horizon: float | None = None,
) -> np.ndarray:
    """Difference of a measure, b minus a: first as it is, then in each resample of patients, shape (1 + count,)."""
    first, second = aligned(a, b)
    weights, _ = patient_resamples(first, count, rng)
    every = np.vstack([np.ones((1, len(first))), weights])
    return measured(second, metric, every, horizon) - measured(first, metric, every, horizon)


def bootstrap_p_value(values: np.ndarray) -> float | None:
    """Two-sided p of no difference: twice the share of resamples on the side of zero that is the rarer one.

    Parameters
    ----------
    values : ndarray of shape (1 + n_resamples,)
        From ``paired_values``.

    Returns
    -------
    float or None
        Never below 2 / (n_resamples + 1); 1 where nothing differs; None without a resample.
    """
    resamples = values[1:][np.isfinite(values[1:])]
    if not len(resamples):
        return None
    rarer = min((resamples <= 0).sum(), (resamples >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(resamples) + 1)))


def measured(predictions: pd.DataFrame, metric: str, weights: np.ndarray, horizon: float | None = None) -> np.ndarray:
    """A measure of one model's predictions under several weightings of their rows, shape (n_weightings,).

    As in ``training.evaluation``: over several folds rank measures are means within folds, all others within repeats.

    Parameters
    ----------
    metric : str
        Name of a metric of classes or, with a horizon, of times to an event.
    weights : ndarray of shape (n_weightings, n_samples)
    """
    how = metric_of(metric)
    by = ["repeat", "fold"] if how.needs == "ranks" and not metric.endswith("_pooled") else ["repeat"]
    in_folds = {*by} <= {*predictions.columns}
    groups = list(predictions.groupby(by, sort=False).indices.values()) if in_folds else [np.arange(len(predictions))]
    values = np.array([_of_rows(predictions.iloc[rows], how, weights[:, rows], horizon) for rows in groups])
    defined = ~np.isnan(values)
    total, count = np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _of_rows(rows: pd.DataFrame, metric: Metric, weights: np.ndarray, horizon: float | None) -> np.ndarray:
    y, probability, called = (rows[name].to_numpy() for name in ("label", "probability", "called"))
    if horizon is None:
        return metric.function(WeightedPredictions(y, probability, called, weights))
    survival: Any = SurvivalPredictions(rows["time"].to_numpy(), y.astype(bool), probability, called, weights, horizon)
    return metric.function(survival)


def estimate_from(values: np.ndarray, level: float, undefined: str) -> Estimate:
    """Estimate with a percentile interval from the plain value, which is the first, and those of the resamples."""
    value, resamples = values[0], values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value):
        return Estimate(value=None, level=level, reason=undefined)
    if len(resamples) < len(values[1:]) / 2:
        return Estimate(value=float(value), level=level, reason=f"no interval: in most resamples {undefined}")
    lower, upper = np.quantile(resamples, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(value), lower=float(min(lower, value)), upper=float(max(upper, value)), level=level)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for having made several comparisons (Holm's step-down), in the order given.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors), 1.0)
    return [float(one) for one in adjusted]


def flips(a: pd.DataFrame, b: pd.DataFrame, horizon: float | None = None) -> pd.DataFrame:
    """Samples that the two models call differently.

    Parameters
    ----------
    horizon : float, optional
        Of models of times to an event: nobody knows which call is right of who was lost to follow-up before it.

    Returns
    -------
    DataFrame
        Columns: sample, patient, label, probability_a, probability_b, called_a, called_b, and better, True where the call
        of b is the right one, False where that of a is, None where that is unknown.
    """
    first, second = aligned(a, b)
    both = first[["sample", "patient", "label"]].assign(
        probability_a=first["probability"],
        probability_b=second["probability"],
        called_a=first["called"].astype(bool),
        called_b=second["called"].astype(bool),
    )
    both["better"] = both["called_b"] == (both["label"] == 1)
    if horizon is not None:
        lost = (first["label"] == 0) & (first["time"] < horizon)
        both["better"] = both["better"].astype(object).mask(lost, None)
    return both.loc[both["called_a"] != both["called_b"]].reset_index(drop=True)


def is_clustered(predictions: pd.DataFrame) -> bool:
    """Whether some patient has several rows, which are then not independent evidence."""
    return bool(predictions["patient"].duplicated().any())


def why_not_estimable(predictions: pd.DataFrame) -> str | None:
    """Why no number about these predictions should be printed, or None.

    Examples
    --------
    >>> few = pd.DataFrame({"patient": ["a", "b", "c"], "label": [0, 1, 1]})
    >>> why_not_estimable(few)
    'not estimable: 3 patients, 2 with the event (at least 20 and 10 are needed)'
    """
    patients, events = patients_and_events(predictions)
    if patients >= LEAST_PATIENTS and events >= LEAST_EVENTS:
        return None
    needed = f"at least {LEAST_PATIENTS} and {LEAST_EVENTS} are needed"
    return f"not estimable: {patients} patients, {events} with the event ({needed})"


def patients_and_events(predictions: pd.DataFrame) -> tuple[int, int]:
    """Number of patients, and of those with the event in some sample."""
    per_patient = predictions.groupby("patient")["label"].max()
    return len(per_patient), int((per_patient == 1).sum())


def _by_class(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(y == 1), np.flatnonzero(y == 0)


def _areas(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas of several scores on the same samples, and their covariance (Sun & Xu 2014, algorithm 2).

    Parameters
    ----------
    scores : ndarray of shape (n_scores, n_samples)

    Returns
    -------
    areas : ndarray of shape (n_scores,)
    covariance : ndarray of shape (n_scores, n_scores)
        NaN where a class has one sample.
    """
    events, others = _by_class(y)
    m, n = len(events), len(others)
    among_all = rankdata(np.hstack([scores[:, events], scores[:, others]]), axis=1)
    by_event = (among_all[:, :m] - rankdata(scores[:, events], axis=1)) / n
    by_other = 1 - (among_all[:, m:] - rankdata(scores[:, others], axis=1)) / m
    return by_event.mean(axis=1), _covariance(by_event) / m + _covariance(by_other) / n


def _covariance(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred @ centred.T / (rows.shape[1] - 1) if rows.shape[1] > 1 else np.full((len(rows),) * 2, np.nan)


def _by_sample(predictions: pd.DataFrame) -> pd.DataFrame:
    """By the sample's name as text: a table read back from a file may hold 7 where another holds '7'."""
    table = predictions.assign(sample=predictions["sample"].astype(str)).set_index("sample")
    if table.index.has_duplicates:
        raise InputError(
            f"{int(table.index.duplicated().sum())} samples are predicted twice; compare held-out predictions, or predictions of "
            "one table with one row per sample."
        )
    return table


def _counts(table: pd.DataFrame) -> str:
    patients, events = patients_and_events(table)
    return f"{len(table)} samples of {patients} patients ({events} with the event)"
