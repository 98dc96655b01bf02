"""The endpoint, asked as a client would ask it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from features.bundle import RESEARCH_USE_ONLY, ModelBundle
from serving.app import create_app
from serving.prediction import MOST_EXPLAINING
from serving.predictor import Predictor
from serving.schemas import Prediction, PredictResponse
from serving.strict_json import MOST_BYTES
from serving.telemetry import FACTS, RequestFacts
from tests.serving.conftest import Client
from tests.serving.registered import FEATURES, NAME, Registered, rows_like_training, small_bundle

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
        assert set(row) == set(Prediction.model_fields)
        assert (row["imputed"], row["explanation"], row["problem"]) == ([], None, None)
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
    ("method", "path", "status"), [("GET", "/docs", 404), ("GET", PREDICT, 405), ("GET", "/v1/models/", 404)]
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
        "models": [{"name": NAME, "version": "1", "features": len(FEATURES), "threshold": 0.4, "pending_problem": None}]
    }


def test_several_models_are_served_side_by_side(predictor: Predictor) -> None:
    other = Predictor(replace(predictor.loaded, name="other", version="7"))
    client = Client(create_app({NAME: predictor, "other": other}))
    assert [model["name"] for model in client.ask("GET", "/v1/models").json()["models"]] == ["other", NAME]
    answer = client.ask("POST", "/v1/models/other/predict", json={"rows": [{"features": GOOD}]}).json()
    assert answer["model"] == {"name": "other", "version": "7"}


def test_the_openapi_document_is_valid_and_describes_requests_answers_and_problems(client: Client) -> None:
    document = client.ask("GET", "/openapi.json").json()
    validate(document, cls=OpenAPIV31SpecValidator)
    operation = document["paths"]["/v1/models/{name}/predict"]["post"]
    assert document["openapi"].startswith("3.1")
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/PredictRequest"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/PredictResponse"
    }
    for status in ("400", "401", "403", "404", "413", "415", "422", "429", "503", "504"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    assert document["components"]["schemas"]["PredictRequest"]["examples"]


def test_the_openapi_document_names_the_features_of_the_models_that_are_served(client: Client) -> None:
    operation = client.ask("GET", "/openapi.json").json()["paths"][PREDICT]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    features = body["properties"]["rows"]["items"]["properties"]["features"]
    assert features["required"] == list(FEATURES)
    assert features["additionalProperties"] is False
    assert client.ask("POST", PREDICT, json=body["examples"][0]).status_code == 200


@pytest.mark.parametrize("action", ["predict", "explain"])
def test_an_answer_is_as_the_openapi_document_says(client: Client, action: str) -> None:
    rows = [{"features": GOOD}, {"features": {**GOOD, "volume": 1e9}}, {"features": {**GOOD, "CA9": None}}]
    body = {"rows": rows, "explain": True, "invalid_rows": "report"}
    answer = client.ask("POST", f"/v1/models/{NAME}/{action}", json=body)
    parsed = PredictResponse.model_validate_json(answer.text)
    assert [row.problem is None for row in parsed.predictions] == [True, True, False]
    assert parsed.model_dump() == answer.json()


def test_a_failure_of_ours_is_a_500_and_neither_answer_nor_log_repeats_what_was_sent(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Predictor):
        def read(self, rows: Any) -> Any:
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
    class Undecided(ModelBundle):
        def score(self, matrix: np.ndarray) -> np.ndarray:
            return np.full(len(matrix), np.nan)

    bundle = Undecided(**vars(predictor.loaded.bundle))
    client = Client(create_app({NAME: Predictor(replace(predictor.loaded, bundle=bundle))}))
    assert_problem(predict(client, [{"features": GOOD}]), 500)


def ask(client: Client, rows: list[dict[str, Any]], **options: Any) -> httpx.Response:
    return client.ask("POST", PREDICT, json={"rows": [{"features": row} for row in rows], **options})


def test_a_row_unlike_training_is_flagged_with_the_features_that_make_it_so(client: Client, registered: Registered) -> None:
    middle = dict.fromkeys(FEATURES, 0.0)
    ordinary, far = ask(client, [middle, {**middle, "volume": 1e6, "CA9": -1e3}]).json()["predictions"]
    limit = registered.bundle.contract.distance.limit
    assert ordinary["out_of_distribution"] == {
        "flagged": False,
        "distance": pytest.approx(ordinary["out_of_distribution"]["distance"]),
        "limit": limit,
        "outside_range": [],
        "drivers": [],
    }
    assert ordinary["out_of_distribution"]["distance"] < limit < far["out_of_distribution"]["distance"]
    assert far["out_of_distribution"]["flagged"] is True
    assert far["out_of_distribution"]["outside_range"] == [
        {"feature": "CA9", "side": "below"},
        {"feature": "volume", "side": "above"},
    ]
    assert set(far["out_of_distribution"]["drivers"]) == {"CA9", "volume"}


def test_a_row_unlike_training_is_refused_where_that_is_asked_for(client: Client) -> None:
    middle = dict.fromkeys(FEATURES, 0.0)
    problem = assert_problem(ask(client, [middle, {**middle, "volume": 1e6}], out_of_distribution="refuse"), 422)
    assert problem["errors"] == [
        {"pointer": "/rows/1/features/volume", "detail": "is above the range that the model was trained on"}
    ]
    assert ask(client, [middle], out_of_distribution="refuse").status_code == 200


def test_invalid_rows_are_reported_among_the_others_where_that_is_asked_for(client: Client, registered: Registered) -> None:
    rows = [*rows_like_training(3), dict.fromkeys(FEATURES, 0.0)]
    sent: list[Any] = [{"id": str(number), "features": row} for number, row in enumerate(rows)]
    sent[0]["features"] = {**rows[0], "volume": CANARY}
    sent[2] = {"id": "2", "features": rows[2], "name": CANARY}
    sent[3]["features"] = {**rows[3], "volume": 1e9}
    body = {"rows": sent, "invalid_rows": "report", "out_of_distribution": "refuse"}
    answer = client.ask("POST", PREDICT, json={**body, "out_of_distribution": "flag"})
    assert CANARY not in answer.text
    found = answer.json()["predictions"]
    assert [row["id"] for row in found] == ["0", "1", "2", "3"]
    assert found[1]["probability"] == pytest.approx(registered.probabilities(rows)[1], abs=1e-9)
    assert found[0]["problem"] == {
        "detail": "The row was not scored: it has one fault.",
        "errors": [{"pointer": "/rows/0/features/volume", "detail": "is not a number"}],
    }
    assert [fault["pointer"] for fault in found[2]["problem"]["errors"]] == ["/rows/2/name"]
    for number in (0, 2):
        assert [found[number][name] for name in ("probability", "label", "out_of_distribution")] == [None, None, None]
    assert found[3]["problem"] is None
    refused = client.ask("POST", PREDICT, json=body).json()["predictions"]
    assert [fault["pointer"] for fault in refused[3]["problem"]["errors"]] == ["/rows/3/features/volume"]
    assert refused[1] == found[1]


@pytest.mark.parametrize(
    "row", [{**GOOD, "volume": None}, {**GOOD, "x": 1.0}, {}, {**dict.fromkeys(FEATURES, 0.0), "volume": 1e9}]
)
def test_a_request_of_invalid_rows_only_is_refused(client: Client, row: dict[str, Any]) -> None:
    assert_problem(ask(client, [row, row], invalid_rows="report", out_of_distribution="refuse"), 422)


def test_an_envelope_that_is_wrong_is_refused_even_if_rows_are_to_be_reported(client: Client) -> None:
    assert pointers(assert_problem(ask(client, [GOOD], invalid_rows="report", explain="yes"), 422)) == ["/explain"]
    assert pointers(assert_problem(ask(client, [GOOD], invalid_rows="maybe"), 422)) == ["/invalid_rows"]


def test_an_explanation_adds_up_to_the_probability(client: Client) -> None:
    rows = rows_like_training(3)
    explained = client.ask("POST", f"/v1/models/{NAME}/explain", json={"rows": [{"features": row} for row in rows]}).json()
    asked_for = ask(client, rows, explain=True).json()
    assert explained == asked_for
    for row in explained["predictions"]:
        explanation = row["explanation"]
        total = explanation["base_value"] + sum(one["shap"] for one in explanation["features"]) + explanation["rest"]
        assert total == pytest.approx(row["probability"], abs=1e-6)
    alone = ask(client, rows[2:], explain=True).json()["predictions"][0]
    assert alone["explanation"] == explained["predictions"][2]["explanation"]


def test_32_rows_are_explained_and_one_more_is_refused(client: Client) -> None:
    assert len(ask(client, [GOOD] * 32, explain=True).json()["predictions"]) == 32
    assert pointers(assert_problem(ask(client, [GOOD] * 33, explain=True), 422)) == ["/rows"]


def test_a_failure_while_explaining_is_ours(predictor: Predictor) -> None:
    class Fickle(ModelBundle):
        def score(self, matrix: np.ndarray) -> np.ndarray:
            return super().score(matrix) / (1 if len(matrix) > 1 else 2)

    bundle = Fickle(**vars(predictor.loaded.bundle))
    assert_problem(
        ask(Client(create_app({NAME: Predictor(replace(predictor.loaded, bundle=bundle))})), [GOOD], explain=True), 500
    )


def test_more_explanations_than_may_wait_are_put_off(predictor: Predictor) -> None:
    app = create_app({NAME: predictor})
    body = {"rows": [{"features": GOOD}], "explain": True}

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            return await asyncio.gather(*(client.post(PREDICT, json=body) for _ in range(MOST_EXPLAINING + 5)))

    answers = asyncio.run(all_at_once())
    assert sorted(answer.status_code for answer in answers) == [200] * MOST_EXPLAINING + [503] * 5
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
    assert ask(Client(app), [GOOD], explain=True).status_code == 200


def test_a_null_is_imputed_where_the_model_does_that_and_the_answer_says_so(predictor: Predictor) -> None:
    imputing = Predictor(replace(predictor.loaded, bundle=small_bundle(missing="impute")))
    client = Client(create_app({NAME: imputing}))
    filled, whole = ask(client, [{**GOOD, "volume": None, "CA9": None}, GOOD]).json()["predictions"]
    assert (filled["imputed"], whole["imputed"]) == (["volume", "CA9"], [])
    assert ask(client, [{**GOOD, "volume": None}], explain=True).json()["predictions"][0]["explanation"] is not None
    assert pointers(assert_problem(ask(client, [{"volume": None}]), 422)) == [
        f"/rows/0/features/{name}" for name in FEATURES if name != "volume"
    ]


def test_a_gene_may_be_sent_under_its_other_name(client: Client) -> None:
    other = {("CAIX" if name == "CA9" else name): value for name, value in GOOD.items()}
    assert ask(client, [other]).json() == ask(client, [GOOD]).json()
    assert pointers(assert_problem(ask(client, [{**GOOD, "CAIX": 1.0}]), 422)) == ["/rows/0/features/CAIX"]


def test_one_bad_request_among_twenty_at_a_time_harms_no_other(predictor: Predictor, registered: Registered) -> None:
    app = create_app({NAME: predictor})
    rows = rows_like_training(400)
    expected = registered.probabilities(rows)

    async def rounds() -> list[httpx.Response]:
        answers = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            for first in range(0, 400, 20):
                sent = [dict(row) for row in rows[first : first + 20]]
                sent[first // 20] = {**sent[first // 20], "volume": CANARY}  # type: ignore[dict-item]
                answers += await asyncio.gather(*(client.post(PREDICT, json={"rows": [{"features": row}]}) for row in sent))
        return answers

    answers = asyncio.run(rounds())
    refused = {number for number, answer in enumerate(answers) if answer.status_code == 422}
    assert refused == {20 * number + number for number in range(20)}
    good = [number for number in range(400) if number not in refused]
    served = [answers[number].json()["predictions"][0]["probability"] for number in good]
    assert len(good) == 380
    assert served == pytest.approx([expected[number] for number in good], abs=1e-9)


def test_a_model_shows_its_contract_with_units_ranges_and_other_names(client: Client, registered: Registered) -> None:
    answer = client.ask("GET", f"/v1/models/{NAME}/schema").json()
    contract = registered.bundle.contract
    assert [one["name"] for one in answer["features"]] == list(FEATURES)
    assert [one["maximum"] for one in answer["features"]] == [one.maximum for one in contract.ranges]
    assert [one["aliases"] for one in answer["features"]] == [[], [], [], ["CAIX"]]
    assert all("unit" in one for one in answer["features"])
    assert (answer["missing"], answer["order_hash"]) == ("refuse", contract.order_hash)
    card = client.ask("GET", f"/v1/models/{NAME}/card").json()
    assert card["card"] == registered.bundle.card.model_dump(mode="json")
    assert card["research_use_only"] == RESEARCH_USE_ONLY


def test_the_edge_is_told_what_was_scored_and_why_it_was_refused(predictor: Predictor) -> None:
    app = create_app({NAME: predictor})
    facts: list[RequestFacts] = []

    async def with_facts(scope: Any, receive: Any, send: Any) -> None:
        facts.append(RequestFacts(request="", route=""))
        await app({**scope, FACTS: facts[-1]}, receive, send)

    client = Client(with_facts)
    middle = dict.fromkeys(FEATURES, 0.0)
    rows = [middle, {**middle, "volume": 1e6}, {}]
    ask(client, rows, invalid_rows="report")
    ask(client, rows)
    ask(client, rows[:2], out_of_distribution="refuse")
    scored, invalid, unlike = facts
    assert (scored.model, scored.version, scored.rows, scored.flagged, scored.reason) == (NAME, "1", 2, 1, None)
    assert len(scored.probabilities) == 2
    assert [(one.model, one.version, one.rows, one.reason) for one in (invalid, unlike)] == [
        (NAME, "1", 0, "invalid_rows"),
        (NAME, "1", 0, "out_of_distribution"),
    ]


def test_whoever_compares_is_shown_what_was_answered_by_the_features_own_names(predictor: Predictor) -> None:
    shown: list[tuple[Any, ...]] = []
    client = Client(create_app({NAME: predictor}, offer=lambda *what: shown.append(what)))
    other = {("CAIX" if name == "CA9" else name): value for name, value in GOOD.items()}
    answer = ask(client, [{}, other], invalid_rows="report").json()["predictions"][1]
    assert shown == [(NAME, [GOOD], [answer["probability"]], [answer["label"]])]


def test_the_next_version_answers_as_soon_as_it_is_in_place(predictor: Predictor) -> None:
    predictors = {NAME: predictor}
    client = Client(create_app(predictors))
    assert ask(client, [GOOD]).json()["model"]["version"] == "1"
    predictors[NAME] = Predictor(replace(predictor.loaded, version="2"))
    assert ask(client, [GOOD]).json()["model"]["version"] == "2"


def test_explanations_are_made_ready_in_the_background(predictor: Predictor) -> None:
    create_app({NAME: predictor}, warm=True)
    warming = next((thread for thread in threading.enumerate() if thread.name == "warm"), None)
    if warming is not None:
        warming.join(60)
    assert "shap" in sys.modules
