"""The endpoint's description of itself (OpenAPI 3.1): exact, down to the features of the models that are served now."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Path
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.predictor import LARGEST, Predictor
from serving.schemas import Problem

PROBLEM_JSON = "application/problem+json"
COMPONENTS = "#/components/schemas/{model}"

# What a model can be called in the registry.
NAME_PATTERN = "^[^@:/,]+$"
LONGEST_NAME = 250
VERSION_PATTERN = "^[1-9][0-9]*$"
Name = Annotated[str, Path(pattern=NAME_PATTERN, max_length=LONGEST_NAME, description="The model's name in the registry.")]
Version = Annotated[str, Path(pattern=VERSION_PATTERN, max_length=20, description="The version that is served.")]

# The edge may refuse any request: who asks, how, how much, how often.
_BY_THE_EDGE = (401, 403, 408, 413, 415, 421, 429, 503, 504)
_MEANINGS = {
    400: "The body is not JSON, or not as strict as it must be.",
    401: "There is no token of this server.",
    403: "The token lacks the scope, or the page that asks is of another site.",
    408: "The body did not arrive in time.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not application/json, or is compressed.",
    421: "The request is for another host.",
    422: "Something in the body cannot be scored; each place is pointed to.",
    429: "Too many requests of one token.",
    503: "The server is busy, or not ready.",
    504: "There was no answer in time.",
}
_WITH_RETRY = (429, 503)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of the answers that refuse: those of the edge, and of a route."""
    return {status: _refusal(status) for status in sorted({*_BY_THE_EDGE, *statuses})}


def _refusal(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"model": Problem, "description": _MEANINGS.get(status, HTTPStatus(status).phrase)}
    if status in _WITH_RETRY:
        seconds = {"type": "integer", "minimum": 0}
        answer["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": seconds}}
    return answer


@dataclass(frozen=True)
class Described:
    """A route that reads and writes by itself, in words."""

    summary: str
    takes: type[BaseModel]
    gives: type[BaseModel]

    def options(self, path: str) -> dict[str, Any]:
        """Arguments of ``add_api_route``."""
        content = {"application/json": {"schema": {"$ref": COMPONENTS.format(model=self.takes.__name__)}}}
        return {
            "summary": self.summary,
            "response_model": None,
            "responses": {200: {"model": self.gives}, **refusals(400, 404, 422)},
            "openapi_extra": {
                "parameters": [_parameter(name) for name in ("name", "version") if f"{{{name}}}" in path],
                "requestBody": {"required": True, "content": content},
                "x-takes": self.takes.__name__,
            },
        }


def describe(app: FastAPI, predictors: Mapping[str, Predictor], *takes: type[BaseModel]) -> None:
    """Have an application describe itself and the models that are served at that moment.

    Parameters
    ----------
    takes : pydantic models
        Bodies of routes that read them by themselves.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = deepcopy(generate())
        _add_schemas(document, *takes)
        _name_problems(document)
        _add_security(document)
        for name in sorted(predictors):
            _add_model(document, name, predictors[name])
        for path in document["paths"].values():
            for operation in path.values():
                operation.pop("x-takes", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _parameter(name: str) -> dict[str, Any]:
    schemas = {
        "name": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "pattern": NAME_PATTERN},
        "version": {"type": "string", "pattern": VERSION_PATTERN, "maxLength": 20},
    }
    return {"name": name, "in": "path", "required": True, "schema": schemas[name]}


def _add_schemas(document: dict[str, Any], *takes: type[BaseModel]) -> None:
    _, schemas = models_json_schema([(one, "validation") for one in takes], ref_template=COMPONENTS)
    document["components"]["schemas"] = {**schemas.get("$defs", {}), **document["components"]["schemas"]}


def _name_problems(document: dict[str, Any]) -> None:
    """FastAPI documents every answer as application/json; ours that refuse are of another type."""
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and "application/json" in answer.get("content", {}):
                    answer["content"] = {PROBLEM_JSON: {"schema": {"$ref": COMPONENTS.format(model="Problem")}}}


def _add_security(document: dict[str, Any]) -> None:
    """A token, either way; or none, where the server listens to its own machine only and asks for none."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "The token is the password."},
    }
    document["security"] = [{"bearer": []}, {"basic": []}, {}]


def _add_model(document: dict[str, Any], name: str, predictor: Predictor) -> None:
    """Paths of one model, with its features by name: a client, or its generator, need not ask for them first."""
    example = {one.name: one.quantiles["0.5"] for one in predictor.loaded.bundle.contract.ranges if "0.5" in one.quantiles}
    for action in ("predict", "explain"):
        general = document["paths"][f"/v1/models/{{name}}/{action}"]["post"]
        operation = deepcopy(general)
        operation["operationId"] = f"{general['operationId']}_{name}"
        operation["summary"] = f"{general['summary']} with {name}"
        operation["parameters"] = [one for one in operation["parameters"] if one["name"] != "name"]
        body = deepcopy(document["components"]["schemas"][operation["x-takes"]])
        body["properties"]["rows"]["items"] = _row(deepcopy(document["components"]["schemas"]["Row"]), predictor)
        body["examples"] = [{"rows": [{"id": "a", "features": example}]}]
        operation["requestBody"]["content"]["application/json"]["schema"] = body
        del operation["responses"]["404"]
        document["paths"][f"/v1/models/{quote(name, safe='')}/{action}"] = {"post": operation}


def _row(row: dict[str, Any], predictor: Predictor) -> dict[str, Any]:
    """Schema of a row of one model: its features; or a composite's values, and the features that may stand in their place."""
    composite = predictor.composite
    if composite is None:
        row["properties"] |= {"features": _features(predictor, predictor.imputes), "components": {"type": "null"}}
        row["required"] = ["features"]
        del row["anyOf"]
        return row
    components = {
        name: _or_null(_features(composite.components[name], composite.components[name].imputes))
        if name in composite.components
        else {"type": "null"}
        for name in composite.names
    }
    row["properties"]["features"] = {**_features(predictor, nullable=True), "required": []}
    row["properties"]["components"] = {"type": ["object", "null"], "properties": components, "additionalProperties": False}
    return row


def _features(predictor: Predictor, nullable: bool) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
    return {
        "type": "object",
        "properties": dict.fromkeys(predictor.features, _or_null(number) if nullable else number),
        "required": list(predictor.features),
        "additionalProperties": False,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}
