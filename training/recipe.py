"""The recipe: harmonise, impute, drop constants, select, search, refit. The unit of validation, and where leakage could hide."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_curve
from sklearn.pipeline import Pipeline, make_pipeline

from features.bundle import ScoreCard
from features.cohort import Cohort
from features.errors import InputError
from features.feature import Feature
from features.harmonise import AcquisitionRegression, SiteAlignment
from features.platforms import Harmoniser
from features.robustness import RobustFilter
from features.settings import Settings
from features.table import FeatureSchema
from training.models import Candidate
from training.options import Limits
from training.partition import Split, folds
from training.progress import Progress, Silence
from training.search import Evaluator, InnerFold, Scored, Search, SearchResult, TPOTSearch, centre_and_spread
from training.selection import SelectionResult, SelectionSettings, select
from training.signature_recipe import SignatureRecipe, fit_signature
from training.workers import Workers


class Recipe(Settings):
    """How a model is made from development patients.

    Parameters
    ----------
    harmonise : mapping, optional
        How the acquisition is taken out of the features, before they are chosen.
    robust : mapping, optional
        Which features may be chosen at all: those that come out alike when they are measured again.
    signature : mapping, optional
        A published signature in place of selection and search: its genes, its rule, and reference values from the training
        patients.
    threshold : "youden", "median" or float, optional
        Probability from which on a sample is called positive: the one with the highest sensitivity plus specificity on
        out-of-fold predictions of the training patients, the median of these, or a fixed one. Left out: "youden", and "median"
        for times to an event.
    """

    harmonise: Harmoniser | None = None
    robust: RobustFilter | None = None
    selection: SelectionSettings = SelectionSettings()
    search: Search = TPOTSearch()
    signature: SignatureRecipe | None = None
    threshold: Literal["youden", "median"] | Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _a_signature_stands_alone(self) -> Self:
        if self.signature and self.robust:
            raise ValueError("signature and robust are both there; a signature is scored on all of its genes: leave one out")
        return self

    def threshold_rule(self, survival: bool) -> Literal["youden", "median"] | float:
        """How the threshold is found, for classes or for times to an event.

        Raises
        ------
        InputError
            The study asks for sensitivity and specificity of times to an event.
        """
        if survival and self.threshold == "youden":
            raise InputError(
                "recipe.threshold: 'youden' needs two classes, and the endpoint is of survival; use median, or a risk such as "
                "0.5."
            )
        return self.threshold if self.threshold is not None else ("median" if survival else "youden")


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
        The chosen features, in the order in which the pipeline takes them; then, where it harmonises, what it must know of
        the acquisition.
    pipeline : Pipeline
        The harmoniser of the chosen features, if any; median imputation; the winner. Fitted on all training patients.
    threshold : float
        A probability at or above it is called positive.
    selection : SelectionResult
    search : SearchResult
    score : ScoreCard or None
        The score behind the probability, where the model is one score: it decides what a sample is called.
    """

    schema: FeatureSchema
    pipeline: Pipeline
    threshold: float
    selection: SelectionResult
    search: SearchResult
    score: ScoreCard | None = None

    @property
    def harmonised(self) -> str | None:
        """How the features were harmonised, as a clause for a report; None where they were not."""
        first = self.pipeline.steps[0][1]
        return first.words if isinstance(first, AcquisitionRegression | SiteAlignment) else None

    @property
    def words(self) -> str:
        """The pipeline in words."""
        given = None if self.score else "median imputation"
        return ", ".join(filter(None, [self.harmonised, given, self.search.winner.candidate.words.rstrip(".")]))

    def predict(self, inputs: pd.DataFrame) -> np.ndarray:
        """Probability of the event, shape (n_samples,).

        Parameters
        ----------
        inputs : DataFrame of shape (n_samples, at least n_features)
            ``cohort.inputs``: columns by name, words as they are written.

        Raises
        ------
        InputError
            A sample is of a site, or was measured with a word of the protocol, that is not among those of training.
        """
        return np.asarray(self.pipeline.predict_proba(self._matrix(inputs)))[:, 1]

    def scored(self, inputs: pd.DataFrame) -> np.ndarray | None:
        """The score behind the probability, shape (n_samples,); None where the model is not one score."""
        return None if self.score is None else np.asarray(self.pipeline[:-1].transform(self._matrix(inputs)))[:, 0]

    def _matrix(self, inputs: pd.DataFrame) -> np.ndarray:
        _refuse_unseen_sites(self.pipeline, self.schema, inputs)
        # Row by row in memory, as the endpoint's matrix is: products round alike.
        return np.ascontiguousarray(self.schema.conform(inputs, impute=True).to_numpy())


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
    if recipe.signature:
        return _fit_signature(recipe, recipe.signature, cohort, workers)
    progress, survival = progress or Silence(), cohort.times is not None
    split_rng, selection_rng, search_rng = rng.spawn(3)
    inner = list(folds(cohort, recipe.search.folds, split_rng))
    splits = [Split(cohort.samples, cohort.samples[:0]), *inner]
    whole, *parts = _prepare(recipe, cohort, splits, workers)
    selection, inner_selections = _select_everywhere(recipe.selection, cohort, splits, [whole, *parts], selection_rng, workers)
    inner_folds = [
        _inner_fold(cohort, split, part, chosen.selected)
        for split, part, chosen in zip(inner, parts, inner_selections, strict=True)
    ]
    result = _search(recipe.search, inner_folds, search_rng, workers, progress, limits or SearchLimits(), cohort.horizon)
    winner = result.winner.candidate.pipeline(result.random_state, cohort.horizon)
    pipeline = make_pipeline(SimpleImputer(strategy="median"), *(step for _, step in winner.steps))
    pipeline.fit(whole.features[list(selection.selected)].to_numpy(), cohort.outcome)
    schema = FeatureSchema(features=(*map(cohort.table.feature, selection.selected), *whole.inputs))
    fitted = FittedRecipe(schema, _behind(whole, selection.selected, cohort, pipeline), 0.5, selection, result)
    rule = recipe.threshold_rule(survival)
    return replace(fitted, threshold=_own_threshold(fitted, cohort, rule) if isinstance(rule, str) else float(rule))


