"""Batches that nobody waits for, and in which nobody harms another."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from serving.batching import MOST_ROWS, Batcher, Share
from serving.predictor import Predictor, Scores
from tests.serving.registered import FEATURES, rows_like_training

BAD = 1e9


class Counting:
    """Scores with a predictor and remembers the sizes of its batches; a row with a `BAD` value makes it fail."""

    def __init__(self, predictor: Predictor, seconds: float = 0.0) -> None:
        self.predictor, self.seconds = predictor, seconds
        self.sizes: list[int] = []
        self.threads: set[str] = set()

    def __call__(self, matrix: np.ndarray) -> Scores:
        self.sizes.append(len(matrix))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if (matrix == BAD).any():
            raise RuntimeError("a row of ours that fails")
        return self.predictor.score(matrix)


def requests(sizes: list[int], seed: int = 1) -> list[np.ndarray]:
    rows = [[row[name] for name in FEATURES] for row in rows_like_training(sum(sizes), seed)]
    return np.split(np.array(rows), np.cumsum(sizes)[:-1])


def run(batcher: Batcher, asked: list[np.ndarray]) -> list[Share | BaseException]:
    async def all_at_once() -> list[Share | BaseException]:
        return await asyncio.gather(*(batcher.score(matrix) for matrix in asked), return_exceptions=True)

    return asyncio.run(all_at_once())


def probabilities(share: Share | BaseException, rows: int) -> list[float]:
    assert isinstance(share, Share)
    return share.scores.probabilities[share.first : share.first + rows]


@pytest.mark.parametrize("is_quick", [True, False])
def test_each_gets_its_own_rows_back(predictor: Predictor, is_quick: bool) -> None:
    asked = requests([1, 3, 1, 7, 256, 2, 1])
    for matrix, share in zip(asked, run(Batcher(Counting(predictor), is_quick=is_quick), asked), strict=True):
        assert probabilities(share, len(matrix)) == pytest.approx(predictor.loaded.bundle.score(matrix).tolist(), abs=1e-9)


def test_what_arrives_together_is_scored_together(predictor: Predictor) -> None:
    score = Counting(predictor)
    run(Batcher(score, is_quick=True), requests([1] * 40))
    assert score.sizes == [40]


def test_what_arrives_while_a_slow_model_scores_is_its_next_batch(predictor: Predictor) -> None:
    score = Counting(predictor, seconds=0.05)
    batcher = Batcher(score, is_quick=False)

    async def one_after_another() -> None:
        first = asyncio.create_task(batcher.score(requests([1])[0]))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(batcher.score(matrix) for matrix in requests([1] * 9)))

    asyncio.run(one_after_another())
    assert score.sizes == [1, 9]


def test_a_slow_model_does_not_stop_the_loop(predictor: Predictor) -> None:
    score = Counting(predictor, seconds=0.2)
    batcher = Batcher(score, is_quick=False)

    async def longest_pause() -> float:
        scoring = asyncio.create_task(batcher.score(requests([1])[0]))
        longest = 0.0
        while not scoring.done():
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - started)
        return longest

    assert asyncio.run(longest_pause()) < 0.15
    assert all(name.startswith("score") for name in score.threads)


def test_no_batch_is_larger_than_allowed_and_the_first_are_served_first(predictor: Predictor) -> None:
    score = Counting(predictor)
    batcher = Batcher(score, is_quick=True)
    served: list[int] = []

    async def ask(number: int, matrix: np.ndarray) -> None:
        await batcher.score(matrix)
        served.append(number)

    async def all_at_once() -> None:
        await asyncio.gather(*(ask(number, matrix) for number, matrix in enumerate(requests([200, 100, 100, 56, 1]))))

    asyncio.run(all_at_once())
    assert score.sizes == [200, 256, 1]
    assert max(score.sizes) <= MOST_ROWS
    assert served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_request_that_fails_fails_alone(predictor: Predictor, is_quick: bool) -> None:
    asked = requests([1] * 20)
    asked[7] = np.full((1, len(FEATURES)), BAD)
    found = run(Batcher(Counting(predictor), is_quick=is_quick), asked)
    assert isinstance(found[7], RuntimeError)
    for number, matrix in enumerate(asked):
        if number != 7:
            assert probabilities(found[number], 1) == pytest.approx(predictor.loaded.bundle.score(matrix).tolist(), abs=1e-9)


def test_whoever_gave_up_is_not_scored_and_holds_nobody_up(predictor: Predictor) -> None:
    score = Counting(predictor)
    batcher = Batcher(score, is_quick=True)

    async def give_up() -> Share:
        gone = [asyncio.create_task(batcher.score(matrix)) for matrix in requests([5, 5])]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        return await batcher.score(requests([1])[0])

    assert probabilities(asyncio.run(give_up()), 1)
    assert score.sizes == [1]


def test_it_works_on_after_its_loop_has_ended(predictor: Predictor) -> None:
    batcher = Batcher(Counting(predictor), is_quick=True)

    loop = asyncio.new_event_loop()
    left = loop.create_task(batcher.score(requests([1])[0]))
    loop.call_soon(loop.stop)
    loop.run_forever()  # one turn: the row waits, and nothing has scored it
    left._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert len(run(batcher, requests([1, 1]))) == 2
