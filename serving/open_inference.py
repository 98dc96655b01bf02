"""The Open Inference Protocol (KServe's v2, REST) on the same predictors: tensors in, tensors out.

A tensor per feature, by its name; or one called ``features`` with all of them, from whoever sends the hash of their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, HTTPException
from pydantic import ConfigDict, Field, ValidationError
from pydantic.config import JsonDict

from features.bundle import RESEARCH_USE_ONLY
from features.settings import Settings
from serving.openapi import Name, Version, refusals
from serving.prediction import Answerer, Asked, Judged, encode
from serving.predictor import Fault, Path, Predictor, RowsMismatchError
from serving.schemas import MOST_FEATURES, MOST_ROWS, Number, Probability, Word
from serving.served import product_version

POSITIONAL = "features"
OUTPUTS = {"probability": "FP64", "label": "BYTES", "out_of_distribution": "BOOL"}
SCORE = {"score": "FP64"}
CLUSTER = {"cluster": "INT64", "unlike_any_cluster": "BOOL"}

Output = Literal["probability", "label", "out_of_distribution", "score", "cluster", "unlike_any_cluster"]
Datatype = Literal["FP64", "FP32", "INT64", "INT32", "BYTES"]
Value = Number | Word | None
Flat = Annotated[list[Value], Field(max_length=150_000)]
Nested = Annotated[list[Annotated[list[Value], Field(max_length=MOST_FEATURES)]], Field(max_length=MOST_ROWS)]

EXAMPLE: JsonDict = {"inputs": [{"name": "volume", "shape": [1], "datatype": "FP64", "data": [1.5]}]}


class TensorParameters(Settings):
    """What is said about a tensor."""

    order_hash: str | None = Field(
        default=None, max_length=64, description="Of a tensor of all features: proves that their order is the model's."
    )


class InputTensor(Settings):
    """A feature of all rows, or (as ``features``) all features of all rows."""

    name: str = Field(max_length=1000)
    shape: list[Annotated[int, Field(strict=True, ge=1, le=MOST_FEATURES)]] = Field(min_length=1, max_length=2)
    datatype: Datatype
    parameters: TensorParameters = TensorParameters()
    data: Flat | Nested = Field(
        description="Row by row, flat or nested; words (BYTES) for a feature with levels; null where missing values are filled."
    )


class RequestedOutput(Settings):
    """An output that is wanted."""

    name: Output


class InferParameters(Settings):
    """How rows are to be answered."""

    out_of_distribution: Literal["flag", "refuse"] = "flag"
    extraction_hash: Word | None = Field(
        default=None, description="Of the settings with which your features were extracted; others than the model's are refused."
    )


class InferRequest(Settings):
    """Rows as tensors."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str | None = Field(default=None, max_length=200, description="Comes back with the answer and is kept nowhere.")
    parameters: InferParameters = InferParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=MOST_FEATURES)
    outputs: list[RequestedOutput] | None = Field(
        default=None, max_length=len(OUTPUTS | SCORE | CLUSTER), description="Default: all."
    )


class OutputTensor(Settings):
    """One answer for every row."""

    name: Output
    shape: list[int]
    datatype: Literal["FP64", "BYTES", "BOOL", "INT64"]
    data: list[Probability] | list[str] | list[bool] | list[int] | list[float]


class AnswerParameters(Settings):
    """What must be said with a score."""

    threshold: Probability
    research_use_only: str
    extraction_hash: str | None = Field(
        description="Of the settings with which the model's features were extracted, where known."
    )


class InferResponse(Settings):
    """Scores as tensors."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    parameters: AnswerParameters
    outputs: list[OutputTensor]


class ServerMetadata(Settings):
    """This server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Settings):
    """A tensor that a model takes or gives."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1: as many as there are rows.")


class MetadataParameters(AnswerParameters):
    """What the protocol has no field for."""

    order_hash: str


class ModelMetadata(Settings):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: MetadataParameters


class Live(Settings):
    """Whether the server runs."""

    live: bool


class Ready(Settings):
    """Whether the server can score."""

    ready: bool


class ModelReady(Settings):
    """Whether a model can score."""

    name: str
    ready: bool


class Served(Protocol):
    """Finds the predictor that is served under a name, and raises a 404 if there is none, or of another version."""

    def __call__(self, name: str, version: str | None = None) -> Predictor: ...


@dataclass(frozen=True)
class Column:
    """Values of one feature, and where in the body they stand."""

    tensor: Path
    values: Sequence[Any]
    number: int
    width: int
    is_nested: bool

    def place(self, row: int) -> Path:
        """Where the value of a row stands."""
        if self.is_nested:
            return (*self.tensor, "data", row, self.number)
        return (*self.tensor, "data", row * self.width + self.number)


async def infer(answerer: Answerer, body: Any) -> tuple[Judged, str]:
    """Score the rows of an inference request; the answer as JSON.

    Raises
    ------
    RowsMismatchError
        With paths into this body.
    """
    request = _read(body)
    _refuse_outputs(request, answerer.predictor)
    columns, rows = _columns(request, answerer.predictor)
    named = [{name: column.values[number] for name, column in columns.items()} for number in range(rows)]
    parameters = request.parameters
    asked = Asked(
        named,
        [None] * rows,
        refuses_unlike=parameters.out_of_distribution == "refuse",
        extraction_hash=parameters.extraction_hash,
    )
    try:
        judged = await answerer.judge(asked)
    except RowsMismatchError as error:
        raise type(error)(_placed(error.found, columns)) from None
    return judged, encode(_answer(request, answerer.predictor, judged))


def require_version(predictor: Predictor, version: str | None) -> None:
    """Raise a 404 if another version than the one that is served is asked for."""
    served = predictor.loaded.version
    if version is not None and version != served:
        raise HTTPException(404, f"This version is not served here; version {served} is.")


def add_open_inference(app: FastAPI, predictors: Mapping[str, Predictor]) -> None:
    """Add the routes that describe; the ones that score are the application's."""
    _add_server(app, predictors)
    _add_models(app, lambda name, version=None: _served(predictors, name, version))


