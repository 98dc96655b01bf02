"""Cox's partial likelihood with Efron's rule for ties, its derivatives and its maximum.

lifelines fits the same model. Here the likelihood itself is asked for as well: the score test, the check of proportional
hazards and Firth's penalty stand on its derivatives, which lifelines does not give, and a fit takes a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve

STEPS = 100
HALVINGS = 40
CONVERGED = 1e-10  # of a step in standard errors at the start; Newton's next one would be its square
FLATTEST = 1e-9  # share of the covariates' variance that is left in the risk sets where the likelihood only creeps up for ever


@dataclass(frozen=True)
class Derivatives:
    """A partial likelihood at one point.

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
class RiskSets:
    """Means and variances of the covariates among those at risk, one entry per event, the latest first.

    Tied events are taken one after the other; each earlier one has left in part (Efron), so that the entries of one time differ.

    Attributes
    ----------
    log_total : ndarray of shape (n_events,)
        Logarithm of the summed relative hazards.
    mean : ndarray of shape (n_events, n_covariates)
    variance : ndarray of shape (n_events, n_covariates, n_covariates)
    """

    log_total: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class PartialLikelihood:
    """The partial likelihood of a proportional-hazards model.

    Parameters
    ----------
    X : ndarray of shape (n_patients, n_covariates)
        Finite numbers.
    time : ndarray of shape (n_patients,)
    event : ndarray of shape (n_patients,), bool

    References
    ----------
    Efron 1977, doi:10.1080/01621459.1977.10480613.

    Examples
    --------
    >>> X, time, event = np.array([[1.0], [0], [1], [0]]), np.array([1.0, 2, 3, 4]), np.array([True, True, True, False])
    >>> likelihood = PartialLikelihood(X, time, event)
    >>> float(np.exp(likelihood.maximum()[0]).round(4))
    2.5616
    """

    def __init__(self, X: np.ndarray, time: np.ndarray, event: np.ndarray) -> None:
        order = np.lexsort((event, -time))  # latest first; the order of the events at one time is of no weight
        self.order, self.event = order, event[order]
        self.centre = X.mean(axis=0)
        self.X, self.time = X[order] - self.centre, time[order]
        self.dead = np.flatnonzero(self.event)
        self.least_information = FLATTEST * len(self.dead) * self.X.var(axis=0)
        self._last = np.searchsorted(-self.time, -self.time[self.dead], side="right") - 1
        first = np.searchsorted(-self.time[self.dead], -self.time[self.dead], side="left")
        until = np.searchsorted(-self.time[self.dead], -self.time[self.dead], side="right")
        self._first, self._until = first, until - 1
        self.gone = (np.arange(len(self.dead)) - first) / np.maximum(until - first, 1)

    def risk_sets(self, beta: np.ndarray) -> RiskSets:
        """Moments of the covariates among those at risk at each event, latest event first."""
        exponent = self.X @ beta
        highest = exponent.max()
        hazard = np.exp(exponent - highest)
        outer = self.X[:, :, None] * self.X[:, None, :]
        total = self._at_risk(hazard)
        mean = self._at_risk(hazard[:, None] * self.X) / total[:, None]
        square = self._at_risk(hazard[:, None, None] * outer) / total[:, None, None]
        return RiskSets(np.log(total) + highest, mean, square - mean[:, :, None] * mean[:, None, :])

    def at(self, beta: np.ndarray) -> Derivatives:
        """Log-likelihood, score and information at some coefficients."""
        sets = self.risk_sets(beta)
        chosen = self.X[self.dead]
        log_likelihood = float((chosen @ beta - sets.log_total).sum())
        return Derivatives(log_likelihood, (chosen - sets.mean).sum(axis=0), sets.variance.sum(axis=0))

    def maximum(self) -> np.ndarray | None:
        """Coefficients of highest likelihood, shape (n_covariates,); None where it has no maximum.

        It has none where some combination of covariates always is highest in whom the event strikes (monotone likelihood), or
        where one covariate follows from the others.
        """
        beta = np.zeros(self.X.shape[1])
        here = self.at(beta)
        at_first = np.diag(here.information)
        for _ in range(STEPS):
            step = _newton_step(here, self.least_information)
            if step is None:
                return None
            beta, here = self._climb(beta, step, here)
            if (np.abs(step) * np.sqrt(at_first) < CONVERGED * (1 + np.abs(beta) * np.sqrt(at_first))).all():
                return beta
        return None

    def _climb(self, beta: np.ndarray, step: np.ndarray, here: Derivatives) -> tuple[np.ndarray, Derivatives]:
        slack = 1e-12 * (1 + abs(here.log_likelihood))
        for _ in range(HALVINGS):
            there = self.at(beta + step)
            if there.log_likelihood >= here.log_likelihood - slack:
                break
            step = step / 2
        return beta + step, there

    def _at_risk(self, of: np.ndarray) -> np.ndarray:
        """Sum of a quantity over those at risk, less the share of the tied events that has left, per event."""
        summed = np.cumsum(of, axis=0)[self._last]
        tied = np.cumsum(of[self.dead], axis=0)
        before = np.where(self._first > 0, self._first - 1, 0)
        leaving = tied[self._until] - _times(self._first > 0, tied[before])
        return np.asarray(summed - _times(self.gone, leaving))


def _times(factor: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.asarray(factor.reshape(-1, *[1] * (of.ndim - 1)) * of)


def _newton_step(here: Derivatives, least: np.ndarray) -> np.ndarray | None:
    """The step to the top of the parabola; None where the likelihood has become flat in some direction."""
    diagonal = np.diag(here.information)
    if not (diagonal > least).all():
        return None
    scale = np.sqrt(diagonal)
    correlation = here.information / np.outer(scale, scale)
    if np.linalg.eigvalsh(correlation)[0] < FLATTEST:
        return None
    return np.asarray(solve(correlation, here.score / scale, assume_a="pos") / scale)
