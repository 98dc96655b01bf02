"""Out-of-sample judgement: predictions first, estimates with intervals derived from them.

References
----------
Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (resampling whole clusters, here patients).
Nogueira et al. 2018, JMLR 18(174) (stability of feature selection).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import mannwhitneyu

from features.bundle import Estimate
from features.cohort import Cohort
from features.errors import LeakError
from features.settings import Settings
from training.metrics import METRIC, METRICS, Metric, WeightedPredictions
from training.partition import Split, folds
from training.progress import Progress, Silence
from training.recipe import FittedRecipe, Recipe, SearchLimits, fit_recipe
from training.survival.curves import log_rank
from training.survival.metrics import SURVIVAL_METRIC, SURVIVAL_METRICS, SurvivalPredictions
from training.workers import Workers

MOST_REDRAWS = 1000


class InternalSettings(Settings):
    """Repeated cross-validation of the whole recipe on development patients."""

    folds: int = Field(default=5, ge=2)
    repeats: int = Field(default=1, ge=1)


class EvaluationSettings(Settings):
    """How performance is estimated.

    Parameters
    ----------
    bootstrap : int
        Resamples of patients behind every interval.
    level : float
        Coverage that the intervals are meant to have.
    internal : mapping or null
        Null leaves internal validation out.
    alternative : {"two-sided", "greater"}
        Of the Mann-Whitney test; "greater" is what the paper printed.
    """

    bootstrap: int = Field(default=1000, ge=100)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    internal: InternalSettings | None = InternalSettings()
    alternative: Literal["two-sided", "greater"] = "two-sided"


@dataclass(frozen=True)
class Evaluation:
    """How a recipe did on patients that it had not learnt from.

    Attributes
    ----------
    predictions : DataFrame of shape (n_predictions,)
        Columns: sample, patient, label, probability, threshold, called, repeat, fold; of times to an event also time.
    estimates : dict of str to Estimate
        By metric. With several folds the rank measures (``roc_auc``, ``pr_auc``, ``c_index``) are means over folds, since
        scores of models from different folds are not on one scale; ``roc_auc_pooled`` and the like rank them all the same.
    p_value : float or None
        Mann-Whitney test of probabilities between the classes, one mean value per patient; of times to an event, the log-rank
        test between those who are called and the others.
    redrawn : int
        Resamples of patients that held one class only and were drawn again.
    selected : tuple of tuple of str
        Features chosen in each resample.
    out_of_time : bool
        Whether a wall-clock limit was met in some resample.
    """

    predictions: pd.DataFrame
    estimates: dict[str, Estimate]
    p_value: float | None
    alternative: str
    redrawn: int
    selected: tuple[tuple[str, ...], ...] = ()
    n_candidates: int = 0
    out_of_time: bool = False
    horizon: float | None = None

    @property
    def test(self) -> str:
        """What the p-value is of."""
        return "log-rank test of the groups called" if self.horizon else f"Mann-Whitney, {self.alternative}"

    @property
    def headline(self) -> str:
        """The measure that stands for all where there is room for one."""
        return "c_index" if self.horizon else "roc_auc"

    @property
    def stability(self) -> float | None:
        """Nogueira's stability of the selected features over resamples: 1 always the same, 0 as by chance."""
        return selection_stability(self.selected, self.n_candidates) if len(self.selected) > 1 else None


@dataclass(frozen=True)
class FoldResult:
    """What one internal resample gave.

    Attributes
    ----------
    predictions : DataFrame
        As in ``Evaluation.predictions``, of the fold's test patients.
    selected : tuple of str
    out_of_time : bool
    """

    predictions: pd.DataFrame
    selected: tuple[str, ...]
    out_of_time: bool


class FoldMemory(Protocol):
    """Where finished resamples are kept, so that an interrupted study goes on instead of starting over."""

    def recall(self, number: int) -> FoldResult | None:
        """The resample of that number, if it is finished."""

    def keep(self, number: int, result: FoldResult) -> None:
        """Keep a finished resample."""


class NoMemory:
    """Keeps nothing."""

    def recall(self, number: int) -> FoldResult | None:
        """Nothing."""
        return None

    def keep(self, number: int, result: FoldResult) -> None:
        """Forget it."""


def validate(fitted: FittedRecipe, held_out: Cohort, settings: EvaluationSettings, rng: np.random.Generator) -> Evaluation:
    """Judge the shipped model on held-out patients.

    Parameters
    ----------
    held_out : Cohort
        Patients of whom nothing was used before; call this once.
    """
    return evaluate(predictions_of(fitted, held_out, repeat=0, fold=0), settings, rng, held_out.horizon)


