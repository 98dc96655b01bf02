"""The BentoML service: takes the verified models from a shelf, and serves the application over them.

Started by ``hypoxia serve``, which stocks the shelf first and names it in the environment; or from a Bento, in which the
shelf is frozen beside the code (``hypoxia package``). BentoML imports this module in its supervisor too, which serves
nothing, so what takes time and memory is imported where a worker starts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml

from serving.connections import guard_connections
from serving.edge import Edge
from serving.telemetry import shared_telemetry

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SHELF = "HYPOXIA_SHELF"
WORKERS = "HYPOXIA_WORKERS"
KEYS = "HYPOXIA_KEYS"


class Worker:
    """The application of this process, once it has started.

    BentoML takes an application when a service is declared, and would answer with pages of its own wherever a FastAPI that
    it knows has no route; those load scripts from another host. Of this one it knows nothing.
    """

    application: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.application(scope, receive, send)


worker = Worker()


@bentoml.service(
    name="hypoxia",
    workers=int(os.environ.get(WORKERS, "1")),
    # The edge counts, logs and gives up by itself, and never in a client's words; its deadlines end before this one.
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
)
@bentoml.asgi_app(worker, path="/")
class Hypoxia:
    """Serves registered tumour-hypoxia models. Research use only."""

    def __init__(self) -> None:
        from serving.app import create_app
        from serving.follower import Watch
        from serving.served import ServedModels
        from serving.shadow import Shadow
        from serving.shelf import Shelf

        telemetry = shared_telemetry()
        models = ServedModels(Shelf(shelf_folder()), on_change=lambda: telemetry.serve(models.versions))
        telemetry.serve(models.versions)
        shadow = Shadow(models)
        offer = shadow.offer if models.has_challengers else None
        worker.application = create_app(models, models.reload, offer=offer, warm=True)
        Watch(models).start()
        shadow.start()


service: Any = Hypoxia  # what the decorators made of the class, which type checkers do not see
service.add_asgi_middleware(Edge, inner=worker)
guard_connections()


def edge_first() -> ASGIApp:
    """The service with the edge around all of it: what was let through goes straight to our application.

    BentoML has no place for a middleware outside its own, which start a task and a timer of a minute per request.
    """
    return Edge(service.to_asgi(), inner=worker)


def shelf_folder() -> Path:
    """The shelf that the environment names; else the one that is frozen beside the code, with its keys."""
    from serving.shelf import FROZEN_KEYS, FROZEN_SHELF

    named = os.environ.get(SHELF)
    if named:
        return Path(named)
    root = Path(__file__).resolve().parents[1]
    if (root / FROZEN_KEYS).is_dir():
        os.environ.setdefault(KEYS, str(root / FROZEN_KEYS))
    return root / FROZEN_SHELF
