"""What a model was trained on, feature by feature and together: what its input must look like, and when it looks unlike.

References
----------
Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4 (the covariance behind the distance, shrunk because a cohort has
hardly more patients than a model has features).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from features.settings import Settings

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# Scaled values beyond this many robust standard deviations pull the covariance no further.
WINSORISED = 4.0
# A row of which a larger share is missing is mostly the medians that were put in.
MOST_MISSING = 0.5
# Beyond this many the square would overflow; it is far enough.
FARTHEST = 1e100
MOST_DRIVERS = 3
# A feature with a smaller share of the squared distance is not among those that put a row there.
DRIVES = 0.05


class ContractSettings(Settings):
    """What a served model takes.

    Parameters
    ----------
    missing : {"refuse", "impute"}
        Whether an explicit null is refused, or filled as in training; a feature that is left out is refused either way.
    limit : float
        Share of training samples, each judged without itself, that are not flagged: by their distance, and by how far a
        single feature lies outside the range of the others.
    extraction : {"if_sent", "required"}
        Whether a request must say with which settings its features were extracted. One that says others than the model's is
        refused either way.
    """

    missing: Literal["refuse", "impute"] = "refuse"
    limit: float = Field(default=0.99, gt=0.5, le=1)
    extraction: Literal["if_sent", "required"] = "if_sent"


class FeatureRange(Settings):
    """Where a feature lay in training.

    Attributes
    ----------
    quantiles : dict of str to float
        By share ("0.01" to "0.99").
    missing : float
        Share of training samples that had no value.
    """

    name: str
    minimum: float
    maximum: float
    quantiles: dict[str, float]
    missing: float


class RobustDistance(Settings):
    """Distance of a row from the middle of the training samples, in units that take account of how features move together.

    Attributes
    ----------
    center, scale : tuple of float, one per feature
        Median, and median absolute deviation as a standard deviation.
    precision : tuple of tuple of float, (n_features, n_features)
        Inverse of the shrunk covariance of the scaled features.
    limit : float
        Distance beyond which a row is unlike the training samples.
    """

    center: tuple[float, ...]
    scale: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Center, scale and precision as arrays."""
        return np.array(self.center), np.array(self.scale), np.array(self.precision).reshape(len(self.center), -1)


@dataclass(frozen=True)
class Novelty:
    """How rows compare with the training samples.

    Attributes
    ----------
    names : tuple of str
    below, above : ndarray of shape (n_rows, n_features), bool
        Whether a value lies outside the training range. By itself that means little: of thirty features of a new sample of
        the same population one is often a little outside.
    far : ndarray of shape (n_rows, n_features), bool
        Whether it lies farther outside than training samples do when they are left out.
    missing : ndarray of shape (n_rows,), bool
        Whether most values of the row are missing.
    distance : ndarray of shape (n_rows,)
    limit : float
    contributions : ndarray of shape (n_rows, n_features)
        Parts of the squared distance; sum to it per row.
    """

    names: tuple[str, ...]
    below: np.ndarray
    above: np.ndarray
    far: np.ndarray
    missing: np.ndarray
    distance: np.ndarray
    limit: float
    contributions: np.ndarray

    @cached_property
    def flagged(self) -> np.ndarray:
        """Rows that are unlike the training samples, shape (n_rows,), bool."""
        return np.asarray((self.distance > self.limit) | self.far.any(axis=1) | self.missing)

    @cached_property
    def is_outside(self) -> np.ndarray:
        """Rows with a value outside its training range, shape (n_rows,), bool."""
        return np.asarray(self.below.any(axis=1) | self.above.any(axis=1))

    def outside_range(self, row: int) -> list[tuple[str, Literal["below", "above"]]]:
        """Features of a row that lie outside their training range, and on which side."""
        low: list[tuple[str, Literal["below", "above"]]] = [(self.names[i], "below") for i in np.flatnonzero(self.below[row])]
        return low + [(self.names[i], "above") for i in np.flatnonzero(self.above[row])]

    def drivers(self, row: int) -> list[str]:
        """Features because of which a row is flagged: those far outside their range, then the largest parts of its distance."""
        found = [self.names[i] for i in np.flatnonzero(self.far[row])]
        if self.distance[row] > self.limit:
            largest = np.argsort(-self.contributions[row], kind="stable")[:MOST_DRIVERS]
            parts = [self.names[i] for i in largest if self.contributions[row, i] > DRIVES * self.distance[row] ** 2]
            found += [name for name in parts if name not in found]
        return found


