"""Patients with features and a known outcome, aligned once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from features.errors import InputError
from features.settings import Settings
from features.signatures import find_signature, median_vote_score
from features.sources import Paths, Source, TableSource
from features.table import FeatureTable, did_you_mean


@dataclass(frozen=True)
class Labelling:
    """What an endpoint read from a table.

    Attributes
    ----------
    labels : Series of shape (n_samples,)
        1 hypoxic (positive), 0 not, NaN unknown.
    used : tuple of str
        Columns that the label was made from; they can be no features.
    """

    labels: pd.Series
    used: tuple[str, ...]


class BinaryEndpoint(Settings):
    """A column with two values, one of which is the event."""

    kind: Literal["binary"] = "binary"
    column: str
    positive: bool | int | float | str = 1

    def label(self, frame: pd.DataFrame) -> Labelling:
        """1 where the column has the positive value, 0 where it has the other, NaN where it has none."""
        values = _column(frame, self.column, "cohort.endpoint.column")
        present = values.dropna()
        if present.nunique() > 2:
            raise InputError(
                f"Column {self.column!r} has {present.nunique()} different values; a binary endpoint needs two. "
                "Recode it, or leave out the rows of the other classes."
            )
        positive = present.map(self._is_positive)
        if positive.nunique() < 2:
            shown = ", ".join(repr(value) for value in sorted(map(str, present.unique()))) or "none"
            raise InputError(
                f"Only one class is left in {self.column!r}: with positive: {self.positive!r} the values there ({shown}) are all "
                "on one side. Set cohort.endpoint.positive to the value of the event, or add the missing class."
            )
        return Labelling(positive.astype(float).reindex(frame.index), (self.column,))

    def _is_positive(self, value: object) -> bool:
        if isinstance(value, (bool, int, float, np.number, np.bool_)) and not isinstance(self.positive, str):
            return float(value) == float(self.positive)
        return str(value) == str(self.positive)


class SignatureEndpoint(Settings):
    """Hypoxia status by a published gene signature: its score at or above the cohort's median.

    Every gene of the signature, under any of its names, is taken out of the features.
    """

    kind: Literal["signature"] = "signature"
    signature: str

    def label(self, frame: pd.DataFrame) -> Labelling:
        """1 where the signature's score is at or above the cohort's median."""
        signature = find_signature(self.signature)
        score = median_vote_score(signature, frame)
        return Labelling((score >= score.median()).astype(float), signature.columns(frame.columns))


Endpoint = Annotated[BinaryEndpoint | SignatureEndpoint, Field(discriminator="kind")]


class CohortSettings(Settings):
    """Which patients, which outcome, which columns.

    Parameters
    ----------
    patient : str, optional
        Column that says whose row it is. One patient may have several rows (lesions); none is ever on both sides of a
        split. Without it every row is a patient.
    drop : list of str
        Columns that are neither feature nor outcome (clinical text, identifiers, other outcomes).
    sequences : dict of str to path(s), optional
        One table per imaging sequence; each gives a model of its own.
    """

    source: Source
    endpoint: Endpoint
    patient: str | None = None
    drop: tuple[str, ...] = ()
    sequences: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], Paths] | None = Field(
        default=None, min_length=1
    )

    @model_validator(mode="after")
    def _sequences_are_tables(self) -> Self:
        if self.sequences and not isinstance(self.source, TableSource):
            raise ValueError("sequences need source.kind: table")
        return self


@dataclass(frozen=True)
class Cohort:
    """Samples with features, outcome and patient, on one index.

    Attributes
    ----------
    table : FeatureTable of shape (n_samples, n_features)
    labels : Series of shape (n_samples,), int
        1 for the event (hypoxic), 0 otherwise.
    patients : Series of shape (n_samples,), str
        Whose sample it is.
    notes : tuple of str
        What was left out while reading, in words.
    """

    table: FeatureTable
    labels: pd.Series
    patients: pd.Series
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def features(self) -> pd.DataFrame:
        """Values of shape (n_samples, n_features)."""
        return self.table.values

    @property
    def y(self) -> np.ndarray:
        """Labels of shape (n_samples,), 0 or 1."""
        return self.labels.to_numpy()

    @property
    def samples(self) -> pd.Index:
        """Names of the samples."""
        return self.features.index

    @cached_property
    def patient_labels(self) -> pd.Series:
        """Label per patient, in order of first appearance: 1 if any of the patient's samples is positive."""
        return self.labels.groupby(self.patients.to_numpy(), sort=False).max()

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over names, values, labels and patients: equal data, equal hash."""
        digest = hashlib.sha256()
        for names in (self.features.columns, self.samples, self.patients):
            digest.update("\x1f".join(map(str, names)).encode() + b"\x1e")
        digest.update(np.ascontiguousarray(self.features.to_numpy(dtype=float)).tobytes())
        digest.update(self.y.astype(np.int8).tobytes())
        return digest.hexdigest()

    def subset(self, samples: pd.Index) -> Cohort:
        """The same cohort with these samples only, in this order."""
        return replace(
            self,
            table=FeatureTable(self.features.loc[samples]),
            labels=self.labels.loc[samples],
            patients=self.patients.loc[samples],
        )

    def of_patients(self, patients: pd.Index) -> Cohort:
        """The same cohort with all samples of these patients only, in the cohort's order."""
        return self.subset(self.samples[self.patients.isin(patients).to_numpy()])


