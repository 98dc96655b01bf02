"""A stacked composite against either modality alone: the same recipe in the same resamples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from features.bundle import Estimate
from features.cohort import Cohort
from features.table import FeatureTable
from training.config import Study
from training.evaluation import Evaluation, all_measures, patient_resamples, validate_internally
from training.progress import Progress
from training.run import StudyResult
from training.workers import Workers


@dataclass(frozen=True)
class AgainstAlone:
    """What a recipe gains by both modalities over one.

    Attributes
    ----------
    alone : Evaluation
        Of the recipe with one modality's features, internal.
    difference : dict of str to Estimate
        By metric: of both less of one, on the same patients in the same folds; intervals over resamples of patients.
    """

    alone: Evaluation
    difference: dict[str, Estimate]


def against_alone(
    result: StudyResult, columns: Mapping[str, list[str]], workers: Workers, progress: Progress
) -> dict[str, AgainstAlone]:
    """Judge each modality alone in the folds in which both were judged.

    Parameters
    ----------
    columns : mapping of str to list of str
        Features of each modality.
    """
    study, both = result.study, result.internal
    if both is None:
        return {}
    development = result.cohort.subset(result.split.train)
    found = {}
    for modality, names in columns.items():
        progress.stage(f"{modality} alone, in the same folds")
        one = validate_internally(
            study.recipe,
            with_features(development, names),
            study.evaluation,
            study.rng("internal"),  # the generator that both were judged with: the same folds
            workers,
            progress,
            study.compute.limits,
        )
        found[modality] = AgainstAlone(one, _difference(study, both, one))
    return found


def with_features(cohort: Cohort, names: list[str]) -> Cohort:
    """The same patients with some of their features."""
    return replace(cohort, table=FeatureTable(cohort.features[names], cohort.table.described))


def _difference(study: Study, both: Evaluation, one: Evaluation) -> dict[str, Estimate]:
    keys = ["repeat", "fold", "sample"]
    first, second = (evaluation.predictions.sort_values(keys, kind="stable", ignore_index=True) for evaluation in (both, one))
    assert first[keys].equals(second[keys])  # noqa: S101 - drawn with one generator
    weights, _ = patient_resamples(first, study.evaluation.bootstrap, study.rng("against alone"))
    every = np.vstack([np.ones((1, len(first))), weights])
    measured = [all_measures(table, every, both.horizon) for table in (first, second)]
    return {name: _estimate(measured[0][name] - measured[1][name], study.evaluation.level) for name in measured[0]}


def _estimate(values: np.ndarray, level: float) -> Estimate:
    value, resamples = values[0], values[1:][~np.isnan(values[1:])]
    if np.isnan(value) or len(resamples) == 0:
        return Estimate(value=None, level=level, reason="undefined for one of the two")
    lower, upper = np.quantile(resamples, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(value), lower=float(lower), upper=float(upper), level=level)


def as_table(found: Mapping[str, AgainstAlone], both: Evaluation) -> pd.DataFrame:
    """Headline measure of both, of each alone, and the differences, one row each."""
    name = both.headline
    rows = {"both": {"estimate": str(both.estimates[name]), "both less this": ""}}
    for modality, one in found.items():
        rows[f"{modality} alone"] = {"estimate": str(one.alone.estimates[name]), "both less this": str(one.difference[name])}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(name)
