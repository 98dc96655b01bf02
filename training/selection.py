"""Ensemble feature selection: several methods rank the features, and those that enough of them put on top are kept.

To add a selector: a class with ``kind`` and ``rank(training, rng, threads)``, and its name in ``Selector``.

References
----------
Bodalal et al. 2023 (seven methods, top 100 of each, at least four votes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, model_validator
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import chi2
from sklearn.linear_model import LinearRegression, LogisticRegression
from threadpoolctl import threadpool_limits

from features.errors import InputError
from features.outcome import is_survival
from features.settings import Settings
from training.survival_selection import SURVIVAL_METHODS, BoostedCox, Concordance, CoxScore, RidgeCoxCoefficients

SURVIVAL_KINDS = tuple(map(type, SURVIVAL_METHODS))
# Scores nearer to each other than this share of the largest are ties: the same column twice must not be ordered by
# rounding errors.
TIE = 1e-10


@dataclass(frozen=True)
class TrainingMatrix:
    """Complete features and labels of the training part of a split, and what several selectors derive from them.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
        No missing value, no constant column.
    y : ndarray of shape (n_samples,)
        0 or 1, or structured times and events.
    """

    X: np.ndarray
    y: np.ndarray

    @cached_property
    def z(self) -> np.ndarray:
        """X with mean 0 and standard deviation 1 (ddof 0) per column."""
        return (self.X - self.X.mean(axis=0)) / self.X.std(axis=0)

    @cached_property
    def min_max(self) -> np.ndarray:
        """X scaled to 0 to 1 per column."""
        low = self.X.min(axis=0)
        return (self.X - low) / (self.X.max(axis=0) - low)


class Chi2(Settings):
    """Chi-squared statistic between the feature, scaled to 0 to 1, and the label."""

    kind: Literal["chi2"] = "chi2"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        return np.asarray(chi2(training.min_max, training.y)[0])


class Correlation(Settings):
    """Absolute Pearson correlation with the label."""

    kind: Literal["correlation"] = "correlation"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        centred = training.y - training.y.mean()
        return np.abs(training.z.T @ centred) / (len(centred) * training.y.std())


class RandomForest(Settings):
    """Impurity importance in a random forest."""

    kind: Literal["random_forest"] = "random_forest"
    trees: int = Field(default=500, ge=10)

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        forest = RandomForestClassifier(self.trees, random_state=int(rng.integers(2**31)), n_jobs=threads)
        return np.asarray(forest.fit(training.X, training.y).feature_importances_)


class LinearRegressionCoefficients(Settings):
    """Absolute coefficient of least squares on z-scores (of least norm where features outnumber samples)."""

    kind: Literal["linear_regression"] = "linear_regression"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        if training.z.shape[1] <= training.z.shape[0]:
            return np.abs(LinearRegression().fit(training.z, training.y).coef_)
        space = row_space(training.z)
        fitted = space.left.T @ (training.y - training.y.mean()) / space.singular_values
        return np.abs(space.to_features(fitted))


class LogisticRegressionCoefficients(Settings):
    """Absolute coefficient of logistic regression on z-scores, ridge penalty with C=1."""

    kind: Literal["logistic_regression"] = "logistic_regression"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        return np.abs(ridge_logistic_coefficients(training.z, training.y))


class RecursiveElimination(Settings):
    """Recursive elimination by that logistic regression: a share of all features goes at each step until `keep` remain.

    Parameters
    ----------
    step : float
        Share of the features that there were at the start.
    """

    kind: Literal["rfe"] = "rfe"
    step: float = Field(default=0.1, gt=0, lt=1)
    keep: int = Field(default=100, ge=1)

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        n_features = training.z.shape[1]
        kept, at_once = np.arange(n_features), max(1, int(self.step * n_features))
        weights = np.abs(ridge_logistic_coefficients(training.z, training.y))
        while len(kept) > self.keep:
            leaving = min(at_once, len(kept) - self.keep)
            kept = kept[np.sort(_descending(weights)[: len(kept) - leaving])]
            weights = np.abs(ridge_logistic_coefficients(training.z[:, kept], training.y))
        scores = np.zeros(n_features)
        scores[kept] = weights
        return scores


class LightGBM(Settings):
    """Total gain in gradient boosting (LightGBM's defaults)."""

    kind: Literal["lightgbm"] = "lightgbm"

    def rank(self, training: TrainingMatrix, rng: np.random.Generator, threads: int) -> np.ndarray:
        from lightgbm import LGBMClassifier

        boosting = LGBMClassifier(
            importance_type="gain",
            random_state=int(rng.integers(2**31)),
            deterministic=True,
            force_col_wise=True,
            enable_bundle=False,  # looking for sparse columns to merge finds none here, and takes a fifth of the time
            is_enable_sparse=False,
            n_jobs=threads,
            verbose=-1,
        )
        return np.asarray(boosting.fit(training.X, training.y).feature_importances_, dtype=float)


def _by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Selector = Annotated[
    Annotated[
        Chi2
        | Correlation
        | RandomForest
        | LinearRegressionCoefficients
        | LogisticRegressionCoefficients
        | RecursiveElimination
        | LightGBM
        | CoxScore
        | Concordance
        | RidgeCoxCoefficients
        | BoostedCox,
        Field(discriminator="kind"),
    ],
    BeforeValidator(_by_name, json_schema_input_type=str | dict[str, Any]),
]

PUBLISHED_METHODS = (
    Chi2(),
    Correlation(),
    RandomForest(),
    LinearRegressionCoefficients(),
    LogisticRegressionCoefficients(),
    RecursiveElimination(),
    LightGBM(),
)


# Bodalal et al. 2023: four of seven. Three of four is the same: just more than half.
PUBLISHED_VOTES, SURVIVAL_VOTES = 4, 3


class SelectionSettings(Settings):
    """Which methods vote, and how many votes keep a feature.

    Parameters
    ----------
    methods : list, optional
        Names, or mappings with ``kind`` and parameters. Left out: the seven published ones, or for an endpoint of survival the
        four that know of times to an event.
    top : int
        How many features each method votes for.
    votes : int, optional
        How many methods must agree; left out, four of the seven, or three of the four. Not a control of false discoveries: on
        pure noise dozens of features reach four of seven.
    scope : {"inner", "published"}
        Where candidates of the search are ranked: on features chosen anew inside every inner fold ("inner"), or on
        features chosen once on all training patients, as the paper did ("published"; their inner scores are too good).
    """

    methods: tuple[Selector, ...] | None = None
    top: int = Field(default=100, ge=1)
    votes: int | None = Field(default=None, ge=1)
    scope: Literal["inner", "published"] = "inner"

    @model_validator(mode="after")
    def _votes_can_be_reached(self) -> SelectionSettings:
        if self.methods is None:
            return self
        kinds = [method.kind for method in self.methods]
        if not kinds or len(set(kinds)) != len(kinds):
            raise ValueError("methods must be one or more different methods")
        needed = self._agreeing(survival=False)
        # Methods that know of times are counted where it is known that the endpoint has times.
        if needed > len(kinds) and not any(isinstance(method, SURVIVAL_KINDS) for method in self.methods):
            raise ValueError(f"votes is {needed}, but only {len(kinds)} methods vote")
        return self

    def voters(self, survival: bool) -> tuple[Selector, ...]:
        """The methods that vote on classes, or on times to an event.

        Raises
        ------
        InputError
            A method that the study names is of the other kind, or fewer vote than must agree.
        """
        voters = self.methods or (SURVIVAL_METHODS if survival else PUBLISHED_METHODS)
        strange = [method.kind for method in voters if isinstance(method, SURVIVAL_KINDS) != survival]
        if strange:
            right = ", ".join(method.kind for method in (SURVIVAL_METHODS if survival else PUBLISHED_METHODS))
            raise InputError(
                f"recipe.selection.methods: {strange[0]!r} cannot rank features for "
                f"{'times to an event' if survival else 'classes'}; use some of {right}."
            )
        if self._agreeing(survival) > len(voters):
            raise InputError(f"recipe.selection.votes is {self.votes}, but only {len(voters)} methods vote; lower it.")
        return voters

    def needed(self, survival: bool) -> int:
        """How many of the voters must agree; raises as ``voters`` does."""
        self.voters(survival)
        return self._agreeing(survival)

    def _agreeing(self, survival: bool) -> int:
        return self.votes if self.votes is not None else (SURVIVAL_VOTES if survival else PUBLISHED_VOTES)


@dataclass(frozen=True)
class SelectionResult:
    """Who voted for what.

    Attributes
    ----------
    votes : DataFrame of shape (n_features, n_methods), bool
        Index: names of the features that could be chosen.
    selected : tuple of str
        Names of the chosen features, in the table's order.
    votes_needed, votes_used : int
        What was asked for, and what was taken; lower only where no feature reached what was asked for.
    """

    votes: pd.DataFrame
    selected: tuple[str, ...]
    votes_needed: int
    votes_used: int

    @property
    def fell_back(self) -> bool:
        """Whether the votes needed had to be lowered."""
        return self.votes_used < self.votes_needed


def select(
    settings: SelectionSettings, X: pd.DataFrame, y: np.ndarray, rng: np.random.Generator, threads: int = 1
) -> SelectionResult:
    """Let every method rank the features, and keep those that enough methods put on top.

    A feature whose importance is zero or undefined gets no vote; ties go to the name that sorts first; if no feature
    has the votes needed, those with the most votes are taken and the result says so.

    Parameters
    ----------
    X : DataFrame of shape (n_samples, n_features)
        Training part only, no missing value, no constant column.
    y : ndarray of shape (n_samples,)
        0 or 1.
    threads : int
        How many threads a method may use; it changes no result.

    Raises
    ------
    InputError
        No method found any use in any feature.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 30)
    >>> X = pd.DataFrame(rng.normal(size=(60, 5)), columns=list("abcde"))
    >>> X["c"] += 2 * y
    >>> select(SelectionSettings(top=1), X, y, rng).selected
    ('c',)
    """
    training, survival = TrainingMatrix(np.ascontiguousarray(X.to_numpy(dtype=float)), np.asarray(y)), is_survival(y)
    scores = _scores(settings.voters(survival), training, rng, threads)
    alphabetical = np.argsort(np.argsort(X.columns.to_numpy(dtype=str), kind="stable"))
    votes = pd.DataFrame({kind: _votes_for(score, alphabetical, settings.top) for kind, score in scores.items()}, index=X.columns)
    counts = votes.sum(axis=1)
    needed = settings.needed(survival)
    used = min(needed, int(counts.max()))
    if used == 0:
        raise InputError("No selection method found any use in any feature; check that the features vary with the outcome.")
    return SelectionResult(votes, tuple(X.columns[counts >= used]), needed, used)


def _scores(methods: tuple[Any, ...], training: TrainingMatrix, rng: np.random.Generator, threads: int) -> dict[str, np.ndarray]:
    generators = rng.spawn(len(methods))
    with threadpool_limits(1, "blas"):  # hundreds of small products, each slower on two threads than on one
        return {method.kind: method.rank(training, own, threads) for method, own in zip(methods, generators, strict=True)}


def _votes_for(scores: np.ndarray, alphabetical: np.ndarray, top: int) -> np.ndarray:
    usable = np.where(np.isfinite(scores) & (scores > 0), scores, 0.0)
    order = _descending(usable, alphabetical)[:top]
    chosen = np.zeros(len(usable), dtype=bool)
    chosen[order] = usable[order] > 0
    return chosen


def _descending(scores: np.ndarray, tie_order: np.ndarray | None = None) -> np.ndarray:
    """Positions from the highest score to the lowest; near-ties by `tie_order`, else by position."""
    highest = scores.max(initial=0.0)
    rounded = np.round(scores / highest / TIE) if highest > 0 else scores
    return np.lexsort((np.arange(len(scores)) if tie_order is None else tie_order, -rounded))


@dataclass(frozen=True)
class RowSpace:
    """Samples in the coordinates of the space that their rows span: the same geometry in n instead of p dimensions.

    Attributes
    ----------
    left : ndarray of shape (n_samples, rank)
    singular_values : ndarray of shape (rank,)
    matrix : ndarray of shape (n_samples, n_features)
    """

    left: np.ndarray
    singular_values: np.ndarray
    matrix: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """Samples in row-space coordinates, shape (n_samples, rank)."""
        return self.left * self.singular_values

    def to_features(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients of shape (rank,) as coefficients of shape (n_features,)."""
        return np.asarray(self.matrix.T @ (self.left @ (coefficients / self.singular_values)))

    def largest_component_at_most(self, vector: np.ndarray, bound: float) -> bool:
        """Whether no component of the vector exceeds the bound once it is written in features.

        Lengths are the same in both spaces and the largest component lies between length / sqrt(p) and length: far from
        the bound nothing needs to be written out.
        """
        length = float(np.linalg.norm(vector))
        if length <= bound or length > bound * np.sqrt(self.matrix.shape[1]):
            return length <= bound
        return bool(np.abs(self.to_features(vector)).max() <= bound)


def row_space(matrix: np.ndarray) -> RowSpace:
    """Row space of a wide matrix from the eigenvectors of its n x n Gram matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix @ matrix.T)
    kept = eigenvalues > eigenvalues[-1] * len(matrix) * np.finfo(float).eps
    return RowSpace(vectors[:, kept], np.sqrt(eigenvalues[kept]), matrix)


def ridge_logistic_coefficients(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of scikit-learn's logistic regression (ridge penalty, C=1, intercept free), found in few dimensions.

    With more features than samples the optimum, and every step of L-BFGS towards it, lies in the row space of `z`: the
    penalty forbids any other part. The same steps are therefore taken there, in at most n dimensions, and stopped where
    scikit-learn would stop in p: recursive elimination is so sensitive to where one stops that a better optimum would
    choose other features.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        0 or 1.

    Returns
    -------
    ndarray of shape (n_features,)
    """
    if z.shape[1] <= z.shape[0]:
        return np.asarray(LogisticRegression(C=1.0).fit(z, y).coef_[0])
    space = row_space(z)
    return space.to_features(_ridge_logistic_in(space, y)[:-1])


def _ridge_logistic_in(space: RowSpace, y: np.ndarray) -> np.ndarray:
    """Coefficients in row-space coordinates, then the intercept: scikit-learn's loss, start, and rules for stopping."""
    coordinates, defaults, penalty = space.coordinates, LogisticRegression(), 1 / len(y)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, linear = parameters[:-1], coordinates @ parameters[:-1] + parameters[-1]
        residual = (expit(linear) - y) / len(y)
        value = np.mean(np.logaddexp(0, linear) - y * linear) + penalty / 2 * weights @ weights
        return float(value), np.append(coordinates.T @ residual + penalty * weights, residual.sum())

    def stop_where_sklearn_would(intermediate_result: OptimizeResult) -> None:
        *_, gradient = loss(intermediate_result.x)
        if abs(gradient[-1]) <= defaults.tol and space.largest_component_at_most(gradient[:-1], defaults.tol):
            raise StopIteration

    options = {"maxiter": defaults.max_iter, "maxls": 50, "gtol": 0.0, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros(coordinates.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", callback=stop_where_sklearn_would, options=options)
    return np.asarray(found.x)
