"""Profiles of patients: the nearest of a few typical patients (medoids), and what became of those who were nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, validate_data

from features.outcome import is_survival

# The largest distance in a cluster of fewer patients says little; that of all clusters is taken.
FEWEST_FOR_LIMIT = 10
ROUNDING = 1e-9


@dataclass(frozen=True)
class Assignment:
    """Which cluster each of n rows belongs to.

    Attributes
    ----------
    cluster : ndarray of shape (n,), int
        The nearest medoid, from 0; of two that are as near, the first.
    distances : ndarray of shape (n, n_clusters)
        Squared Euclidean distances from the medoids, in squared standard deviations of the features.
    unlike : ndarray of shape (n,), bool
        Whether a row is farther from its medoid than any training patient of the cluster ("unlike any cluster").
    limits : ndarray of shape (n_clusters,)
        That largest distance.
    rows : ndarray of shape (n, n_features)
        Harmonised standard scores.
    medoids : ndarray of shape (n_clusters, n_features)
    """

    cluster: np.ndarray
    distances: np.ndarray
    unlike: np.ndarray
    limits: np.ndarray
    rows: np.ndarray
    medoids: np.ndarray

    @cached_property
    def runner_up(self) -> np.ndarray:
        """The second nearest cluster of each row, shape (n,)."""
        others = self.distances.copy()
        others[np.arange(len(others)), self.cluster] = np.inf
        return np.asarray(others.argmin(axis=1))

    @cached_property
    def margin(self) -> np.ndarray:
        """How much farther the second nearest medoid is than the nearest, shape (n,), in squared standard deviations."""
        every = np.arange(len(self.distances))
        return np.asarray(self.distances[every, self.runner_up] - self.distances[every, self.cluster])

    def contributions(self, row: int) -> np.ndarray:
        """What each feature adds to the margin of a row, shape (n_features,); their sum is the margin."""
        values, near, far = self.rows[row], self.cluster[row], self.runner_up[row]
        return np.asarray((values - self.medoids[far]) ** 2 - (values - self.medoids[near]) ** 2)

    def deciding(self, row: int, count: int = 5) -> list[tuple[int, float]]:
        """Positions of the features that speak most for the nearest cluster against the second, and what each adds to the margin.

        Features that speak against it are left out, so there may be fewer than asked for.
        """
        added = self.contributions(row)
        largest = np.argsort(-added, kind="stable")[:count]
        return [(int(position), float(added[position])) for position in largest if added[position] > 0]


class NearestMedoid(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Assigns a patient to the nearest of some training patients (medoids); its risk is that of the patients it joins.

    The medoids are chosen elsewhere, by k-medoids clustering; here is what is kept of it. Unlike other models it holds rows of
    patients: the standard scores of the medoids.

    Parameters
    ----------
    medoids : sequence of int
        Rows of the training matrix that are medoids, in the order of the clusters.
    horizon : float, optional
        Of a survival outcome: the time by which the risk is given. None: the last event.

    Attributes
    ----------
    medoids_ : ndarray of shape (n_clusters, n_features)
    risks_ : ndarray of shape (n_clusters,)
        Share of the cluster's training patients with the event; of a survival outcome, one minus Kaplan and Meier's survival at
        the horizon (where follow-up ends before, at its end).
    sizes_ : ndarray of shape (n_clusters,), int
        Training patients per cluster.
    limits_ : ndarray of shape (n_clusters,)
        Largest distance of a training patient from the cluster's medoid; of a small cluster, the largest of all.
    classes_ : ndarray of shape (2,)

    References
    ----------
    Halle et al. 2024 (radiomic profiles by k-medoids with squared Euclidean distances).

    Examples
    --------
    >>> X = np.array([[0.0], [0.2], [0.1], [5.0], [5.1], [5.3]])
    >>> model = NearestMedoid(medoids=[2, 4]).fit(X, [0, 0, 1, 1, 1, 0])
    >>> model.assign([[4.0]]).cluster, model.predict_proba([[4.0]])[0].round(3)
    (array([1]), array([0.333, 0.667]))
    """

    def __init__(self, medoids: Sequence[int] = (0,), horizon: float | None = None) -> None:
        self.medoids = medoids
        self.horizon = horizon

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the medoids, and what became of the patients who are nearest to each.

        Parameters
        ----------
        X : array of shape (n_patients, n_features)
            Without gaps, on one scale.
        y : array of shape (n_patients,)
            Labels 0 and 1, or a structured array of times and events.
        """
        matrix = np.ascontiguousarray(validate_data(self, X, dtype=float))
        outcome = np.asarray(y)
        self.classes_ = np.array([0, 1])
        self.medoids_ = matrix[list(self.medoids)]
        distances = self._distances(matrix)
        cluster, nearest = distances.argmin(axis=1), distances.min(axis=1)
        count = len(self.medoids_)
        self.sizes_ = np.bincount(cluster, minlength=count)
        self.risks_ = np.array([risk_of(outcome[cluster == one], self.horizon) for one in range(count)])
        own = np.array([nearest[cluster == one].max(initial=0.0) for one in range(count)])
        self.limits_ = np.where(self.sizes_ < FEWEST_FOR_LIMIT, nearest.max(), own)
        return self

    def assign(self, X: Any) -> Assignment:
        """Cluster and distances of every row of an array of shape (n, n_features); no row has a say in another's."""
        check_is_fitted(self)
        matrix = np.ascontiguousarray(validate_data(self, X, dtype=float, reset=False))
        distances = self._distances(matrix)
        cluster = distances.argmin(axis=1)
        # Whoever sets a limit lies on it, and may come back with another last digit.
        unlike = distances.min(axis=1) > self.limits_[cluster] * (1 + ROUNDING)
        return Assignment(cluster, distances, unlike, self.limits_, matrix, self.medoids_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Shape (n, 2): without and with the event, as often as among the training patients of the nearest cluster."""
        risk = self.risks_[self.assign(X).cluster]
        return np.column_stack([1 - risk, risk])

    def predict(self, X: Any) -> np.ndarray:
        """Whether most training patients of the nearest cluster had the event, shape (n,)."""
        return self.classes_[(self.predict_proba(X)[:, 1] >= 0.5).astype(int)]

    def _distances(self, matrix: np.ndarray) -> np.ndarray:
        # Row by row and no matrix product: its rounding depends on how many rows there are.
        return np.column_stack([((matrix - medoid) ** 2).sum(axis=1) for medoid in self.medoids_])


def assign(pipeline: Pipeline, matrix: np.ndarray) -> Assignment:
    """Clusters of rows as a pipeline that ends in a :class:`NearestMedoid` takes them."""
    scores = pipeline[:-1].transform(matrix) if len(pipeline) > 1 else matrix
    return pipeline[-1].assign(scores)


def risk_of(outcome: np.ndarray, horizon: float | None) -> float:
    """Share of patients with the event; of times to an event, one minus Kaplan and Meier's survival at the horizon.

    Parameters
    ----------
    outcome : ndarray of shape (n_patients,)
        Labels 0 and 1, or a structured array of times and events.

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> risk_of(survival_outcome(np.array([1.0, 2, 3, 4]), np.array([1, 0, 1, 0])), 3)  # 1 - 3/4 * 1/2
    0.625
    """
    if not is_survival(outcome):
        return float(np.mean(outcome)) if len(outcome) else 0.0
    times, event = outcome["time"], outcome["event"]
    until = np.inf if horizon is None else horizon
    happened = np.unique(times[event & (times <= until)])
    left = [1 - (event & (times == one)).sum() / (times >= one).sum() for one in happened]
    return float(1 - np.prod(left))
