"""The search: one space, two engines, one evaluator that survives its candidates."""

import time

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from features.errors import HypoxiaError
from training.models import BASELINE, CLASSIFIERS, SCALERS, Candidate, steps
from training.options import Choice, Limits, Option
from training.progress import Silence
from training.search import (
    Evaluator,
    InnerFold,
    OptunaSearch,
    Scored,
    TPOTSearch,
    _candidate_of,
    _import_evolver,
    _tpot_space,
    choose,
)
from training.workers import Workers

LIMITS = Limits(samples=40, features=6)
ENGINES = pytest.mark.parametrize(
    "engine", [TPOTSearch(generations=3, population=6, folds=3), OptunaSearch(trials=18, folds=3)], ids=lambda engine: engine.kind
)


def inner_folds(k: int = 3, n: int = 60, p: int = 6) -> list[InnerFold]:
    """Folds of a small separable problem."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, p)) + y[:, None] * np.array([1.0, 0.5, 0, 0, 0, 0])
    parts = np.arange(n) // 2 % k
    return [InnerFold(X[parts != i], y[parts != i], X[parts == i], y[parts == i], np.flatnonzero(parts == i)) for i in range(k)]


def in_process(folds: list[InnerFold] | None = None) -> Evaluator:
    return Evaluator(folds or inner_folds(), 11, Workers(isolated=False), Silence())


def drawn(option: Option, rng: np.random.Generator) -> dict[str, object]:
    """A random point of an option's hyperparameters, bounds included."""
    values: dict[str, object] = {}
    for parameter in option.parameters(LIMITS):
        if isinstance(parameter, Choice):
            values[parameter.name] = str(rng.choice(parameter.options))
        else:
            edge = float(rng.choice([parameter.low, parameter.high, (parameter.low * parameter.high) ** 0.5]))
            values[parameter.name] = round(edge) if parameter.whole else edge
    return values


@pytest.mark.parametrize("option", CLASSIFIERS, ids=lambda option: option.name)
@pytest.mark.parametrize("scaler", SCALERS, ids=lambda option: option.name)
def test_every_point_of_the_space_fits_and_gives_probabilities(option: Option, scaler: Option) -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        candidate = Candidate.of(scaler.name, drawn(scaler, rng), option.name, drawn(option, rng))
        scored = in_process().evaluate([candidate])[0]
        assert scored.failure is None, candidate.words
        assert ((scored.out_of_fold >= 0) & (scored.out_of_fold <= 1)).all()
        assert len(candidate.complexity(LIMITS)) >= 2


@ENGINES
def test_an_engine_uses_its_budget_starts_from_the_baseline_and_gives_a_plain_pipeline(engine) -> None:
    result = engine.search(in_process(), LIMITS, np.random.default_rng(4))
    assert result.trials[0].candidate == BASELINE
    assert 14 <= len(result.trials) <= 18
    assert len({trial.candidate for trial in result.trials}) == len(result.trials)
    pipeline = result.winner.candidate.pipeline(result.random_state)
    assert type(pipeline) is Pipeline
    assert all(type(step).__module__.startswith("sklearn.") for _, step in pipeline.steps)


@pytest.mark.parametrize("survival", [False, True])
def test_whatever_evolution_makes_can_be_built(survival: bool) -> None:
    _import_evolver()
    space, rng = _tpot_space(steps(survival), LIMITS), np.random.default_rng(0)
    for _ in range(300):
        first, second = space.generate(rng), space.generate(rng)
        first.crossover(second, rng=rng)
        first.mutate(rng=rng)
        for individual in (first, second):
            pipeline = _candidate_of(individual).pipeline(0)
            assert pipeline.steps


@ENGINES
def test_the_same_search_again_is_the_same_to_the_last_bit(engine) -> None:
    first, second = (engine.search(in_process(), LIMITS, np.random.default_rng(4)) for _ in range(2))
    assert [trial.candidate for trial in first.trials] == [trial.candidate for trial in second.trials]
    for one, other in zip(first.trials, second.trials, strict=True):
        np.testing.assert_array_equal(one.out_of_fold, other.out_of_fold)


