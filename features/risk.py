"""Models of survival that are shipped: the risk that the event happens by a horizon, from features.

Both are fitted to structured outcomes (:mod:`features.outcome`) and predict as classifiers do, so that they stand wherever a
classifier does: ``predict_proba`` gives the risk by the horizon, ``decision_function`` an order in which higher is worse.
What they hold are plain arrays, and predicting needs numpy alone.

The penalised fit is written here: lifelines 0.30.3 gives the same ridge estimates, but its lasso fails on a repeated column, is
never exactly 0, and its elastic net of 100 features in 90 samples takes 0.4 s, where this takes 0.02 s.

References
----------
Simon et al. 2011, doi:10.18637/jss.v039.i05 (the elastic net, and how its penalty is written).
Chen & Guestrin 2016, doi:10.1145/2939672.2939785 (XGBoost).
Barnwal et al. 2022, doi:10.1080/10618600.2022.2067548 (its accelerated failure times).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_ndtr, ndtr
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from features.outcome import is_survival
from features.partial_likelihood import Derivatives, PartialLikelihood, RiskSets, highest

# The largest slope of an unpenalised fit, per standard deviation. Where every event precedes what it should under the model
# (a monotone likelihood), there is no finite estimate, and a hazard ratio of 22000 says as much.
STEEPEST = 10.0
MOST_STARTS = 10
# Of the logarithm of time: if all events are at one time, any smaller scale fits better, and none is right.
NARROWEST = 1e-2
Distribution = Literal["normal", "logistic"]


def cox_coefficients(X: np.ndarray, y: np.ndarray, penalty: float = 0.0, l1_ratio: float = 0.0) -> np.ndarray:
    """Log hazard ratios per unit of each feature, with an elastic-net penalty; ties by Efron.

    The optimum of ``-log partial likelihood / n + penalty * (l1_ratio * sum |b| + (1 - l1_ratio) / 2 * sum b^2)``, as glmnet
    and lifelines write it. A feature that repeats another never fails. Without a penalty no slope exceeds 10 per
    standard deviation: what a monotone likelihood, which has no finite optimum, comes to.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Finite.
    y : structured ndarray of shape (n_samples,)
    penalty : float
        At least 0; on the features as they are given.
    l1_ratio : float
        0: ridge; 1: lasso.

    Returns
    -------
    ndarray of shape (n_features,)
        Exactly 0 where the lasso leaves a feature out.

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> y = survival_outcome(np.array([1.0, 2, 3, 4]), np.array([1, 1, 1, 0]))
    >>> cox_coefficients(np.array([[1.0], [0], [1], [0]]), y).round(4)
    array([0.9406])
    """
    likelihood = PartialLikelihood(X, y["time"], y["event"])
    ridge, lasso = len(y) * penalty * (1 - l1_ratio), len(y) * penalty * l1_ratio

    def at(coefficients: np.ndarray) -> Derivatives:
        here = likelihood.at(coefficients)
        return Derivatives(
            here.log_likelihood - ridge / 2 * float(coefficients @ coefficients),
            here.score - ridge * coefficients,
            here.information + ridge * np.eye(len(coefficients)),
        )

    with threadpool_limits(1, "blas"):  # many small products, each slower on two threads than on one
        if lasso > 0:
            return _lasso(at, lasso, len(y), X.shape[1])
        spread = X.std(axis=0)
        bound = STEEPEST / np.where(spread > 0, spread, 1.0) if penalty == 0 else np.inf
        return highest(at, np.sqrt(likelihood.scale**2 + ridge), bound)[0]


def _lasso(at: Callable[[np.ndarray], Derivatives], lasso: float, n_samples: int, size: int) -> np.ndarray:
    """Where a concave log-likelihood less ``lasso * sum |b|`` is highest, from 0.

    The coefficients are written as differences of two parts of at least 0, in which the penalty is linear.
    """

    def loss(parts: np.ndarray) -> tuple[float, np.ndarray]:
        here = at(parts[:size] - parts[size:])
        slope = np.concatenate([-here.score, here.score]) + lasso
        return (lasso * float(parts.sum()) - here.log_likelihood) / n_samples, slope / n_samples

    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000}
    parts, value = np.zeros(2 * size), np.inf
    for _ in range(MOST_STARTS):  # where both parts have grown the steps may end too soon: take off what they have in common
        found = minimize(loss, parts, jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * size), options=options)
        if found.fun >= value:
            break
        value, common = found.fun, np.minimum(found.x[:size], found.x[size:])
        parts = found.x - np.concatenate([common, common])
    return np.asarray(parts[:size] - parts[size:])


class _Risk(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Risk by a horizon: what the models have in common."""

    horizon: float | None
    n_features_in_: int

    def fit(self, X: Any, y: np.ndarray) -> Self:
        """Learn from training samples.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Finite.
        y : structured ndarray of shape (n_samples,)
            Fields ``event`` (bool) and ``time`` (float, above 0).

        Raises
        ------
        ValueError
            The outcome is none of survival, or of another length; a time is not above 0; there is no event, or none by the
            horizon.
        """
        matrix = validate_data(self, X, dtype=float, ensure_min_samples=2)
        outcome = _checked(y, len(matrix))
        events = outcome["time"][outcome["event"]]
        self.horizon_ = float(events.max() if self.horizon is None else self.horizon)
        if not self.horizon_ >= events.min():
            raise ValueError(f"No event happened by the horizon of {self.horizon_:g}; nothing can be learnt.")
        self.classes_ = np.array([0, 1])
        self._learn(matrix, outcome)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Order of the samples, shape (n_samples,); higher is worse."""
        return self._order(self._matrix(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability that the event has not, and that it has, happened by the horizon; shape (n_samples, 2)."""
        risk = self._risk(self._order(self._matrix(X)))
        return np.column_stack([1 - risk, risk])

    def predict(self, X: Any) -> np.ndarray:
        """1 where the event is more likely than not to happen by the horizon, else 0; shape (n_samples,)."""
        return (self.predict_proba(X)[:, 1] >= 0.5).astype(int)

    def _matrix(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, dtype=float, reset=False))

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        raise NotImplementedError

    def _order(self, X: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _risk(self, order: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def _checked(y: np.ndarray, n_samples: int) -> np.ndarray:
    if not is_survival(np.asarray(y)):
        raise ValueError("The outcome must be one of survival, with fields event and time; see features.outcome.")
    if len(y) != n_samples:
        raise ValueError(f"There are {n_samples} samples, but {len(y)} outcomes.")
    if not (np.isfinite(y["time"]).all() and (y["time"] > 0).all()):
        raise ValueError("Every follow-up time must be a number above 0.")
    if not y["event"].any():
        raise ValueError("No event happened; nothing can be learnt.")
    return y


class CoxRisk(_Risk):
    """Cox regression with an elastic-net penalty, and the risk by a horizon from Breslow's baseline hazard.

    The penalty is on the features as they are given: bring them to one scale before. Without a penalty it is Cox's
    regression itself (ties by Efron), except that no slope exceeds 10 per standard deviation; behind one score that makes it
    a finite head also where the score orders all events without an error.

    Parameters
    ----------
    horizon : float, optional
        Time by which the risk is given; None: the longest time of an event. Beyond it the last known baseline hazard is kept.
    penalty, l1_ratio : float
        As for :func:`cox_coefficients`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,)
        Log hazard ratio per unit.
    centre_ : ndarray of shape (n_features,)
        Training means: where the log relative hazard is 0.
    baseline_ : float
        Cumulative hazard there by the horizon.
    horizon_ : float

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> y = survival_outcome(np.array([1.0, 2, 3, 4]), np.array([1, 1, 1, 0]))
    >>> model = CoxRisk(horizon=2).fit([[1.0], [0], [1], [0]], y)
    >>> model.decision_function([[0.5], [1.0]]).round(4)  # centred: half the log hazard ratio above the mean
    array([0.    , 0.4703])
    >>> model.predict_proba([[1.0]]).round(4)
    array([[0.3981, 0.6019]])
    """

    def __init__(self, horizon: float | None = None, penalty: float = 0.0, l1_ratio: float = 0.0) -> None:
        self.horizon = horizon
        self.penalty = penalty
        self.l1_ratio = l1_ratio

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        self.coef_ = cox_coefficients(X, y, self.penalty, self.l1_ratio)
        self.centre_ = X.mean(axis=0)
        risk_sets = RiskSets.of(y["time"], y["event"])
        self.baseline_ = risk_sets.cumulative_hazard(self._order(X), y["time"] <= self.horizon_)

    def _order(self, X: np.ndarray) -> np.ndarray:
        return np.asarray((X - self.centre_) @ self.coef_)

    def _risk(self, order: np.ndarray) -> np.ndarray:
        return _risk_of(self.baseline_, order)


class BoostedRisk(_Risk):
    """Gradient-boosted trees for survival: a log relative hazard (Cox), or a time to the event (accelerated failure).

    XGBoost grows the trees; they are then copied into arrays, so that predicting and loading need no XGBoost. Ties are
    Breslow's. The accelerated failure times start from the distribution that fits all samples alike, censoring respected, and
    keep its spread: to estimate it anew from trees that have seen these samples would make every risk too sure.

    Parameters
    ----------
    objective : {"cox", "aft"}
    n_estimators, max_depth : int
    learning_rate, subsample, min_child_weight : float
        As in XGBoost.
    horizon : float, optional
        Time by which the risk is given; None: the longest time of an event.
    distribution : {"normal", "logistic"}
        Of the logarithm of time, for accelerated failure times.
    random_state : int
        Draws the subsamples.

    Attributes
    ----------
    roots_ : ndarray of int, shape (n_trees,)
        Where each tree begins among the nodes.
    feature_, left_, right_ : ndarray of int, shape (n_nodes,)
        Feature that is asked, and where to go below the threshold and else; a leaf leads to itself.
    threshold_ : ndarray of float32, shape (n_nodes,)
    value_ : ndarray of float, shape (n_nodes,)
        Of leaves; 0 elsewhere.
    depth_ : int
        Of the deepest tree.
    offset_ : float
        Cox: mean of the training samples, taken off. Accelerated failure: location of the log time before any tree.
    baseline_ : float
        Cox: cumulative hazard by the horizon where the log relative hazard is 0. Accelerated failure: spread of the log time.

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> y = survival_outcome(np.arange(1.0, 41), np.ones(40))
    >>> model = BoostedRisk(n_estimators=20, learning_rate=0.1, horizon=20).fit(np.arange(40.0)[:, None], y)
    >>> model.predict_proba([[5.0], [35.0]])[:, 1] > 0.5  # early events at low values
    array([ True, False])
    """

    def __init__(
        self,
        objective: Literal["cox", "aft"] = "cox",
        n_estimators: int = 100,
        max_depth: int = 2,
        learning_rate: float = 0.05,
        subsample: float = 1.0,
        min_child_weight: float = 1.0,
        horizon: float | None = None,
        distribution: Distribution = "normal",
        random_state: int = 0,
    ) -> None:
        self.objective = objective
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.min_child_weight = min_child_weight
        self.horizon = horizon
        self.distribution = distribution
        self.random_state = random_state

    def _learn(self, X: np.ndarray, y: np.ndarray) -> None:
        if self.objective == "cox":
            self._plant(self._boosted(X, np.where(y["event"], y["time"], -y["time"]), None, {"objective": "survival:cox"}))
            self.offset_ = float(self._grown(X).mean())
            risk_sets = RiskSets.of(y["time"], y["event"])
            self.baseline_ = risk_sets.cumulative_hazard(self._order(X), y["time"] <= self.horizon_)
            return
        self.offset_, self.baseline_ = log_time(y, self.distribution)
        times = y["time"] / np.exp(self.offset_)  # a start of 1 is exact, whatever the unit
        until = np.where(y["event"], times, np.inf)
        law = {"aft_loss_distribution": self.distribution, "aft_loss_distribution_scale": self.baseline_}
        self._plant(self._boosted(X, times, until, {"objective": "survival:aft", "base_score": 1.0, **law}))

    def _boosted(self, X: np.ndarray, label: np.ndarray, until: np.ndarray | None, parameters: dict[str, Any]) -> Any:
        import xgboost

        # In single precision from here on: it is what the trees are grown on and asked with.
        data = xgboost.DMatrix(X.astype(np.float32), label=None if until is not None else label, nthread=1)
        if until is not None:
            data.set_float_info("label_lower_bound", label)
            data.set_float_info("label_upper_bound", until)
        parameters |= {
            "max_depth": self.max_depth,
            "eta": self.learning_rate,
            "subsample": self.subsample,
            "min_child_weight": self.min_child_weight,
            "seed": self.random_state,
            "nthread": 1,
            "verbosity": 0,
        }
        return xgboost.train(parameters, data, self.n_estimators)

    def _plant(self, booster: Any) -> None:
        """Copy the trees of a booster into arrays, one after the other."""
        trees = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]
        sizes = [len(tree["left_children"]) for tree in trees]
        self.roots_ = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        start = np.repeat(self.roots_, sizes)
        left, right, feature, split = (
            np.concatenate([np.asarray(tree[name]) for tree in trees])
            for name in ("left_children", "right_children", "split_indices", "split_conditions")
        )
        leaf, here = left == -1, np.arange(len(left))
        self.left_, self.right_ = np.where(leaf, here, left + start), np.where(leaf, here, right + start)
        self.feature_ = np.where(leaf, 0, feature).astype(np.int64)
        self.threshold_ = split.astype(np.float32)
        self.value_ = np.where(leaf, self.threshold_, 0.0).astype(float)
        self.depth_ = max(_depth(tree["left_children"], tree["right_children"]) for tree in trees)

    def _grown(self, X: np.ndarray) -> np.ndarray:
        """Sum over the trees of the leaves that samples come to, shape (n_samples,)."""
        single, rows = X.astype(np.float32), np.arange(len(X))[:, None]
        node = np.tile(self.roots_, (len(X), 1))
        for _ in range(self.depth_):
            below = single[rows, self.feature_[node]] < self.threshold_[node]
            node = np.where(below, self.left_[node], self.right_[node])
        return np.asarray(self.value_[node].sum(axis=1))

    def _order(self, X: np.ndarray) -> np.ndarray:
        grown = self._grown(X)
        return grown - self.offset_ if self.objective == "cox" else -(grown + self.offset_)

    def _risk(self, order: np.ndarray) -> np.ndarray:
        if self.objective == "cox":
            return _risk_of(self.baseline_, order)
        z = (np.log(self.horizon_) + order) / self.baseline_
        return np.asarray(ndtr(z) if self.distribution == "normal" else expit(z))


def _risk_of(baseline: float, linear: np.ndarray) -> np.ndarray:
    return -np.expm1(-baseline * np.exp(linear))


def _depth(left: list[int], right: list[int]) -> int:
    """Longest way from the root to a leaf; children come after their parents."""
    depth = np.zeros(len(left), dtype=int)
    for node, (one, other) in enumerate(zip(left, right, strict=True)):
        if one != -1:
            depth[[one, other]] = depth[node] + 1
    return int(depth.max())


def log_time(y: np.ndarray, distribution: Distribution) -> tuple[float, float]:
    """Location and scale of the logarithm of time to the event, all samples alike: maximum likelihood with censoring.

    Parameters
    ----------
    y : structured ndarray of shape (n_samples,)
    distribution : {"normal", "logistic"}

    Examples
    --------
    >>> from features.outcome import survival_outcome
    >>> y = survival_outcome(np.array([1.0, 10.0, 100.0]), np.ones(3))
    >>> np.round(log_time(y, "normal"), 4)  # mean and standard deviation (ddof 0) of the logarithms
    array([2.3026, 1.8801])
    """
    logs, event = np.log(y["time"]), y["event"]

    def loss(parameters: np.ndarray) -> float:
        z = (logs - parameters[0]) / np.exp(parameters[1])
        if distribution == "normal":
            density, survival = -(z**2) / 2, log_ndtr(-z)
        else:
            density, survival = log_expit(z) + log_expit(-z), log_expit(-z)
        return -float(np.where(event, density - parameters[1], survival).mean())

    start = np.array([logs.mean(), np.log(max(logs.std(), NARROWEST))])
    bounds = [(None, None), (np.log(NARROWEST), None)]
    location, scale = minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-8}).x
    return float(location), float(np.exp(scale))
