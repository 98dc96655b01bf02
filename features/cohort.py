"""Patients with features and a known outcome, aligned once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from features.errors import InputError, did_you_mean
from features.extracted import BARRED, ExtractionRecord, joint_hash
from features.imaging.source import ImageSource
from features.settings import Settings
from features.signatures import find_signature, median_vote_score
from features.sources import Paths, Source, TableSource
from features.staining import StainingEndpoint
from features.table import FeatureTable

DIAGNOSTICS = re.compile(r"(^|_)diagnostics_")
# Trees compute in single precision, which ends at 3e38; squares must fit too.
LARGEST = 1e18


@dataclass(frozen=True)
class Labelling:
    """What an endpoint read from a table.

    Attributes
    ----------
    labels : Series of shape (n_samples,)
        1 hypoxic (positive), 0 not, NaN unknown.
    used : tuple of str
        Columns that the label was made from; they can be no features.
    notes : tuple of str
        What a reader of the label must know.
    """

    labels: pd.Series
    used: tuple[str, ...]
    notes: tuple[str, ...] = ()


class BinaryEndpoint(Settings):
    """A column with two values, one of which is the event."""

    kind: Literal["binary"] = "binary"
    column: str
    positive: bool | int | float | str = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the label is made from, as far as the settings name them."""
        return (self.column,)

    def label(self, frame: pd.DataFrame) -> Labelling:
        """1 where the column has the positive value, 0 where it has the other, NaN where it has none."""
        values = _column(frame, self.column, "cohort.endpoint.column")
        present = values.dropna()
        shown = ", ".join(repr(value) for value in sorted(map(str, present.unique()))[:5]) or "none"
        if present.nunique() > 2:
            raise InputError(
                f"Column {self.column!r} has {present.nunique()} different values ({shown}); a binary endpoint needs two. "
                "Recode it, or empty the cell in rows of the other classes: they are then left out."
            )
        positive = present.map(lambda value: _same_if_equal(value) == _same_if_equal(self.positive))
        quotes = " (in quotes, if it is a word such as yes or on)" if isinstance(self.positive, bool) else ""
        if present.nunique() == 2 and not positive.any():
            raise InputError(
                f"No row of {self.column!r} has the event: with positive: {self.positive!r} it would be another value than those "
                f"there ({shown}). Set cohort.endpoint.positive to the value of the event{quotes}."
            )
        if positive.nunique() < 2:
            raise InputError(
                f"Only one class is left in {self.column!r}: with positive: {self.positive!r} the values there ({shown}) are all "
                f"on one side. Set cohort.endpoint.positive to the value of the event{quotes}, or add the missing class."
            )
        return Labelling(positive.astype(float).reindex(frame.index), (self.column,))


class SignatureEndpoint(Settings):
    """Hypoxia status by a published gene signature: its score at or above the cohort's median.

    Every gene of the signature, under any of its names, is taken out of the features.
    """

    kind: Literal["signature"] = "signature"
    signature: str

    @property
    def columns(self) -> tuple[str, ...]:
        """None by name: the genes are found in the table."""
        return ()

    def label(self, frame: pd.DataFrame) -> Labelling:
        """1 where the signature's score is at or above the cohort's median, NaN where there is no score."""
        signature = find_signature(self.signature)
        score = median_vote_score(signature, frame)
        labels = (score >= score.median()).astype(float).where(score.notna())
        if labels.nunique() < 2:
            raise InputError(
                f"The score of {signature.title} does not part the samples (at least half share its lowest value); "
                "check the expression values."
            )
        found, genes = len(signature.found(frame.columns)), len(signature.genes)
        few = (f"Only {found} of the {genes} genes of {signature.title} are in the table.",) if found < 0.8 * genes else ()
        return Labelling(labels, signature.columns(frame.columns), few)


Endpoint = Annotated[BinaryEndpoint | SignatureEndpoint | StainingEndpoint, Field(discriminator="kind")]


