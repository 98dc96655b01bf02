"""Cox regression: hazard ratios of groups and of covariates, and what covariates add to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2 as chi_square
from scipy.stats import norm

from features.errors import InputError
from features.partial_likelihood import PartialLikelihood
from training.survival.checks import check_groups, check_outcome
from training.survival.design import Design, design_of
from training.survival.discrimination import Measure, harrell_c

FEW_PATIENTS = 10
FEW_EVENTS = 10
FARTHEST = 60.0  # a log hazard ratio that no data bring about


@dataclass(frozen=True)
class HazardRatio:
    """Hazard of one group over that of another.

    Attributes
    ----------
    value : float or None
        Above one where the second group (True, or the last label in order) does worse. None where it is not estimable.
    lower, upper : float or None
        Interval of level `level`.
    p_value : float or None
        Two-sided, of a ratio of one: Wald's test, or the penalised likelihood-ratio test.
    method : {"wald", "firth"} or None
        "firth": the plain likelihood has no maximum, as where a group has no event; the estimate is shrunk so that it exists.
    reason : str or None
        Why there is no value, or what to bear in mind with it.
    level : float
    """

    value: float | None
    lower: float | None
    upper: float | None
    p_value: float | None
    method: Literal["wald", "firth"] | None
    reason: str | None
    level: float = 0.95

    def __str__(self) -> str:
        if self.value is None:
            return str(self.reason)
        return f"{self.value:.3g} ({self.lower:.3g} to {self.upper:.3g})"


def hazard_ratio(time: np.ndarray, event: np.ndarray, group: np.ndarray, *, level: float = 0.95) -> HazardRatio:
    """Hazard ratio of two groups, by Cox regression with Efron's rule for ties.

    Where the likelihood has no maximum, as where a group has no event, Firth's penalised likelihood is maximised instead and
    its profile gives the interval.

    Parameters
    ----------
    time, event : array-like of shape (n_patients,)
        Follow-up above zero, 1 for an event.
    group : array-like of shape (n_patients,)
        Two labels; the later in order (True, 1) is compared with the earlier.

    Raises
    ------
    InputError
        The outcome cannot be used, nobody had the event, or there are not two groups.

    References
    ----------
    Firth 1993, doi:10.1093/biomet/80.1.27; in Cox regression: Heinze & Schemper 2001, doi:10.1111/j.0006-341X.2001.00114.x.

    Examples
    --------
    >>> time, event = np.arange(1, 9), np.ones(8)
    >>> print(hazard_ratio(time, event, np.array([True, False, True, True, False, True, False, False])))
    3.1 (0.551 to 17.4)
    >>> hazard_ratio(time, np.array([1, 1, 0, 0, 1, 0, 0, 0]), np.array([1, 1, 1, 1, 1, 0, 0, 0])).method
    'firth'
    """
    time, event = check_outcome(time, event)
    labels, codes = check_groups(group, len(time), exactly=2)
    likelihood = PartialLikelihood(codes[:, None].astype(float), time, event)
    few = _few_patients(labels, codes)
    beta = likelihood.maximum()
    if beta is not None:
        return _wald(likelihood, float(beta[0]), few, level)
    if likelihood.is_flat_at(np.zeros(1)):
        return HazardRatio(None, None, None, None, None, "not estimable: no event while both groups were at risk", level)
    return _firth(likelihood, "; ".join([_why_not(labels, codes, event), *([few] if few else [])]), level)


@dataclass(frozen=True)
class ChiSquare:
    """A test whose statistic follows a chi-square distribution."""

    chi2: float
    df: int
    p_value: float


@dataclass(frozen=True)
class CoxFit:
    """A Cox model.

    Attributes
    ----------
    table : DataFrame of shape (n_columns, 7)
        By column of the covariates: coefficient, hazard_ratio (of one unit more), lower, upper, se (of the coefficient), z,
        p_value (Wald, two-sided).
    log_likelihood, null_log_likelihood : float
        Of the model, and without covariates.
    likelihood_ratio, score, wald : ChiSquare
        Whether any covariate matters.
    concordance : Measure
        Harrell's, of the linear predictor in the patients it was fitted to.
    n, events : int
        Complete cases, and events among them.
    notes : tuple of str
        What a reader must know: patients left out, few events for so many covariates.
    design : Design
        What was fitted.
    time : ndarray of shape (n,)
    event : ndarray of shape (n,), bool
    """

    table: pd.DataFrame
    log_likelihood: float
    null_log_likelihood: float
    likelihood_ratio: ChiSquare
    score: ChiSquare
    wald: ChiSquare
    concordance: Measure
    n: int
    events: int
    notes: tuple[str, ...]
    design: Design
    time: np.ndarray
    event: np.ndarray


@dataclass(frozen=True)
class AddedValue:
    """What further covariates add to a Cox model, all in the patients it was fitted to.

    Attributes
    ----------
    chi2, df, p_value
        Likelihood-ratio test of the larger model against the smaller.
    c_index_base, c_index_both : float
        Harrell's concordance of either model; 0.5 without a covariate.
    difference : float
        Of the two. As both were learnt from the same patients it flatters the larger model.
    n, events : int
        Patients who have all covariates, and events among them.
    """

    chi2: float
    df: int
    p_value: float
    c_index_base: float
    c_index_both: float
    difference: float
    n: int
    events: int


def cox(covariates: pd.DataFrame, time: np.ndarray, event: np.ndarray, *, level: float = 0.95) -> CoxFit:
    """Cox regression with Efron's rule for ties, as ``survival::coxph`` of R.

    Parameters
    ----------
    covariates : DataFrame of shape (n_patients, n_covariates)
        Numbers as they are; booleans, text and categories as one column per level but the first. Patients without a value of
        every covariate are left out, and `notes` says how many.
    time, event : array-like of shape (n_patients,)
        Follow-up above zero, 1 for an event.
    level : float
        Of the intervals.

    Raises
    ------
    InputError
        The outcome cannot be used, nobody had the event, a covariate is constant or follows from others, or the likelihood has
        no maximum.

    References
    ----------
    Cox 1972, doi:10.1111/j.2517-6161.1972.tb00899.x; ties: Efron 1977, doi:10.1080/01621459.1977.10480613.

    Examples
    --------
    >>> covariates = pd.DataFrame({"stage": ["I", "II", "II", "I", "II", "I"], "dose": [2.0, 1, 3, 2, 1, 3]})
    >>> cox(covariates, np.array([5, 2, 3, 1, 4, 6]), np.array([1, 1, 1, 1, 0, 0])).table["hazard_ratio"].round(3).to_dict()
    {'stage=II': 1.501, 'dose': 0.805}
    """
    time, event = np.asarray(time), np.asarray(event)
    design = design_of(covariates)
    if len(time) != len(covariates):
        raise InputError(f"There are {len(covariates)} rows of covariates and {len(time)} times; give one of each per patient.")
    time, event = check_outcome(time[design.complete], event[design.complete])
    likelihood = PartialLikelihood(design.columns.to_numpy(), time, event)
    beta = likelihood.maximum()
    if beta is None:
        raise InputError(_no_maximum(design.columns, time, event))
    at_maximum, at_zero = likelihood.at(beta), likelihood.at(np.zeros(len(beta)))
    few = int(event.sum()) < FEW_EVENTS * len(beta)
    notes = (f"{int(event.sum())} events for {len(beta)} coefficients, fewer than {FEW_EVENTS} each: they are unstable",)
    return CoxFit(
        table=_coefficients(beta, at_maximum.information, design.columns.columns, level),
        log_likelihood=at_maximum.log_likelihood,
        null_log_likelihood=at_zero.log_likelihood,
        likelihood_ratio=_tested(2 * (at_maximum.log_likelihood - at_zero.log_likelihood), len(beta)),
        score=_tested(float(at_zero.score @ np.linalg.solve(at_zero.information, at_zero.score)), len(beta)),
        wald=_tested(float(beta @ at_maximum.information @ beta), len(beta)),
        concordance=harrell_c(time, event, design.columns.to_numpy() @ beta),
        n=len(time),
        events=int(event.sum()),
        notes=design.notes + (notes if few else ()),
        design=design,
        time=time,
        event=event,
    )


def added_value(base: pd.DataFrame | None, more: pd.DataFrame, time: np.ndarray, event: np.ndarray) -> AddedValue:
    """What covariates tell beyond others, in the patients who have them all.

    Parameters
    ----------
    base : DataFrame of shape (n_patients, n_base), optional
        Covariates that are known already; none when left out.
    more : DataFrame of shape (n_patients, n_more)
        Covariates that may add to them, in the same order of patients and under other names.
    time, event : array-like of shape (n_patients,)

    Raises
    ------
    InputError
        As ``cox``, or a name is in both.

    Examples
    --------
    >>> more = pd.DataFrame({"dose": [2.0, 1, 3, 2, 1, 3]})
    >>> found = added_value(None, more, np.array([5, 2, 3, 1, 4, 6]), np.array([1, 1, 1, 1, 0, 0]))
    >>> round(found.chi2, 4), found.df, round(found.c_index_both, 4)
    (0.2332, 1, 0.5769)
    """
    known = pd.DataFrame(index=more.index) if base is None else base.reset_index(drop=True)
    more = more.reset_index(drop=True)
    doubled = known.columns.intersection(more.columns)
    if len(doubled):
        raise InputError(f"Covariate {doubled[0]!r} is both among the known and among the added ones; name it once.")
    both = cox(pd.concat([known.set_axis(more.index), more], axis=1), time, event)
    if base is None:
        smaller, c_index_base, df = both.null_log_likelihood, 0.5, len(both.table)
    else:
        fit = cox(known[both.design.complete], both.time, both.event)
        smaller, c_index_base, df = fit.log_likelihood, float(fit.concordance), len(both.table) - len(fit.table)
    test, c_index_both = _tested(2 * (both.log_likelihood - smaller), df), float(both.concordance)
    return AddedValue(test.chi2, df, test.p_value, c_index_base, c_index_both, c_index_both - c_index_base, both.n, both.events)


def _coefficients(beta: np.ndarray, information: np.ndarray, names: pd.Index, level: float) -> pd.DataFrame:
    error = np.sqrt(np.diag(np.linalg.inv(information)))
    half = norm.ppf((1 + level) / 2) * error
    columns = {
        "coefficient": beta,
        "hazard_ratio": np.exp(beta),
        "lower": np.exp(beta - half),
        "upper": np.exp(beta + half),
        "se": error,
        "z": beta / error,
        "p_value": 2 * norm.sf(np.abs(beta / error)),
    }
    return pd.DataFrame(columns, index=names)


def _tested(chi2: float, df: int) -> ChiSquare:
    return ChiSquare(max(float(chi2), 0.0), df, float(chi_square.sf(chi2, df)))


def _no_maximum(columns: pd.DataFrame, time: np.ndarray, event: np.ndarray) -> str:
    alone = [name for name in columns if PartialLikelihood(columns[[name]].to_numpy(), time, event).maximum() is None]
    which = f"{alone[0]!r} parts" if alone else f"a combination of {', '.join(map(repr, columns))} parts"
    return (
        f"The Cox model has no finite coefficients: {which} the events from the other patients; leave it out, join its levels, "
        "or compare two groups by hazard_ratio, which shrinks the estimate."
    )


def _few_patients(labels: np.ndarray, codes: np.ndarray) -> str | None:
    counts = np.bincount(codes)
    smallest = int(np.argmin(counts))
    if counts[smallest] >= FEW_PATIENTS:
        return None
    return f"group {labels[smallest]} has {counts[smallest]} patients, fewer than {FEW_PATIENTS}: the ratio is unstable"


def _why_not(labels: np.ndarray, codes: np.ndarray, event: np.ndarray) -> str:
    without = labels[np.bincount(codes[event], minlength=2) == 0]
    if len(without):
        return f"group {without[0]} has no event, so that the plain ratio is zero or infinite"
    return "all events of one group come before those of the other, so that the plain ratio is zero or infinite"


def _wald(likelihood: PartialLikelihood, beta: float, reason: str | None, level: float) -> HazardRatio:
    error = float(likelihood.at(np.array([beta])).information[0, 0]) ** -0.5
    half = float(norm.ppf((1 + level) / 2)) * error
    p_value = float(2 * norm.sf(abs(beta / error)))
    value, lower, upper = np.exp([beta, beta - half, beta + half]).tolist()
    return HazardRatio(value, lower, upper, p_value, "wald", reason, level)


def _firth(likelihood: PartialLikelihood, reason: str, level: float) -> HazardRatio:
    """Maximum of the likelihood times the root of its information (Jeffreys' prior), with its profile interval."""

    def height(beta: float) -> float:
        here = likelihood.at(np.array([beta]))
        # Beyond what numbers can tell the information from zero, its logarithm falls on as a straight line.
        return here.log_likelihood + 0.5 * float(np.log(max(here.information[0, 0], np.exp(-abs(beta) - FARTHEST))))

    beta = float(minimize_scalar(lambda at: -height(at), bounds=(-FARTHEST / 4, FARTHEST / 4), options={"xatol": 1e-10}).x)
    drop = height(beta) - float(chi_square.ppf(level, 1)) / 2
    lower, upper = (float(brentq(lambda at: height(at) - drop, beta, beta + side * FARTHEST / 2)) for side in (-1, 1))
    p_value = float(chi_square.sf(2 * (height(beta) - height(0.0)), 1))
    value, lower, upper = np.exp([beta, lower, upper]).tolist()
    return HazardRatio(value, lower, upper, p_value, "firth", reason, level)
