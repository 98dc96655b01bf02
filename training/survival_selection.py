"""Selectors for a survival outcome: each ranks the features by what they say of who has the event sooner.

They stand beside the selectors of ``training.selection`` and have their form; the outcome in the training matrix is
structured (``features.outcome``). To add one: a class with ``kind`` and ``rank(training, rng, threads)``.

References
----------
Cox 1972, doi:10.1111/j.2517-6161.1972.tb00899.x (the score statistic).
Harrell et al. 1982, doi:10.1001/jama.1982.03320430047030 (concordance).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from features.partial_likelihood import RiskSets
from features.risk import cox_coefficients
from features.settings import Settings
from training.survival.metrics import above, later

if TYPE_CHECKING:
    from training.selection import TrainingMatrix


class CoxScore(Settings):
    """Absolute score statistic of a Cox regression on the feature alone: the log-rank statistic of a quantity."""

    kind: Literal["cox_score"] = "cox_score"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        return np.abs(score_statistics(training.z, training.y))


class Concordance(Settings):
    """How far Harrell's concordance of the feature with the outcome is from chance."""

    kind: Literal["concordance"] = "concordance"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        return np.abs(concordances(training.X, training.y) - 0.5)


class RidgeCoxCoefficients(Settings):
    """Absolute coefficient of Cox regression on z-scores, ridge penalty of one half of the sum of squares (as C=1)."""

    kind: Literal["ridge_cox"] = "ridge_cox"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        return np.abs(ridge_cox_coefficients(training.z, training.y, 1 / len(training.y)))


class BoostedCox(Settings):
    """Total gain in gradient boosting of a Cox model (XGBoost).

    Parameters
    ----------
    trees, depth : int
    """

    kind: Literal["boosted_cox"] = "boosted_cox"
    trees: int = Field(default=100, ge=1)
    depth: int = Field(default=2, ge=1)

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        import xgboost

        y = training.y
        data = xgboost.DMatrix(training.X.astype(np.float32), label=np.where(y["event"], y["time"], -y["time"]), nthread=1)
        parameters = {
            "objective": "survival:cox",
            "max_depth": self.depth,
            "eta": 0.1,
            "seed": int(rng.integers(2**31)),
            "nthread": 1,  # so little work that more threads take longer
            "verbosity": 0,
        }
        gains = xgboost.train(parameters, data, self.trees).get_score(importance_type="total_gain")
        return np.array([gains.get(f"f{number}", 0.0) for number in range(training.X.shape[1])], dtype=float)


SURVIVAL_METHODS = (CoxScore(), Concordance(), RidgeCoxCoefficients(), BoostedCox())


def score_statistics(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Score statistic of a Cox regression on each feature alone, standard normal if it says nothing; ties by Efron.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    y : structured ndarray of shape (n_samples,)

    Returns
    -------
    ndarray of shape (n_features,)
        Above 0: high values have the event sooner. 0 where a feature does not vary among those at risk.

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> y = survival_outcome(np.array([1.0, 2, 3]), np.array([1, 1, 1]))
    >>> score_statistics(np.array([[1.0], [0], [0]]), y).round(4)  # (1 - 1/3) / sqrt(1/3 - 1/9)
    array([1.4142])
    """
    risk_sets = RiskSets.of(y["time"], y["event"])
    X = (X - X.mean(axis=0))[risk_sets.order]
    at_risk = risk_sets.at_risk(np.ones(len(X)))[:, None]
    means = risk_sets.at_risk(X) / at_risk
    score = (X - means)[risk_sets.event].sum(axis=0)
    variance = (risk_sets.at_risk(X**2) / at_risk - means**2)[risk_sets.event].sum(axis=0)
    rounding = variance <= np.finfo(float).eps * (X**2).sum(axis=0)
    return np.where(rounding, 0.0, score / np.sqrt(np.where(rounding, 1.0, variance)))


def concordances(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Harrell's concordance of each feature with the outcome.

    Many scores of the same patients, where ``training.survival.metrics`` has one score and many weightings of the patients.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    y : structured ndarray of shape (n_samples,)

    Returns
    -------
    ndarray of shape (n_features,)
        Above 0.5: high values have the event sooner. Equal values count one half; 0.5 where no pair can be compared.

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> y = survival_outcome(np.array([1.0, 2, 3]), np.array([1, 1, 0]))
    >>> concordances(np.array([[3.0], [1], [2]]), y).round(4)  # two of three pairs
    array([0.6667])
    """
    comparable = later(y["time"], y["event"], y["time"], y["event"])
    if not comparable.any():
        return np.full(X.shape[1], 0.5)
    struck = np.flatnonzero(comparable.any(axis=1))
    agreeing = sum(above(X[sample], X[comparable[sample]].T).sum(axis=1) for sample in struck)
    return np.asarray(agreeing / comparable.sum())


def ridge_cox_coefficients(z: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients of Cox regression with a ridge penalty, found in at most as many dimensions as there are samples.

    With more features than samples the optimum lies in the space that the rows span: the penalty forbids any other part.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_features)
        Of mean 0.
    y : structured ndarray of shape (n_samples,)
    penalty : float
        As for :func:`features.risk.cox_coefficients`.

    Returns
    -------
    ndarray of shape (n_features,)
    """
    if z.shape[1] <= z.shape[0]:
        return cox_coefficients(z, y, penalty)
    left, singular_values, right = np.linalg.svd(z, full_matrices=False)
    return np.asarray(right.T @ cox_coefficients(left * singular_values, y, penalty))
