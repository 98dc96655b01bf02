"""The BentoML service: loads the models that its environment names, and serves the application over them.

Started by ``hypoxia serve``, which verifies the models first and sets the environment. BentoML imports this module in its
supervisor too, which serves nothing, so what takes time and memory is imported where a worker starts.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import bentoml

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from serving.predictor import Predictor

MODELS = "HYPOXIA_MODELS"
TRACKING_URI = "HYPOXIA_TRACKING_URI"
WORKERS = "HYPOXIA_WORKERS"


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
    traffic={"timeout": 30},
    # A content type is the client's text; it does not belong in a log.
    logging={"access": {"request_content_type": False, "response_content_type": False}},
)
@bentoml.asgi_app(worker, path="/")
class Hypoxia:
    """Serves registered tumour-hypoxia models. Research use only."""

    def __init__(self) -> None:
        from features.store import tracking_uri
        from serving.app import create_app

        worker.application = create_app(load_predictors(os.environ[MODELS], tracking_uri(os.environ.get(TRACKING_URI))))
        # What is loaded stays: the collector need not walk it again and again (halves the slowest hundredth of answers).
        gc.collect()
        gc.freeze()


def load_predictors(references: str, uri: str) -> dict[str, Predictor]:
    """Load models named as ``A,B:2,C@champion``, each under its name."""
    from features.errors import InputError
    from serving.loader import load_registered, parse_reference
    from serving.predictor import Predictor

    predictors: dict[str, Predictor] = {}
    for reference in map(parse_reference, references.split(",")):
        if reference.name in predictors:
            raise InputError(f"Model {reference.name!r} is to be served twice; one version of a model can be.")
        predictors[reference.name] = Predictor(load_registered(reference, uri))
    return predictors
