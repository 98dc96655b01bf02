"""Whether hypoxia is more clustered in a tumour than in others with as much of it, and whether it matters. Statistics only.

References
----------
Fjeldbo et al. 2020, doi:10.1016/j.ebiom.2020.102841 (residual of a generalised additive model of the spread of biopsies).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact
from scipy.stats.contingency import odds_ratio

from features.errors import InputError

FEWEST_TUMOURS = 20
SPLINES = 20


@dataclass(frozen=True)
class Clustering:
    """How the spread of biopsies in each tumour compares with that in tumours of the same hypoxic fraction.

    Attributes
    ----------
    expected : ndarray of shape (n_tumours,)
        Standard deviation that a smooth curve over the hypoxic fraction gives.
    residual : ndarray of shape (n_tumours,)
        What was seen beyond it; above 0, hypoxia is more clustered than in others.
    """

    expected: np.ndarray
    residual: np.ndarray

    @property
    def more(self) -> np.ndarray:
        """Which tumours are more clustered: shape (n_tumours,), bool."""
        return self.residual > 0


@dataclass(frozen=True)
class Association:
    """Tumours by clustering, and by whether two biomarkers call them differently.

    Attributes
    ----------
    more_discordant, more_concordant, less_discordant, less_concordant : int
    odds_ratio : float or None
        Of being called differently, more over less clustered: conditional maximum likelihood, as R gives it. None where all
        tumours are alike in one of the two.
    p_value : float
        Fisher's exact test, two-sided.
    """

    more_discordant: int
    more_concordant: int
    less_discordant: int
    less_concordant: int
    odds_ratio: float | None
    p_value: float


def clustering(fraction: np.ndarray, deviation: np.ndarray) -> Clustering:
    """Fit the spread of biopsies as a smooth function of the hypoxic fraction, and see which tumours lie above it.

    The curve is a penalised spline whose smoothness is chosen by generalised cross-validation (pygam).

    Parameters
    ----------
    fraction : ndarray of shape (n_tumours,)
        Hypoxic fraction of each tumour, 0 to 1.
    deviation : ndarray of shape (n_tumours,)
        Standard deviation of the fractions of its biopsies.

    Raises
    ------
    InputError
        There are less than 20 tumours, a value is missing, or no biopsy differs from another of its tumour.

    Examples
    --------
    >>> fraction = np.linspace(0.1, 0.9, 40)
    >>> random = np.sqrt(fraction * (1 - fraction) / 12)
    >>> clustering(fraction, random * np.tile([0.8, 1.2], 20)).more[:6]
    array([False,  True, False,  True, False,  True])
    """
    fraction, deviation = np.asarray(fraction, dtype=float), np.asarray(deviation, dtype=float)
    if len(fraction) < FEWEST_TUMOURS:
        raise InputError(
            f"There are {len(fraction)} tumours with two biopsies or more; the curve that tells more from less clustered needs "
            f"{FEWEST_TUMOURS}."
        )
    if not (np.isfinite(fraction) & np.isfinite(deviation)).all():
        raise InputError("A hypoxic fraction or a standard deviation is missing; leave those tumours out.")
    if np.ptp(deviation) == 0:
        raise InputError("The biopsies of all tumours spread alike; no tumour is more clustered than another.")
    from pygam import LinearGAM, s

    curve = LinearGAM(s(0, n_splines=SPLINES)).gridsearch(fraction[:, np.newaxis], deviation, progress=False)
    expected = np.asarray(curve.predict(fraction[:, np.newaxis]), dtype=float)
    return Clustering(expected, deviation - expected)


def discordance(more: np.ndarray, discordant: np.ndarray) -> Association:
    """Whether tumours that two biomarkers call differently are more, or less, clustered than the others.

    Parameters
    ----------
    more : ndarray of shape (n_tumours,), bool
        Of :class:`Clustering`.
    discordant : ndarray of shape (n_tumours,), bool
        Whether imaging and genes call the tumour differently.

    Raises
    ------
    InputError
        There is no tumour, or not one of each per tumour.

    Examples
    --------
    >>> found = discordance(np.repeat([True, False], [20, 20]), np.repeat([True, False, True, False], [15, 5, 5, 15]))
    >>> round(found.odds_ratio, 2), round(found.p_value, 4)
    (8.42, 0.0038)
    """
    more, discordant = np.asarray(more, dtype=bool), np.asarray(discordant, dtype=bool)
    if more.shape != discordant.shape or not more.size:
        raise InputError(f"There are {more.size} tumours, but {discordant.size} of them are called by both biomarkers.")
    table = np.array([[np.sum(a & b) for b in (discordant, ~discordant)] for a in (more, ~more)])
    varies = (table.sum(axis=0) > 0).all() and (table.sum(axis=1) > 0).all()
    return Association(
        more_discordant=int(table[0, 0]),
        more_concordant=int(table[0, 1]),
        less_discordant=int(table[1, 0]),
        less_concordant=int(table[1, 1]),
        odds_ratio=float(odds_ratio(table).statistic) if varies else None,
        p_value=float(fisher_exact(table).pvalue),
    )
