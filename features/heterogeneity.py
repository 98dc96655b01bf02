"""How far one biopsy speaks for its tumour: variance within and between tumours, and biopsies taken virtually from a map.

References
----------
Fjeldbo et al. 2020, doi:10.1016/j.ebiom.2020.102841 (share of the variance within tumours, virtual biopsies).
Searle, Casella & McCulloch 1992, doi:10.1002/9780470316856 (variance components: analysis of variance, REML).
Haldane 1956, doi:10.1111/j.1469-1809.1955.tb01285.x (the empirical logit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize_scalar

from features.bundle import Estimate
from features.errors import InputError

BIOPSY_VOXELS = 12
# Shares of the variance where REML is looked for before it is refined: its likelihood may have two tops.
GRID = np.linspace(0.0, 1.0, 201)
NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
Method = Literal["anova", "reml"]


@dataclass(frozen=True)
class Components:
    """Variance within and between tumours.

    Attributes
    ----------
    within, between : float
        In the square of the values' unit, at least 0.
    method : {"anova", "reml"}
    tumours, samples : int
        How many of each they are from.
    """

    within: float
    between: float
    method: Method
    tumours: int
    samples: int

    @property
    def within_share(self) -> float:
        """Part of the variance that is within tumours, 0 to 1: 0 if one biopsy tells all, 1 if it tells nothing."""
        return self.within / (self.within + self.between)

    def reduced(self, biopsies: int) -> float:
        """That part where the mean of several biopsies stands for a tumour."""
        return reduced_share(self.within_share, biopsies)


def reduced_share(within_share: float, biopsies: int) -> float:
    """Part of the variance that is within tumours where the mean of several biopsies stands for each.

    Parameters
    ----------
    within_share : float
        With one biopsy, 0 to 1.
    biopsies : int
        At least 1.

    Examples
    --------
    >>> [round(reduced_share(0.33, biopsies), 4) for biopsies in (2, 3, 4)]
    [0.1976, 0.141, 0.1096]
    """
    within = within_share / biopsies
    return within / (within + 1 - within_share)


def empirical_logit(fraction: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Log odds of a fraction of voxels, finite at 0 and 1 too: one half is added to both counts.

    Parameters
    ----------
    fraction : ndarray of shape (n_samples,)
        0 to 1.
    voxels : ndarray of shape (n_samples,)
        How many voxels each fraction is of, at least 1.

    Raises
    ------
    InputError
        A fraction is not between 0 and 1, or of no voxel.

    Examples
    --------
    >>> empirical_logit(np.array([0.0, 0.5]), np.array([12, 12])).round(4)
    array([-3.2189,  0.    ])
    """
    if not ((fraction >= 0) & (fraction <= 1)).all():
        raise InputError("A fraction is not between 0 and 1; give parts of 1, not percent, or leave the count of voxels out.")
    if not (np.isfinite(voxels) & (voxels >= 1)).all():
        raise InputError("A fraction is of less than one voxel; give the voxels of every sample, or leave them out.")
    return np.log((voxels * fraction + 0.5) / (voxels - voxels * fraction + 0.5))