def _fit_signature(recipe: Recipe, signature: SignatureRecipe, cohort: Cohort, workers: Workers) -> FittedRecipe:
    """A published signature with the training patients' reference values, as a model like any other."""
    (whole,) = _prepare(recipe, cohort, [Split(cohort.samples, cohort.samples[:0])], workers)
    found = fit_signature(signature, whole.features, cohort.outcome, cohort.horizon, cohort.patients.to_numpy())
    schema = FeatureSchema(features=(*map(cohort.table.feature, found.columns), *whole.inputs))
    votes = pd.DataFrame({signature.signature: True}, index=pd.Index(found.columns))
    given = Candidate("given", "signature", label=found.words)
    return FittedRecipe(
        schema=schema,
        pipeline=_behind(whole, found.columns, cohort, found.pipeline),
        threshold=float(found.pipeline[-1].predict_proba(np.array([[found.cutoff]]))[0, 1]),
        selection=SelectionResult(votes, found.columns, 1, 1),
        search=SearchResult(Scored(given), (), 0, Limits(len(cohort.samples), len(found.columns)), False),
        score=ScoreCard(name="signature score", cutoff=found.cutoff, words=found.words),
    )


def refuse_what_cannot_be_fitted(recipe: Recipe, cohort: Cohort) -> None:
    """Say before anything is learnt what the recipe would stop at: methods for another kind of endpoint, the signature, the
    harmoniser, the filter of robust features.

    Parameters
    ----------
    cohort : Cohort
        All patients of the study.

    Raises
    ------
    InputError
        The study names no protocol or site, values are missing that may not be, a table of replicates cannot be used, or the
        table has too few of the signature's genes.
    """
    survival = cohort.times is not None
    recipe.threshold_rule(survival), recipe.selection.needed(survival)
    if recipe.robust:
        recipe.robust.robust(recipe.robust.read(), cohort.features.columns, cohort.samples)
    if recipe.harmonise:
        inputs = harmoniser_inputs(recipe.harmonise, cohort)
        # Without features: only what it refuses.
        recipe.harmonise.estimator((), inputs).fit(coded_inputs(cohort, inputs).to_numpy())
    if recipe.signature:
        fit_signature(recipe.signature, cohort.features, cohort.outcome, cohort.horizon, cohort.patients.to_numpy())


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


