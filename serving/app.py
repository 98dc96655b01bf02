"""The routes of the endpoint, and the one shape of its errors."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from features.bundle import RESEARCH_USE_ONLY, CompositeCard, ModelBundle
from features.contract import Contract
from features.errors import InputError
from serving.admin import admin_routes, problems_of
from serving.open_inference import InferRequest, InferResponse, add_open_inference, infer, require_version
from serving.openapi import Described, Name, describe, refusals
from serving.page import page_routes
from serving.prediction import Answerer, BusyError, Judged, answered, encode, read_request
from serving.predictor import MOST_FAULTS, Fault, Predictor, RowsMismatchError, UnlikeTrainingError
from serving.schemas import (
    ContractSummary,
    ExplainRequest,
    FeatureContract,
    InputContract,
    ModelCardAnswer,
    ModelContract,
    ModelDescription,
    ModelList,
    ModelSummary,
    PartContract,
    PartDescription,
    PredictRequest,
    PredictResponse,
)
from serving.served import product_version
from serving.shelf import PendingProblem
from serving.strict_json import StrictRequest, StrictRoute
from serving.telemetry import Reason, note_refused, note_scored

PROBLEM_JSON = "application/problem+json"

logger = logging.getLogger(__name__)

# Takes a model's name, rows as they were scored, their probabilities and labels; returns at once.
Offer = Callable[[str, Sequence[Mapping[str, float]], Sequence[float], Sequence[str]], None]


def create_app(
    predictors: Mapping[str, Predictor],
    reload: Callable[[], bool] | None = None,
    *,
    offer: Offer | None = None,
    warm: bool = False,
) -> FastAPI:
    """Endpoint over models by name; looks a model up at every request, so that it may be put there, or replaced, later.

    Parameters
    ----------
    predictors : mapping of str to Predictor
        Key: the model's name in the registry.
    reload : callable, optional
        Looks into the registry and takes over what is new; without it there is no route for that.
    offer : callable, optional
        Is shown what was answered (`serving.shadow.Shadow.offer`).
    warm : bool
        Whether to make explanations ready in the background now, rather than when the first one is asked for.
    """
    app = FastAPI(
        title="Tumour-hypoxia biomarkers",
        description=RESEARCH_USE_ONLY,
        version=product_version(),
        docs_url=None,  # the ready-made pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect is built from the client's Host header
        # Off, because a recorded exception carries its text, and a text may carry a patient's value.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.route_class = StrictRoute
    answerers = Answerers(predictors)
    _add_descriptions(app, predictors, answerers)
    _add_predictions(app, answerers, offer)
    add_open_inference(app, predictors)
    if reload is not None:
        app.include_router(admin_routes(predictors, reload))
    app.router.routes.extend(page_routes())
    _add_refusals(app)
    describe(app, predictors, PredictRequest, ExplainRequest, InferRequest)
    if warm:
        threading.Thread(target=answerers.warm, name="warm", daemon=True).start()
    return app


class Answerers:
    """Who answers for which model: made when a version is first asked for, and anew when another takes its place."""

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self._predictors = predictors
        self._made: dict[str, Answerer] = {}
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explain")

    def of(self, name: str) -> Answerer:
        """Whoever answers for a model now."""
        try:
            predictor = self._predictors[name]
        except KeyError:
            there = ", ".join(sorted(self._predictors))
            raise HTTPException(404, f"No such model is served here; there is: {there}.") from None
        made = self._made.get(name)
        if made is None or made.predictor is not predictor:
            made = self._made[name] = Answerer(predictor, self._explaining)
        return made

    def warm(self) -> None:
        """Make the first answers and explanations as quick as all others."""
        for name in list(self._predictors):
            try:
                explainer = self.of(name).predictor.explainer
                if explainer is not None:
                    explainer.warm()
            except Exception as error:  # noqa: BLE001 - nobody asked yet; whoever does is told
                logger.error("Explanations of %s could not be made ready (%s).", name, type(error).__name__)


class DirectRoute(APIRoute):
    """Hands its endpoint the request as it is: for a route that reads, checks, writes and documents itself."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(StrictRequest(request.scope, request.receive))
            return response

        return handle


