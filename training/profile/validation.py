"""What profiles say of patients whom they were not made from: the whole profile is made anew without them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.cohort import Cohort
from features.errors import LeakError
from training.evaluation import Evaluation, EvaluationSettings, evaluate
from training.partition import folds
from training.profile.model import FittedProfile, fit_profile
from training.profile.study import ProfileStudy
from training.progress import Progress


def cross_validated(study: ProfileStudy, cohort: Cohort, rng: np.random.Generator, progress: Progress) -> Evaluation:
    """Judge the risk of a patient's cluster in repeated cross-validation.

    Harmonisation, scale, number of clusters, clusters and their risks are learnt anew in every fold; the patients left out are
    then assigned as new patients are.
    """
    settings, found = study.evaluation, []
    for repeat in range(settings.repeats):
        progress.stage(f"making the profiles anew in {settings.folds} folds, repeat {repeat + 1} of {settings.repeats}")
        split_rng, *fold_rngs = rng.spawn(1 + settings.folds)
        for fold, split in enumerate(folds(cohort, settings.folds, split_rng)):
            fitted = fit_profile(study, cohort.subset(split.train), fold_rngs[fold])
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
