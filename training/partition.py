"""Who is learnt from and who is held out: by patient, stratified, as names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from features.cohort import Cohort
from features.errors import InputError, LeakError
from features.settings import Settings


class PartitionSettings(Settings):
    """How many patients are set aside before anything is learnt.

    Parameters
    ----------
    held_out : float
        Share of patients, stratified by outcome.
    """

    held_out: float = Field(default=0.25, gt=0, lt=1)


@dataclass(frozen=True)
class Split:
    """Samples to learn from and samples to judge on; no patient has samples in both.

    Attributes
    ----------
    train, test : Index of str
        Names of samples.
    """

    train: pd.Index
    test: pd.Index

    @classmethod
    def of_patients(cls, cohort: Cohort, held_out: pd.Index) -> Split:
        """All samples of the held-out patients on one side, everyone else's on the other."""
        outside = cohort.patients.isin(held_out).to_numpy()
        split = cls(cohort.samples[~outside], cohort.samples[outside])
        split.refuse_overlap(cohort)
        return split

    def refuse_overlap(self, cohort: Cohort) -> None:
        """Stop the run if any patient is on both sides.

        Raises
        ------
        LeakError
            A patient is.
        """
        both = set(cohort.patients.loc[self.train]) & set(cohort.patients.loc[self.test])
        if both:
            raise LeakError(f"{len(both)} patients are on both sides of a split; nothing was learnt from it.")

    def as_json(self) -> dict[str, list[str]]:
        """Names on either side, as lists."""
        return {"train": list(map(str, self.train)), "test": list(map(str, self.test))}


def hold_out_patients(patient_labels: pd.Series, share: float, rng: np.random.Generator, *, survival: bool = False) -> pd.Index:
    """Draw the patients to hold out, stratified by their label.

    Parameters
    ----------
    patient_labels : Series of shape (n_patients,)
        Index: patient; value: 1 if any of the patient's samples is positive.
    share : float
        Share of patients, between 0 and 1.
    survival : bool
        Whether the label is that of an event: then both sides need events, and nothing else.

    Raises
    ------
    InputError
        A class has too few patients to be on both sides.
    """
    fewest = needed_patients(patient_labels, survival)
    outside = int(np.ceil(len(patient_labels) * share))
    if fewest < 2 or min(outside, len(patient_labels) - outside) < 2:
        raise InputError(
            f"{whose(survival)} {fewest} patients of {len(patient_labels)}; with {share:.0%} held out they cannot be on both "
            "sides. Change partition.held_out, or collect more patients."
        )
    seed = int(rng.integers(2**31))
    strata = patient_labels if smaller_class(patient_labels) >= 2 else None
    _, held_out = train_test_split(patient_labels.index, test_size=share, stratify=strata, random_state=seed)
    return pd.Index(held_out)


def hold_out(cohort: Cohort, share: float, rng: np.random.Generator) -> Split:
    """Split a cohort into development and held-out patients."""
    return Split.of_patients(cohort, hold_out_patients(cohort.patient_labels, share, rng, survival=cohort.times is not None))


def folds(cohort: Cohort, k: int, rng: np.random.Generator) -> Iterator[Split]:
    """Cross-validation folds over patients, stratified by the patient's label.

    Every sample is in exactly one test part.

    Raises
    ------
    InputError
        A class has fewer patients than there are folds.
    """
    labels, survival = cohort.patient_labels, cohort.times is not None
    fewest = needed_patients(labels, survival)
    if fewest < k:
        raise InputError(
            f"{whose(survival)} {fewest} patients to learn from, fewer than the {k} folds; use fewer folds "
            "(recipe.search.folds, evaluation.internal.folds), or collect more patients."
        )
    kind = StratifiedKFold if smaller_class(labels) >= k else KFold  # of times to an event few may be censored
    splitter = kind(k, shuffle=True, random_state=int(rng.integers(2**31)))
    for _, test in splitter.split(labels, labels):
        yield Split.of_patients(cohort, labels.index[test])


def refuse_too_few_patients(cohort: Cohort, held_out: pd.Index, outer_folds: int | None, inner_folds: int) -> None:
    """Say before anything is learnt that a cohort is too small for the folds that a study asks for.

    Parameters
    ----------
    held_out : Index of str
        Patients that will be held out.

    Raises
    ------
    InputError
        The smaller class would run out of patients in some fold, or the held-out patients are of one class.
    """
    outside, survival = cohort.patient_labels.index.isin(held_out), cohort.times is not None
    judged, development = (needed_patients(cohort.patient_labels[part], survival) for part in (outside, ~outside))
    learning = development - int(np.ceil(development / outer_folds)) if outer_folds else development
    if judged < 1:
        missing = "had the event" if survival else "is in the smaller class"
        raise InputError(
            f"Of the {outside.sum()} held-out patients none {missing}; there is "
            "nothing to judge on. Raise partition.held_out, or collect more patients."
        )
    if development < (outer_folds or 0) or learning < inner_folds:
        inside = f", {learning} inside an internal resample" if outer_folds else ""
        asked = f"recipe.search.folds: {inner_folds}" + (f", evaluation.internal.folds: {outer_folds}" if outer_folds else "")
        raise InputError(
            f"{whose(survival)} {needed_patients(cohort.patient_labels, survival)} patients, {development} of them to learn from"
            f"{inside}: fewer than the folds ({asked}). "
            "Use fewer folds, or collect more patients."
        )


def needed_patients(labels: pd.Series, survival: bool) -> int:
    """How many patients there are of the kind that every part of a split needs: those with the event, or the smaller class."""
    return int(labels.sum()) if survival else smaller_class(labels)


def whose(survival: bool) -> str:
    """The beginning of a sentence about their number."""
    return "The event happened to" if survival else "The smaller class has"


def smaller_class(labels: pd.Series) -> int:
    """How many patients the smaller class has; 0 where there is one class only."""
    return int(labels.value_counts().min()) if labels.nunique() == 2 else 0
