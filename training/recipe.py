"""The recipe: impute, drop constants, select, search, refit. The unit of validation, and where leakage could hide."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_curve
from sklearn.pipeline import Pipeline, make_pipeline

from features.cohort import Cohort
from features.errors import InputError
from features.settings import Settings
from features.table import FeatureSchema
from training.models import Limits
from training.partition import Split, folds
from training.progress import Progress, Silence
from training.search import Evaluator, InnerFold, Search, SearchResult, TPOTSearch, centre_and_spread
from training.selection import SelectionResult, SelectionSettings, select
from training.workers import Workers


class Recipe(Settings):
    """How a model is made from development patients.

    Parameters
    ----------
    threshold : "youden" or float
        Probability from which on a sample is called positive: the one with the highest sensitivity plus specificity on
        out-of-fold predictions of the training patients, or a fixed one.
    """

    selection: SelectionSettings = SelectionSettings()
    search: Search = TPOTSearch()
    threshold: Literal["youden"] | Annotated[float, Field(ge=0, le=1)] = "youden"


@dataclass(frozen=True)
class SearchLimits:
    """Wall-clock limits; None for none. They may change results, so a run that meets one is marked.

    Attributes
    ----------
    seconds_per_candidate : float or None
    seconds_per_search : float or None
    """

    seconds_per_candidate: float | None = None
    seconds_per_search: float | None = None


@dataclass(frozen=True)
class FittedRecipe:
    """A model, and the decisions that led to it.

    Attributes
    ----------
    schema : FeatureSchema
        The chosen features, in the order in which the pipeline takes them.
    pipeline : Pipeline
        Median imputation and the winner, fitted on all training patients.
    threshold : float
        A probability at or above it is called positive.
    selection : SelectionResult
    search : SearchResult
    """

    schema: FeatureSchema
    pipeline: Pipeline
    threshold: float
    selection: SelectionResult
    search: SearchResult

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """Probability of the event, shape (n_samples,), for a table that holds at least the chosen features."""
        return np.asarray(self.pipeline.predict_proba(features[list(self.schema.names)].to_numpy(dtype=float)))[:, 1]


def fit_recipe(
    recipe: Recipe,
    cohort: Cohort,
    rng: np.random.Generator,
    workers: Workers,
    progress: Progress | None = None,
    limits: SearchLimits | None = None,
) -> FittedRecipe:
    """Make a model from these patients and no others.

    Called for every internal resample and for the model that is shipped: what is judged is what is shipped.

    Parameters
    ----------
    cohort : Cohort
        Training patients only.
    """
    progress = progress or Silence()
    split_rng, selection_rng, search_rng = rng.spawn(3)
    inner = list(folds(cohort, recipe.search.folds, split_rng))
    selection, inner_selections = _select_everywhere(recipe.selection, cohort, inner, selection_rng, workers)
    inner_folds = [_inner_fold(cohort, split, chosen.selected) for split, chosen in zip(inner, inner_selections, strict=True)]
    result = _search(recipe.search, inner_folds, search_rng, workers, progress, limits or SearchLimits())
    winner = result.winner.candidate.pipeline(result.random_state)
    pipeline = make_pipeline(SimpleImputer(strategy="median"), *(step for _, step in winner.steps))
    pipeline.fit(cohort.features[list(selection.selected)].to_numpy(), cohort.y)
    fitted = FittedRecipe(FeatureSchema.of(selection.selected), pipeline, 0.5, selection, result)
    threshold = _own_threshold(fitted, cohort) if recipe.threshold == "youden" else recipe.threshold
    return replace(fitted, threshold=float(threshold))


def complete(features: pd.DataFrame) -> pd.DataFrame:
    """Training features with medians for missing values, without columns that are then constant.

    Raises
    ------
    InputError
        Nothing varies.
    """
    filled = features.fillna(features.median())
    values = filled.to_numpy()
    varying = (values != values[0]).any(axis=0) & ~np.isnan(values).any(axis=0)
    if not varying.any():
        raise InputError("No feature varies among the training patients; check the table.")
    return filled.loc[:, varying]


def select_on(
    settings: SelectionSettings, features: pd.DataFrame, y: np.ndarray, rng: np.random.Generator, threads: int
) -> SelectionResult:
    """Complete the features of a training part and let the ensemble choose among them."""
    return select(settings, complete(features), y, rng, threads)


def _own_threshold(fitted: FittedRecipe, cohort: Cohort) -> float:
    """Youden's threshold on out-of-fold predictions, carried over to the scale of the model fitted on everyone.

    The folds' models and this one differ in level and spread, so the cut is chosen and carried over in standard
    deviations of a model's probabilities on what it learnt from.
    """
    centre, spread = centre_and_spread(fitted.predict(cohort.features))
    cut = youden_threshold(cohort.y, fitted.search.winner.standardised)
    return float(np.clip(centre + spread * cut, 0.0, 1.0))


def youden_threshold(y: np.ndarray, score: np.ndarray) -> float:
    """Score from which on calling an event gives the highest sensitivity plus specificity.

    It lies midway between two scores that occur; of equally good ones the highest is taken.

    References
    ----------
    Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.

    Examples
    --------
    >>> youden_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9]))
    0.5
    """
    false_positive_rate, sensitivity, thresholds = roc_curve(y, score, drop_intermediate=False)
    best = 1 + int(np.argmax((sensitivity - false_positive_rate)[1:]))
    below = thresholds[best + 1] if best + 1 < len(thresholds) else thresholds[best]
    return float((thresholds[best] + below) / 2)


def _select_everywhere(
    settings: SelectionSettings, cohort: Cohort, inner: Sequence[Split], rng: np.random.Generator, workers: Workers
) -> tuple[SelectionResult, list[SelectionResult]]:
    """Selection on all training patients, and on the training part of every inner fold."""
    parts = [cohort.samples] if settings.scope == "published" else [cohort.samples, *(split.train for split in inner)]
    tasks = [
        (settings, cohort.features.loc[part], cohort.labels.loc[part].to_numpy(), own, 1)
        for part, own in zip(parts, rng.spawn(len(parts)), strict=True)
    ]
    overall, *inside = [outcome.get() for outcome in workers.map(select_on, tasks)]
    return overall, inside or [overall] * len(inner)


def _inner_fold(cohort: Cohort, split: Split, selected: tuple[str, ...]) -> InnerFold:
    train, test = (cohort.features.loc[samples, list(selected)] for samples in (split.train, split.test))
    medians = train.median().fillna(0.0)  # the published scope may choose a feature that one fold has no value of
    return InnerFold(
        X_train=train.fillna(medians).to_numpy(),
        y_train=cohort.labels.loc[split.train].to_numpy(),
        X_test=test.fillna(medians).to_numpy(),
        y_test=cohort.labels.loc[split.test].to_numpy(),
        test_rows=cohort.samples.get_indexer(split.test),
    )


def _search(
    search: Search,
    inner_folds: Sequence[InnerFold],
    rng: np.random.Generator,
    workers: Workers,
    progress: Progress,
    limits: SearchLimits,
) -> SearchResult:
    seconds = limits.seconds_per_search
    evaluator = Evaluator(
        inner_folds,
        int(rng.integers(2**31)),
        workers,
        progress,
        seconds_per_candidate=limits.seconds_per_candidate,
        deadline=None if seconds is None else time.monotonic() + seconds,
    )
    bounds = Limits(
        samples=min(len(fold.y_train) for fold in inner_folds), features=min(fold.X_train.shape[1] for fold in inner_folds)
    )
    return search.search(evaluator, bounds, rng)
