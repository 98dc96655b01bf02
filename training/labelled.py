"""One labelled table on which frozen models are scored: its features, outcome and patients as named on the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from features.bundle import ModelBundle
from features.cohort import BinaryEndpoint, Labelling
from features.errors import InputError, did_you_mean
from features.sources import read_table
from features.survival import SurvivalEndpoint
from training.judged import JudgedModel

NUMBERED = "row"  # the index's name where rows have no names
# What a study file calls by a key, as the command line calls it.
OPTION_OF = {"cohort.endpoint.time": "--time", "cohort.endpoint.positive": "--event"}

Outcome = BinaryEndpoint | SurvivalEndpoint


@dataclass(frozen=True)
class LabelledTable:
    """Samples with a known outcome.

    Attributes
    ----------
    frame : DataFrame of shape (n_samples, n_columns)
        Every column but outcome and patient; index: names of the samples, as text.
    labels : Series of shape (n_samples,), int
        1 for the event; of times to an event, for the event by the horizon.
    patients : Series of shape (n_samples,), str
    digest : str
        SHA-256 of the file.
    notes : tuple of str
        What was left out while reading.
    times : Series of shape (n_samples,), float, or None
        Follow-up until the horizon, of times to an event.
    competing : Series of shape (n_samples,), bool, or None
        Whether a competing event ended the follow-up, where the study codes such events.
    """

    path: Path
    frame: pd.DataFrame
    labels: pd.Series
    patients: pd.Series
    digest: str
    notes: tuple[str, ...] = ()
    times: pd.Series | None = None
    competing: pd.Series | None = None

    def without(self, samples: pd.Index) -> LabelledTable:
        """The same table without these samples."""
        kept = ~self.frame.index.isin(samples)
        note = f"{int((~kept).sum())} samples were left out, since a model learnt from them or from their patients."
        return replace(
            self,
            frame=self.frame.loc[kept],
            labels=self.labels.loc[kept],
            patients=self.patients.loc[kept],
            times=None if self.times is None else self.times.loc[kept],
            competing=None if self.competing is None else self.competing.loc[kept],
            notes=(*self.notes, note),
        )


def outcome_asked(
    models: Sequence[JudgedModel], *, label: str | None = None, event: str | None = None, time: str | None = None
) -> Outcome:
    """How the outcome is read from a table: as named on the command line, else as in the study of the first model.

    Parameters
    ----------
    label : str, optional
        Column with two values, or that says whether the event happened; it must be named for a model of two classes.
    event : str, optional
        The value that is the event; of two classes "1".
    time : str, optional
        Column with the follow-up.

    Raises
    ------
    InputError
        Models of several kinds or horizons, an option that is not of their kind, or no column for two classes.
    """
    refuse_several_questions(models)
    first = models[0]
    endpoint, horizon = first.study.cohort.endpoint, first.horizon
    if horizon is not None and isinstance(endpoint, SurvivalEndpoint):
        named = {"time": time, "event": label, "positive": event}
        given = {name: value for name, value in named.items() if value is not None}
        if given.get("time", endpoint.time) == given.get("event", endpoint.event):
            raise InputError(f"Column {given.get('time', endpoint.time)!r} is named as time and as event; name one for each.")
        return endpoint.model_copy(update={**given, "horizon": horizon})
    if time is not None:
        raise InputError(f"--time is of models of times to an event; {first.title} is of two classes: leave it out.")
    if label is None:
        raise InputError("--on TABLE needs the column of the outcome; name it with --label COLUMN.")
    return BinaryEndpoint(column=label, positive="1" if event is None else event)


def refuse_several_questions(models: Sequence[JudgedModel]) -> None:
    """Models are put side by side only if they answer one question.

    Raises
    ------
    InputError
        Some are of two classes and some of times to an event, or they answer the risk by different times.
    """
    first = models[0]
    for other in models[1:]:
        if (first.horizon is None) != (other.horizon is None):
            survival, classes = (first, other) if other.horizon is None else (other, first)
            raise InputError(
                f"{survival.title} is of times to an event and {classes.title} of two classes, which have no measure in common; "
                "name models of one kind."
            )
        if (first.horizon, first.card.time_unit) != (other.horizon, other.card.time_unit):
            raise InputError(
                f"{first.title} answers the {first.card.probability_words} and {other.title} the {other.card.probability_words}; "
                "train both for one horizon (cohort.endpoint.horizon)."
            )


def read_labelled(
    path: Path,
    *,
    outcome: Outcome,
    patient: str | None = None,
    sample: str | None = None,
    usual: Iterable[str] = (),
    words: Iterable[str] = (),
) -> LabelledTable:
    """Read a table of features with an outcome.

    Parameters
    ----------
    outcome : BinaryEndpoint or SurvivalEndpoint
        From `outcome_asked`; rows without it are left out.
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
        The file or a column is not there, a name is there twice, or the outcome is not one of two values, or no follow-up.
    """
    used = outcome.columns
    given = {"--label": used[-1], "--patient": patient, "--sample": sample}
    given |= {"--time": used[0]} if isinstance(outcome, SurvivalEndpoint) else {}
    header = list(read_table(path).columns)
    for option, name in given.items():
        if name is not None and name not in header:
            raise InputError(f"Column {name!r} ({option}) is not in {path.name}{did_you_mean(name, header)}.")
    candidates = [name for name in (*usual, header[0]) if name in header and name not in used]
    named = [name for name in (sample, patient) if name is not None]
    frame = read_table(path, text_columns=tuple({*named, *candidates, *words} - {*used}))
    frame.index = _names(frame, sample, candidates, path)
    read = _read_outcome(outcome, frame)
    known = read.labels.notna()
    left_out = int((~known).sum())
    notes = (f"{left_out} of {len(known)} rows have no outcome and were left out.",) if left_out else ()
    frame, labels = frame.loc[known], read.labels.loc[known].astype(int)
    patients = frame[patient] if patient else pd.Series(frame.index, index=frame.index)
    if patients.isna().any():
        raise InputError(f"{int(patients.isna().sum())} rows have no value in {patient!r} (--patient); say whose they are.")
    return LabelledTable(
        path=path,
        frame=frame.drop(columns=[name for name in (*used, patient) if name]),
        labels=labels,
        patients=patients.astype(str).rename("patient"),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        notes=(*notes, *read.notes),
        times=None if read.times is None else read.times.loc[known],
        competing=None if read.competing is None else read.competing.loc[known],
    )


def _read_outcome(outcome: Outcome, frame: pd.DataFrame) -> Labelling:
    """The outcome by the rules of its endpoint; mistakes in the words of the command line."""
    try:
        return outcome.label(frame)
    except InputError as cause:
        words = str(cause).replace(f"positive: {outcome.positive!r}", f"--event {outcome.positive}")
        words = words.replace("cohort.endpoint.event", "--label").replace(", or raise the horizon", "")
        for key, option in OPTION_OF.items():
            words = words.replace(key, option)
        raise InputError(words) from cause


def score_labelled(bundle: ModelBundle, table: LabelledTable) -> pd.DataFrame:
    """Predictions of a frozen model, in the columns of ``Evaluation.predictions``; a score decides where the model has one.

    Raises
    ------
    SchemaMismatchError
        The table lacks a feature of the model, or has a value that it does not take.
    """
    matrix = rows_for(bundle, table).to_numpy()
    probability, score = bundle.score(matrix), bundle.raw_score(matrix)
    threshold, own = bundle.card.threshold, bundle.card.score
    return pd.DataFrame(
        {
            "sample": table.frame.index.astype(str),
            "patient": table.patients.to_numpy(),
            "label": table.labels.to_numpy(),
            "probability": probability,
            "threshold": threshold,
            "called": probability >= threshold if own is None or score is None else score >= own.cutoff,
            "repeat": 0,
            "fold": 0,
            **({} if table.times is None else {"time": table.times.to_numpy()}),
            **({} if score is None else {"score": score}),
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