def _add_server(app: FastAPI, predictors: Mapping[str, Predictor]) -> None:
    @app.get("/v2", summary="This server", responses=refusals())
    async def describe_server() -> ServerMetadata:
        return ServerMetadata(name="hypoxia-biomarkers", version=product_version(), extensions=[])

    @app.get("/v2/health/live", summary="Whether the server runs", responses=refusals())
    async def is_live() -> Live:
        return Live(live=True)

    @app.get("/v2/health/ready", summary="Whether every model is loaded and verified", responses=refusals())
    async def is_ready() -> Ready:
        if not predictors:
            raise HTTPException(503, "No model is ready.", {"retry-after": "1"})
        return Ready(ready=True)


def _add_models(app: FastAPI, served: Served) -> None:
    @app.get("/v2/models/{name}", summary="What a model takes and gives", responses=refusals(404))
    async def describe_model(name: Name) -> ModelMetadata:
        return _metadata(served(name))

    @app.get("/v2/models/{name}/versions/{version}", summary="What a version takes and gives", responses=refusals(404))
    async def describe_version(name: Name, version: Version) -> ModelMetadata:
        return _metadata(served(name, version))

    @app.get("/v2/models/{name}/ready", summary="Whether a model can score", responses=refusals(404))
    async def is_model_ready(name: Name) -> ModelReady:
        return ModelReady(name=served(name).loaded.name, ready=True)

    @app.get("/v2/models/{name}/versions/{version}/ready", summary="Whether a version can score", responses=refusals(404))
    async def is_version_ready(name: Name, version: Version) -> ModelReady:
        return ModelReady(name=served(name, version).loaded.name, ready=True)


def _served(predictors: Mapping[str, Predictor], name: str, version: str | None = None) -> Predictor:
    try:
        predictor = predictors[name]
    except KeyError:
        raise HTTPException(404, f"No such model is served here; there is: {', '.join(sorted(predictors))}.") from None
    require_version(predictor, version)
    return predictor


def _metadata(predictor: Predictor) -> ModelMetadata:
    model = predictor.loaded
    return ModelMetadata(
        name=model.name,
        versions=[model.version],
        platform="scikit-learn",
        inputs=[
            TensorMetadata(name=name, datatype="BYTES" if name in predictor.levels else "FP64", shape=[-1])
            for name in predictor.features
        ],
        outputs=[TensorMetadata(name=name, datatype=kind, shape=[-1]) for name, kind in _outputs(predictor).items()],
        parameters=MetadataParameters(
            threshold=predictor.threshold,
            research_use_only=RESEARCH_USE_ONLY,
            extraction_hash=model.bundle.contract.extraction_hash,
            order_hash=model.bundle.contract.order_hash,
        ),
    )


def _read(body: Any) -> InferRequest:
    try:
        return InferRequest.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RowsMismatchError([Fault(_in_body(fault["loc"]), fault["msg"]) for fault in found]) from None


def _outputs(predictor: Predictor) -> dict[str, str]:
    """What a model gives, and of which type."""
    outputs = OUTPUTS if predictor.loaded.bundle.card.score is None else OUTPUTS | SCORE
    return outputs if predictor.profile is None else outputs | CLUSTER


def _refuse_outputs(request: InferRequest, predictor: Predictor) -> None:
    given = _outputs(predictor)
    faults = [
        Fault(("outputs", number, "name"), f"is not given by this model, which has {_lacking(wanted.name)}")
        for number, wanted in enumerate(request.outputs or [])
        if wanted.name not in given
    ]
    if faults:
        raise RowsMismatchError(faults)


def _lacking(output: Output) -> str:
    return "no clusters" if output in CLUSTER else "no score behind its probability"


def _in_body(loc: tuple[int | str, ...]) -> Path:
    """Place in the body; pydantic adds a step for each form that data may have."""
    return tuple(step for step in loc if not (isinstance(step, str) and step.startswith(("list[", "constrained-"))))


