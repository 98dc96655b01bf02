"""What a long run tells whoever watches it; the science does not know who that is."""

from __future__ import annotations

from typing import Protocol


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
