"""Cox's partial likelihood with Efron's rule for ties: risk sets, value, derivatives and maximum.

All that is fitted by it stands here on one footing: the models that are shipped (:mod:`features.risk`), selectors, and the
hazard ratios and checks that are reported. lifelines fits the same model, but it does not give the derivatives on which the
score test, the check of proportional hazards and Firth's penalty stand.

References
----------
Cox 1972, doi:10.1111/j.2517-6161.1972.tb00899.x.
Efron 1977, doi:10.1080/01621459.1977.10480613 (tied events).
Breslow 1974, doi:10.2307/2529620 (the baseline hazard).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOST_STEPS, MOST_HALVINGS = 100, 40
SETTLED = 1e-10  # of a step in standard errors; Newton's next one would be its square
# Share of the covariates' variance that is left in the risk sets: below the first the likelihood only creeps up for ever, below
# the second its curvature is rounding, as along a feature that repeats another.
FLATTEST, SINGULAR = 1e-9, 1e-12
# Where log relative hazards lie, the greatest and (if they spread so far) the least: exponentials, their inverses and their
# products with squared covariates still are numbers.
GREATEST, LEAST = 500.0, -600.0


@dataclass(frozen=True)
class RiskSets:
    """Who was at risk when.

    Attributes
    ----------
    order : ndarray of int, shape (n_samples,)
        Samples by time; every other array is in this order.
    event : ndarray of bool, shape (n_samples,)
    starts : ndarray of int, shape (n_times,)
        Position of the first sample of each time: it and all after it are at risk.
    moment : ndarray of int, shape (n_samples,)
        Which of those times is the sample's.
    tied : ndarray of float, shape (n_samples,)
        Of an event, how many others of its time come before it, over how many events that time has (Efron); else 0.
    """

    order: np.ndarray
    event: np.ndarray
    starts: np.ndarray
    moment: np.ndarray
    tied: np.ndarray

    @classmethod
    def of(cls, time: np.ndarray, event: np.ndarray) -> RiskSets:
        """Risk sets of follow-up times and events (bool)."""
        order = np.argsort(time, kind="stable")
        event = event[order]
        _, starts, moment = np.unique(time[order], return_index=True, return_inverse=True)
        seen = np.cumsum(event)
        before, together = (seen - event) - (seen - event)[starts][moment], np.add.reduceat(event.astype(int), starts)[moment]
        return cls(order, event, starts, moment, np.where(event, before / np.maximum(together, 1), 0.0))

    def at_risk(self, weight: np.ndarray) -> np.ndarray:
        """Sum of weights over those at risk at each sample's time, less the share of the tied events that come before it.

        Parameters
        ----------
        weight : ndarray of shape (n_samples, ...)
            Sorted by `order`.

        Returns
        -------
        ndarray of the same shape
            Of use at events.
        """
        total = np.cumsum(weight[::-1], axis=0)[::-1][self.starts][self.moment]
        return np.asarray(total - _times(self.tied, self.of_a_time(_times(self.event, weight))))

    def of_a_time(self, values: np.ndarray) -> np.ndarray:
        """Sum over the samples of the same time: not by cumulative sums, whose differences lose what is small."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=0)[self.moment])

    def cumulative_hazard(self, linear: np.ndarray, among: np.ndarray) -> float:
        """Breslow's estimate of the cumulative hazard of a sample whose log relative hazard is 0.

        Parameters
        ----------
        linear : ndarray of shape (n_samples,)
            Log relative hazards, in the order in which the samples were given.
        among : ndarray of bool, shape (n_samples,)
            Samples whose events count: those by the horizon.
        """
        at_risk = np.cumsum(np.exp(linear[self.order])[::-1])[::-1][self.starts][self.moment]
        return float(np.sum((self.event & among[self.order]) / at_risk))


@dataclass(frozen=True)
class Derivatives:
    """A log-likelihood at one point.

    Attributes
    ----------
    log_likelihood : float
    score : ndarray of shape (n_covariates,)
    information : ndarray of shape (n_covariates, n_covariates)
        Minus the second derivative.
    """

    log_likelihood: float
    score: np.ndarray
    information: np.ndarray


@dataclass(frozen=True)
class Moments:
    """The covariates among those at risk, one entry per event, in order of time.

    Tied events are taken one after the other; each earlier one has left in part (Efron), so that the entries of one time differ.

    Attributes
    ----------
    mean : ndarray of shape (n_events, n_covariates)
    variance : ndarray of shape (n_events, n_covariates, n_covariates)
    """

    mean: np.ndarray
    variance: np.ndarray


