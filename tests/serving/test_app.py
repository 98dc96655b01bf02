"""The endpoint, asked as a client would ask it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import httpx
import pytest

from features.bundle import RESEARCH_USE_ONLY
from serving.app import create_app
from serving.predictor import Predictor
from serving.strict_json import MOST_BYTES
from tests.serving.conftest import Client
from tests.serving.registered import FEATURES, NAME, Registered, rows_like_training

CANARY = "canary-7c1f"
PREDICT = f"/v1/models/{NAME}/predict"
JSON = {"content-type": "application/json"}
GOOD = {"volume": 1.0, "entropy": 4.2, "original_glcm_Contrast": 30.0, "CA9": -1.5}


def predict(client: Client, rows: list[dict[str, Any]]) -> httpx.Response:
    return client.ask("POST", PREDICT, json={"rows": rows})


def send(client: Client, body: str | bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return client.ask("POST", PREDICT, content=body, headers=JSON if headers is None else headers)


def predict_text(client: Client, row: dict[str, Any]) -> httpx.Response:
    """Asks with a body of ASCII, in which any text can be escaped."""
    return send(client, json.dumps({"rows": [row]}))


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert CANARY not in answer.text
    return problem


def pointers(problem: dict[str, Any]) -> list[str]:
    return [fault["pointer"] for fault in problem["errors"]]


@pytest.mark.parametrize("order", [FEATURES, tuple(reversed(FEATURES)), tuple(sorted(FEATURES))])
def test_the_served_probability_equals_the_offline_one(client: Client, registered: Registered, order: tuple[str, ...]) -> None:
    rows = rows_like_training(5)
    shuffled = [{"id": f"s{number}", "features": {name: row[name] for name in order}} for number, row in enumerate(rows)]
    answer = predict(client, shuffled)
    assert answer.status_code == 200
    served = [prediction["probability"] for prediction in answer.json()["predictions"]]
    assert served == pytest.approx(registered.probabilities(rows), abs=1e-9)


def test_an_answer_holds_per_row_the_id_probability_label_threshold_and_version(client: Client, registered: Registered) -> None:
    rows = rows_like_training(30)
    answer = predict(client, [{"id": f"s{number}", "features": row} for number, row in enumerate(rows)]).json()
    assert answer["model"] == {"name": NAME, "version": "1"}
    assert answer["threshold"] == 0.4
    assert answer["research_use_only"] == RESEARCH_USE_ONLY
    assert [row["id"] for row in answer["predictions"]] == [f"s{number}" for number in range(30)]
    assert {row["label"] for row in answer["predictions"]} == {"hypoxic", "not hypoxic"}
    for row in answer["predictions"]:
        assert set(row) == {"id", "probability", "label", "threshold", "model_version"}
        assert row["label"] == ("hypoxic" if row["probability"] >= 0.4 else "not hypoxic")
        assert (row["threshold"], row["model_version"]) == (0.4, "1")


def test_a_row_needs_no_id_and_whole_numbers_are_numbers(client: Client, registered: Registered) -> None:
    row = dict.fromkeys(FEATURES, 2)
    answer = predict(client, [{"features": row}])
    assert answer.json()["predictions"][0]["id"] is None
    assert answer.json()["predictions"][0]["probability"] == pytest.approx(registered.probabilities([row])[0], abs=1e-9)


def test_256_rows_are_answered_and_one_more_is_refused(client: Client) -> None:
    assert len(predict(client, [{"features": GOOD}] * 256).json()["predictions"]) == 256
    assert pointers(assert_problem(predict(client, [{"features": GOOD}] * 257), 422)) == ["/rows"]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000])
def test_what_json_has_no_number_for_is_not_json(client: Client, literal: str) -> None:
    body = json.dumps({"rows": [{"id": CANARY, "features": GOOD}]}).replace("-1.5", literal)
    assert literal in body
    assert_problem(send(client, body), 400)


@pytest.mark.parametrize("literal", ["1" * 400, '"1.5"', '"NaN"', f'"{CANARY}"', "true", "null", "[1]", f'{{"a": "{CANARY}"}}'])
def test_what_is_no_finite_number_is_refused_where_it_stands(client: Client, literal: str) -> None:
    body = json.dumps({"rows": [{"features": GOOD}, {"id": CANARY, "features": GOOD}]})
    head, last, tail = body.rpartition("-1.5")
    assert last == "-1.5"
    assert pointers(assert_problem(send(client, head + literal + tail), 422)) == ["/rows/1/features/CA9"]


def test_a_missing_and_an_unknown_feature_are_named_with_their_row_and_the_nearest_name(client: Client) -> None:
    misspelt = {("entropi" if name == "entropy" else name): value for name, value in GOOD.items()}
    problem = assert_problem(predict(client, [{"features": GOOD}, {"id": CANARY, "features": misspelt}]), 422)
    assert problem["errors"] == [
        {"pointer": "/rows/1/features/entropy", "detail": "is missing"},
        {"pointer": "/rows/1/features/entropi", "detail": "is not a feature of this model (did you mean 'entropy'?)"},
    ]


def test_a_pointer_escapes_what_a_name_may_hold(client: Client) -> None:
    problem = assert_problem(predict(client, [{"features": {**GOOD, "a/b~c": 1.0}}]), 422)
    assert pointers(problem) == ["/rows/0/features/a~1b~0c"]


@pytest.mark.parametrize(
    "body",
    [
        '{"rows": [{"features": {"CA9": 1, "CA9": 1, "volume": 1, "entropy": 1, "original_glcm_Contrast": 1}}]}',
        '{"rows": [{"id": "a", "id": "a", "features": {"CA9": 1, "volume": 1, "entropy": 1, "original_glcm_Contrast": 1}}]}',
        '{"rows": [], "rows": [{"features": {"CA9": 1, "volume": 1, "entropy": 1, "original_glcm_Contrast": 1}}]}',
    ],
)
def test_a_key_that_is_there_twice_is_refused(client: Client, body: str) -> None:
    assert "twice" in assert_problem(send(client, body), 400)["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"rows": []}, "/rows"),
        ({}, "/rows"),
        ({"rows": None}, "/rows"),
        ({"rows": [None]}, "/rows/0"),
        ({"rows": [{"id": "a"}]}, "/rows/0/features"),
        ({"rows": [{"id": 7, "features": GOOD}]}, "/rows/0/id"),
        ({"rows": [{"id": CANARY * 100, "features": GOOD}]}, "/rows/0/id"),
        ({"rows": [{"features": GOOD, "name": CANARY}]}, "/rows/0/name"),
        ({"rows": [{"features": GOOD}], "threshold": 0.1}, "/threshold"),
        ({"rows": [{"features": []}]}, "/rows/0/features"),
        ([{"features": GOOD}], ""),
        (CANARY, ""),
        (None, ""),
    ],
)
def test_a_body_of_another_form_is_refused_where_it_differs(client: Client, body: Any, pointer: str) -> None:
    assert pointers(assert_problem(send(client, json.dumps(body)), 422)) == [pointer]


@pytest.mark.parametrize("body", [b"", b"{", b"volume,entropy\n1,2", CANARY.encode(), b"\xff\xfe{\x00}\x00", b"[" * 100_000])
def test_a_body_that_is_not_json_is_refused(client: Client, body: bytes) -> None:
    assert_problem(send(client, body), 400)


def test_half_a_surrogate_pair_is_refused_like_any_other_text(client: Client) -> None:
    unknown = assert_problem(predict_text(client, {"features": {**GOOD, "\ud800": 1.0}}), 422)
    assert pointers(unknown) == ["/rows/0/features/\ud800"]
    assert_problem(predict_text(client, {"id": "\ud800", "features": GOOD}), 422)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", ""]
)
def test_only_application_json_is_read(client: Client, kind: str) -> None:
    body = json.dumps({"rows": [{"id": CANARY, "features": GOOD}]})
    assert_problem(send(client, body, {"content-type": kind} if kind else {}), 415)


def test_application_json_may_say_its_charset(client: Client) -> None:
    body = json.dumps({"rows": [{"features": GOOD}]})
    assert send(client, body, {"content-type": "Application/JSON; charset=utf-8"}).status_code == 200


def test_a_body_of_more_than_a_mebibyte_is_refused(client: Client) -> None:
    body = json.dumps({"rows": [{"id": CANARY, "features": GOOD}]}).encode()
    assert send(client, body.ljust(MOST_BYTES)).status_code == 200
    assert_problem(send(client, body.ljust(MOST_BYTES + 1)), 413)


def test_a_body_that_does_not_say_its_length_is_counted(predictor: Predictor) -> None:
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b" " * 100_000

    client = Client(create_app({NAME: predictor}))
    assert_problem(client.ask("POST", PREDICT, content=chunks(), headers=JSON), 413)
    assert sent <= MOST_BYTES + 2 * 100_000


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/models/other/predict"), ("GET", "/v1/models/other")])
def test_a_model_that_is_not_served_is_not_found_and_those_that_are_are_named(client: Client, method: str, path: str) -> None:
    problem = assert_problem(client.ask(method, path, json={"rows": [{"features": GOOD}]}), 404)
    assert NAME in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/docs", 404), ("GET", PREDICT, 405), ("GET", "/v1/models/", 404)]
)
def test_other_routes_are_refused_in_the_same_form(client: Client, method: str, path: str, status: int) -> None:
    assert_problem(client.ask(method, path), status)


def test_a_model_shows_its_card_and_the_features_that_it_takes(client: Client, registered: Registered) -> None:
    answer = client.ask("GET", f"/v1/models/{NAME}").json()
    assert (answer["name"], answer["version"], answer["research_use_only"]) == (NAME, "1", RESEARCH_USE_ONLY)
    assert answer["card"] == registered.bundle.card.model_dump(mode="json")
    assert [feature["name"] for feature in answer["schema"]["features"]] == list(FEATURES)


def test_the_models_that_are_served_are_listed(client: Client) -> None:
    assert client.ask("GET", "/v1/models").json() == {
        "models": [{"name": NAME, "version": "1", "features": len(FEATURES), "threshold": 0.4}]
    }


def test_several_models_are_served_side_by_side(predictor: Predictor) -> None:
    other = Predictor(replace(predictor.loaded, name="other", version="7"))
    client = Client(create_app({NAME: predictor, "other": other}))
    assert [model["name"] for model in client.ask("GET", "/v1/models").json()["models"]] == ["other", NAME]
    answer = client.ask("POST", "/v1/models/other/predict", json={"rows": [{"features": GOOD}]}).json()
    assert answer["model"] == {"name": "other", "version": "7"}


def test_the_openapi_document_describes_requests_answers_and_problems(client: Client) -> None:
    document = client.ask("GET", "/openapi.json").json()
    operation = document["paths"]["/v1/models/{name}/predict"]["post"]
    assert document["openapi"].startswith("3.1")
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/PredictRequest"}
    for status in ("400", "404", "413", "415", "422"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    assert document["components"]["schemas"]["PredictRequest"]["examples"]


def test_a_failure_of_ours_is_a_500_and_neither_answer_nor_log_repeats_what_was_sent(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Predictor):
        def predict(self, rows: Any) -> Any:
            raise RuntimeError(f"{CANARY} in {rows}")

    client = Client(create_app({NAME: Broken(predictor.loaded)}))
    with caplog.at_level(logging.DEBUG):
        problem = assert_problem(predict(client, [{"id": CANARY, "features": GOOD}]), 500)
    assert "errors" not in problem
    assert "RuntimeError" in caplog.text
    assert "test_app.py" in caplog.text
    assert CANARY not in caplog.text


def test_a_refusal_logs_nothing_of_what_was_sent(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="serving"):
        predict(client, [{"id": CANARY, "features": {**GOOD, "CA9": CANARY}}])
        send(client, CANARY)
    assert CANARY not in caplog.text


def test_a_probability_that_is_no_number_is_never_answered(predictor: Predictor) -> None:
    class Undecided(Predictor):
        def predict(self, rows: Any) -> Any:
            return [replace(scored, probability=float("nan")) for scored in super().predict(rows)]

    client = Client(create_app({NAME: Undecided(predictor.loaded)}))
    assert_problem(predict(client, [{"features": GOOD}]), 500)
