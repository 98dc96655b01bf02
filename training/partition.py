"""Who is learnt from and who is held out: by patient, stratified, as names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.model_selection import StratifiedKFold, train_test_split

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


def hold_out_patients(patient_labels: pd.Series, share: float, rng: np.random.Generator) -> pd.Index:
    """Draw the patients to hold out, stratified by their label.

    Parameters
    ----------
    patient_labels : Series of shape (n_patients,)
        Index: patient; value: 1 if any of the patient's samples is positive.
    share : float
        Share of patients, between 0 and 1.

    Raises
    ------
    InputError
        A class has too few patients to be on both sides.
    """
    fewest = smaller_class(patient_labels)
    outside = int(np.ceil(len(patient_labels) * share))
    if fewest < 2 or min(outside, len(patient_labels) - outside) < 2:
        raise InputError(
            f"The smaller class has {fewest} patients of {len(patient_labels)}; with {share:.0%} held out they cannot be on both "
            "sides. Change partition.held_out, or collect more patients."
        )
    seed = int(rng.integers(2**31))
    _, held_out = train_test_split(patient_labels.index, test_size=share, stratify=patient_labels, random_state=seed)
    return pd.Index(held_out)


def hold_out(cohort: Cohort, share: float, rng: np.random.Generator) -> Split:
    """Split a cohort into development and held-out patients."""
    return Split.of_patients(cohort, hold_out_patients(cohort.patient_labels, share, rng))


def folds(cohort: Cohort, k: int, rng: np.random.Generator) -> Iterator[Split]:
    """Cross-validation folds over patients, stratified by the patient's label.

    Every sample is in exactly one test part.

    Raises
    ------
    InputError
        A class has fewer patients than there are folds.
    """
    labels = cohort.patient_labels
    fewest = smaller_class(labels)
    if fewest < k:
        raise InputError(
            f"The smaller class has {fewest} patients to learn from, fewer than the {k} folds; use fewer folds "
            "(recipe.search.folds, evaluation.internal.folds), or collect more patients."
        )
    splitter = StratifiedKFold(k, shuffle=True, random_state=int(rng.integers(2**31)))
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
    outside = cohort.patient_labels.index.isin(held_out)
    judged, development = (smaller_class(cohort.patient_labels[part]) for part in (outside, ~outside))
    learning = development - int(np.ceil(development / outer_folds)) if outer_folds else development
    if judged < 1:
        raise InputError(
            f"Of the {outside.sum()} held-out patients none is in the smaller class; there is nothing to judge on. "
            "Raise partition.held_out, or collect more patients."
        )
    if development < (outer_folds or 0) or learning < inner_folds:
        inside = f", {learning} inside an internal resample" if outer_folds else ""
        asked = f"recipe.search.folds: {inner_folds}" + (f", evaluation.internal.folds: {outer_folds}" if outer_folds else "")
        raise InputError(
            f"The smaller class has {smaller_class(cohort.patient_labels)} patients, {development} of them to learn from"
            f"{inside}: fewer than the folds ({asked}). "
            "Use fewer folds, or collect more patients."
        )


def smaller_class(labels: pd.Series) -> int:
    """How many patients the smaller class has; 0 where there is one class only."""
    return int(labels.value_counts().min()) if labels.nunique() == 2 else 0