def validate_internally(
    recipe: Recipe,
    development: Cohort,
    settings: EvaluationSettings,
    rng: np.random.Generator,
    workers: Workers,
    progress: Progress | None = None,
    limits: SearchLimits | None = None,
    memory: FoldMemory | None = None,
) -> Evaluation:
    """Judge the whole recipe in repeated cross-validation over development patients.

    The recipe starts anew in every fold: imputation, selection, search, threshold and all.
    """
    progress, memory, internal = progress or Silence(), memory or NoMemory(), settings.internal or InternalSettings()
    results: list[FoldResult] = []
    for repeat in range(internal.repeats):
        split_rng, *fold_rngs = rng.spawn(1 + internal.folds)
        for fold, split in enumerate(folds(development, internal.folds, split_rng)):
            words = f"internal validation, fold {len(results) + 1} of {internal.repeats * internal.folds}"
            result = memory.recall(len(results))
            if result is None:
                progress.stage(words)
                fitted = fit_recipe(recipe, development.subset(split.train), fold_rngs[fold], workers, progress, limits)
                predictions = predictions_of(fitted, development.subset(split.test), repeat, fold, seen=split)
                result = FoldResult(predictions, fitted.selection.selected, fitted.search.out_of_time)
                memory.keep(len(results), result)
            else:
                progress.stage(f"{words}: finished before an interruption")
                progress.recalled()
            results.append(result)
    predictions = pd.concat([one.predictions for one in results], ignore_index=True)
    found = evaluate(predictions, settings, rng.spawn(1)[0], development.horizon)
    return replace(
        found,
        selected=tuple(one.selected for one in results),
        n_candidates=development.features.shape[1],
        out_of_time=any(one.out_of_time for one in results),
    )


def evaluate(
    predictions: pd.DataFrame, settings: EvaluationSettings, rng: np.random.Generator, horizon: float | None = None
) -> Evaluation:
    """Estimates with bootstrap intervals over patients from out-of-sample predictions.

    Intervals are percentiles over resamples of whole patients, so that several samples of one patient count as the one
    piece of evidence that they are.

    Parameters
    ----------
    predictions : DataFrame
        As in ``Evaluation.predictions``.
    horizon : float, optional
        Time by which the probability is the risk of the event, for times to an event.
    """
    weights, redrawn = patient_resamples(predictions, settings.bootstrap, rng)
    every = np.vstack([np.ones((1, len(predictions))), weights])
    estimates = {
        name: _estimate(metric_of(name), values, settings.level)
        for name, values in all_measures(predictions, every, horizon).items()
    }
    p_value = log_rank_of_calls(predictions) if horizon else mann_whitney(predictions, settings.alternative)
    return Evaluation(predictions, estimates, p_value, settings.alternative, redrawn, horizon=horizon)


def metric_of(name: str) -> Metric:
    """The metric of an estimate's name, pooled or not, of classes or of times to an event."""
    return {**METRIC, **SURVIVAL_METRIC}[name.removesuffix("_pooled")]


