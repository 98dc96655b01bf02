"""Worker processes that survive a task that fails, hangs or dies.

Pebble was chosen over joblib, concurrent.futures and a Dask cluster because it alone ends a task that runs over its
time by ending its process, and goes on with a new one.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as TaskTimeout
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from pebble import ProcessExpired, ProcessPool
from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of a task: a value, or the failure that prevented one."""

    value: R | None
    failure: str | None = None
    cause: BaseException | None = None

    def get(self) -> R:
        """The value; raises the task's own error if there is none."""
        if self.cause is not None:
            raise self.cause
        return self.value  # type: ignore[return-value]


class Workers:
    """A pool of processes, each with one thread, so that results do not depend on how many there are.

    Use as a context manager. With ``isolated=False`` tasks run in this process, one after the other, without a time
    limit (for tests and small jobs).
    """

    def __init__(self, count: int = 1, isolated: bool = True) -> None:
        self.count = count
        self._isolated = isolated
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Workers:
        self._limits = threadpool_limits(1)
        if self._isolated:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["training.recipe"])
            self._pool = ProcessPool(max_workers=self.count, context=context, initializer=_start_worker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._limits.restore_original_limits()
        if self._pool is not None:
            end: Callable[[], None] = self._pool.close if kind is None else self._pool.stop
            end()
            self._pool.join()

    def map(
        self,
        function: Callable[..., R],
        tasks: Sequence[tuple[Any, ...]],
        timeout_s: float | None = None,
        on_done: Callable[[Outcome[R]], None] = lambda outcome: None,
    ) -> list[Outcome[R]]:
        """Outcome of ``function(*task)`` per task, in the order of the tasks.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds after which a running task is ended.
        on_done : callable
            Called with each outcome, in order.
        """
        if self._pool is None:
            waiting: list[Callable[[], R]] = [_deferred(function, task) for task in tasks]
        else:
            waiting = [self._pool.schedule(function, args=task, timeout=timeout_s).result for task in tasks]
        outcomes = []
        for wait in waiting:
            outcomes.append(_outcome_of(wait, timeout_s))
            on_done(outcomes[-1])
        return outcomes


def _deferred(function: Callable[..., R], task: tuple[Any, ...]) -> Callable[[], R]:
    return lambda: function(*task)


def _outcome_of(wait: Callable[[], R], timeout_s: float | None) -> Outcome[R]:
    try:
        return Outcome(wait())
    except TaskTimeout as cause:
        return Outcome(None, f"ran longer than {timeout_s:g} s", cause)
    except ProcessExpired as cause:
        return Outcome(None, f"its process ended (exit code {cause.exitcode})", cause)
    except Exception as cause:  # noqa: BLE001 - whatever a task raises is its outcome, and is raised again by get()
        return Outcome(None, f"{type(cause).__name__}: {cause}", cause)


def _start_worker() -> None:
    threadpool_limits(1)
    warnings.simplefilter("ignore")