def _columns(request: InferRequest, predictor: Predictor) -> tuple[dict[str, Column], int]:
    """Values by feature, and the number of rows."""
    rows = request.inputs[0].shape[0]
    faults: list[Fault] = []
    columns: dict[str, Column] = {}
    for number, tensor in enumerate(request.inputs):
        where: Path = ("inputs", number)
        positional = _is_positional(tensor, predictor)
        names = predictor.features if positional else (tensor.name,)
        fault = _fault_of(tensor, predictor, rows, len(names)) or _fault_of_data(tensor, rows, len(names))
        if fault is None and not columns.keys().isdisjoint(names):
            fault = "name", "is there twice"
        if fault is not None:
            faults.append(Fault((*where, fault[0]), fault[1]))
            continue
        values, is_nested = _flat(tensor), isinstance(tensor.data[0], list)
        for column, name in enumerate(names):
            columns[name] = Column(where, values[column :: len(names)], column, len(names), is_nested)
    if faults:
        raise RowsMismatchError(faults)
    return columns, rows


def _is_positional(tensor: InputTensor, predictor: Predictor) -> bool:
    return tensor.name == POSITIONAL and POSITIONAL not in predictor.features


def _fault_of(tensor: InputTensor, predictor: Predictor, rows: int, width: int) -> tuple[str, str] | None:
    """What is wrong with a tensor as a whole: where in it, and why."""
    if tensor.shape[0] != rows or rows > MOST_ROWS:
        return "shape", f"must begin with the same number of rows, at most {MOST_ROWS}, for every tensor"
    if not _is_positional(tensor, predictor):
        return None if tensor.shape in ([rows], [rows, 1]) else ("shape", "must be [rows] or [rows, 1]")
    if tensor.shape != [rows, width]:
        return "shape", f"must be [rows, {width}]"
    if tensor.parameters.order_hash != predictor.loaded.bundle.contract.order_hash:
        return (
            "parameters",
            "lacks the model's order_hash, so that the order of the features is not known; send a tensor per feature, by name",
        )
    return None


def _fault_of_data(tensor: InputTensor, rows: int, width: int) -> tuple[str, str] | None:
    lengths = {len(row) for row in tensor.data if isinstance(row, list)}
    if lengths and (lengths != {width} or len(tensor.data) != rows):
        return "data", "does not have the shape that is said"
    values = _flat(tensor)
    if len(values) != rows * width:
        return "data", "does not have the shape that is said"
    numbers = [value for value in values if isinstance(value, (int, float))]
    if tensor.datatype == "BYTES" and numbers:
        return "datatype", "says words, and the data are numbers: FP64, FP32, INT64 or INT32"
    if tensor.datatype.startswith("INT") and not all(float(value).is_integer() for value in numbers):
        return "data", "holds what is not a whole number, which its datatype says"
    return None


def _flat(tensor: InputTensor) -> list[Any]:
    return [value for row in tensor.data for value in (row if isinstance(row, list) else [row])]


def _placed(faults: Sequence[Fault], columns: Mapping[str, Column]) -> list[Fault]:
    """The same faults in the tensors' terms: said once for all rows where it is the tensor that is missing or unknown."""
    placed = {(fault.path, fault.reason): fault for fault in (_placed_one(fault, columns) for fault in faults)}
    return list(placed.values())


def _placed_one(fault: Fault, columns: Mapping[str, Column]) -> Fault:
    if fault.path == ("extraction_hash",):
        return Fault(("parameters", "extraction_hash"), fault.reason)
    if len(fault.path) < 4:
        return Fault(("inputs",), f"{fault.reason} (row {fault.row})")
    column = columns.get(fault.feature)
    if column is None:
        return Fault(("inputs",), f"lack the feature {fault.feature!r}")
    if fault.reason.startswith(("is not a feature", "is the same feature")):
        return Fault((*column.tensor, "name"), fault.reason)
    return Fault(column.place(fault.row), fault.reason)


def _answer(request: InferRequest, predictor: Predictor, judged: Judged) -> dict[str, Any]:
    rows, placed = len(judged.good), judged.share.scores.placed
    own = slice(judged.share.first, judged.share.first + rows)
    probabilities = judged.probabilities
    data: dict[str, tuple[str, list[Any]]] = {
        "probability": ("FP64", probabilities),
        "label": ("BYTES", [predictor.label(one) for one in judged.positives]),
        "out_of_distribution": ("BOOL", judged.flags),
        "score": ("FP64", judged.share.scores.raws[own]),
    }
    if placed is not None:
        data |= {"cluster": ("INT64", placed.numbers[own]), "unlike_any_cluster": ("BOOL", placed.unlike[own])}
    wanted = tuple(_outputs(predictor)) if request.outputs is None else tuple(one.name for one in request.outputs)
    answer = {
        "model_name": predictor.loaded.name,
        "model_version": predictor.loaded.version,
        "parameters": {
            "threshold": predictor.threshold,
            "research_use_only": RESEARCH_USE_ONLY,
            "extraction_hash": predictor.loaded.bundle.contract.extraction_hash,
        },
        "outputs": [{"name": name, "shape": [rows], "datatype": data[name][0], "data": data[name][1]} for name in wanted],
    }
    return answer if request.id is None else {**answer, "id": request.id}