class CohortSettings(Settings):
    """Which patients, which outcome, which columns.

    Parameters
    ----------
    patient : str, optional
        Column that says whose row it is. One patient may have several rows (lesions); none is ever on both sides of a
        split. Without it every row is a patient.
    site : str, optional
        Column that says where a sample was measured (hospital or scanner).
    acquisition : list of str
        Columns that say how it was measured (echo time, slice thickness, phase direction, ...), numbers or words. They are
        no features: a harmoniser of the recipe uses them, and `hypoxia check` looks whether they tell the outcome.
    drop : list of str
        Columns that are neither feature nor outcome (clinical text, identifiers, other outcomes).
    sequences : dict of str to path(s), optional
        One table per imaging sequence, or where images are the source the name of a sequence in the manifest; each gives a
        model of its own.
    """

    source: Source
    endpoint: Endpoint
    patient: str | None = None
    site: str | None = None
    acquisition: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    sequences: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], Paths] | None = Field(
        default=None, min_length=1
    )

    @model_validator(mode="after")
    def _sequences_are_tables(self) -> Self:
        if self.sequences and not isinstance(self.source, TableSource | ImageSource):
            raise ValueError("sequences need source.kind: table or images")
        return self

    @model_validator(mode="after")
    def _a_column_has_one_role(self) -> Self:
        named = [("endpoint", name) for name in self.endpoint.columns]
        named += [(key, name) for key in ("patient", "site") if (name := getattr(self, key))]
        named += [("acquisition", name) for name in self.acquisition]
        roles: dict[str, str] = {}
        for role, name in named:
            if name in roles:
                raise ValueError(f"column {name!r} is named as {roles[name]} and as {role}; name one column for each")
            if name in self.drop:
                raise ValueError(f"column {name!r} is named under {role} and under drop; take it out of drop")
            roles[name] = role
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
    protocol : DataFrame of shape (n_samples, n_parameters)
        How each sample was measured, as numbers or words; without columns where the study names none.
    site : Series of shape (n_samples,), str, or None
        Where each sample was measured.
    extraction_hash : str or None
        Of the settings with which the features were extracted, where known.
    """

    table: FeatureTable
    labels: pd.Series
    patients: pd.Series
    notes: tuple[str, ...] = field(default=(), compare=False)
    protocol: pd.DataFrame = field(default_factory=pd.DataFrame)
    site: pd.Series | None = None
    extraction_hash: str | None = None

    def __post_init__(self) -> None:
        if self.protocol.shape[1] == 0:
            object.__setattr__(self, "protocol", pd.DataFrame(index=self.features.index))

    @property
    def features(self) -> pd.DataFrame:
        """Values of shape (n_samples, n_features)."""
        return self.table.values

    @property
    def inputs(self) -> pd.DataFrame:
        """What a model may take: features, then the protocol and the site, words as they are written."""
        site = [] if self.site is None else [self.site]
        return pd.concat([self.features, self.protocol, *site], axis=1) if site or self.protocol.shape[1] else self.features

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
        if self.protocol.shape[1] or self.site is not None:
            digest.update(self.inputs.iloc[:, self.features.shape[1] :].to_csv(index=False).encode())
        return digest.hexdigest()

    def subset(self, samples: pd.Index) -> Cohort:
        """The same cohort with these samples only, in this order."""
        return replace(
            self,
            table=self.table.subset(samples),
            labels=self.labels.loc[samples],
            patients=self.patients.loc[samples],
            protocol=self.protocol.loc[samples],
            site=None if self.site is None else self.site.loc[samples],
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
    return _assemble(settings, settings.source.read(folder, text=_text_columns(settings)))


def load_sequences(settings: CohortSettings, folder: Path) -> dict[str, Cohort]:
    """Read a cohort per sequence; a patient may be in some of them only."""
    return {
        name: _assemble(settings, settings.source.read(folder, paths, _text_columns(settings)), where=f" of sequence {name!r}")
        for name, paths in (settings.sequences or {}).items()
    }


def _assemble(settings: CohortSettings, frame: pd.DataFrame, where: str = "") -> Cohort:
    records: tuple[ExtractionRecord, ...] = frame.attrs.get("extraction", ())
    described = {name: feature for record in records for name, feature in record.described.items()}
    dropped = [name for name in settings.drop if name != frame.index.name]  # the sample's name is no feature anyhow
    absent = [name for name in dropped if name not in frame.columns]
    if absent:
        raise InputError(
            f"Column {absent[0]!r} (cohort.drop) is not in the table{where}{did_you_mean(absent[0], list(frame.columns))}."
        )
    frame = frame.drop(columns=dropped)
    labelling = settings.endpoint.label(frame)
    known = labelling.labels.notna()
    notes = (*frame.attrs.get("notes", ()), *labelling.notes)
    if not known.all():
        notes += (f"{(~known).sum()} of {len(known)} samples{where} have no outcome and were left out.",)
    frame, labels = frame.loc[known], labelling.labels[known].astype(int)
    patient = settings.patient or next((one.patient for one in records if one.patient in frame.columns), None)
    protocol, site = _protocol(settings, frame), _site(settings, frame)
    patients = _patients(patient, frame)
    no_features = {*labelling.used, patient, settings.site, *settings.acquisition, *(record.patient for record in records)}
    no_features |= {name for name, feature in described.items() if feature.family in BARRED}
    # PyRadiomics' own name for what describes image and mask, which a table without its record has too.
    diagnostics = [name for name in frame.columns if DIAGNOSTICS.search(str(name)) and name not in no_features]
    if diagnostics:
        notes += (f"{len(diagnostics)} diagnostics columns ({diagnostics[0]!r} first) are no features and were left out.",)
    features = frame.drop(columns=[name for name in frame.columns if name in {*no_features, *diagnostics}])
    return Cohort(
        FeatureTable(_numbers(features, where), described),
        labels,
        patients,
        notes,
        protocol,
        site,
        joint_hash([record.settings_hash for record in records]),
    )


def _patients(column: str | None, frame: pd.DataFrame) -> pd.Series:
    if column in (None, frame.index.name):
        return pd.Series(frame.index.astype(str), index=frame.index, name="patient")
    patients = _column(frame, column, "cohort.patient")
    if patients.isna().any():
        raise InputError(f"Sample {patients.index[patients.isna()][0]!r} has no value in {column!r}; say whose it is.")
    return patients.astype(str).rename("patient")


def _site(settings: CohortSettings, frame: pd.DataFrame) -> pd.Series | None:
    if settings.site is None:
        return None
    site = _column(frame, settings.site, "cohort.site")
    if site.isna().any():
        raise InputError(f"Sample {site.index[site.isna()][0]!r} has no value in {settings.site!r}; say where it was measured.")
    return site.astype(str)


def _protocol(settings: CohortSettings, frame: pd.DataFrame) -> pd.DataFrame:
    """Parameters as numbers where all values are, else as words."""
    columns = {name: _column(frame, name, "cohort.acquisition") for name in settings.acquisition}
    numeric = {name: pd.to_numeric(values, errors="coerce") for name, values in columns.items()}
    chosen = {
        name: numeric[name].astype(float) if numeric[name].notna().equals(values.notna()) else _words(values)
        for name, values in columns.items()
    }
    empty = [name for name, values in chosen.items() if values.isna().all()]
    if empty:
        raise InputError(f"Column {empty[0]!r} (cohort.acquisition) holds no value; take it out of the list.")
    return pd.DataFrame(chosen, index=frame.index)


def _words(values: pd.Series) -> pd.Series:
    return values.astype(object).map(str, na_action="ignore")


def _numbers(features: pd.DataFrame, where: str) -> pd.DataFrame:
    if features.shape[1] == 0:
        raise InputError(f"No feature column is left in the table{where}; check cohort.drop and the files.")
    text = [name for name in features.columns if not pd.api.types.is_numeric_dtype(features[name])]
    if text:
        values = features[text[0]].dropna()
        values = values[pd.to_numeric(values.astype(str), errors="coerce").isna()]
        shown = f", for example {str(values.iloc[0])[:40]!r}" if len(values) else ""
        if values.astype(str).str.fullmatch(r"[+-]?\d+,\d+").any():
            raise InputError(f"Feature {text[0]!r}{where} has decimal commas{shown}; save the table with decimal points.")
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
    huge = np.nanmax(np.abs(numbers.to_numpy()), axis=0, initial=0.0) > LARGEST
    if huge.any():
        raise InputError(
            f"Feature {numbers.columns[huge][0]!r}{where} holds a value above {LARGEST:g}, too large to compute with; "
            "correct it, or name the column under cohort.drop."
        )
    if not (numbers.max() > numbers.min()).any():
        raise InputError(f"No feature{where} varies: every column holds one value; check the table.")
    return numbers


def _text_columns(settings: CohortSettings) -> tuple[str, ...]:
    """Read as written, or patient 007 of one table would be patient 7 of another, and held out in one of them only."""
    return tuple(name for name in (settings.patient, settings.site) if name)


def _same_if_equal(value: object) -> float | str:
    """A label such that 1, 1.0, True and '1' are the same: a column of 0 and 1 is read as floats when a row has none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)


def _column(frame: pd.DataFrame, name: str, key: str) -> pd.Series:
    if name not in frame.columns:
        raise InputError(f"Column {name!r} ({key}) is not in the table{did_you_mean(name, list(frame.columns))}.")
    return frame[name]
