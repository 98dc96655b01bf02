"""Reading a body, apart from any route."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from serving.schemas import EXAMPLE, PredictRequest
from serving.strict_json import JsonRefusedError, parse_strictly


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e101, True])
def test_a_feature_is_a_finite_number_whoever_parsed_the_body(value: object) -> None:
    with pytest.raises(ValidationError):
        PredictRequest.model_validate({"rows": [{"features": {"volume": value}}]})


def test_a_word_is_left_to_the_predictor_who_knows_which_features_take_one() -> None:
    assert PredictRequest.model_validate({"rows": [{"features": {"site": "A"}}]}).rows[0].features == {"site": "A"}


def test_the_example_in_the_documentation_is_a_request() -> None:
    assert PredictRequest.model_validate(EXAMPLE).rows[0].features == {"volume": 1.5, "entropy": 4.2}


def test_json_is_read_as_it_stands() -> None:
    assert parse_strictly('{"ä": [1, 2.5, -1e-300, true, null, "x"]}'.encode()) == {"ä": [1, 2.5, -1e-300, True, None, "x"]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "NaN or Infinity"),
        (b"[1e999]", "too large"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b"\xff", "not JSON"),
        (b"{} {}", "not JSON"),
    ],
)
def test_what_is_refused_is_refused_for_its_own_reason(body: bytes, says: str) -> None:
    with pytest.raises(JsonRefusedError, match=says):
        parse_strictly(body)
