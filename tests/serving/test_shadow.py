"""A challenger is compared with what was answered, and whatever it does is seen in the counters only."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from prometheus_client import REGISTRY

from serving.loader import LoadedModel
from serving.predictor import Predictor
from serving.shadow import MOST_WAITING, Answered, Shadow
from tests.serving.registered import rows_like_training, small_bundle

ROWS = rows_like_training(40)


@dataclass
class Models:
    """What a shadow asks of `ServedModels`."""

    challengers: dict[str, Predictor]

    def challenger(self, name: str) -> Predictor | None:
        return self.challengers.get(name)


def predictor(name: str, seed: int, version: str = "2") -> Predictor:
    return Predictor(LoadedModel(name, version, small_bundle(seed)))


def shadow_of(name: str, challenger: Predictor) -> Shadow:
    models: Any = Models({name: challenger})
    return Shadow(models)


def answered(name: str, served: Predictor) -> Answered:
    scored = served.predict(ROWS)
    return Answered(name, ROWS, [one.probability for one in scored], [one.label for one in scored])


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"hypoxia_shadow_{metric}", labels) or 0.0


def test_differences_and_disagreements_are_counted_as_computed_by_hand() -> None:
    served, challenger = predictor("a", 0, "1"), predictor("a", 1)
    one = answered("a", served)
    shadow_of("a", challenger).compare(one)
    expected = challenger.predict(ROWS)
    differences = [theirs.probability - ours for theirs, ours in zip(expected, one.probabilities, strict=True)]
    labels = {"model": "a", "version": "2"}
    assert counted("rows_total", **labels) == 40
    for limit in (-0.2, -0.02, 0.0, 0.05, 1.0):
        assert counted("difference_bucket", le=str(limit), **labels) == sum(value <= limit for value in differences)
    disagree = sum(theirs.label != label for theirs, label in zip(expected, one.labels, strict=True))
    assert counted("disagreements_total", **labels) == disagree > 0


def test_a_challenger_that_fails_or_needs_another_feature_is_counted_and_nothing_else_happens() -> None:
    bundle = small_bundle(1)
    broken = Predictor(LoadedModel("b", "2", replace(bundle, pipeline=None)))
    one = answered("b", predictor("b", 0))
    shadow_of("b", broken).compare(one)
    shadow_of("b", predictor("b", 1)).compare(replace(one, rows=[{"volume": 1.0}] * 40))
    assert counted("failures_total", model="b") == 80
    assert counted("rows_total", model="b", version="2") == 0


def test_an_offer_never_waits_and_what_there_is_no_time_for_is_dropped_and_counted() -> None:
    shadow = shadow_of("c", predictor("c", 1))  # not started: nothing is ever taken from its queue
    one = answered("c", predictor("c", 0))
    started = time.perf_counter()
    for _ in range(MOST_WAITING + 3):
        shadow.offer("c", one.rows, one.probabilities, one.labels)
    assert time.perf_counter() - started < 1
    assert counted("dropped_total", model="c") == 3 * 40


def test_a_slow_challenger_holds_up_no_answer_and_ends_up_compared() -> None:
    class Slow(Predictor):
        pass

    slow = Slow(LoadedModel("d", "2", small_bundle(1)))
    release = threading.Event()
    pipeline = slow.loaded.bundle.pipeline

    class Waiting:
        def predict_proba(self, matrix: np.ndarray) -> np.ndarray:
            release.wait(10)
            return np.asarray(pipeline.predict_proba(matrix))

    waiting: Any = Waiting()
    slow = Slow(LoadedModel("d", "2", replace(slow.loaded.bundle, pipeline=waiting)))
    shadow = shadow_of("d", slow)
    shadow.start()
    one = answered("d", predictor("d", 0))
    started = time.perf_counter()
    shadow.offer("d", one.rows, one.probabilities, one.labels)
    assert time.perf_counter() - started < 0.5
    assert counted("rows_total", model="d", version="2") == 0
    release.set()
    deadline = time.monotonic() + 10
    while counted("rows_total", model="d", version="2") < 40 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counted("rows_total", model="d", version="2") == 40


def test_a_model_without_a_challenger_costs_nothing() -> None:
    shadow = shadow_of("e", predictor("e", 1))
    shadow.offer("other", ROWS, [0.5] * 40, ["hypoxic"] * 40)
    assert shadow._waiting.empty()
