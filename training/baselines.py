"""What a recipe is measured against: simpler recipes, or fewer features, in the same resamples of the same patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from features.bundle import Estimate
from features.cohort import Cohort
from features.errors import InputError
from features.signatures import coverage, find_signature, signatures
from features.table import FeatureTable
from training.config import Study
from training.evaluation import Evaluation, all_measures, patient_resamples, validate_internally
from training.paired import estimate_from
from training.progress import Progress, Silence
from training.recipe import Recipe
from training.signature_recipe import SignatureRecipe
from training.workers import Workers


@dataclass(frozen=True)
class Baseline:
    """Something simpler, judged in the folds in which the study's recipe was judged.

    Attributes
    ----------
    evaluation : Evaluation
        Of the baseline, internal.
    difference : dict of str to Estimate
        By metric: of the study's recipe less that of the baseline, on the same patients in the same folds; intervals over
        resamples of patients.
    """

    evaluation: Evaluation
    difference: dict[str, Estimate]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "internal": {name: one.model_dump() for name, one in self.evaluation.estimates.items()},
            "recipe_less_baseline": {name: one.model_dump() for name, one in self.difference.items()},
        }


def signature_baselines(
    study: Study, development: Cohort, judged: Evaluation, workers: Workers, progress: Progress | None = None
) -> dict[str, Baseline]:
    """Published signatures of which the table has at least half of the genes, or those that the study names.

    Parameters
    ----------
    development : Cohort
    judged : Evaluation
        Internal, of the study's own recipe.

    Raises
    ------
    InputError
        The study names a signature of which the table has too few genes.
    """
    progress, found = progress or Silence(), {}
    for name in baseline_names(study, development):
        progress.stage(f"signature {name}, in the same folds")
        recipe = Recipe(signature=SignatureRecipe(signature=name))
        found[name] = measured_against(study, recipe, development, judged, workers)
    return found


def baseline_names(study: Study, cohort: Cohort) -> list[str]:
    """Signatures that the study's recipe is to be compared with.

    Without names in the study: all that were published as a rule (a score that is learnt from an imaging label is no
    baseline), but for the one that the recipe is, and those of which less than half of the genes are there.
    """
    own = study.recipe.signature.signature if study.recipe.signature else None
    if study.baselines is not None:
        for name in study.baselines:
            coverage(find_signature(name), cohort.features.columns)
        return list(study.baselines)
    published = [name for name in signatures() if name != own and not SignatureRecipe(signature=name).learns_from_outcome]
    return [name for name in published if _is_there(name, cohort)]


def measured_against(
    study: Study, recipe: Recipe, development: Cohort, judged: Evaluation, workers: Workers, progress: Progress | None = None
) -> Baseline:
    """Judge another recipe, or the same one of other features, in the folds in which the study's own was judged."""
    # The generator that the study's own recipe was judged with, so that the folds are the same.
    rng, limits = study.rng("internal"), study.compute.limits
    evaluation = validate_internally(recipe, development, study.evaluation, rng, workers, progress, limits)
    return Baseline(evaluation, paired_differences(study, judged, evaluation))


def with_features(cohort: Cohort, names: list[str]) -> Cohort:
    """The same patients with some of their features."""
    return replace(cohort, table=FeatureTable(cohort.features[names], cohort.table.described))


def paired_differences(study: Study, first: Evaluation, second: Evaluation) -> dict[str, Estimate]:
    """Differences of two evaluations of the same patients in the same folds, by metric; intervals over patients."""
    keys = ["repeat", "fold", "sample"]
    tables = [one.predictions.sort_values(keys, kind="stable", ignore_index=True) for one in (first, second)]
    assert tables[0][keys].equals(tables[1][keys])  # noqa: S101 - drawn with one generator
    weights, _ = patient_resamples(tables[0], study.evaluation.bootstrap, study.rng("paired differences"))
    every = np.vstack([np.ones((1, len(tables[0]))), weights])
    measured = [all_measures(table, every, first.horizon) for table in tables]
    level, undefined = study.evaluation.level, "one of the two is undefined"
    return {name: estimate_from(measured[0][name] - measured[1][name], level, undefined) for name in measured[0]}


def as_table(judged: Evaluation, baselines: Mapping[str, Baseline], own: str) -> pd.DataFrame:
    """Headline measure of the recipe and of each baseline, and the differences, one row each."""
    name = judged.headline
    rows = {own: {"estimate": str(judged.estimates[name]), "difference": ""}}
    for title, one in baselines.items():
        rows[title] = {"estimate": str(one.evaluation.estimates[name]), "difference": str(one.difference[name])}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(name)


def _is_there(name: str, cohort: Cohort) -> bool:
    try:
        coverage(signatures()[name], cohort.features.columns)
    except InputError:
        return False
    return True
