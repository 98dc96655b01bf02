"""Patients with features and a known outcome, aligned once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from features.columns import column, meant
from features.errors import InputError, did_you_mean
from features.extracted import BARRED, ExtractionRecord, joint_hash
from features.imaging.source import ImageSource
from features.outcome import survival_outcome
from features.settings import Settings
from features.signatures import find_signature, median_vote_score, signatures
from features.sources import Paths, Source, TableSource
from features.staining import StainingEndpoint
from features.survival import SurvivalEndpoint
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
    times : Series of shape (n_samples,), or None
        Follow-up until the event or until last seen, for an endpoint of survival; the label then says whether it was the event.
    competing : Series of shape (n_samples,), bool, or None
        Whether another event ended the follow-up, where the study codes such events.
    horizon : float or None
        Time by which the event is looked for, in the unit.
    """

    labels: pd.Series
    used: tuple[str, ...]
    notes: tuple[str, ...] = ()
    times: pd.Series | None = None
    competing: pd.Series | None = None
    horizon: float | None = None
    unit: str = ""


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
        values = column(frame, self.column, "cohort.endpoint.column")
        present = values.dropna()
        shown = ", ".join(repr(value) for value in sorted(map(str, present.unique()))[:5]) or "none"
        if present.nunique() > 2:
            raise InputError(
                f"Column {self.column!r} has {present.nunique()} different values ({shown}); a binary endpoint needs two. "
                "Recode it, or empty the cell in rows of the other classes: they are then left out."
            )
        positive = present.map(lambda value: meant(value) == meant(self.positive))
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


Endpoint = Annotated[BinaryEndpoint | SignatureEndpoint | StainingEndpoint | SurvivalEndpoint, Field(discriminator="kind")]


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
    clinical : list of str
        Columns that are known of a patient without the biomarker (stage, age), numbers or words. They are no features: a study
        of survival, or of a composite score, says what the model adds to them.
    features : list of str, optional
        Columns that are features, by name or by a pattern such as ``t2w_*``. Left out: all columns that have no other role.
    drop : list of str
        Columns that are neither feature nor outcome (clinical text, identifiers, other outcomes).
    without_signatures : list of str
        Published signatures whose genes, under any of their names, are no features (``all`` for every one): does the rest of
        the transcriptome tell the outcome?
    sequences : dict of str to path(s), optional
        One table per imaging sequence, or where images are the source the name of a sequence in the manifest; each gives a
        model of its own.
    """

    source: Source
    endpoint: Endpoint
    patient: str | None = None
    site: str | None = None
    acquisition: tuple[str, ...] = ()
    clinical: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    without_signatures: tuple[str, ...] = ()
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
        named += [("acquisition", name) for name in self.acquisition] + [("clinical", name) for name in self.clinical]
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
        1 for the event (hypoxic; in a study of survival, the event by the horizon), 0 otherwise.
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
    times : Series of shape (n_samples,), or None
        Follow-up, in a study of survival.
    competing : Series of shape (n_samples,), bool, or None
        Whether a competing event ended the follow-up, where the study codes such events.
    clinical : DataFrame of shape (n_samples, n_clinical)
        What is known of a patient without the biomarker, numbers or words.
    horizon : float or None
        Time by which the event is looked for, in the unit `time_unit`.
    gene_names : DataFrame or None
        What became of the names of an expression file: name, symbol, how it was found, note, whether it was used.
    """

    table: FeatureTable
    labels: pd.Series
    patients: pd.Series
    notes: tuple[str, ...] = field(default=(), compare=False)
    protocol: pd.DataFrame = field(default_factory=pd.DataFrame)
    site: pd.Series | None = None
    extraction_hash: str | None = None
    times: pd.Series | None = None
    competing: pd.Series | None = None
    clinical: pd.DataFrame = field(default_factory=pd.DataFrame)
    horizon: float | None = None
    time_unit: str = ""
    gene_names: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        for name in ("protocol", "clinical"):
            if getattr(self, name).shape[1] == 0:
                object.__setattr__(self, name, pd.DataFrame(index=self.features.index))

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
    def outcome(self) -> np.ndarray:
        """What is learnt, shape (n_samples,): labels, or the structured times and events of a study of survival."""
        return self.y if self.times is None else survival_outcome(self.times.to_numpy(), self.y)

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
        if self.times is not None:
            digest.update(np.append(self.times.to_numpy(dtype=float), self.horizon or 0.0).tobytes())
        for more in (self.clinical, None if self.competing is None else self.competing.to_frame()):
            if more is not None and more.shape[1]:
                digest.update(more.to_csv(index=False).encode())
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
            times=None if self.times is None else self.times.loc[samples],
            competing=None if self.competing is None else self.competing.loc[samples],
            clinical=self.clinical.loc[samples],
        )

    def of_patients(self, patients: pd.Index) -> Cohort:
        """The same cohort with all samples of these patients only, in the cohort's order."""
        return self.subset(self.samples[self.patients.isin(patients).to_numpy()])