def _own_threshold(fitted: FittedRecipe, cohort: Cohort, rule: Literal["youden", "median"]) -> float:
    """Youden's threshold on out-of-fold predictions, or their median, on the scale of the model fitted on everyone.

    The folds' models and this one differ in level and spread, so the cut is chosen and carried over in standard
    deviations of a model's probabilities on what it learnt from.
    """
    centre, spread = centre_and_spread(fitted.predict(cohort.inputs))
    standardised = fitted.search.winner.standardised
    cut = float(np.median(standardised)) if rule == "median" else youden_threshold(cohort.y, standardised)
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


@dataclass(frozen=True)
class _Part:
    """Features as one split sees them.

    Attributes
    ----------
    features : DataFrame of shape (n_samples, n_features)
        Of both sides, harmonised by what the training side taught.
    candidates : Index of str
        Features that may be chosen.
    inputs : tuple of Feature
        What the harmoniser takes beside the features.
    harmoniser : transformer or None
        Fitted on the training side.
    """

    features: pd.DataFrame
    candidates: pd.Index
    inputs: tuple[Feature, ...] = ()
    harmoniser: AcquisitionRegression | SiteAlignment | None = None


def _prepare(recipe: Recipe, cohort: Cohort, splits: Sequence[Split], workers: Workers) -> list[_Part]:
    """Features of every split, harmonised and filtered by its own training side alone."""
    candidates = _robust_candidates(recipe.robust, cohort, splits)
    if recipe.harmonise is None:
        return [_Part(cohort.features, chosen) for chosen in candidates]
    inputs = harmoniser_inputs(recipe.harmonise, cohort)
    encoded = pd.concat([cohort.features, coded_inputs(cohort, inputs)], axis=1)
    estimator = recipe.harmonise.estimator(cohort.table.schema.features, inputs)
    tasks = [(estimator, encoded.loc[split.train], encoded.loc[split.test]) for split in splits]
    found = [outcome.get() for outcome in workers.map(harmonise_part, tasks)]
    return [_Part(features, chosen, inputs, fitted) for (fitted, features), chosen in zip(found, candidates, strict=True)]


def harmoniser_inputs(harmonise: Harmoniser, cohort: Cohort) -> tuple[Feature, ...]:
    """What the harmoniser takes, with what the records of the tables know of it."""
    known = [(one, cohort.table.feature(one.name)) for one in harmonise.inputs(cohort.protocol, cohort.site)]
    return tuple(one.model_copy(update={"sequence": told.sequence, "unit": told.unit}) for one, told in known)


def _robust_candidates(robust: RobustFilter | None, cohort: Cohort, splits: Sequence[Split]) -> list[pd.Index]:
    features = cohort.features.columns
    if robust is None:
        return [features] * len(splits)
    replicates = robust.read()
    return [robust.robust(replicates, features, split.train) for split in splits]


def harmonise_part(
    estimator: AcquisitionRegression | SiteAlignment, train: pd.DataFrame, test: pd.DataFrame
) -> tuple[AcquisitionRegression | SiteAlignment, pd.DataFrame]:
    """Learn from the training side of a split, and apply that to both sides.

    Parameters
    ----------
    train, test : DataFrame of shape (n_samples, n_features + n_inputs)
        Features first; the test side may have no rows.

    Returns
    -------
    tuple of fitted estimator and DataFrame of shape (n_samples of both sides, n_features)
    """
    fitted = clone(estimator).fit(train.to_numpy())
    both = pd.concat([train, test])
    harmonised = fitted.transform(both.to_numpy())  # row by row: neither side has a say in the other's values
    return fitted, pd.DataFrame(harmonised, index=both.index, columns=both.columns[: harmonised.shape[1]])


