"""A challenger that scores what the served model scored, out of sight: its results are counted and nothing else.

It never delays an answer. Rows wait in a short queue and are dropped when that is full; a thread of low priority scores
them, and rests after each batch for longer than the batch took.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

    from serving.predictor import Predictor
    from serving.served import ServedModels

logger = logging.getLogger(__name__)

MOST_WAITING = 64
# Of the time that a challenger takes, so long does it rest: at most a fifth of a processor is its own.
REST = 4.0


@dataclass(frozen=True)
class OperationMetrics:
    """What is counted about versions that come and challengers that watch; labels are names of models, never a client's."""

    not_taken: Counter
    difference: Histogram
    disagreements: Counter
    compared: Counter
    dropped: Counter
    failed: Counter


@functools.cache
def operation_metrics() -> OperationMetrics:
    """The counters of this process; made at the first use, since a supervisor must name their folder before."""
    from prometheus_client import Counter, Histogram

    named = ["model", "version"]
    return OperationMetrics(
        not_taken=Counter("hypoxia_versions_not_taken", "New versions that were not taken into use.", ["model", "reason"]),
        difference=Histogram(
            "hypoxia_shadow_difference",
            "Probability of the challenger minus that of the served model.",
            named,
            buckets=(-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
        ),
        disagreements=Counter("hypoxia_shadow_disagreements", "Rows that the challenger calls otherwise.", named),
        compared=Counter("hypoxia_shadow_rows", "Rows that the challenger scored too.", named),
        dropped=Counter("hypoxia_shadow_dropped", "Rows that the challenger had no time for.", ["model"]),
        failed=Counter("hypoxia_shadow_failures", "Rows that the challenger could not score.", ["model"]),
    )


@dataclass(frozen=True)
class Answered:
    """Rows of one request with what was answered, for as long as they wait."""

    model: str
    rows: Sequence[Mapping[str, float]]
    probabilities: Sequence[float]
    labels: Sequence[str]


class Shadow:
    """Compares challengers with what was answered.

    Examples
    --------
    ``shadow.offer(name, rows, probabilities, labels)`` after an answer was computed; returns at once, raises nothing.
    """

    def __init__(self, models: ServedModels) -> None:
        self._models = models
        self._waiting: queue.Queue[Answered] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to compare."""
        self._thread.start()

    def offer(
        self, model: str, rows: Sequence[Mapping[str, float]], probabilities: Sequence[float], labels: Sequence[str]
    ) -> None:
        """Have rows scored by the model's challenger, if there is one and it has time."""
        if self._models.challenger(model) is None:
            return
        try:
            self._waiting.put_nowait(Answered(model, rows, probabilities, labels))
        except queue.Full:
            operation_metrics().dropped.labels(model).inc(len(rows))

    def compare(self, answered: Answered) -> None:
        """Score rows with the challenger and count how it differs."""
        challenger = self._models.challenger(answered.model)
        if challenger is None:
            return
        metrics = operation_metrics()
        try:
            scored = _scored(challenger, answered.rows)
        except Exception as error:  # noqa: BLE001 - a challenger on trial may do anything; its text may hold a value
            metrics.failed.labels(answered.model).inc(len(answered.rows))
            logger.debug("The challenger of %s could not score (%s).", answered.model, type(error).__name__)
            return
        labels = (answered.model, challenger.loaded.version)
        metrics.compared.labels(*labels).inc(len(scored))
        for (probability, label), served, called in zip(scored, answered.probabilities, answered.labels, strict=True):
            metrics.difference.labels(*labels).observe(probability - served)
            if label != called:
                metrics.disagreements.labels(*labels).inc()

    def _run(self) -> None:
        while True:
            answered = self._waiting.get()
            started = time.thread_time()
            self.compare(answered)
            time.sleep(REST * (time.thread_time() - started))


def _scored(challenger: Predictor, rows: Sequence[Mapping[str, float]]) -> list[tuple[float, str]]:
    """Probability and label per row; a challenger may need fewer features than the served model was sent."""
    matrix = np.array([[row[name] for name in challenger.features] for row in rows], dtype=float)
    if not rows:
        return []
    scores = challenger.score(matrix.reshape(len(rows), len(challenger.features)))
    return list(zip(scores.probabilities, map(challenger.label, scores.positives), strict=True))