def load_cohort(settings: CohortSettings, folder: Path, scores: Mapping[str, pd.Series] | None = None) -> Cohort:
    """Read a study's only table into a cohort.

    Parameters
    ----------
    scores : mapping of str to Series of shape (n_patients,), optional
        More features, by patient; samples without one are left out.

    Raises
    ------
    InputError
        Anything in the table or the settings that a user must mend.
    """
    return _assemble(settings, settings.source.read(folder, text=_text_columns(settings)), scores=scores)


def load_sequences(settings: CohortSettings, folder: Path) -> dict[str, Cohort]:
    """Read a cohort per sequence; a patient may be in some of them only."""
    return {
        name: _assemble(settings, settings.source.read(folder, paths, _text_columns(settings)), where=f" of sequence {name!r}")
        for name, paths in (settings.sequences or {}).items()
    }


def _assemble(
    settings: CohortSettings, frame: pd.DataFrame, where: str = "", scores: Mapping[str, pd.Series] | None = None
) -> Cohort:
    for name, values in (scores or {}).items():
        frame = _with_score(frame, settings.patient, name, values)
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
    if known.sum() == 1:
        raise InputError(
            f"The table{where} has one sample with an outcome; there is nothing to learn from a single one: add more."
        )
    frame, labels = frame.loc[known], labelling.labels[known].astype(int)
    times, competing = (None if one is None else one[known] for one in (labelling.times, labelling.competing))
    patient = settings.patient or next((one.patient for one in records if one.patient in frame.columns), None)
    site, protocol = _site(settings, frame), _described(frame, settings.acquisition, "cohort.acquisition")
    clinical = _described(frame, settings.clinical, "cohort.clinical")
    patients = _patients(patient, frame)
    if times is not None:
        _refuse_several_outcomes(patients, times, labels)
    named = (settings.site, *settings.acquisition, *settings.clinical)
    no_features = {*labelling.used, patient, *named, *(record.patient for record in records)}
    no_features |= {name for name, feature in described.items() if feature.family in BARRED}
    # PyRadiomics' own name for what describes image and mask, which a table without its record has too.
    diagnostics = [name for name in frame.columns if DIAGNOSTICS.search(str(name)) and name not in no_features]
    if diagnostics:
        notes += (f"{len(diagnostics)} diagnostics columns ({diagnostics[0]!r} first) are no features and were left out.",)
    features = frame.drop(columns=[name for name in frame.columns if name in {*no_features, *diagnostics}])
    mapping, also = frame.attrs.get("mapping"), tuple(scores or ())
    if mapping is not None:  # what stands beside the genes describes the samples
        features = features[[name for name in features.columns if name in {*mapping.genes, *also}]]
    features = features[_wanted(settings.features, features.columns, also)]
    barred = _genes_of(settings.without_signatures, features.columns)
    features, notes = features.drop(columns=barred), (*notes, *_left_out(barred))
    return Cohort(
        FeatureTable(_numbers(features, where), described),
        labels,
        patients,
        notes,
        protocol,
        site,
        joint_hash([record.settings_hash for record in records]),
        times,
        competing,
        clinical,
        labelling.horizon,
        labelling.unit,
        None if mapping is None else mapping.table(),
    )


