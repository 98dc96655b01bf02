"""What a long run tells whoever watches it; the science does not know who that is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

# Of a stage that goes on, a line says how far it is, no more often than this.
SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Listener to a run."""

    def stage(self, words: str) -> None:
        """A stage of the run begins."""

    def searching(self, done: int, budget: int, generation: int, generations: int, best: float | None) -> None:
        """So many of the budgeted candidates are evaluated; the best inner score so far."""

    def recalled(self) -> None:
        """A search need not be made: an interrupted run of the same study has made it."""


class Silence:
    """Progress that nobody watches."""

    def stage(self, words: str) -> None:
        """Say nothing."""

    def searching(self, done: int, budget: int, generation: int, generations: int, best: float | None) -> None:
        """Say nothing."""

    def recalled(self) -> None:
        """Say nothing."""


def paced(count: int, progress: Progress, words: str) -> Iterator[int]:
    """Numbers from 0, and now and then a line that says how far the stage is; a short one says nothing.

    Examples
    --------
    >>> list(paced(3, Silence(), "resamples"))
    [0, 1, 2]
    """
    last = time.monotonic()
    for number in range(count):
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            progress.stage(f"{words}: {number} of {count}")
            last = time.monotonic()
        yield number
