"""The study, top to bottom: what a paper's methods section says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from features.audit import Audit, audit
from features.cohort import Cohort, load_cohort, load_sequences
from features.errors import InputError
from features.expression import ExpressionSource
from training.baselines import Baseline, baseline_names, signature_baselines
from training.config import Study
from training.evaluation import Evaluation, FoldMemory, predictions_of, validate, validate_internally
from training.explanation import Explanation, explain
from training.partition import Split, hold_out_patients, refuse_too_few_patients
from training.prognosis import Prognosis, prognosis
from training.progress import Progress, Silence
from training.recipe import FittedRecipe, fit_recipe, refuse_what_cannot_be_fitted
from training.workers import Workers


@dataclass(frozen=True)
class StudyResult:
    """Everything that a run found, before any of it is recorded.

    Attributes
    ----------
    split : Split
        Development and held-out samples.
    fitted : FittedRecipe
        The model, made from development patients.
    held_out : Evaluation
        Of that model, on patients opened once.
    internal : Evaluation or None
        Of the recipe, repeated on development patients.
    explanation : Explanation
        Of the held-out samples.
    prognosis : dict of str to Prognosis
        Of times to an event: what the risks of the held-out patients, and those of the internal validation, say of the outcome;
        for a signature that was not learnt from it also what its score says in every patient.
    baselines : dict of str to Baseline
        Published signatures in the folds of the internal validation.
    """

    study: Study
    cohort: Cohort
    audit: Audit
    split: Split
    fitted: FittedRecipe
    held_out: Evaluation
    internal: Evaluation | None
    explanation: Explanation
    prognosis: dict[str, Prognosis]
    baselines: dict[str, Baseline]
    seconds: float

    @property
    def repeatable(self) -> bool:
        """Whether no wall-clock limit had a say in the model or its judgement."""
        met = self.fitted.search.out_of_time or (self.internal is not None and self.internal.out_of_time)
        return not met and self.study.compute.seconds_per_search is None


def run(
    study: Study,
    cohort: Cohort,
    held_out_patients: pd.Index,
    workers: Workers,
    progress: Progress | None = None,
    memory: FoldMemory | None = None,
) -> StudyResult:
    """Make and judge a model.

    Parameters
    ----------
    held_out_patients : Index of str
        Patients to set aside, from ``draw_held_out``.
    memory : FoldMemory, optional
        Where resamples that an interrupted run had finished are kept.
    """
    progress, start = progress or Silence(), time.monotonic()
    progress.stage("looking through the table")
    found = audit(cohort)

    progress.stage("setting held-out patients aside")
    split = Split.of_patients(cohort, held_out_patients)
    development = cohort.subset(split.train)

    internal = None
    if study.evaluation.internal:
        internal = validate_internally(
            study.recipe, development, study.evaluation, study.rng("internal"), workers, progress, study.compute.limits, memory
        )

    progress.stage("fitting the model on all development patients")
    fitted = fit_recipe(study.recipe, development, study.rng("model"), workers, progress, study.compute.limits)

    progress.stage("opening the held-out patients")
    held_out = cohort.subset(split.test)
    judged = validate(fitted, held_out, study.evaluation, study.rng("held-out intervals"))

    progress.stage("explaining the held-out patients")
    explanation = explain(fitted, development, held_out, study.rng("explanation"))
    related = prognoses(study, cohort, fitted, judged, internal) if cohort.horizon else {}
    simpler = signature_baselines(study, development, internal, workers, progress) if internal else {}
    seconds = time.monotonic() - start
    return StudyResult(study, cohort, found, split, fitted, judged, internal, explanation, related, simpler, seconds)


def prognoses(
    study: Study, cohort: Cohort, fitted: FittedRecipe, held_out: Evaluation, internal: Evaluation | None
) -> dict[str, Prognosis]:
    """What predictions say of times to an event, by whose they are."""
    predictions = {"held out": held_out.predictions} | ({"internal": internal.predictions} if internal else {})
    if study.recipe.signature and not study.recipe.signature.learns_from_outcome:
        predictions["every patient"] = predictions_of(fitted, cohort, repeat=0, fold=0)
    level, horizon = study.evaluation.level, cohort.horizon or 0.0
    clinical, competing = by_patient(cohort)
    return {name: prognosis(one, clinical, horizon, level=level, competing=competing) for name, one in predictions.items()}


def by_patient(cohort: Cohort) -> tuple[pd.DataFrame, pd.Series | None]:
    """Clinical covariates, and whether a competing event ended the follow-up, by patient (of their first sample)."""
    first = ~cohort.patients.duplicated().to_numpy()
    names = cohort.patients[first].to_numpy()
    competing = None if cohort.competing is None else cohort.competing[first].set_axis(names)
    return cohort.clinical[first].set_axis(names), competing


def draw_held_out(study: Study, cohorts: dict[str, Cohort]) -> pd.Index:
    """Patients to hold out: drawn once over all sequences, so that none who is held out in one is learnt from in another.

    Raises
    ------
    InputError
        Some cohort is too small for the study, or lacks what its harmoniser needs.
    """
    labels = pd.concat([cohort.patient_labels for cohort in cohorts.values()])
    per_patient = labels.groupby(level=0, sort=False).max()
    survival = any(cohort.times is not None for cohort in cohorts.values())
    held_out = hold_out_patients(per_patient, study.partition.held_out, study.rng("held out"), survival=survival)
    internal = study.evaluation.internal
    for name, cohort in cohorts.items():
        try:
            refuse_too_few_patients(cohort, held_out, internal.folds if internal else None, study.recipe.search.folds)
            refuse_what_cannot_be_fitted(study.recipe, cohort)
            baseline_names(study, cohort)
        except InputError as error:
            raise InputError(f"Sequence {name!r}: {error}" if name else str(error)) from error
    return held_out


def with_probes_of_development(
    study: Study, cohorts: dict[str, Cohort], held_out: pd.Index, scores: Mapping[str, pd.Series] | None = None
) -> dict[str, Cohort]:
    """The same cohorts, where a source chooses among probes with these chosen by development samples alone.

    Who is held out is drawn first, and depends on no expression.
    """
    source = study.cohort.source
    if not isinstance(source, ExpressionSource) or source.probes != "highest_mean":
        return cohorts
    cohort = cohorts[""]
    symbols = cohort.gene_names["symbol"] if cohort.gene_names is not None else pd.Series(dtype=str)
    if not symbols[symbols != ""].duplicated().any():
        return cohorts
    development = cohort.samples[~cohort.patients.isin(held_out).to_numpy()]
    settings = study.cohort.model_copy(update={"source": source.learning_from(map(str, development))})
    return {"": load_cohort(settings, study.folder, scores)}


def load_cohorts(study: Study, scores: Mapping[str, pd.Series] | None = None) -> dict[str, Cohort]:
    """The study's cohorts by sequence; one without a name where it has no sequences.

    Parameters
    ----------
    scores : mapping of str to Series of shape (n_patients,), optional
        Out-of-sample scores of registered models, by the feature's name.
    """
    if study.cohort.sequences:
        return load_sequences(study.cohort, study.folder)
    return {"": load_cohort(study.cohort, study.folder, scores)}