def _genes_of(names: tuple[str, ...], columns: pd.Index) -> list[str]:
    """Columns that carry, or under an older symbol may carry, a gene of one of the signatures."""
    every = signatures() if "all" in names else {}
    wanted = [*every.values(), *(find_signature(name) for name in names if name != "all")]
    return sorted({name for signature in wanted for name in signature.columns(columns)})


def _left_out(genes: list[str]) -> tuple[str, ...]:
    return (f"{len(genes)} genes of published signatures were left out ({genes[0]!r} first).",) if genes else ()


def _refuse_several_outcomes(patients: pd.Series, times: pd.Series, labels: pd.Series) -> None:
    """A patient with several samples has one time to the event."""
    outcomes = pd.DataFrame({"time": times, "event": labels}).groupby(patients).nunique().max(axis=1)
    several = outcomes.index[outcomes > 1]
    if len(several):
        raise InputError(
            f"Patient {several[0]!r} has samples with different times or events; a patient has one outcome: correct the rows."
        )


def _wanted(patterns: tuple[str, ...] | None, columns: pd.Index, also: tuple[str, ...]) -> list[str]:
    """Columns that the study names as features, or all; and scores, which are features anyhow."""
    if patterns is None:
        return list(columns)
    for pattern in patterns:
        if not any(_is_named(name, pattern) for name in columns):
            raise InputError(
                f"{pattern!r} (cohort.features, or a biomarker) is no column of the table, or has another role"
                f"{did_you_mean(pattern, list(map(str, columns)))}."
            )
    return [name for name in columns if name in also or any(_is_named(name, pattern) for pattern in patterns)]


def _is_named(name: object, pattern: str) -> bool:
    """By itself or by a pattern; a name may hold what is special in patterns, as 'ADC [mm2/s]' does."""
    return name == pattern or fnmatchcase(str(name), pattern)


def _with_score(frame: pd.DataFrame, patient: str | None, name: str, scores: pd.Series) -> pd.DataFrame:
    """A table with a score per patient as one more column, without the samples of patients who have none."""
    if name in frame.columns:
        raise InputError(f"Column {name!r} is in the table, and a score is to be called so too; rename or drop the column.")
    found = _patients(patient, frame).map(scores)
    if found.isna().all():
        raise InputError(f"No patient of the table has a score {name!r}; check that both studies name patients in the same way.")
    lost = int(found.isna().sum())
    scored = frame.assign(**{name: found})[found.notna()]
    words = (f"{lost} of {len(frame)} samples have no out-of-sample score {name!r} and were left out.",) if lost else ()
    scored.attrs = {**frame.attrs, "notes": (*frame.attrs.get("notes", ()), *words)}
    return scored


def _patients(name: str | None, frame: pd.DataFrame) -> pd.Series:
    if name in (None, frame.index.name):
        return pd.Series(frame.index.astype(str), index=frame.index, name="patient")
    patients = column(frame, name, "cohort.patient")
    if patients.isna().any():
        raise InputError(f"Sample {patients.index[patients.isna()][0]!r} has no value in {name!r}; say whose it is.")
    return patients.astype(str).rename("patient")


def _site(settings: CohortSettings, frame: pd.DataFrame) -> pd.Series | None:
    if settings.site is None:
        return None
    site = column(frame, settings.site, "cohort.site")
    if site.isna().any():
        raise InputError(f"Sample {site.index[site.isna()][0]!r} has no value in {settings.site!r}; say where it was measured.")
    return site.astype(str)


def _described(frame: pd.DataFrame, names: tuple[str, ...], key: str) -> pd.DataFrame:
    """Columns as numbers where all values are, else as words."""
    columns = {name: column(frame, name, key) for name in names}
    numeric = {name: pd.to_numeric(values, errors="coerce") for name, values in columns.items()}
    chosen = {
        name: numeric[name].astype(float) if numeric[name].notna().equals(values.notna()) else _words(values)
        for name, values in columns.items()
    }
    empty = [name for name, values in chosen.items() if values.isna().all()]
    if empty:
        raise InputError(f"Column {empty[0]!r} ({key}) holds no value; take it out of the list.")
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