@dataclass(frozen=True)
class _Tumours:
    """What the components need of each tumour: count, mean and sum of squares around it."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, tumour: np.ndarray) -> _Tumours:
        values = np.asarray(values, dtype=float)
        if not np.isfinite(values).all():
            raise InputError(f"{(~np.isfinite(values)).sum()} of {len(values)} values are no numbers; leave those samples out.")
        names, codes = np.unique(np.asarray(tumour), return_inverse=True)
        count = np.bincount(codes)
        if len(names) < 2 or len(values) == len(names):
            raise InputError(
                f"There are {len(values)} samples of {len(names)} tumours; variance within and between tumours needs two "
                "tumours, and two samples of one of them."
            )
        if np.ptp(values) == 0:
            raise InputError("All values are the same; there is no variance to be parted.")
        mean = np.bincount(codes, values) / count
        return cls(count, mean, np.bincount(codes, (values - mean[codes]) ** 2))


def variance_components(values: np.ndarray, tumour: np.ndarray, method: Method = "anova") -> Components:
    """Variance within and between tumours by a one-way model with random tumours, numbers of samples unequal or not.

    Parameters
    ----------
    values : ndarray of shape (n_samples,)
    tumour : ndarray of shape (n_samples,)
        Which tumour each is from.
    method : {"anova", "reml"}
        Mean squares equated to what is expected of them, or restricted maximum likelihood; on balanced data the same,
        unless less is between the tumours than chance brings about.

    Raises
    ------
    InputError
        There are less than two tumours, or no tumour with two samples; a value is missing; all are the same.

    Examples
    --------
    >>> found = variance_components(np.array([1.0, 2, 4, 5]), np.array(["a", "a", "b", "b"]))
    >>> found.within, found.between, round(found.within_share, 4)
    (0.5, 4.25, 0.1053)
    """
    tumours = _Tumours.of(values, tumour)
    within, between = _anova(tumours, np.ones((1, len(tumours.count))))[:, 0] if method == "anova" else _reml(tumours)
    return Components(float(within), float(between), method, len(tumours.count), len(values))


def _anova(tumours: _Tumours, weights: np.ndarray) -> np.ndarray:
    """Within and between, per weighting of the tumours: shape (2, n_weightings)."""
    groups, count, squares = weights.sum(axis=1), weights @ tumours.count, weights @ tumours.squares
    mean = weights @ (tumours.count * tumours.mean) / count
    apart = (weights * tumours.count * (tumours.mean - mean[:, None]) ** 2).sum(axis=1)
    free = count - groups
    within = np.where(free > 0, squares / np.where(free > 0, free, 1), np.nan)
    typical = (count - weights @ tumours.count**2 / count) / (groups - 1)
    return np.stack([within, np.maximum((apart / (groups - 1) - within) / typical, 0.0)])


def _reml(tumours: _Tumours) -> tuple[float, float]:
    """The likelihood in one unknown, the share between tumours; the total follows from it."""
    if tumours.squares.sum() == 0:
        return 0.0, float(tumours.mean.var(ddof=1))
    count = tumours.count

    def found(share: float) -> tuple[float, float]:
        """Minus twice the log likelihood, and the variance within, at a share between tumours."""
        ratio = share / (1 - share)
        weight = count / (1 + count * ratio)
        mean = np.average(tumours.mean, weights=weight)
        left = tumours.squares.sum() + np.sum(weight * (tumours.mean - mean) ** 2)
        free = count.sum() - 1
        return float(np.log1p(count * ratio).sum() + np.log(weight.sum()) + free * np.log(left)), float(left / free)

    heights = [found(share)[0] for share in GRID[:-1]]
    best = int(np.argmin(heights))
    low, high = GRID[max(best - 1, 0)], min(GRID[best + 1], 1 - 1e-12)
    share = float(
        minimize_scalar(lambda share: found(share)[0], bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    )
    share = 0.0 if best == 0 and found(share)[0] >= heights[0] else share
    within = found(share)[1]
    return within, within * share / (1 - share)


def share_interval(
    values: np.ndarray, tumour: np.ndarray, rng: np.random.Generator, count: int = 1000, level: float = 0.95
) -> Estimate:
    """The part of the variance that is within tumours, with a percentile interval over resamples of tumours.

    On simulated tumours with two samples each, an interval of 95% covered the truth in 91% with 20 or 40 tumours, in 84% with 10.

    Parameters
    ----------
    values, tumour
        As for :func:`variance_components`.
    count : int
        Resamples; a tumour that is drawn twice counts as two. Those without two samples of any tumour are left out.

    Raises
    ------
    InputError
        As for :func:`variance_components`.
    """
    tumours = _Tumours.of(values, tumour)
    groups = len(tumours.count)
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=count).astype(float)
    within, between = _anova(tumours, np.vstack([np.ones((1, groups)), weights]))
    total = within + between
    shares = np.where(total > 0, within / np.where(total > 0, total, 1.0), np.nan)
    lower, upper = np.nanquantile(shares[1:], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(shares[0]), lower=float(lower), upper=float(upper), level=level)


@dataclass(frozen=True)
class Biopsies:
    """Biopsies taken virtually from the map of one tumour.

    Attributes
    ----------
    fractions : ndarray of shape (n_biopsies,)
        Part of each that is below the threshold, 0 to 1.
    patches : ndarray of int, shape (n_biopsies, size)
        Its voxels, as positions in the raveled mask.
    fraction : float
        Part of the whole tumour.
    """

    fractions: np.ndarray
    patches: np.ndarray
    fraction: float

    @property
    def deviation(self) -> float:
        """Standard deviation of the fractions (ddof 1); NaN of one biopsy."""
        return float(self.fractions.std(ddof=1)) if len(self.fractions) > 1 else float("nan")


def virtual_biopsies(mask: np.ndarray, below: np.ndarray, rng: np.random.Generator, size: int = BIOPSY_VOXELS) -> Biopsies:
    """Take as many biopsies from a tumour as fill it once: connected voxels of one slice, all inside.

    They are rectangles (of 12 voxels: 3 x 4 or 4 x 3), each drawn uniformly with replacement from all that lie inside the
    tumour; where none does, each grows from a voxel by random neighbours.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_rows, n_columns) or (n_slices, n_rows, n_columns)
    below : ndarray of bool, same shape
        Where the tumour is hypoxic.
    size : int
        Voxels of a biopsy.

    Raises
    ------
    InputError
        The shapes differ, or no slice has so many connected voxels of the tumour.

    Examples
    --------
    >>> tumour, below = np.ones((24, 24), dtype=bool), np.zeros((24, 24), dtype=bool)
    >>> below[:12] = True
    >>> found = virtual_biopsies(tumour, below, np.random.default_rng(0))
    >>> len(found.fractions), found.fraction, found.deviation > 0.38
    (48, 0.5, True)
    """
    if mask.shape != below.shape or mask.ndim not in (2, 3):
        raise InputError(f"The mask has shape {mask.shape} and the map {below.shape}; both must be one slice, or one volume.")
    mask = np.asarray(mask, dtype=bool)[np.newaxis] if mask.ndim == 2 else np.asarray(mask, dtype=bool)
    parts = _large_parts(mask, size)
    if not parts.any():
        raise InputError(f"No slice of the tumour has {size} connected voxels, as many as a biopsy has; leave the tumour out.")
    wanted = max(1, int(mask.sum() / size + 0.5))
    patches = _rectangles(mask, rng, size, wanted)
    if not len(patches):
        patches = np.array([_grown(parts, rng, size) for _ in range(wanted)])
    inside, hypoxic = mask.ravel(), np.asarray(below, dtype=bool).ravel()
    return Biopsies(hypoxic[patches].mean(axis=1), patches, float(hypoxic[inside].mean()))


def _large_parts(mask: np.ndarray, size: int) -> np.ndarray:
    """Where a biopsy can grow: parts of the mask, connected within a slice, that are large enough."""
    in_slice = np.zeros((3, 3, 3), dtype=bool)
    in_slice[1] = ndimage.generate_binary_structure(2, 1)
    labels, _ = ndimage.label(mask, in_slice)
    large = np.bincount(labels.ravel()) >= size
    large[0] = False
    return np.asarray(large[labels])


def _rectangles(mask: np.ndarray, rng: np.random.Generator, size: int, wanted: int) -> np.ndarray:
    """Rectangles inside the mask, the squarest of that many voxels, both ways round: (wanted, size), or none where none fits."""
    short = max(side for side in range(1, int(size**0.5) + 1) if size % side == 0)
    corners, voxels = [], []
    for rows, columns in dict.fromkeys([(short, size // short), (size // short, short)]):
        if rows > mask.shape[1] or columns > mask.shape[2]:
            continue
        fits = np.lib.stride_tricks.sliding_window_view(mask, (rows, columns), axis=(1, 2)).all(axis=(-2, -1))
        corners.append(np.ravel_multi_index(np.nonzero(fits), mask.shape))
        voxels.append((np.arange(rows)[:, None] * mask.shape[2] + np.arange(columns)).ravel())
    way = np.repeat(np.arange(len(corners)), [len(places) for places in corners])
    if not len(way):
        return np.empty((0, size), dtype=int)
    drawn = rng.integers(len(way), size=wanted)
    return np.asarray(np.concatenate(corners)[drawn, np.newaxis] + np.array(voxels)[way[drawn]])


def _grown(parts: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """A patch that grows from a voxel by one random neighbour after the other, in its slice: (size,)."""
    layer, row, column = np.unravel_index(rng.choice(np.flatnonzero(parts)), parts.shape)
    patch, edge = [(int(row), int(column))], []
    inside = parts[layer]
    while len(patch) < size:
        edge += [place for place in _around(patch[-1], inside) if place not in patch and place not in edge]
        patch.append(edge.pop(int(rng.integers(len(edge)))))
    rows, columns = np.array(patch).T
    return np.ravel_multi_index((np.full(size, layer), rows, columns), parts.shape)


def _around(place: tuple[int, int], inside: np.ndarray) -> list[tuple[int, int]]:
    near = [(place[0] + down, place[1] + right) for down, right in NEIGHBOURS]
    return [(r, c) for r, c in near if 0 <= r < inside.shape[0] and 0 <= c < inside.shape[1] and inside[r, c]]
