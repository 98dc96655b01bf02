"""What is counted about requests, for Prometheus; nothing that a client sends becomes a label.

Several workers count into files of one folder, which BentoML makes and names in ``PROMETHEUS_MULTIPROC_DIR``; whichever of
them is asked answers for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Why a request was refused. A closed list: a reason is a label, and a line of the audit log.
Reason = Literal[
    "audit",
    "authentication",
    "cross_site",
    "deadline",
    "failure",
    "host",
    "invalid_rows",
    "malformed",
    "media_type",
    "method",
    "nesting",
    "not_found",
    "not_ready",
    "out_of_distribution",
    "rate",
    "saturated",
    "scope",
    "slow",
    "too_large",
    "too_many_values",
    "websocket",
]
_REASON_OF_STATUS: dict[int, Reason] = {
    400: "malformed",
    401: "authentication",
    403: "scope",
    404: "not_found",
    405: "method",
    406: "media_type",
    408: "slow",
    413: "too_large",
    415: "media_type",
    422: "invalid_rows",
    429: "rate",
    503: "not_ready",
    504: "deadline",
}
FACTS = "hypoxia"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_PROBABILITIES = tuple(step / 10 for step in range(1, 11))


@dataclass(slots=True)
class RequestFacts:
    """What may be kept of one request: no value, no identifier and no text of the client's.

    The edge puts one into the request's scope; the application adds what only it knows, with `note_scored` and `note_refused`.
    """

    request: str
    route: str
    started: float = field(default_factory=perf_counter)
    token: str | None = None
    model: str | None = None
    version: str | None = None
    rows: int = 0
    flagged: int = 0
    probabilities: Sequence[float] = ()
    reason: Reason | None = None
    status: int = 0

    @property
    def milliseconds(self) -> float:
        """Time since the request's headers were there."""
        return (perf_counter() - self.started) * 1000


def note_scored(
    scope: MutableMapping[str, Any], *, model: str, version: str, rows: int, flagged: int, probabilities: Sequence[float]
) -> None:
    """Tell the edge which served model scored how many rows of this request (`flagged`: out of distribution).

    Does nothing where there is no edge. The name must be that of a model that is served, never what the client wrote.
    """
    facts: RequestFacts | None = scope.get(FACTS)
    if facts is not None:
        facts.model, facts.version, facts.rows, facts.flagged = model, version, rows, flagged
        facts.probabilities = probabilities


def note_refused(
    scope: MutableMapping[str, Any], reason: Reason, *, model: str | None = None, version: str | None = None, rows: int = 0
) -> None:
    """Tell the edge why this request is refused, and by which served model if one was reached."""
    facts: RequestFacts | None = scope.get(FACTS)
    if facts is not None:
        facts.reason = reason
        facts.model, facts.version, facts.rows = model or facts.model, version or facts.version, rows or facts.rows


class Telemetry:
    """Counters and histograms of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self._requests = Counter("hypoxia_requests", "Requests by route and class of status.", ["route", "status"], registry=own)
        self._rejections = Counter("hypoxia_rejections", "Requests that were refused, by reason.", ["reason"], registry=own)
        self._seconds = Histogram(
            "hypoxia_request_seconds", "Time from the headers to the answer.", ["route"], buckets=_SECONDS, registry=own
        )
        named = ["model", "version"]
        self._rows = Counter("hypoxia_rows", "Rows that were scored.", named, registry=own)
        self._flagged = Counter(
            "hypoxia_rows_out_of_distribution", "Scored rows outside of what was trained on.", named, registry=own
        )
        self._scores = Histogram(
            "hypoxia_score", "Probabilities that were answered.", named, buckets=_PROBABILITIES, registry=own
        )
        # The value set last, in whichever worker: a worker that died while it served an old version must not keep it alive.
        self._models = Gauge(
            "hypoxia_model_served", "1 for a version that is served.", named, multiprocess_mode="mostrecent", registry=own
        )
        self._audit_failures = Counter("hypoxia_audit_failures", "Lines that the audit log could not take.", registry=own)
        self._served: set[tuple[str, str]] = set()
        # Looking a child up by its labels takes a lock and longer than counting.
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count(self, facts: RequestFacts) -> None:
        """Count a request that was answered with ``facts.status``."""
        key = (facts.route, facts.status // 100)
        if key not in self._children:
            counter = self._requests.labels(facts.route, f"{facts.status // 100}xx")
            self._children[key] = counter, self._seconds.labels(facts.route)
        requests, seconds = self._children[key]
        requests.inc()
        seconds.observe(perf_counter() - facts.started)
        if facts.status >= 400:
            self._rejections.labels(reason_of(facts)).inc()
        elif facts.model is not None and facts.version is not None:
            self._count_rows(facts, facts.model, facts.version)

    def serve(self, models: Iterable[tuple[str, str]]) -> None:
        """Say which versions are served from now on, as ``(name, version)``."""
        now = set(models)
        for name, version in self._served - now:
            self._models.labels(name, version).set(0)
        for name, version in now:
            self._models.labels(name, version).set(1)
        self._served = now

    def count_audit_failure(self) -> None:
        """Count a line that the audit log could not take."""
        self._audit_failures.inc()

    def render(self) -> bytes:
        """All workers' metrics, as Prometheus reads them."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _count_rows(self, facts: RequestFacts, model: str, version: str) -> None:
        self._rows.labels(model, version).inc(facts.rows)
        if facts.flagged:
            self._flagged.labels(model, version).inc(facts.flagged)
        scores = self._scores.labels(model, version)
        for probability in facts.probabilities:
            scores.observe(probability)


@cache
def shared_telemetry() -> Telemetry:
    """The one of this process."""
    return Telemetry()


def reason_of(facts: RequestFacts) -> Reason:
    """Why a request was refused: what was noted, else what its status says."""
    if facts.reason is not None:
        return facts.reason
    return _REASON_OF_STATUS.get(facts.status, "malformed" if facts.status < 500 else "failure")
