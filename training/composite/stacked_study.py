"""A stacked composite as an ordinary study: both modalities' features in one cohort."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import pandas as pd

from features.cohort import Cohort, load_cohort
from features.errors import InputError
from training.composite.biomarkers import MODALITIES
from training.composite.stacked import Stacked
from training.composite.study import Biomarker, CompositeStudy, SignatureBiomarker, VectorBiomarker
from training.composite.train import components_of
from training.config import Study


def stacked_study(study: CompositeStudy, uri: str) -> tuple[Study, Cohort, dict[str, list[str]]]:
    """The study of one model that a stacked composite is, its cohort, and the features of either modality.

    Raises
    ------
    InputError
        A column is not there, is of both modalities, or a part is a signature, whose score would have to be made anew in each
        resample.
    """
    stacked = study.composite
    assert isinstance(stacked, Stacked)  # noqa: S101 - the others have no recipe
    components = components_of(study, uri)
    scores = {component.name: component.scores for component in components.values()}
    patterns = tuple(name for one in study.biomarkers for name in _patterns(one, scores))
    settings = study.cohort.model_copy(update={"features": patterns})
    cohort = load_cohort(settings, study.folder, scores)
    columns = {
        modality: _columns(one, cohort.features.columns) for modality, one in zip(MODALITIES, study.biomarkers, strict=True)
    }
    shared = sorted(set(columns["imaging"]) & set(columns["genes"]))
    if shared:
        raise InputError(f"Column {shared[0]!r} is of imaging and of genes; name each column under one of them.")
    single = Study(
        name=study.name,
        seed=study.seed,
        cohort=settings,
        scores={component.name: component.title for component in components.values()},
        partition=stacked.partition,
        recipe=stacked.recipe,
        evaluation=stacked.evaluation,
        model=study.model,
        contract=study.contract,
        compute=study.compute,
    )
    single._folder = study.folder
    return single, cohort, columns


def _patterns(biomarker: Biomarker, scores: Mapping[str, pd.Series]) -> tuple[str, ...]:
    if isinstance(biomarker, SignatureBiomarker):
        raise InputError(
            f"A stacked composite cannot take the signature {biomarker.signature!r} itself; train it as a model "
            "(recipe.signature) and name that under kind: model."
        )
    if isinstance(biomarker, VectorBiomarker):
        return biomarker.columns
    return () if biomarker.name in scores else (biomarker.name,)


def _columns(biomarker: Biomarker, present: pd.Index) -> list[str]:
    wanted = biomarker.columns if isinstance(biomarker, VectorBiomarker) else (getattr(biomarker, "name", ""),)
    return [name for name in present if any(name == one or fnmatchcase(str(name), one) for one in wanted)]
