"""Agreement of two biomarkers, as classes and as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact, norm, spearmanr
from scipy.stats.contingency import odds_ratio

from features.errors import InputError

FEWEST_PATIENTS = 4


@dataclass(frozen=True)
class Fourfold:
    """Patients by what two biomarkers call them.

    Attributes
    ----------
    both, genes_only, neither, imaging_only : int
        Called more hypoxic by both, by the genes alone, by neither, by imaging alone: groups 1 to 4 of Fjeldbo et al. 2020.
    agreement : float
        Share of patients whom the two call alike.
    fisher_p : float
        Fisher's exact test, two-sided: whether the calls are related at all.
    odds_ratio : float or None
        Its conditional maximum-likelihood estimate, as R gives it; infinite where a cell of disagreement is empty, None where a
        biomarker calls all patients alike.
    kappa : float or None
        Cohen's: agreement beyond chance, 1 where complete, 0 where by chance. None where both call all patients alike.
    """

    both: int
    genes_only: int
    neither: int
    imaging_only: int
    agreement: float
    fisher_p: float
    odds_ratio: float | None
    kappa: float | None


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its interval."""

    value: float
    lower: float
    upper: float
    p_value: float
    n: int


def fourfold(imaging: np.ndarray, genes: np.ndarray) -> Fourfold:
    """Agreement of two classifications of the same patients.

    Parameters
    ----------
    imaging, genes : array-like of shape (n_patients,), bool
        Whether each biomarker calls a patient more hypoxic.

    Raises
    ------
    InputError
        There is no patient, or not one call of each biomarker per patient.

    References
    ----------
    Fjeldbo et al. 2020; kappa: Cohen 1960, doi:10.1177/001316446002000104.

    Examples
    --------
    The cervical-cancer cohort of Fjeldbo et al.

    >>> sizes = [25, 18, 64, 11]
    >>> table = fourfold(np.repeat([True, False, False, True], sizes), np.repeat([True, True, False, False], sizes))
    >>> round(table.agreement, 3), round(table.kappa, 3), round(table.odds_ratio, 3)
    (0.754, 0.45, 7.906)
    """
    imaging, genes = np.asarray(imaging), np.asarray(genes)
    if imaging.shape != genes.shape or imaging.ndim != 1 or not len(imaging):
        raise InputError(f"Agreement needs one call of each biomarker per patient (got {imaging.shape} and {genes.shape}).")
    imaging, genes = imaging.astype(bool), genes.astype(bool)
    n = len(imaging)
    both, neither = int((imaging & genes).sum()), int((~imaging & ~genes).sum())
    genes_only, imaging_only = int((~imaging & genes).sum()), int((imaging & ~genes).sum())
    cells = [[both, imaging_only], [genes_only, neither]]
    agreement = (both + neither) / n
    chance = float(imaging.mean() * genes.mean() + (~imaging).mean() * (~genes).mean())
    alike = imaging.all() or genes.all() or not imaging.any() or not genes.any()
    return Fourfold(
        both,
        genes_only,
        neither,
        imaging_only,
        agreement,
        float(fisher_exact(cells).pvalue),
        None if alike else float(odds_ratio(cells).statistic),
        None if chance == 1 else (agreement - chance) / (1 - chance),
    )


def spearman(x: np.ndarray, y: np.ndarray, level: float = 0.95) -> Correlation:
    """Spearman's rank correlation of two biomarkers.

    Parameters
    ----------
    x, y : array-like of shape (n_patients,)
        Finite; four patients or more.

    Returns
    -------
    Correlation
        Its interval is symmetrical on Fisher's scale, with the variance of Bonett and Wright.

    Raises
    ------
    InputError
        There are too few patients, a value is missing, or one biomarker is the same in all of them.

    References
    ----------
    Bonett & Wright 2000, doi:10.1007/BF02294183.

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).value, 4)
    0.8
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or len(x) < FEWEST_PATIENTS or not np.isfinite([x, y]).all():
        raise InputError(f"A correlation needs both values of {FEWEST_PATIENTS} patients or more (got {x.shape} and {y.shape}).")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise InputError(f"One of the two biomarkers has the same value in all {len(x)} patients, so they have no correlation.")
    found = spearmanr(x, y)
    value = float(found.statistic)
    half = float(norm.ppf((1 + level) / 2)) * float(np.sqrt((1 + value**2 / 2) / (len(x) - 3)))
    # The scale is infinite at a correlation of one, where the interval is the one point.
    lower, upper = np.tanh(np.arctanh(value) + np.array([-half, half])) if abs(value) < 1 else (value, value)
    return Correlation(value, float(lower), float(upper), float(found.pvalue), len(x))
