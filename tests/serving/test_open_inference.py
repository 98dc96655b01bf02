"""The Open Inference Protocol, asked as one of its clients would ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.bundle import RESEARCH_USE_ONLY
from serving.app import create_app
from serving.open_inference import EXAMPLE, InferRequest, InferResponse, ModelMetadata
from serving.predictor import Predictor
from tests.serving.conftest import Client
from tests.serving.registered import FEATURES, NAME, Registered, rows_like_training, small_bundle
from tests.serving.test_app import CANARY, assert_problem, pointers

INFER = f"/v2/models/{NAME}/infer"


def tensors(rows: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A tensor per feature."""
    return [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[name] for row in rows]}
        for name in reversed(FEATURES)
    ]


def together(rows: list[dict[str, float]], order_hash: str | None) -> dict[str, Any]:
    """One tensor of all features, flat."""
    tensor = {"name": "features", "shape": [len(rows), len(FEATURES)], "datatype": "FP64"}
    return {**tensor, "data": [row[name] for row in rows for name in FEATURES], "parameters": {"order_hash": order_hash}}


def infer(client: Client, inputs: list[dict[str, Any]], path: str = INFER, **more: Any) -> Any:
    return client.ask("POST", path, json={"inputs": inputs, **more})


def output(answer: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in answer.json()["outputs"] if one["name"] == name)
    return found


def test_tensors_by_name_get_the_same_scores_as_rows(client: Client, registered: Registered) -> None:
    rows = rows_like_training(5)
    answer = infer(client, tensors(rows), id="abc")
    rest = client.ask("POST", f"/v1/models/{NAME}/predict", json={"rows": [{"features": row} for row in rows]}).json()[
        "predictions"
    ]
    assert output(answer, "probability") == {
        "name": "probability",
        "shape": [5],
        "datatype": "FP64",
        "data": pytest.approx(registered.probabilities(rows), abs=1e-9),
    }
    assert output(answer, "label") == {"name": "label", "shape": [5], "datatype": "BYTES", "data": [row["label"] for row in rest]}
    assert output(answer, "out_of_distribution")["data"] == [row["out_of_distribution"]["flagged"] for row in rest]
    said = {"threshold": 0.4, "research_use_only": RESEARCH_USE_ONLY, "extraction_hash": None}
    assert answer.json()["parameters"] == said
    assert (answer.json()["model_name"], answer.json()["model_version"], answer.json()["id"]) == (NAME, "1", "abc")
    InferResponse.model_validate_json(answer.text)


def test_the_position_is_trusted_from_who_sends_the_hash_of_the_order(client: Client, registered: Registered) -> None:
    rows = rows_like_training(3)
    tensor = together(rows, registered.bundle.contract.order_hash)
    nested = {**tensor, "data": np.reshape(tensor["data"], (3, -1)).tolist()}
    for one in (tensor, nested):
        assert output(infer(client, [one]), "probability")["data"] == pytest.approx(registered.probabilities(rows), abs=1e-9)


@pytest.mark.parametrize("order_hash", [None, "0" * 64])
def test_a_position_without_the_models_order_is_not_trusted(client: Client, order_hash: str | None) -> None:
    problem = assert_problem(infer(client, [together(rows_like_training(2), order_hash)]), 422)
    assert pointers(problem) == ["/inputs/0/parameters"]
    assert "by name" in problem["errors"][0]["detail"]


def test_tensors_may_have_a_second_axis_of_one_and_hold_whole_numbers(client: Client, registered: Registered) -> None:
    inputs = [{"name": name, "shape": [2, 1], "datatype": "INT64", "data": [[1], [2]]} for name in FEATURES]
    rows = [dict.fromkeys(FEATURES, 1.0), dict.fromkeys(FEATURES, 2.0)]
    assert output(infer(client, inputs), "probability")["data"] == pytest.approx(registered.probabilities(rows), abs=1e-9)


def test_only_the_outputs_that_are_wanted_are_answered(client: Client) -> None:
    answer = infer(client, tensors(rows_like_training(1)), outputs=[{"name": "label"}])
    assert [one["name"] for one in answer.json()["outputs"]] == ["label"]
    assert pointers(assert_problem(infer(client, tensors(rows_like_training(1)), outputs=[{"name": "x"}]), 422)) == [
        "/outputs/0/name"
    ]


def change(number: int, **changes: Any) -> list[dict[str, Any]]:
    inputs = tensors(rows_like_training(2))
    inputs[number] = {**inputs[number], **changes}
    return inputs