class PartialLikelihood:
    """The partial likelihood of a proportional-hazards model.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_covariates)
        Finite numbers.
    time : ndarray of shape (n_samples,)
    event : ndarray of shape (n_samples,), bool

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_covariates)
        Less its mean, sorted by ``risk_sets.order``.
    risk_sets : RiskSets
    scale : ndarray of shape (n_covariates,)
        One over the standard error that each coefficient would have at best; 1 for a constant.

    Examples
    --------
    >>> X, time, event = np.array([[1.0], [0], [1], [0]]), np.array([1.0, 2, 3, 4]), np.array([True, True, True, False])
    >>> likelihood = PartialLikelihood(X, time, event)
    >>> float(np.exp(likelihood.maximum()[0]).round(4))
    2.5616
    """

    def __init__(self, X: np.ndarray, time: np.ndarray, event: np.ndarray) -> None:
        self.risk_sets = RiskSets.of(time, event)
        self.X = (X - X.mean(axis=0))[self.risk_sets.order]
        most_information = event.sum() * self.X.var(axis=0)
        self.scale = np.sqrt(np.where(most_information > 0, most_information, 1.0))

    def at(self, beta: np.ndarray) -> Derivatives:
        """Log-likelihood, score and information at some coefficients."""
        sets, event = self.risk_sets, self.risk_sets.event
        log_hazard, hazard = relative_hazards(self.X @ beta)
        at_risk = sets.at_risk(hazard)
        share = np.where(event, 1 / at_risk, 0.0)
        until = np.cumsum(np.add.reduceat(share, sets.starts))[sets.moment]
        expected = hazard * (until - np.where(event, sets.of_a_time(share * sets.tied), 0.0))
        mean = (sets.at_risk(hazard[:, None] * self.X) / at_risk[:, None])[event]
        return Derivatives(
            log_likelihood=float((log_hazard - np.log(at_risk))[event].sum()),
            score=self.X.T @ (event - expected),
            information=(self.X.T * expected) @ self.X - mean.T @ mean,
        )

    def moments(self, beta: np.ndarray) -> Moments:
        """Means and variances of the covariates among those at risk at each event."""
        event, (_, hazard) = self.risk_sets.event, relative_hazards(self.X @ beta)
        of_pairs = self.X[:, :, None] * self.X[:, None, :]
        total, mean, square = (
            self.risk_sets.at_risk(_times(hazard, of))[event] for of in (np.ones(len(hazard)), self.X, of_pairs)
        )
        mean = _times(1 / total, mean)
        return Moments(mean, _times(1 / total, square) - mean[:, :, None] * mean[:, None, :])

    def maximum(self) -> np.ndarray | None:
        """Coefficients of highest likelihood, shape (n_covariates,); None where it has no maximum.

        It has none where some combination of covariates always is highest in whom the event strikes (monotone likelihood), or
        where one covariate follows from the others.
        """
        beta, at_top = highest(self.at, self.scale)
        return beta if at_top and not self.is_flat_at(beta) else None

    def is_flat_at(self, beta: np.ndarray) -> bool:
        """Whether the likelihood tells next to nothing of some combination of the coefficients there."""
        information = self.at(beta).information / np.outer(self.scale, self.scale)
        return bool(np.linalg.eigvalsh(information)[0] < FLATTEST)


def relative_hazards(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log relative hazards along the last axis, and hazards; their unit, which cancels, leaves room for both ends."""
    linear = linear - linear.max(axis=-1, keepdims=True) + GREATEST
    return linear, np.exp(np.maximum(linear, LEAST))


def highest(
    at: Callable[[np.ndarray], Derivatives], scale: np.ndarray, bound: np.ndarray | float = np.inf
) -> tuple[np.ndarray, bool]:
    """Where a concave log-likelihood is highest, by Newton's steps from 0, halved until they lead up.

    Parameters
    ----------
    at : function of ndarray of shape (n_covariates,)
    scale : ndarray of shape (n_covariates,)
        Per coefficient the inverse of a length that is small: about one over its standard error.
    bound : ndarray of shape (n_covariates,) or float
        Beyond which, on either side, no coefficient goes.

    Returns
    -------
    ndarray of shape (n_covariates,)
    bool
        Whether it is at the top; else the steps ended at the bound, or where numbers do not tell up from down.
    """
    beta = np.zeros(len(scale))
    here = at(beta)
    for _ in range(MOST_STEPS):
        before, step = beta, _newton_step(here, scale)
        beta, here = _climbed(at, beta, here, step, bound)
        small = SETTLED * (1 + np.abs(beta) * scale)
        if (np.abs(beta - before) * scale <= small).all():
            return beta, bool((np.abs(step) * scale <= small).all())
    return beta, False


def _newton_step(here: Derivatives, scale: np.ndarray) -> np.ndarray:
    """The step to the top of the parabola, in those directions in which it is one."""
    curvatures, directions = np.linalg.eigh(here.information / np.outer(scale, scale))
    curved = curvatures > SINGULAR
    along = directions.T @ (here.score / scale)
    return np.asarray(directions @ np.where(curved, along / np.where(curved, curvatures, 1.0), 0.0) / scale)


def _climbed(
    at: Callable[[np.ndarray], Derivatives], beta: np.ndarray, here: Derivatives, step: np.ndarray, bound: np.ndarray | float
) -> tuple[np.ndarray, Derivatives]:
    """The end of the step, or of the longest half, quarter and so on of it, that is no lower; where it began if there is none."""
    slack = 1e-12 * (1 + abs(here.log_likelihood))
    for _ in range(MOST_HALVINGS):
        reached = np.clip(beta + step, -bound, bound)
        there = at(reached)
        if there.log_likelihood >= here.log_likelihood - slack:
            return reached, there
        step = step / 2
    return beta, here


def _times(factor: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Each row times its factor."""
    return np.asarray(factor.reshape(-1, *[1] * (of.ndim - 1)) * of)
