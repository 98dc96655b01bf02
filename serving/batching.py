"""Adaptive batches: what has queued up is scored in one call, and nobody waits for a batch to fill.

A model that is quick is scored on the event loop, at the end of the turn in which rows came, so that requests that arrived
together share a call. A slow one is scored in a thread, and what arrives meanwhile is its next batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from serving.predictor import Scores

MOST_ROWS = 256
# A call that takes longer belongs on a thread: meanwhile the loop reads requests.
QUICK_S = 0.002


@dataclass(frozen=True, slots=True)
class Share:
    """Scores of a batch, and where in it a request's rows begin."""

    scores: Scores
    first: int


@dataclass(frozen=True, slots=True)
class _Job:
    matrix: np.ndarray
    answer: asyncio.Future[Share]


_Outcome = Share | Exception


class Batcher:
    """Scores rows of several requests together; first come, first served.

    Parameters
    ----------
    score : callable
        Scores a matrix.
    is_quick : bool
        Whether that takes so little time that the event loop can do it.
    """

    def __init__(self, score: Callable[[np.ndarray], Scores], *, is_quick: bool) -> None:
        self._score = score
        self._thread = None if is_quick else ThreadPoolExecutor(1, thread_name_prefix="score")
        self._waiting: deque[_Job] = deque()
        self._is_busy = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def score(self, matrix: np.ndarray) -> Share:
        """Scores of rows that are right, in their order.

        Parameters
        ----------
        matrix : ndarray of shape (1 to 256, n_features)
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a new loop; what waited in an old one waits no more
            self._loop, self._is_busy, self._waiting = loop, False, deque()
        job = _Job(matrix, loop.create_future())
        self._waiting.append(job)
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._next, loop)
        return await job.answer

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        jobs = self._take()
        if not jobs:
            self._is_busy = False
        elif self._thread is None:
            self._give(jobs, self._outcomes(jobs), loop)
        else:
            done = loop.run_in_executor(self._thread, self._outcomes, jobs)
            done.add_done_callback(lambda found: self._give(jobs, found.result(), loop))

    def _take(self) -> list[_Job]:
        """As many of those that have waited longest as fit into one call; of those that gave up, none."""
        jobs: list[_Job] = []
        rows = 0
        while self._waiting and (not jobs or rows + len(self._waiting[0].matrix) <= MOST_ROWS):
            job = self._waiting.popleft()
            if not job.answer.done():
                jobs.append(job)
                rows += len(job.matrix)
        return jobs

    def _give(self, jobs: Sequence[_Job], outcomes: Sequence[_Outcome], loop: asyncio.AbstractEventLoop) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.answer.done():
                continue
            if isinstance(outcome, Exception):
                job.answer.set_exception(outcome)
            else:
                job.answer.set_result(outcome)
        if self._waiting:
            loop.call_soon(self._next, loop)
        else:
            self._is_busy = False

    def _outcomes(self, jobs: Sequence[_Job]) -> list[_Outcome]:
        """What a call gives each of its requests; if it fails, each is tried alone, and the failure stays with whose it is."""
        if len(jobs) == 1:
            return [self._alone(jobs[0])]
        try:
            scores = self._score(np.concatenate([job.matrix for job in jobs]))
        except Exception:  # noqa: BLE001 - whatever it is, it is one request's, and is raised there
            return [self._alone(job) for job in jobs]
        first = np.cumsum([0] + [len(job.matrix) for job in jobs]).tolist()
        return [Share(scores, start) for start in first[:-1]]

    def _alone(self, job: _Job) -> _Outcome:
        try:
            return Share(self._score(job.matrix), 0)
        except Exception as error:  # noqa: BLE001 - raised in the request that it belongs to
            return error