@pytest.mark.parametrize(
    ("inputs", "pointer", "says"),
    [
        (change(0, name="CA_9"), ["/inputs", "/inputs/0/name"], "did you mean 'CA9'"),
        (change(1, name="CAIX"), ["/inputs", "/inputs/1/name"], "the same feature as 'CA9'"),
        (change(1, name="CA9"), ["/inputs/1/name"], "twice"),
        (tensors(rows_like_training(2))[1:], ["/inputs"], "lack the feature 'CA9'"),
        (change(2, data=[1.0, None]), ["/inputs/2/data/1"], "null"),
        (change(2, data=[1.0]), ["/inputs/2/data"], "shape"),
        (change(2, data=[[1.0], [2.0, 3.0]]), ["/inputs/2/data"], "shape"),
        (change(2, data=[[1.0, 2.0]]), ["/inputs/2/data"], "shape"),
        (change(2, shape=[3], data=[1.0, 2.0, 3.0]), ["/inputs/2/shape"], "same number of rows"),
        (change(2, shape=[2, 2], data=[1.0] * 4), ["/inputs/2/shape"], "[rows]"),
        (change(2, datatype="INT32", data=[1.0, 2.5]), ["/inputs/2/data"], "whole number"),
        (change(2, datatype="BYTES"), ["/inputs/2/datatype"], "FP64"),
        (change(2, extra=CANARY), ["/inputs/2/extra"], "not permitted"),
        ([], ["/inputs"], "at least 1"),
    ],
)
def test_what_is_wrong_is_pointed_to_in_the_tensors_own_terms(
    client: Client, inputs: list[dict[str, Any]], pointer: list[str], says: str
) -> None:
    problem = assert_problem(infer(client, inputs), 422)
    assert pointers(problem) == pointer
    assert any(says in fault["detail"] for fault in problem["errors"])


@pytest.mark.parametrize("value", [CANARY, True, 1e101, {"a": CANARY}])
def test_what_is_no_number_is_pointed_to(client: Client, value: Any) -> None:
    found = pointers(assert_problem(infer(client, change(2, data=[1.0, value])), 422))
    assert "/inputs/2/data/1" in found
    assert all(pointer.startswith("/inputs/2/data") for pointer in found)


def test_a_fault_in_a_tensor_of_all_features_is_pointed_to_where_it_stands(client: Client, registered: Registered) -> None:
    tensor = together(rows_like_training(2), registered.bundle.contract.order_hash)
    tensor["data"][5] = None
    assert pointers(assert_problem(infer(client, [tensor]), 422)) == ["/inputs/0/data/5"]
    nested = {**tensor, "data": [tensor["data"][:4], tensor["data"][4:]]}
    assert pointers(assert_problem(infer(client, [nested]), 422)) == ["/inputs/0/data/1/1"]


def test_rows_unlike_training_are_refused_where_that_is_asked_for(client: Client) -> None:
    rows = [dict.fromkeys(FEATURES, 0.0), {**dict.fromkeys(FEATURES, 0.0), "volume": 1e6}]
    assert output(infer(client, tensors(rows)), "out_of_distribution")["data"] == [False, True]
    answer = infer(client, tensors(rows), parameters={"out_of_distribution": "refuse"})
    assert pointers(assert_problem(answer, 422)) == ["/inputs/3/data/1"]


def test_256_rows_are_scored_and_one_more_is_refused(client: Client) -> None:
    assert infer(client, tensors(rows_like_training(256))).status_code == 200
    assert "/inputs/0/shape" in pointers(assert_problem(infer(client, tensors(rows_like_training(257))), 422))


def test_a_null_is_imputed_where_the_model_does_that(predictor: Predictor) -> None:
    imputing = Predictor(replace(predictor.loaded, bundle=small_bundle(missing="impute")))
    answer = infer(Client(create_app({NAME: imputing})), change(2, data=[1.0, None]))
    assert len(output(answer, "probability")["data"]) == 2


def test_the_version_that_is_served_may_be_named_and_no_other(client: Client) -> None:
    rows = tensors(rows_like_training(1))
    assert infer(client, rows, path=f"/v2/models/{NAME}/versions/1/infer").status_code == 200
    for path in (f"/v2/models/{NAME}/versions/2/infer", "/v2/models/other/infer"):
        assert_problem(infer(client, rows, path=path), 404)
    for path in (f"/v2/models/{NAME}/versions/2", f"/v2/models/{NAME}/versions/2/ready", "/v2/models/other/ready"):
        assert_problem(client.ask("GET", path), 404)


def test_server_and_model_describe_themselves(client: Client, registered: Registered) -> None:
    assert client.ask("GET", "/v2").json()["name"] == "hypoxia-biomarkers"
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/1"):
        found = ModelMetadata.model_validate_json(client.ask("GET", path).text)
        assert [(one.name, one.datatype, one.shape) for one in found.inputs] == [(name, "FP64", [-1]) for name in FEATURES]
        assert [one.name for one in found.outputs] == ["probability", "label", "out_of_distribution"]
        assert found.parameters.order_hash == registered.bundle.contract.order_hash


def test_a_server_without_models_lives_and_is_not_ready(client: Client) -> None:
    assert client.ask("GET", "/v2/health/live").json() == {"live": True}
    assert client.ask("GET", "/v2/health/ready").json() == {"ready": True}
    assert client.ask("GET", f"/v2/models/{NAME}/ready").json() == {"name": NAME, "ready": True}
    empty = Client(create_app({}))
    assert empty.ask("GET", "/v2/health/live").status_code == 200
    assert_problem(empty.ask("GET", "/v2/health/ready"), 503)


def test_the_example_in_the_documentation_is_a_request() -> None:
    assert InferRequest.model_validate(EXAMPLE).inputs[0].data == [1.5]
