"""What profiles say of patients whom they were not made from: the whole profile is made anew without them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from features.cohort import Cohort
from features.errors import InputError, LeakError
from features.platforms import Harmoniser
from training.evaluation import Evaluation, EvaluationSettings, evaluate
from training.partition import Split, folds, needed_patients, whose
from training.profile.model import FittedProfile, fit_profile
from training.profile.study import ProfileStudy
from training.progress import Progress
from training.recipe import coded_inputs, harmoniser_inputs


def cross_validated(study: ProfileStudy, cohort: Cohort, rng: np.random.Generator, progress: Progress) -> Evaluation:
    """Judge the risk of a patient's cluster in repeated cross-validation.

    Harmonisation, scale, number of clusters, clusters and their risks are learnt anew in every fold; the patients left out are
    then assigned as new patients are.
    """
    settings, found = study.evaluation, []
    for repeat in range(settings.repeats):
        progress.stage(f"making the profiles anew in {settings.folds} folds, repeat {repeat + 1} of {settings.repeats}")
        for fold, (split, fold_rng) in enumerate(_folds_of_one_repeat(study, cohort, rng)):
            fitted = fit_profile(study, cohort.subset(split.train), fold_rng)
            found.append(predictions_of(fitted, cohort.subset(split.test), repeat, fold))
    estimates = EvaluationSettings(bootstrap=settings.bootstrap, level=settings.level, internal=None)
    return evaluate(pd.concat(found, ignore_index=True), estimates, rng.spawn(1)[0], cohort.horizon)


def predictions_of(fitted: FittedProfile, cohort: Cohort, repeat: int, fold: int) -> pd.DataFrame:
    """Predictions of patients, as in ``Evaluation.predictions``.

    Raises
    ------
    LeakError
        A patient is one whom the profiles were made from.
    """
    if len(fitted.z.index.intersection(cohort.samples)):
        raise LeakError("A patient whom the profiles were made from was about to be counted as out of sample.")
    risk = fitted.risks(cohort)
    return pd.DataFrame(
        {
            "sample": cohort.samples.astype(str),
            "patient": cohort.patients.to_numpy(),
            "label": cohort.y,
            "probability": risk,
            "threshold": fitted.threshold,
            "called": risk >= fitted.threshold,
            "repeat": repeat,
            "fold": fold,
            **({} if cohort.times is None else {"time": cohort.times.to_numpy()}),
        }
    )


def refuse_folds_that_cannot_be_learnt(study: ProfileStudy, cohort: Cohort, rng: np.random.Generator) -> None:
    """Say before a run is started what a fold of its cross-validation would stop at.

    Parameters
    ----------
    rng : Generator
        As for :func:`cross_validated`: it draws the same folds.

    Raises
    ------
    InputError
        There are fewer events than folds; a fold leaves fewer patients than clusters; or the harmoniser cannot be fitted
        without the patients left out, or does not know their site or scanner.
    """
    settings, survival = study.evaluation, cohort.times is not None
    fewest = needed_patients(cohort.patient_labels, survival)
    if fewest < settings.folds:
        raise InputError(
            f"{whose(survival)} {fewest} patients, fewer than the {settings.folds} folds (evaluation.folds); use fewer folds, or "
            "collect more patients."
        )
    for _ in range(settings.repeats):
        for split, _ in _folds_of_one_repeat(study, cohort, rng):
            _refuse_fewer_than_clusters(study, len(split.train))
            if study.harmonise is not None:
                _refuse_what_is_not_harmonised(study.harmonise, cohort.subset(split.train), cohort.subset(split.test))


def _folds_of_one_repeat(
    study: ProfileStudy, cohort: Cohort, rng: np.random.Generator
) -> Iterator[tuple[Split, np.random.Generator]]:
    split_rng, *fold_rngs = rng.spawn(1 + study.evaluation.folds)
    return zip(folds(cohort, study.evaluation.folds, split_rng), fold_rngs, strict=True)


def _refuse_fewer_than_clusters(study: ProfileStudy, patients: int) -> None:
    if isinstance(study.clusters, int) and study.clusters > patients:
        raise InputError(
            f"{study.clusters} clusters cannot be made of the {patients} patients that a fold of the cross-validation leaves; "
            "ask for fewer clusters, or collect more patients."
        )


def _refuse_what_is_not_harmonised(harmonise: Harmoniser, learnt: Cohort, left_out: Cohort) -> None:
    inputs = harmoniser_inputs(harmonise, learnt)
    harmonise.estimator((), inputs).fit(coded_inputs(learnt, inputs).to_numpy())  # without features: only what it refuses
    for one in (one for one in inputs if one.levels):
        words = left_out.inputs[one.name].dropna().astype(str)
        unknown = words[words.map(one.code).isna()]
        if len(unknown):
            raise InputError(
                f"{one.name!r} is {unknown.iloc[0]!r} only in patients whom a fold of the cross-validation leaves out, so that "
                "what it does to the features cannot be learnt without them; give it the name of one like it, leave these "
                "patients out, or use fewer folds (evaluation.folds)."
            )
