"""A server that gives the real page and pretends the rest: models of our choosing, and refusals when told so."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.page import page_routes

CAUTION = "Research use only: not a medical device, not for decisions about a patient."


@dataclass(frozen=True)
class Refusal:
    """What is answered in place of a score."""

    status: int
    detail: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Pretended:
    """A logistic model whose SHAP values are made up to add up.

    Attributes
    ----------
    refusals : list of Refusal
        Answered first, one a request for scores.
    bodies : list of str
        Every body that was sent.
    """

    name: str = "pretended"
    features: Sequence[str] = ("a", "b", "c")
    units: Sequence[str | None] = ()
    missing: str = "refuse"
    aliases: dict[str, str] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    pending: dict[str, str] | None = None
    versions: list[str] = field(default_factory=lambda: ["1"])
    refusals: list[Refusal] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    def application(self) -> Starlette:
        async def models(_: Request) -> Response:
            if self.refusals and self.refusals[0].status == 401:
                return problem(self.refusals.pop(0))
            return JSONResponse({"models": [self._named() | {"features": 3, "threshold": 0.4, "pending_problem": self.pending}]})

        async def describe(_: Request) -> Response:
            return JSONResponse(self._named() | {"research_use_only": CAUTION, "card": self._card()})

        async def contract(_: Request) -> Response:
            return JSONResponse(self._named() | {"missing": self.missing, "features": self._features()})

        async def score(request: Request) -> Response:
            text = (await request.body()).decode()
            self.bodies.append(text)
            if self.refusals:
                return problem(self.refusals.pop(0))
            rows = json.loads(text)["rows"]
            version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
            explained = request.url.path.endswith("/explain")
            predictions = [self._prediction(row["features"], version, explained=explained) for row in rows]
            return JSONResponse({"model": {"name": self.name, "version": version}, "threshold": 0.4, "predictions": predictions})

        named = "/v1/models/{name:path}"
        return Starlette(
            routes=[
                *page_routes(),
                Route("/v1/models", models),
                Route(f"{named}/schema", contract),
                Route(f"{named}/predict", score, methods=["POST"]),
                Route(f"{named}/explain", score, methods=["POST"]),
                Route(named, describe),
            ]
        )

    def _named(self) -> dict[str, str]:
        return {"name": self.name, "version": self.versions[-1]}

    def _card(self) -> dict[str, Any]:
        return {
            "study": "pretended",
            "created": "2026-01-01T00:00:00Z",
            "intended_use": CAUTION,
            "endpoint": "pretended hypoxia",
            "positive_label": "hypoxic",
            "negative_label": "not hypoxic",
            "samples": 60,
            "events": 30,
            "patients": 60,
            "held_out_patients": 20,
            "threshold": 0.4,
            "threshold_origin": "pretended",
            "pipeline": "pretended",
            "held_out": {"roc_auc": {"value": 0.78, "lower": 0.66, "upper": 0.88, "level": 0.95, "reason": None}},
            "internal": None,
            "fingerprint": "0" * 64,
            "data_hash": "0" * 64,
            **self.card,
        }

    def _features(self) -> list[dict[str, Any]]:
        shares = {"0.01": -2.2, "0.05": -1.6, "0.25": -0.7, "0.5": 0.05, "0.75": 0.7, "0.95": 1.6, "0.99": 2.2}
        units = list(self.units) or [None] * len(self.features)
        aliases = {name: [other for other, one in self.aliases.items() if one == name] for name in self.features}
        return [
            {"name": name, "unit": unit, "minimum": -3.0, "maximum": 3.0, "quantiles": shares, "aliases": aliases[name]}
            for name, unit in zip(self.features, units, strict=True)
        ]

    def _prediction(self, row: dict[str, float | None], version: str, *, explained: bool) -> dict[str, Any]:
        values = [row[name] or 0.0 for name in self.features]
        probability = 1 / (1 + math.exp(-sum(values)))
        outside = [
            {"feature": name, "side": "above" if value > 0 else "below"}
            for name, value in zip(self.features, values, strict=True)
            if abs(value) > 3
        ]
        return {
            "id": None,
            "probability": probability,
            "label": "hypoxic" if probability >= 0.4 else "not hypoxic",
            "threshold": 0.4,
            "model_version": version,
            "out_of_distribution": {
                "flagged": bool(outside),
                "distance": math.hypot(*values),
                "limit": 4.0,
                "outside_range": outside,
                "drivers": [one["feature"] for one in outside],
            },
            "explanation": self._explanation(values, probability) if explained else None,
            "problem": None,
        }

    def _explanation(self, values: list[float], probability: float) -> dict[str, Any]:
        moved, total = probability - 0.5, sum(values) or 1.0
        parts = [{"feature": name, "shap": moved * value / total} for name, value in zip(self.features, values, strict=True)]
        parts.sort(key=lambda part: -abs(part["shap"]))
        rest = parts[10:]
        return {
            "base_value": 0.5,
            "features": parts[:10],
            "rest": sum(part["shap"] for part in rest),
            "rest_count": len(rest),
        }


def problem(refusal: Refusal) -> Response:
    """A refusal as problem+json."""
    body = {"type": "about:blank", "title": "Refused", "status": refusal.status, "detail": refusal.detail}
    return Response(json.dumps(body), refusal.status, refusal.headers, media_type="application/problem+json")


@contextmanager
def served(application: Any) -> Iterator[str]:
    """Serve an application on a free port of this machine; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