Work = Callable[[Answerer, Request, Any], Awaitable[tuple[Judged, str]]]


def _add_predictions(app: FastAPI, answerers: Answerers, offer: Offer | None) -> None:
    async def predict(answerer: Answerer, _: Request, body: Any) -> tuple[Judged, str]:
        return await answerer.answer(read_request(body))

    async def explain(answerer: Answerer, _: Request, body: Any) -> tuple[Judged, str]:
        return await answerer.answer(read_request(body, explain=True))

    async def infer_tensors(answerer: Answerer, request: Request, body: Any) -> tuple[Judged, str]:
        require_version(answerer.predictor, request.path_params.get("version"))
        return await infer(answerer, body)

    def add(path: str, work: Work, described: Described) -> None:
        async def endpoint(request: Request) -> Response:
            answerer = answerers.of(request.path_params["name"])
            try:
                judged, body = await work(answerer, request, await request.json())
            except InputError as error:
                _note_refusal(request.scope, answerer.predictor, error)
                raise
            _note_scores(request.scope, answerer.predictor, judged, offer)
            return Response(body, media_type="application/json")

        app.router.add_api_route(path, endpoint, methods=["POST"], route_class_override=DirectRoute, **described.options(path))

    add("/v1/models/{name}/predict", predict, Described("Score rows", PredictRequest, PredictResponse))
    add("/v1/models/{name}/explain", explain, Described("Score rows and explain the scores", ExplainRequest, PredictResponse))
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"):
        add(path, infer_tensors, Described("Score tensors (Open Inference Protocol)", InferRequest, InferResponse))


def _add_descriptions(app: FastAPI, predictors: Mapping[str, Predictor], answerers: Answerers) -> None:
    @app.get("/v1/models", summary="The models that are served here", responses=refusals())
    async def list_models() -> ModelList:
        return ModelList(models=[_summary(predictors[name], problems_of(predictors).get(name)) for name in sorted(predictors)])

    @app.get("/v1/models/{name}", summary="A model's card and the features that it takes", responses=refusals(404))
    async def describe_model(name: Name) -> ModelDescription:
        return _description(answerers.of(name).predictor)

    @app.get("/v1/models/{name}/schema", summary="What a model takes, feature by feature", responses=refusals(404))
    async def describe_contract(name: Name) -> ModelContract:
        return _contract(answerers.of(name).predictor)

    @app.get("/v1/models/{name}/card", summary="What a model is, learnt from what, judged how", responses=refusals(404))
    async def show_card(name: Name) -> ModelCardAnswer:
        model = answerers.of(name).predictor.loaded
        return ModelCardAnswer(
            name=model.name, version=model.version, research_use_only=RESEARCH_USE_ONLY, card=model.bundle.card
        )


def _summary(predictor: Predictor, problem: PendingProblem | None) -> ModelSummary:
    model = predictor.loaded
    return ModelSummary(
        name=model.name,
        version=model.version,
        features=len(predictor.features),
        threshold=predictor.threshold,
        pending_problem=problem,
    )


def _description(predictor: Predictor) -> ModelDescription:
    model = predictor.loaded
    return ModelDescription(
        name=model.name,
        version=model.version,
        research_use_only=RESEARCH_USE_ONLY,
        card=model.bundle.card,
        schema=model.bundle.schema,
        contract=_contract_summary(model.bundle.contract),
        parts=None if model.bundle.card.composite is None else _parts(model.bundle.card.composite, model.bundle.components),
    )


def _parts(card: CompositeCard, components: Mapping[str, ModelBundle]) -> list[PartDescription]:
    return [
        PartDescription(
            **part.model_dump(),
            schema=components[part.name].schema if part.name in components else None,
            contract=_contract_summary(components[part.name].contract) if part.name in components else None,
        )
        for part in card.parts
    ]


