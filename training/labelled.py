"""One labelled table on which frozen models are scored: its features, outcome and patients as named on the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from features.bundle import ModelBundle
from features.cohort import BinaryEndpoint
from features.errors import InputError, did_you_mean
from features.sources import read_table

NUMBERED = "row"  # the index's name where rows have no names


@dataclass(frozen=True)
class LabelledTable:
    """Samples with a known outcome.

    Attributes
    ----------
    frame : DataFrame of shape (n_samples, n_columns)
        Every column but outcome and patient; index: names of the samples, as text.
    labels : Series of shape (n_samples,), int
        1 for the event.
    patients : Series of shape (n_samples,), str
    digest : str
        SHA-256 of the file.
    notes : tuple of str
        What was left out while reading.
    """

    path: Path
    frame: pd.DataFrame
    labels: pd.Series
    patients: pd.Series
    digest: str
    notes: tuple[str, ...] = ()

    def without(self, samples: pd.Index) -> LabelledTable:
        """The same table without these samples."""
        kept = ~self.frame.index.isin(samples)
        note = f"{int((~kept).sum())} samples were left out, since a model learnt from them or from their patients."
        parts = (self.frame.loc[kept], self.labels.loc[kept], self.patients.loc[kept])
        return LabelledTable(self.path, *parts, self.digest, (*self.notes, note))


def read_labelled(
    path: Path,
    *,
    label: str,
    event: str = "1",
    patient: str | None = None,
    sample: str | None = None,
    usual: Iterable[str] = (),
    words: Iterable[str] = (),
) -> LabelledTable:
    """Read a table of features with an outcome.

    Parameters
    ----------
    label : str
        Column with two values; rows without one are left out.
    event : str
        The value that is the event; 1, 1.0, true and "1" are the same.
    patient : str, optional
        Column that says whose row it is; without it every row is a patient.
    sample : str, optional
        Column that names the rows; else one of `usual`, else the first column, if it names every row differently and holds no
        measurements; else rows are numbered.
    usual : iterable of str
        Columns that name the rows in the tables that the models were made of.
    words : iterable of str
        Columns that are read as they are written.

    Raises
    ------
    InputError
        The file or a column is not there, a name is there twice, or the outcome is not one of two values.
    """
    given = {"--label": label, "--patient": patient, "--sample": sample}
    header = list(read_table(path).columns)
    for option, name in given.items():
        if name is not None and name not in header:
            raise InputError(f"Column {name!r} ({option}) is not in {path.name}{did_you_mean(name, header)}.")
    candidates = [name for name in (*usual, header[0]) if name in header and name != label]
    frame = read_table(
        path, text_columns=tuple({name for name in (sample, patient, *candidates, *words) if name not in (None, label)})
    )
    frame.index = _names(frame, sample, candidates, path)
    try:
        labels = BinaryEndpoint(column=label, positive=event).label(frame).labels
    except InputError as cause:
        words = str(cause).replace(f"positive: {event!r}", f"--event {event}").replace("cohort.endpoint.positive", "--event")
        raise InputError(words) from cause
    known = labels.notna()
    left_out = int((~known).sum())
    notes = (f"{left_out} of {len(known)} rows have no outcome and were left out.",) if left_out else ()
    frame, labels = frame.loc[known], labels.loc[known].astype(int)
    patients = frame[patient] if patient else pd.Series(frame.index, index=frame.index)
    if patients.isna().any():
        raise InputError(f"{int(patients.isna().sum())} rows have no value in {patient!r} (--patient); say whose they are.")
    features = frame.drop(columns=[name for name in (label, patient) if name])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return LabelledTable(path, features, labels, patients.astype(str).rename("patient"), digest, notes)


def score_labelled(bundle: ModelBundle, table: LabelledTable) -> pd.DataFrame:
    """Predictions of a frozen model, in the columns of ``Evaluation.predictions``.

    Raises
    ------
    SchemaMismatchError
        The table lacks a feature of the model, or has a value that it does not take.
    """
    probability = bundle.score(rows_for(bundle, table).to_numpy())
    threshold = bundle.card.threshold
    return pd.DataFrame(
        {
            "sample": table.frame.index.astype(str),
            "patient": table.patients.to_numpy(),
            "label": table.labels.to_numpy(),
            "probability": probability,
            "threshold": threshold,
            "called": probability >= threshold,
            "repeat": 0,
            "fold": 0,
        }
    )


def rows_for(bundle: ModelBundle, table: LabelledTable) -> pd.DataFrame:
    """The model's features in its order, under other names that its contract knows if need be; gaps only if it fills them."""
    present = set(table.frame.columns)
    other_names = {other: name for other, name in bundle.contract.aliases.items() if other in present and name not in present}
    rows = table.frame.rename(columns=other_names)
    return bundle.schema.conform(rows, impute=bundle.contract.missing == "impute")


def _names(frame: pd.DataFrame, sample: str | None, candidates: list[str], path: Path) -> pd.Index:
    if sample is None:
        named = next((name for name in candidates if _can_name(frame[name])), None)
        values = frame[named] if named else pd.Series(range(1, len(frame) + 1))
        return pd.Index(values.astype(str), name=named or NUMBERED)
    if frame[sample].isna().any():
        raise InputError(f"{path.name} has a row without a value in {sample!r} (--sample); name every row.")
    if frame[sample].duplicated().any():
        raise InputError(f"{path.name} names a row twice in {sample!r} (--sample); give every row its own name.")
    return pd.Index(frame[sample].astype(str), name=sample)


def _can_name(values: pd.Series) -> bool:
    """Different in every row, and no measurements: taken for names, those would never be the name of a training sample."""
    numbers = pd.to_numeric(values, errors="coerce")
    measured = numbers.notna().all() and bool((numbers % 1 != 0).any())
    return bool(values.notna().all() and values.is_unique and not measured)