@ENGINES
def test_one_worker_or_two_find_the_same(engine) -> None:
    found = []
    for count in (1, 2):
        with Workers(count) as workers:
            found.append(engine.search(Evaluator(inner_folds(), 11, workers, Silence()), LIMITS, np.random.default_rng(4)))
    assert [trial.candidate for trial in found[0].trials] == [trial.candidate for trial in found[1].trials]
    np.testing.assert_array_equal(found[0].winner.out_of_fold, found[1].winner.out_of_fold)


def scored(candidate: Candidate, mean: float, spread: float = 0.0) -> Scored:
    return Scored(candidate, (mean - spread, mean, mean + spread), np.zeros(3))


RIDGE = BASELINE
WEAKER_RIDGE = Candidate.of("standard", {}, "ridge_logistic", {"C": 0.5, "class_weight": "none"})
FOREST = Candidate.of("standard", {}, "random_forest", {"max_depth": 3, "min_samples_leaf": 2, "max_features": 0.5})


def test_the_simplest_within_one_standard_error_of_the_best_wins() -> None:
    trials = [scored(FOREST, 0.80, 0.05), scored(WEAKER_RIDGE, 0.79), scored(RIDGE, 0.78), scored(RIDGE, 0.60)]
    assert choose(trials, LIMITS, "one_standard_error").mean == pytest.approx(0.78)
    assert choose(trials, LIMITS, "best").candidate == FOREST


def test_a_simpler_one_further_off_does_not() -> None:
    trials = [scored(FOREST, 0.80, 0.05), scored(RIDGE, 0.76)]
    assert choose(trials, LIMITS, "one_standard_error").candidate == FOREST


def test_a_stronger_penalty_is_simpler() -> None:
    assert RIDGE.complexity(LIMITS) < WEAKER_RIDGE.complexity(LIMITS) < FOREST.complexity(LIMITS)


def test_a_candidate_that_fails_or_predicts_no_number_is_counted_and_survived() -> None:
    broken = Candidate.of("standard", {}, "ridge_logistic", {"C": -1.0, "class_weight": "none"})
    folds = inner_folds()
    folds[1].X_test[0, 0] = 1e300  # overflows inside naive Bayes into a value that is no number
    overflowing = Candidate.of("standard", {}, "naive_bayes", {"var_smoothing": 1e-6})
    results = in_process(folds).evaluate([broken, overflowing, RIDGE])
    assert "InvalidParameterError" in results[0].failure
    assert results[1].failure is not None
    assert results[2].failure is None
    assert choose(results, LIMITS, "best").candidate == RIDGE


def test_a_search_in_which_everything_fails_says_why() -> None:
    with pytest.raises(HypoxiaError, match="All 1 candidates of the search failed"):
        choose([Scored(RIDGE, failure="ValueError: no")], LIMITS, "best")


def _sleep_or_die(what: str) -> str:
    if what == "hang":
        time.sleep(60)
    if what == "die":
        import os

        os._exit(9)
    return what


def test_a_task_that_hangs_or_dies_is_ended_and_the_others_go_on() -> None:
    start = time.monotonic()
    with Workers(2) as workers:
        workers.map(_sleep_or_die, [("start",)])
        outcomes = workers.map(_sleep_or_die, [("a",), ("hang",), ("die",), ("b",)], timeout_s=3)
    assert [outcome.value for outcome in outcomes] == ["a", None, None, "b"]
    assert outcomes[1].failure == "ran longer than 3 s"
    assert "process ended" in outcomes[2].failure
    assert time.monotonic() - start < 40


def test_a_search_out_of_time_stops_and_says_so() -> None:
    evaluator = Evaluator(inner_folds(), 11, Workers(isolated=False), Silence(), deadline=time.monotonic() - 1)
    result = OptunaSearch(trials=40, folds=3).search(evaluator, LIMITS, np.random.default_rng(0))
    assert result.out_of_time
    assert len(result.trials) <= 8