def _contract_summary(contract: Contract) -> ContractSummary:
    return ContractSummary(
        features=len(contract.names),
        missing=contract.missing,
        order_hash=contract.order_hash,
        extraction_hash=contract.extraction_hash,
        distance_limit=contract.distance.limit,
    )


def _contract(predictor: Predictor) -> ModelContract:
    model, composite = predictor.loaded, predictor.composite
    components = None
    if composite is not None:
        components = [PartContract(name=name, contract=_input(one)) for name, one in composite.components.items()]
    return ModelContract(name=model.name, version=model.version, components=components, **dict(_input(predictor)))


def _input(predictor: Predictor) -> InputContract:
    bundle = predictor.loaded.bundle
    contract = bundle.contract
    other_names: dict[str, list[str]] = {}
    for other, name in contract.aliases.items():
        other_names.setdefault(name, []).append(other)
    features = [
        FeatureContract(
            **one.model_dump(),
            **feature.model_dump(include={"unit", "reference", "sequence", "family", "unseen"}),
            levels=list(feature.levels),
            may_be_null=feature.name in predictor.nullable,
            aliases=other_names.get(feature.name, []),
        )
        for one, feature in zip(contract.ranges, bundle.schema.features, strict=True)
    ]
    return InputContract(
        missing=contract.missing,
        order_hash=contract.order_hash,
        extraction_hash=contract.extraction_hash,
        distance_limit=contract.distance.limit,
        features=features,
    )


def _note_scores(scope: Scope, predictor: Predictor, judged: Judged, offer: Offer | None) -> None:
    """Tell whoever counts, and whoever compares, what was answered."""
    model, probabilities = predictor.loaded, judged.probabilities
    note_scored(
        scope,
        model=model.name,
        version=model.version,
        rows=len(probabilities),
        flagged=judged.flagged,
        probabilities=probabilities,
    )
    if offer is not None:
        rows = [dict(zip(predictor.features, judged.matrix[place].tolist(), strict=True)) for _, place in judged.scored]
        offer(model.name, rows, probabilities, [predictor.label(one) for one in judged.positives])


def _note_refusal(scope: Scope, predictor: Predictor, error: InputError) -> None:
    reason: Reason = "out_of_distribution" if isinstance(error, UnlikeTrainingError) else "invalid_rows"
    note_refused(scope, reason, model=predictor.loaded.name, version=predictor.loaded.version)


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def refuse_http(_: Request, error: StarletteHTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(_: Request, error: RequestValidationError) -> Response:
        faults = [Fault(tuple(fault["loc"][1:]), fault["msg"]) for fault in error.errors()]
        return _problem(422, f"The request does not have the right form in {_places(len(faults))}.", faults)

    @app.exception_handler(InputError)
    async def refuse_input(_: Request, error: InputError) -> Response:
        if not isinstance(error, RowsMismatchError):
            return _problem(422, str(error))
        return _problem(422, f"{_what(error)} in {_places(len(error.found))}.", error.found)

    @app.exception_handler(BusyError)
    async def refuse_busy(request: Request, _: BusyError) -> Response:
        note_refused(request.scope, "saturated")
        return _problem(503, "Too many explanations are being made; try again.", headers={"retry-after": "2"})

    app.add_middleware(OpaqueFailures)


def _what(error: RowsMismatchError) -> str:
    if isinstance(error, UnlikeTrainingError):
        return "The rows are unlike what the model was trained on, and such rows are to be refused:"
    if all(fault.row >= 0 and fault.path[2:3] in (("features",), ("components",)) for fault in error.found):
        return "The rows do not match the model's features"
    return "The body does not have the right form"


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
    status: int, detail: str, faults: Sequence[Fault] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    problem: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if faults is not None:
        problem["errors"] = answered(faults[:MOST_FAULTS])
    # As ASCII: a key may hold half a surrogate pair, which UTF-8 cannot express and an escape can.
    return Response(encode(problem), status, headers, media_type=PROBLEM_JSON)


def _places(number: int) -> str:
    return "one place" if number == 1 else f"{number} places" if number < MOST_FAULTS else f"at least {MOST_FAULTS} places"
