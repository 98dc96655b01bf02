"""Whether hazards stay proportional over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import chi2 as chi_square
from scipy.stats import rankdata

from features.partial_likelihood import PartialLikelihood
from training.survival.cox import CoxFit
from training.survival.curves import kaplan_meier

TimeScale = Literal["km", "identity", "log", "rank"]


@dataclass(frozen=True)
class ProportionalHazards:
    """A check of proportional hazards.

    Attributes
    ----------
    table : DataFrame
        By covariate, then GLOBAL: chi2, df, p_value. A small p-value speaks against proportional hazards; a large one shows
        little where events are few.
    residuals : DataFrame of shape (n_events, n_columns)
        Scaled Schoenfeld residuals plus the coefficient, in order of time: how the coefficient changes over time.
    time : ndarray of shape (n_events,)
        Of each event, ascending.
    scaled_time : ndarray of shape (n_events,)
        The same on the scale of the test.
    transform : {"km", "identity", "log", "rank"}
    """

    table: pd.DataFrame
    residuals: pd.DataFrame
    time: np.ndarray
    scaled_time: np.ndarray
    transform: TimeScale


def proportional_hazards(fit: CoxFit, transform: TimeScale = "km") -> ProportionalHazards:
    """Score test of a coefficient that changes with time, as ``survival::cox.zph`` of R from version 3.

    The older test, which lifelines has, approximates the information at each event by its mean and differs from this one.

    Parameters
    ----------
    fit : CoxFit
    transform : {"km", "identity", "log", "rank"}
        Scale of time on which the coefficient may change: one less Kaplan-Meier's estimate just before, time itself, its
        logarithm or its rank.

    References
    ----------
    Grambsch & Therneau 1994, doi:10.1093/biomet/81.3.515.

    Examples
    --------
    >>> from training.survival.cox import cox
    >>> covariates = pd.DataFrame({"dose": [2.0, 1, 3, 2, 1, 3]})
    >>> fit = cox(covariates, np.array([5, 2, 3, 1, 4, 6]), np.array([1, 1, 1, 1, 0, 0]))
    >>> proportional_hazards(fit, "identity").table["chi2"].round(4).to_dict()
    {'dose': 0.0758, 'GLOBAL': 0.0758}
    """
    likelihood = PartialLikelihood(fit.design.columns.to_numpy(), fit.time, fit.event)
    scale = _scaled(fit.time, fit.event, transform)
    struck = likelihood.risk_sets.order[likelihood.risk_sets.event]
    own, chosen = scale[struck], likelihood.X[likelihood.risk_sets.event]
    beta = fit.table["coefficient"].to_numpy()
    moments = likelihood.moments(beta)
    distance = chosen - moments.mean
    centred = own - own.mean()
    information = _information(moments.variance, centred)
    p = len(beta)
    scaled = np.linalg.solve(information[:p, :p] / len(own), _mean_of_tied(distance, chosen, fit.time[struck]).T).T + beta
    return ProportionalHazards(
        table=_tests(centred @ distance, information, _positions(fit)),
        residuals=pd.DataFrame(scaled, columns=fit.table.index),
        time=fit.time[struck],
        scaled_time=own,
        transform=transform,
    )


def _scaled(time: np.ndarray, event: np.ndarray, transform: TimeScale) -> np.ndarray:
    if transform == "km":
        curve = kaplan_meier(time, event)
        before = np.searchsorted(curve.times, time, side="left")
        return np.asarray(1 - np.r_[1.0, curve.survival][before])
    return np.asarray({"identity": np.asarray, "log": np.log, "rank": rankdata}[transform](time), dtype=float)


def _information(variance: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Of the coefficients and of their changes with time, shape (2 n_columns, 2 n_columns)."""
    plain, mixed, squared = (np.tensordot(scale**power, variance, axes=1) for power in range(3))
    return np.block([[plain, mixed], [mixed, squared]])


def _positions(fit: CoxFit) -> dict[str, list[int]]:
    names = list(fit.table.index)
    terms = {term: [names.index(column) for column in columns] for term, columns in fit.design.terms.items()}
    return {**terms, "GLOBAL": list(range(len(names)))}


def _tests(score: np.ndarray, information: np.ndarray, positions: dict[str, list[int]]) -> pd.DataFrame:
    p, rows = len(score), {}
    for term, own in positions.items():
        chosen = [*range(p), *(p + position for position in own)]
        padded = np.r_[np.zeros(p), score[own]]
        chi2 = float(padded @ np.linalg.solve(information[np.ix_(chosen, chosen)], padded))
        rows[term] = {"chi2": chi2, "df": len(own), "p_value": float(chi_square.sf(chi2, len(own)))}
    return pd.DataFrame.from_dict(rows, orient="index")


def _mean_of_tied(distance: np.ndarray, chosen: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Residuals from the mean of the risk sets at one time, which ties make several."""
    _, codes = np.unique(time, return_inverse=True)
    counts = np.bincount(codes)[:, None]
    expected = np.zeros((len(counts), distance.shape[1]))
    np.add.at(expected, codes, chosen - distance)
    return np.asarray(chosen - (expected / counts)[codes])
