"""Which features come out the same when they are measured again: intraclass correlations, and a filter made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, PrivateAttr
from scipy.special import fdtri

from features.errors import InputError
from features.settings import Settings
from features.sources import TableSource

FEWEST_SAMPLES = 3
LEVEL = 0.95


@dataclass(frozen=True)
class Agreement:
    """Intraclass correlations of several features, single measurement, two-way model.

    Attributes
    ----------
    icc_2_1 : ndarray of shape (n_features,)
        Absolute agreement: replicates are drawn from many (another reader, another day), and a shift between them counts.
    icc_3_1 : ndarray of shape (n_features,)
        Consistency: these replicates and no others; a shift between them does not count.
    lower_2_1, upper_2_1, lower_3_1, upper_3_1 : ndarray of shape (n_features,)
        95% interval. NaN, as the correlations, where the samples do not differ at all.
    """

    icc_2_1: np.ndarray
    lower_2_1: np.ndarray
    upper_2_1: np.ndarray
    icc_3_1: np.ndarray
    lower_3_1: np.ndarray
    upper_3_1: np.ndarray


def intraclass_correlations(measurements: np.ndarray) -> Agreement:
    """ICC(2,1) and ICC(3,1) of many features at once.

    Parameters
    ----------
    measurements : ndarray of shape (n_samples, n_replicates, n_features)
        Complete; at least two samples and two replicates.

    References
    ----------
    Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420; intervals: McGraw & Wong 1996, doi:10.1037/1082-989X.1.1.30.

    Examples
    --------
    Six targets and four judges, table 2 of Shrout & Fleiss.

    >>> table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    >>> found = intraclass_correlations(table[:, :, None])
    >>> found.icc_2_1.round(2), found.icc_3_1.round(2)
    (array([0.29]), array([0.71]))
    """
    n, k, _ = measurements.shape
    between, columns, error = _mean_squares(measurements)
    with np.errstate(divide="ignore", invalid="ignore"):  # undefined where nothing varies: NaN
        agreement = (between - error) / (between + (k - 1) * error + k * (columns - error) / n)
        consistency = (between - error) / (between + (k - 1) * error)
        low_2, high_2 = _agreement_interval(between, columns, error, agreement, n, k)
        low_3, high_3 = _consistency_interval(between, error, n, k)
    return Agreement(agreement, low_2, high_2, consistency, low_3, high_3)


def robustness_table(replicates: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Intraclass correlations of the features that several tables of the same samples have in common.

    Parameters
    ----------
    replicates : sequence of DataFrame of shape (n_samples, n_features)
        One per scan, reader or perturbed mask, indexed by sample. Samples and features are matched by name; those that one
        table lacks are left out, and so is, feature by feature, a sample with a missing value (complete cases).

    Returns
    -------
    DataFrame of shape (n_features, 8)
        Columns ``feature, icc_2_1, lower_2_1, upper_2_1, icc_3_1, lower_3_1, upper_3_1, n``; `n` is the number of samples
        that the feature's values rest on, and its correlations are NaN where it is below 3. What was left out is in
        ``attrs["notes"]``, in words.

    Raises
    ------
    InputError
        There are fewer than two tables, they share too few samples or no feature, or a sample is in one twice.

    Examples
    --------
    >>> first = pd.DataFrame({"volume": [1.0, 2, 3, 4]}, index=list("abcd"))
    >>> robustness_table([first, first + 0.1])[["feature", "icc_2_1", "icc_3_1", "n"]].round(3).values.tolist()
    [['volume', 0.997, 1.0, 4]]
    """
    if len(replicates) < 2:
        raise InputError("Robustness needs two tables or more of the same samples: scans, readers or perturbed masks.")
    samples, features = _shared(replicates)
    measured = np.stack([frame.loc[samples, features].to_numpy(dtype=float) for frame in replicates], axis=1)
    complete = np.isfinite(measured).all(axis=1)
    counts = complete.sum(axis=0)
    names = ["icc_2_1", "lower_2_1", "upper_2_1", "icc_3_1", "lower_3_1", "upper_3_1"]
    table = pd.DataFrame(np.nan, index=range(len(features)), columns=["feature", *names, "n"]).astype({"feature": object})
    table["feature"], table["n"] = features, counts
    patterns, of_feature = np.unique(complete, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        if rows.sum() >= FEWEST_SAMPLES:
            own = np.flatnonzero(of_feature.ravel() == number)
            found = intraclass_correlations(measured[rows][:, :, own])
            table.loc[own, names] = np.column_stack([getattr(found, name) for name in names])
    table.attrs["notes"] = _left_out(replicates, samples, features, counts)
    return table


class RobustFilter(Settings):
    """Only features that come out alike when they are measured again may be chosen.

    Parameters
    ----------
    tables : list of str
        Two tables or more of the same samples, relative to the study file: a test-retest pair, two readers, or masks that
        were perturbed; with the features under the names of the study's own table.
    sample : str
        Column with the sample's name.
    samples : {"cohort", "others"}
        Whose measurements they are: of the study's own samples, of which then only those count from which the model
        learns; or of other people, who all count.
    icc : {"2,1", "3,1"}
        Absolute agreement, or consistency.
    minimum : float
        What it must reach.
    by : {"value", "lower"}
        Whether the correlation itself must reach it, or the lower end of its 95% interval.
    """

    tables: Annotated[tuple[str, ...], Field(min_length=2)]
    sample: str = "sample"
    samples: Literal["cohort", "others"] = "cohort"
    icc: Literal["2,1", "3,1"] = "2,1"
    minimum: float = Field(default=0.75, gt=-1, le=1)
    by: Literal["value", "lower"] = "value"

    _folder: Path = PrivateAttr(default=Path())

    def located(self, folder: Path) -> RobustFilter:
        """The same with its tables in this folder; where they lie is no setting and leaves the fingerprint as it is."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def digest(self) -> str:
        """SHA-256 of its tables: with other measurements other features are robust."""
        content = [hashlib.sha256((self._folder / path).read_bytes()).hexdigest() for path in self.tables]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def read(self) -> list[pd.DataFrame]:
        """Its tables, numeric columns only, indexed by sample.

        Raises
        ------
        InputError
            A table cannot be read, or has no such column.
        """
        frames = [TableSource(path=path, sample=self.sample).read(self._folder) for path in self.tables]
        return [frame.select_dtypes("number") for frame in frames]

    def robust(self, replicates: Sequence[pd.DataFrame], features: pd.Index, learnt_from: pd.Index) -> pd.Index:
        """Which features are robust, by samples that may be looked at.

        Parameters
        ----------
        replicates : sequence of DataFrame
            From ``read``.
        features : Index of str
            Features of the study.
        learnt_from : Index
            Samples of the training part.

        Returns
        -------
        Index of str
            Robust features, in the order given.

        Raises
        ------
        InputError
            A table lacks a feature, too few samples may be looked at, no feature is robust, or measurements that are said to
            be of others are of samples of this study.
        """
        for path, frame in zip(self.tables, replicates, strict=True):
            absent = features.difference(frame.columns, sort=False)
            if len(absent):
                raise InputError(
                    f"Feature {absent[0]!r} is not in {path} (recipe.robust.tables), so nobody knows whether it is robust; "
                    f"measure it there too, or leave it out of the study ({len(absent)} such features)."
                )
        table = robustness_table([self._allowed(frame, features, learnt_from) for frame in replicates])
        judged = table[f"{'icc' if self.by == 'value' else 'lower'}_{self.icc.replace(',', '_')}"]
        kept = pd.Index(table["feature"][judged >= self.minimum])
        if kept.empty:
            raise InputError(
                f"No feature reaches ICC({self.icc}) {self.minimum:g} (recipe.robust.minimum) on {table['n'].max()} samples; "
                "lower it, or check that the tables are of the same samples."
            )
        return features[features.isin(kept)]

    def _allowed(self, frame: pd.DataFrame, features: pd.Index, learnt_from: pd.Index) -> pd.DataFrame:
        own = frame.index.astype(str).isin(learnt_from.astype(str))
        if self.samples == "cohort":
            return frame.loc[own, features]
        if own.any():
            raise InputError(
                f"Sample {frame.index[own][0]!r} of recipe.robust.tables is one of this study; set recipe.robust.samples: "
                "cohort, so that only samples that the model learns from are looked at."
            )
        return frame.loc[:, features]


def _mean_squares(measurements: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of samples, of replicates and of the remainder, each of shape (n_features,)."""
    n, k, _ = measurements.shape
    grand = measurements.mean(axis=(0, 1))
    of_samples, of_replicates = measurements.mean(axis=1) - grand, measurements.mean(axis=0) - grand
    rest = measurements - grand - of_samples[:, None] - of_replicates[None]
    squares = [k * (of_samples**2).sum(axis=0), n * (of_replicates**2).sum(axis=0), (rest**2).sum(axis=(0, 1))]
    constant = np.ptp(measurements, axis=(0, 1)) == 0
    between, columns, error = (np.where(constant, 0.0, one) for one in squares)
    return between / (n - 1), columns / (k - 1), error / ((n - 1) * (k - 1))


def _consistency_interval(between: np.ndarray, error: np.ndarray, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    upper = (1 + LEVEL) / 2
    low_f, high_f = 1 / fdtri(n - 1, (n - 1) * (k - 1), upper), fdtri((n - 1) * (k - 1), n - 1, upper)
    low = (between * low_f - error) / (between * low_f + (k - 1) * error)
    return low, (between * high_f - error) / (between * high_f + (k - 1) * error)


def _agreement_interval(
    between: np.ndarray, columns: np.ndarray, error: np.ndarray, icc: np.ndarray, n: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """McGraw & Wong's interval; their ratios are multiplied out, so that replicates without error have one too."""
    shift = k * icc * columns
    noise = (n * (1 + (k - 1) * icc) - k * icc) * error
    freedom = (k - 1) * (n - 1) * (shift + noise) ** 2 / ((n - 1) * shift**2 + noise**2)
    freedom = np.where((shift == 0) & (noise == 0), (n - 1) * (k - 1), freedom)
    upper = (1 + LEVEL) / 2
    high_f, low_f = fdtri(n - 1, freedom, upper), fdtri(freedom, n - 1, upper)
    pooled = k * columns + (k * n - k - n) * error
    low = n * (between - high_f * error) / (high_f * pooled + n * between)
    return low, n * (low_f * between - error) / (pooled + n * low_f * between)


def _shared(replicates: Sequence[pd.DataFrame]) -> tuple[pd.Index, pd.Index]:
    """Samples and features that all tables have, in the order of the first."""
    samples, features = replicates[0].index, replicates[0].columns
    for frame in replicates:
        if frame.index.has_duplicates:
            twice = frame.index[frame.index.duplicated()][0]
            raise InputError(f"Sample {twice!r} is in a table of replicates twice; give each table one row per sample.")
        samples, features = samples[samples.isin(frame.index)], features[features.isin(frame.columns)]
    if len(samples) < FEWEST_SAMPLES:
        raise InputError(
            f"{len(samples)} samples are in all tables of replicates (and may be looked at), fewer than {FEWEST_SAMPLES}; "
            "name samples alike in all of them, or measure more of them again."
        )
    if features.empty:
        raise InputError("No feature is in all tables of replicates; give their columns the same names.")
    return samples, features


def _left_out(replicates: Sequence[pd.DataFrame], samples: pd.Index, features: pd.Index, counts: np.ndarray) -> tuple[str, ...]:
    every_sample = pd.Index([]).append([frame.index for frame in replicates]).unique()
    every_feature = pd.Index([]).append([frame.columns for frame in replicates]).unique()
    said = []
    if len(every_sample) > len(samples):
        said.append(f"{len(every_sample) - len(samples)} of {len(every_sample)} samples are not in all tables and were left out.")
    if len(every_feature) > len(features):
        said.append(f"{len(every_feature) - len(features)} of {len(every_feature)} features are not in all tables.")
    if (counts < len(samples)).any():
        said.append(f"{(counts < len(samples)).sum()} features have missing values; samples with one were left out of them.")
    return tuple(said)