class Contract(Settings):
    """What a model takes, and what its training samples looked like; holds no patient's row.

    Attributes
    ----------
    ranges : tuple of FeatureRange
        In the order in which the model takes its features.
    missing : {"refuse", "impute"}
        What happens to an explicit null.
    extraction_hash : str or None
        Settings with which the features were extracted, where known.
    extraction : {"if_sent", "required"}
        Whether a request must say with which settings its features were extracted.
    order_hash : str
        Of the ordered names; rows without names are taken only from who sends the same.
    aliases : dict of str to str
        Other names (of genes) under which a feature may be sent.
    margin : float
        How far outside its training range a value may lie, in widths of that range, before the row is flagged.
    """

    ranges: tuple[FeatureRange, ...]
    missing: Literal["refuse", "impute"] = "refuse"
    extraction_hash: str | None = None
    extraction: Literal["if_sent", "required"] = "if_sent"
    order_hash: str
    aliases: dict[str, str] = {}
    margin: float = Field(ge=0)
    distance: RobustDistance

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Features in the model's order."""
        return tuple(one.name for one in self.ranges)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Training minimum and maximum, each of shape (n_features,)."""
        return np.array([one.minimum for one in self.ranges]), np.array([one.maximum for one in self.ranges])

    def other_extraction(self, sent: str | None) -> str | None:
        """Why features that were extracted with these settings cannot be taken; None if they can, or nothing is known.

        Parameters
        ----------
        sent : str or None
            Hash of the settings, as the record beside an extracted table has it; None if it was not said.
        """
        if self.extraction_hash is None or sent == self.extraction_hash:
            return None
        if sent is None:
            return "is missing, and this model requires it" if self.extraction == "required" else None
        return (
            f"is not that of the model's features ({self.extraction_hash}): they were extracted with other settings, and "
            "values of the same name are not comparable; extract with the model's settings"
        )

    def judge(self, matrix: np.ndarray) -> Novelty:
        """Compare rows with the training samples.

        Parameters
        ----------
        matrix : ndarray of shape (n_rows, n_features), float
            In the model's order; NaN (where missing values are imputed) counts as the training median.

        Returns
        -------
        Novelty
        """
        lowest, highest = self.bounds
        center, scale, precision = self.distance.arrays
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.nan_to_num((matrix - center) / scale, nan=0.0).clip(-FARTHEST, FARTHEST)
            contributions = (scaled @ precision) * scaled
            distance = np.sqrt(np.maximum(contributions.sum(axis=1), 0.0))
            allowed = self.margin * (highest - lowest)
            return Novelty(
                names=self.names,
                below=matrix < lowest,
                above=matrix > highest,
                far=(matrix < lowest - allowed) | (matrix > highest + allowed),
                missing=np.isnan(matrix).mean(axis=1) > MOST_MISSING,
                distance=distance,
                limit=self.distance.limit,
                contributions=contributions,
            )


def contract_of(
    features: pd.DataFrame,
    settings: ContractSettings,
    patients: pd.Series | None = None,
    aliases: Mapping[str, str] | None = None,
    extraction_hash: str | None = None,
) -> Contract:
    """The contract of a model that learnt from a table.

    Parameters
    ----------
    features : DataFrame of shape (n_samples, n_features)
        Of the development samples, in the model's order.
    patients : Series of shape (n_samples,), optional
        Patient of each sample; a patient's samples are left out together where the limit is found.

    Examples
    --------
    >>> table = pd.DataFrame({"volume": [1.0, 2.0, 3.0, 4.0, 5.0], "entropy": [1.0, 1.5, 1.1, 1.6, 1.3]})
    >>> contract = contract_of(table, ContractSettings())
    >>> contract.judge(np.array([[3.0, 1.3], [99.0, 1.3]])).flagged.tolist()
    [False, True]
    """
    names = [str(name) for name in features.columns]
    groups = np.arange(len(features)) if patients is None else pd.factorize(patients)[0]
    matrix = features.to_numpy(dtype=float)
    left_out = [(np.isin(groups, fold)) for fold in np.array_split(np.unique(groups), min(10, len(np.unique(groups))))]
    return Contract(
        ranges=tuple(_range(name, features[name]) for name in features.columns),
        missing=settings.missing,
        extraction_hash=extraction_hash,
        extraction=settings.extraction,
        order_hash=order_hash(names),
        aliases={other: name for other, name in (aliases or {}).items() if name in names and other not in names},
        margin=_margin(matrix, left_out, settings.limit),
        distance=_distance(matrix, left_out, settings.limit),
    )


def order_hash(names: Sequence[str]) -> str:
    """Hash of names in their order.

    Examples
    --------
    >>> order_hash(["volume", "entropy"]) == order_hash(["entropy", "volume"])
    False
    """
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _range(name: object, values: pd.Series) -> FeatureRange:
    known = values.dropna()
    return FeatureRange(
        name=str(name),
        minimum=float(known.min()),
        maximum=float(known.max()),
        quantiles={f"{share:g}": float(known.quantile(share)) for share in QUANTILES},
        missing=float(values.isna().mean()),
    )


def _distance(matrix: np.ndarray, left_out: Sequence[np.ndarray], share: float) -> RobustDistance:
    """The limit comes from patients judged by what the others look like: against themselves they would all look near."""
    center, scale, precision = _fit(matrix)
    distances = np.concatenate([_distances(matrix[fold], *_fit(matrix[~fold])) for fold in left_out])
    limit = float(np.quantile(distances, share, method="higher"))
    return RobustDistance(
        center=tuple(center.tolist()), scale=tuple(scale.tolist()), precision=tuple(map(tuple, precision.tolist())), limit=limit
    )


def _margin(matrix: np.ndarray, left_out: Sequence[np.ndarray], share: float) -> float:
    """How far outside the range of the others, in its widths, the samples of patients left out lie at most."""
    farthest = np.concatenate([_excess(matrix[fold], matrix[~fold]) for fold in left_out])
    return float(np.quantile(farthest, share, method="higher"))


def _excess(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Largest distance of a row's values from the ranges of other rows, in widths of these, shape (n_rows,)."""
    lowest, highest = np.nanmin(others, axis=0), np.nanmax(others, axis=0)
    width = np.where(highest > lowest, highest - lowest, np.inf)
    outside = np.maximum(lowest - rows, rows - highest) / width
    return np.nan_to_num(outside, nan=0.0).max(axis=1, initial=0.0)


def _fit(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.covariance import LedoitWolf

    center = np.nanmedian(matrix, axis=0)
    deviation = 1.4826 * np.nanmedian(np.abs(matrix - center), axis=0)
    spread = np.nanstd(matrix, axis=0)
    scale = np.where(deviation > 0, deviation, np.where(spread > 0, spread, 1.0))
    scaled = np.nan_to_num((matrix - center) / scale, nan=0.0).clip(-WINSORISED, WINSORISED)
    return center, scale, LedoitWolf(assume_centered=True).fit(scaled).precision_


def _distances(matrix: np.ndarray, center: np.ndarray, scale: np.ndarray, precision: np.ndarray) -> np.ndarray:
    scaled = np.nan_to_num((matrix - center) / scale, nan=0.0)
    return np.sqrt(np.maximum(((scaled @ precision) * scaled).sum(axis=1), 0.0))