def coded_inputs(cohort: Cohort, inputs: tuple[Feature, ...]) -> pd.DataFrame:
    """What the harmoniser takes beside the features, words as the positions of levels; gaps are its own to refuse."""
    lenient = tuple(one.model_copy(update={"missing": "impute"}) for one in inputs)
    return FeatureSchema(features=lenient).conform(cohort.inputs)


def _behind(whole: _Part, selected: tuple[str, ...], cohort: Cohort, pipeline: Pipeline) -> Pipeline:
    """The pipeline behind the harmoniser of its features; not fitted again, or the gate would count other tests."""
    if whole.harmoniser is None:
        return pipeline
    restricted = whole.harmoniser.restricted([int(one) for one in cohort.features.columns.get_indexer(pd.Index(selected))])
    return Pipeline([(type(restricted).__name__.lower(), restricted), *pipeline.steps])


def _refuse_unseen_sites(pipeline: Pipeline, schema: FeatureSchema, inputs: pd.DataFrame) -> None:
    """The harmoniser's own sentence, where the schema could only say that a word is new."""
    aligning = pipeline.steps[0][1]
    if not isinstance(aligning, SiteAlignment):
        return
    site = schema.features[-1]
    given = inputs.get(site.name)
    if given is None or pd.api.types.is_numeric_dtype(given):  # none, or positions already
        return
    unseen = [word for word in given.dropna().astype(str) if site.code(word) is None]
    if unseen:
        raise InputError(aligning.refusal(unseen[0]))


def _select_everywhere(
    settings: SelectionSettings,
    cohort: Cohort,
    splits: Sequence[Split],
    parts: Sequence[_Part],
    rng: np.random.Generator,
    workers: Workers,
) -> tuple[SelectionResult, list[SelectionResult]]:
    """Selection on all training patients, which come first, and on the training side of every inner fold."""
    count, outcome, places = 1 if settings.scope == "published" else len(parts), cohort.outcome, cohort.samples.get_indexer
    tasks = [
        (settings, part.features.loc[split.train, part.candidates], outcome[places(split.train)], own, 1)
        for split, part, own in zip(splits[:count], parts[:count], rng.spawn(count), strict=True)
    ]
    overall, *inside = [outcome.get() for outcome in workers.map(select_on, tasks)]
    return overall, inside or [overall] * (len(parts) - 1)


def _inner_fold(cohort: Cohort, split: Split, part: _Part, selected: tuple[str, ...]) -> InnerFold:
    train, test = (part.features.loc[samples, list(selected)] for samples in (split.train, split.test))
    medians = train.median().fillna(0.0)  # the published scope may choose a feature that one fold has no value of
    outcome, places = cohort.outcome, cohort.samples.get_indexer
    return InnerFold(
        X_train=train.fillna(medians).to_numpy(),
        y_train=outcome[places(split.train)],
        X_test=test.fillna(medians).to_numpy(),
        y_test=outcome[places(split.test)],
        test_rows=places(split.test),
    )


def _search(
    search: Search,
    inner_folds: Sequence[InnerFold],
    rng: np.random.Generator,
    workers: Workers,
    progress: Progress,
    limits: SearchLimits,
    horizon: float | None,
) -> SearchResult:
    seconds = limits.seconds_per_search
    evaluator = Evaluator(
        inner_folds,
        int(rng.integers(2**31)),
        workers,
        progress,
        seconds_per_candidate=limits.seconds_per_candidate,
        deadline=None if seconds is None else time.monotonic() + seconds,
        horizon=horizon,
    )
    bounds = Limits(
        samples=min(len(fold.y_train) for fold in inner_folds), features=min(fold.X_train.shape[1] for fold in inner_folds)
    )
    return search.search(evaluator, bounds, rng)
