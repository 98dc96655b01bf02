"""Nine measures of a binary classifier, each computed for many weightings of the patients at once.

A bootstrap resample of patients is a vector of weights: how often each sample was drawn. All measures take a matrix of
such vectors, so that a thousand resamples cost a few matrix products. To add one: a ``Metric`` line in ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class WeightedPredictions:
    """Predictions of samples under several weightings.

    Attributes
    ----------
    y : ndarray of shape (n_samples,)
        1 for the event, 0 otherwise.
    probability : ndarray of shape (n_samples,)
        Predicted probability of the event.
    called : ndarray of shape (n_samples,), bool
        Whether the probability reached the threshold.
    weights : ndarray of shape (n_weightings, n_samples)
        How often each sample counts; whole numbers in a bootstrap, ones for the plain estimate.
    """

    y: np.ndarray
    probability: np.ndarray
    called: np.ndarray
    weights: np.ndarray

    def total(self, of: np.ndarray) -> np.ndarray:
        """Weighted sum of a per-sample quantity, shape (n_weightings,)."""
        return np.asarray(self.weights @ of.astype(float))

    @cached_property
    def true_positives(self) -> np.ndarray:
        return self.total((self.y == 1) & self.called)

    @cached_property
    def false_negatives(self) -> np.ndarray:
        return self.total((self.y == 1) & ~self.called)

    @cached_property
    def true_negatives(self) -> np.ndarray:
        return self.total((self.y == 0) & ~self.called)

    @cached_property
    def false_positives(self) -> np.ndarray:
        return self.total((self.y == 0) & self.called)

    @cached_property
    def tied_groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight of events and of non-events per distinct probability, ascending, shape (n_weightings, n_distinct)."""
        order = np.argsort(self.probability, kind="stable")
        ordered = self.probability[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        weights, positive = self.weights[:, order], self.y[order] == 1
        return (
            np.add.reduceat(weights * positive, starts, axis=1),
            np.add.reduceat(weights * ~positive, starts, axis=1),
        )


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN (not zero) where the denominator is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def roc_auc(predictions: WeightedPredictions) -> np.ndarray:
    """Probability that an event has a higher score than a non-event, ties counting half."""
    events, others = predictions.tied_groups
    below = np.cumsum(others, axis=1) - others
    return ratio((events * (below + others / 2)).sum(axis=1), events.sum(axis=1) * others.sum(axis=1))


def pr_auc(predictions: WeightedPredictions) -> np.ndarray:
    """Average precision: precision at each distinct score, weighted by the recall gained there."""
    events, others = (group[:, ::-1] for group in predictions.tied_groups)
    true, called = np.cumsum(events, axis=1), np.cumsum(events + others, axis=1)
    precision = np.where(called > 0, true / np.where(called > 0, called, 1), 0.0)
    return ratio((events * precision).sum(axis=1), events.sum(axis=1))


def brier(predictions: WeightedPredictions) -> np.ndarray:
    """Mean squared difference between probability and outcome."""
    squared = (predictions.probability - predictions.y) ** 2
    return ratio(predictions.total(squared), predictions.weights.sum(axis=1))


def accuracy(predictions: WeightedPredictions) -> np.ndarray:
    """Share of samples called rightly."""
    return ratio(predictions.true_positives + predictions.true_negatives, predictions.weights.sum(axis=1))


def sensitivity(predictions: WeightedPredictions) -> np.ndarray:
    """Share of events that are called."""
    return ratio(predictions.true_positives, predictions.true_positives + predictions.false_negatives)


def specificity(predictions: WeightedPredictions) -> np.ndarray:
    """Share of non-events that are not called."""
    return ratio(predictions.true_negatives, predictions.true_negatives + predictions.false_positives)


def ppv(predictions: WeightedPredictions) -> np.ndarray:
    """Share of events among those called (positive predictive value)."""
    return ratio(predictions.true_positives, predictions.true_positives + predictions.false_positives)


def npv(predictions: WeightedPredictions) -> np.ndarray:
    """Share of non-events among those not called (negative predictive value)."""
    return ratio(predictions.true_negatives, predictions.true_negatives + predictions.false_negatives)


def f1(predictions: WeightedPredictions) -> np.ndarray:
    """Harmonic mean of sensitivity and positive predictive value; undefined without event and without call."""
    missed = predictions.false_positives + predictions.false_negatives
    return ratio(2 * predictions.true_positives, 2 * predictions.true_positives + missed)


@dataclass(frozen=True)
class Metric:
    """A measure of out-of-sample predictions.

    Attributes
    ----------
    name : str
    title : str
        As it is printed.
    function : callable
        From ``WeightedPredictions`` to an array of shape (n_weightings,).
    greater_is_better : bool
    needs : {"ranks", "calls", "probabilities"}
        "ranks": only the order of scores within one model counts, so that scores of different models (folds) must not
        be pooled; "calls": threshold decisions; "probabilities": the numbers themselves.
    undefined : str
        Why it has no value where it has none.
    """

    name: str
    title: str
    function: Callable[[WeightedPredictions], np.ndarray]
    greater_is_better: bool
    needs: Literal["ranks", "calls", "probabilities"]
    undefined: str


METRICS = (
    Metric("roc_auc", "ROC AUC", roc_auc, True, "ranks", "only one class is there"),
    Metric("pr_auc", "PR AUC", pr_auc, True, "ranks", "no event is there"),
    Metric("accuracy", "Accuracy", accuracy, True, "calls", "no sample is there"),
    Metric("sensitivity", "Sensitivity", sensitivity, True, "calls", "no event is there"),
    Metric("specificity", "Specificity", specificity, True, "calls", "no non-event is there"),
    Metric("f1", "F1", f1, True, "calls", "there is neither an event nor a call"),
    Metric("npv", "NPV", npv, True, "calls", "every sample is called positive"),
    Metric("ppv", "PPV", ppv, True, "calls", "no sample is called positive"),
    Metric("brier", "Brier score", brier, False, "probabilities", "no sample is there"),
)
METRIC = {metric.name: metric for metric in METRICS}
