"""The routes of the endpoint, and the one shape of its errors."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from features.bundle import RESEARCH_USE_ONLY
from features.errors import InputError
from serving.predictor import MOST_FAULTS, Predictor, RowsMismatchError
from serving.schemas import (
    ModelDescription,
    ModelList,
    ModelSummary,
    ModelVersionName,
    Prediction,
    PredictRequest,
    PredictResponse,
    Problem,
    ProblemFault,
)
from serving.strict_json import StrictRoute

PROBLEM_JSON = "application/problem+json"
# A key that a client made up comes back in a pointer, but not a megabyte of it.
LONGEST_TOKEN = 200

logger = logging.getLogger(__name__)


def create_app(predictors: Mapping[str, Predictor]) -> FastAPI:
    """Endpoint over models by name; looks a model up at every request, so that it may be put there, or replaced, later.

    Parameters
    ----------
    predictors : mapping of str to Predictor
        Key: the model's name in the registry.
    """
    app = FastAPI(
        title="Tumour-hypoxia biomarkers",
        description=RESEARCH_USE_ONLY,
        version=version("hypoxia-biomarkers"),
        docs_url=None,  # the ready-made pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect is built from the client's Host header
        # Off, because a recorded exception carries its text, and a text may carry a patient's value.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.route_class = StrictRoute
    _add_routes(app, predictors)
    _add_refusals(app)
    _declare_problems(app)
    return app


def _add_routes(app: FastAPI, predictors: Mapping[str, Predictor]) -> None:
    def named(name: str) -> Predictor:
        if name not in predictors:
            raise HTTPException(404, f"No such model is served here; there is: {', '.join(sorted(predictors))}.")
        return predictors[name]

    @app.get("/v1/models", summary="The models that are served here")
    async def list_models() -> ModelList:
        return ModelList(models=[_summary(predictors[name]) for name in sorted(predictors)])

    @app.get("/v1/models/{name}", summary="A model's card and the features that it takes", responses=_refused(404))
    async def describe_model(name: str) -> ModelDescription:
        return _description(named(name))

    @app.post("/v1/models/{name}/predict", summary="Score rows", responses=_refused(400, 404, 413, 415, 422))
    async def predict(name: str, request: PredictRequest) -> PredictResponse:
        return _prediction(named(name), request)


def _summary(predictor: Predictor) -> ModelSummary:
    model = predictor.loaded
    return ModelSummary(name=model.name, version=model.version, features=len(predictor.features), threshold=predictor.threshold)


def _description(predictor: Predictor) -> ModelDescription:
    model = predictor.loaded
    return ModelDescription(
        name=model.name,
        version=model.version,
        research_use_only=RESEARCH_USE_ONLY,
        card=model.bundle.card,
        schema=model.bundle.schema,
    )


def _prediction(predictor: Predictor, request: PredictRequest) -> PredictResponse:
    scored = predictor.predict([row.features for row in request.rows])
    return PredictResponse(
        model=ModelVersionName(name=predictor.loaded.name, version=predictor.loaded.version),
        threshold=predictor.threshold,
        research_use_only=RESEARCH_USE_ONLY,
        predictions=[
            Prediction(
                id=row.id, probability=one.probability, label=one.label, threshold=one.threshold, model_version=one.version
            )
            for row, one in zip(request.rows, scored, strict=True)
        ],
    )


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def refuse_http(_: Request, error: StarletteHTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(_: Request, error: RequestValidationError) -> Response:
        faults = error.errors()
        shown = [ProblemFault(pointer=_pointer(fault["loc"][1:]), detail=fault["msg"]) for fault in faults[:MOST_FAULTS]]
        return _problem(422, f"The body does not have the right form in {_places(len(faults))}.", shown)

    @app.exception_handler(InputError)
    async def refuse_input(_: Request, error: InputError) -> Response:
        if not isinstance(error, RowsMismatchError):
            return _problem(422, str(error))
        shown = [
            ProblemFault(pointer=_pointer(("rows", one.row, "features", one.feature)), detail=one.reason) for one in error.found
        ]
        return _problem(422, f"The rows do not match the model's features in {_places(len(shown))}.", shown)

    app.add_middleware(OpaqueFailures)


class OpaqueFailures:
    """Answers an exception of ours with a 500, and logs where it was raised but not its text, which may hold a value."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the edge: uncaught, the server would log the text
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s in a request, raised at:\n%s", type(error).__name__, where)
            await _problem(500, "The server failed; its log says where.")(scope, receive, send)


def _problem(
    status: int, detail: str, errors: list[ProblemFault] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors)
    return Response(_ascii_json(problem), status, headers, media_type=PROBLEM_JSON)


def _ascii_json(problem: Problem) -> str:
    """A key may hold half a surrogate pair, which UTF-8 cannot express and an escape can."""
    return json.dumps(problem.model_dump(exclude_none=True))


def _places(number: int) -> str:
    return "one place" if number == 1 else f"{number} places" if number < MOST_FAULTS else f"at least {MOST_FAULTS} places"


def _pointer(path: Sequence[str | int]) -> str:
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in path)
    return "".join(f"/{token if len(token) <= LONGEST_TOKEN else token[:LONGEST_TOKEN] + '…'}" for token in tokens)


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


def _declare_problems(app: FastAPI) -> None:
    """FastAPI documents every answer as application/json; ours that refuse are of another type."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for path in document["paths"].values():
            for operation in path.values():
                for status, answer in operation["responses"].items():
                    if status >= "400" and "application/json" in answer.get("content", {}):
                        answer["content"][PROBLEM_JSON] = answer["content"].pop("application/json")
        return document

    app.openapi = openapi  # type: ignore[method-assign]