def load_cohort(settings: CohortSettings, folder: Path) -> Cohort:
    """Read a study's only table into a cohort.

    Raises
    ------
    InputError
        Anything in the table or the settings that a user must mend.
    """
    return _assemble(settings, settings.source.read(folder))


def load_sequences(settings: CohortSettings, folder: Path) -> dict[str, Cohort]:
    """Read a cohort per sequence; a patient may be in some of them only."""
    return {
        name: _assemble(settings, settings.source.read(folder, paths), where=f" of sequence {name!r}")
        for name, paths in (settings.sequences or {}).items()
    }


def _assemble(settings: CohortSettings, frame: pd.DataFrame, where: str = "") -> Cohort:
    absent = [name for name in settings.drop if name not in frame.columns]
    if absent:
        raise InputError(
            f"Column {absent[0]!r} (cohort.drop) is not in the table{where}{did_you_mean(absent[0], list(frame.columns))}."
        )
    frame = frame.drop(columns=list(settings.drop))
    labelling = settings.endpoint.label(frame)
    known = labelling.labels.notna()
    notes = () if known.all() else (f"{(~known).sum()} samples{where} have no outcome and were left out.",)
    frame, labels = frame.loc[known], labelling.labels[known].astype(int)
    patients = _patients(settings, frame)
    features = frame.drop(columns=[*labelling.used, *([settings.patient] if settings.patient else [])])
    return Cohort(FeatureTable(_numbers(features, where)), labels, patients, notes)


def _patients(settings: CohortSettings, frame: pd.DataFrame) -> pd.Series:
    if settings.patient is None:
        return pd.Series(frame.index.astype(str), index=frame.index, name="patient")
    patients = _column(frame, settings.patient, "cohort.patient")
    if patients.isna().any():
        raise InputError(f"Sample {patients.index[patients.isna()][0]!r} has no value in {settings.patient!r}; say whose it is.")
    return patients.astype(str).rename("patient")


def _numbers(features: pd.DataFrame, where: str) -> pd.DataFrame:
    if features.shape[1] == 0:
        raise InputError(f"No feature column is left in the table{where}; check cohort.drop and the files.")
    text = [name for name in features.columns if not pd.api.types.is_numeric_dtype(features[name])]
    if text:
        values = features[text[0]].dropna()
        shown = f", for example {str(values.iloc[0])[:40]!r}" if len(values) else ""
        raise InputError(
            f"Feature {text[0]!r}{where} holds text{shown}; make it a number, or name it under cohort.drop"
            + (f" (as {len(text) - 1} more columns)." if len(text) > 1 else ".")
        )
    numbers = features.astype(float)
    infinite = np.isinf(numbers.to_numpy()).any(axis=0)
    if infinite.any():
        raise InputError(
            f"Feature {numbers.columns[infinite][0]!r}{where} holds an infinite value; make it a number or leave it empty."
        )
    return numbers


def _column(frame: pd.DataFrame, name: str, key: str) -> pd.Series:
    if name not in frame.columns:
        raise InputError(f"Column {name!r} ({key}) is not in the table{did_you_mean(name, list(frame.columns))}.")
    return frame[name]