def patient_resamples(predictions: pd.DataFrame, count: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Bootstrap resamples of patients as weights of rows.

    Parameters
    ----------
    predictions : DataFrame
        With columns patient and label. All rows of a patient, in all repeats, get one weight.
    count : int

    Returns
    -------
    weights : ndarray of shape (count, n_rows)
        How often the row's patient was drawn.
    redrawn : int
        Resamples that held one class only, and were drawn again.
    """
    patient, names = pd.factorize(predictions["patient"])
    n = len(names)
    positive = np.bincount(patient, predictions["label"], n) > 0
    negative = np.bincount(patient, 1 - predictions["label"], n) > 0
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=count)
    redrawn = 0
    if positive.any() and negative.any():
        for _ in range(MOST_REDRAWS):
            one_class = (drawn[:, positive].sum(axis=1) == 0) | (drawn[:, negative].sum(axis=1) == 0)
            if not one_class.any():
                break
            redrawn += int(one_class.sum())
            drawn[one_class] = rng.multinomial(n, np.full(n, 1 / n), size=int(one_class.sum()))
    return drawn[:, patient].astype(float), redrawn


def selection_stability(selected: Sequence[tuple[str, ...]], n_candidates: int) -> float:
    """Stability of feature selection over resamples.

    Parameters
    ----------
    selected : sequence of tuple of str
        Chosen features per resample.
    n_candidates : int
        Features that could have been chosen.

    Returns
    -------
    float
        1: always the same features; 0: as if drawn by chance.

    References
    ----------
    Nogueira et al. 2018, JMLR 18(174):1-54, eq. 4.

    Examples
    --------
    >>> selection_stability([("a", "b"), ("a", "b"), ("a", "b")], 10)
    1.0
    """
    m = len(selected)
    counts = pd.Series([name for names in selected for name in names]).value_counts().to_numpy()
    share, average = counts / m, sum(map(len, selected)) / m
    chance = average / n_candidates * (1 - average / n_candidates)
    if chance == 0:
        return 1.0
    return float(1 - (m / (m - 1) * share * (1 - share)).sum() / n_candidates / chance)


def predictions_of(fitted: FittedRecipe, cohort: Cohort, repeat: int, fold: int, seen: Split | None = None) -> pd.DataFrame:
    """Predictions of samples, as in ``Evaluation.predictions``.

    Raises
    ------
    LeakError
        A sample is one that the split says was learnt from.
    """
    if seen is not None and len(seen.train.intersection(cohort.samples)):
        raise LeakError("A sample that the model learnt from was about to be counted as out of sample.")
    probability, score = fitted.predict(cohort.inputs), fitted.scored(cohort.inputs)
    return pd.DataFrame(
        {
            "sample": cohort.samples.astype(str),
            "patient": cohort.patients.to_numpy(),
            "label": cohort.y,
            "probability": probability,
            "threshold": fitted.threshold,
            "called": probability >= fitted.threshold if score is None or fitted.score is None else score >= fitted.score.cutoff,
            "repeat": repeat,
            "fold": fold,
            **({} if cohort.times is None else {"time": cohort.times.to_numpy()}),
            **({} if score is None else {"score": score}),
        }
    )


def all_measures(predictions: pd.DataFrame, weights: np.ndarray, horizon: float | None) -> dict[str, np.ndarray]:
    """Every measure per weighting: shape (n_weightings,) by name."""
    several = predictions.groupby(["repeat", "fold"]).ngroups > 1
    measured = {}
    for metric in SURVIVAL_METRICS if horizon else METRICS:
        by = ["repeat", "fold"] if metric.needs == "ranks" else ["repeat"]
        measured[metric.name] = _mean_over(metric.function, predictions, weights, by, horizon)
        if metric.needs == "ranks" and several:
            measured[f"{metric.name}_pooled"] = _mean_over(metric.function, predictions, weights, ["repeat"], horizon)
    return measured


def _mean_over(
    function: Callable[[Any], np.ndarray], predictions: pd.DataFrame, weights: np.ndarray, by: list[str], horizon: float | None
) -> np.ndarray:
    """Mean of a measure over groups of predictions, leaving out groups in which a weighting leaves it undefined."""
    parts = predictions.groupby(by, sort=False).indices.values()
    values = np.array([function(_weighted(predictions.iloc[rows], weights[:, rows], horizon)) for rows in parts])
    defined = ~np.isnan(values)
    total, count = np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _weighted(part: pd.DataFrame, weights: np.ndarray, horizon: float | None) -> WeightedPredictions | SurvivalPredictions:
    y, probability, called = (part[name].to_numpy() for name in ("label", "probability", "called"))
    if horizon is None:
        return WeightedPredictions(y, probability, called, weights)
    return SurvivalPredictions(part["time"].to_numpy(), y.astype(bool), probability, called, weights, horizon)


def _estimate(metric: Metric, values: np.ndarray, level: float) -> Estimate:
    value, resamples = values[0], values[1:][~np.isnan(values[1:])]
    if np.isnan(value):
        return Estimate(value=None, level=level, reason=metric.undefined)
    if len(resamples) < len(values[1:]) / 2:
        return Estimate(value=float(value), level=level, reason=f"no interval: in most resamples {metric.undefined}")
    lower, upper = np.quantile(resamples, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(value), lower=float(min(lower, value)), upper=float(max(upper, value)), level=level)


def log_rank_of_calls(predictions: pd.DataFrame) -> float | None:
    """P of equal survival of patients who are called and of the others; None where all are called the same.

    Several predictions of one patient (repeats, lesions) count as the one that most of them give.
    """
    per_patient = predictions.groupby("patient", sort=False).agg(
        time=("time", "max"), label=("label", "max"), called=("called", "mean")
    )
    group = (per_patient["called"] >= 0.5).to_numpy()
    if group.all() or not group.any():
        return None
    return log_rank(per_patient["time"].to_numpy(), per_patient["label"].to_numpy(), group).p_value


def mann_whitney(predictions: pd.DataFrame, alternative: str) -> float | None:
    """P of equal probabilities in both classes, one mean per patient; None where a class has no patient."""
    per_patient = predictions.groupby("patient", sort=False).agg(probability=("probability", "mean"), label=("label", "max"))
    events, others = (per_patient.loc[per_patient["label"] == label, "probability"] for label in (1, 0))
    if events.empty or others.empty:
        return None
    return float(mannwhitneyu(events, others, alternative=alternative).pvalue)
