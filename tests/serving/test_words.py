"""Features that take words, and features that may be empty where others may not."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from features.bundle import ModelBundle
from features.contract import ContractSettings, contract_of
from features.feature import Feature
from features.table import FeatureSchema
from serving.app import create_app
from serving.loader import LoadedModel
from serving.predictor import Predictor, RowsMismatchError
from tests.serving.conftest import Client
from tests.serving.registered import small_bundle

ECHO = Feature(name="echo", family="acquisition", missing="impute")


def predictor(unseen: str | None = None, extraction: Literal["if_sent", "required"] = "if_sent") -> Predictor:
    """The probability rises from site to site, so that every code shows."""
    schema = FeatureSchema(
        features=(Feature(name="volume"), ECHO, Feature(name="site", levels=("Oslo", "Bergen", "2"), unseen=unseen))
    )
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=60), rng.normal(size=60), np.arange(60) % 3])
    fills = make_pipeline(_Fill(), LogisticRegression().fit(X, (X[:, 2] + rng.normal(size=60) * 0.5 > 1).astype(int)))
    contract = contract_of(
        pd.DataFrame(X, columns=list(schema.names)), ContractSettings(extraction=extraction), extraction_hash="abc"
    )
    bundle = ModelBundle(fills, schema, small_bundle().card, contract, X[:5])
    return Predictor(LoadedModel("words", "1", bundle))


class _Fill:
    def transform(self, X: np.ndarray) -> np.ndarray:
        return np.nan_to_num(X)


def row(**changes: Any) -> dict[str, Any]:
    return {"volume": 0.5, "echo": 1.0, "site": "Oslo", **changes}


def test_a_word_counts_as_its_place_among_the_levels() -> None:
    asked = predictor()
    read = asked.read([row(), row(site="Bergen"), row(site="2")])
    assert read.matrix[:, 2].tolist() == [0.0, 1.0, 2.0]
    scores = asked.score(read.matrix).probabilities
    assert scores == sorted(scores)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Rome", "is a word that was not seen in training (seen: Oslo, Bergen, 2)"),
        (2, "is not a word; send one of Oslo, Bergen, 2"),
        (True, "is not a word; send one of Oslo, Bergen, 2"),
        (["Oslo"], "is not a word; send one of Oslo, Bergen, 2"),
        (None, "is null, and this model takes no missing values"),
    ],
)
def test_what_is_no_known_word_is_refused_and_never_filled(value: Any, reason: str) -> None:
    with pytest.raises(RowsMismatchError) as refused:
        predictor().predict([row(), row(site=value)])
    assert [(fault.row, fault.feature, fault.reason) for fault in refused.value.found] == [(1, "site", reason)]


def test_an_unknown_word_is_taken_as_the_reference_where_there_is_one_and_the_answer_says_so() -> None:
    asked = predictor(unseen="Bergen")
    assert asked.read([row(site="Rome")]).matrix[0, 2] == 1.0
    answer = Client(create_app({"words": asked})).ask(
        "POST", "/v1/models/words/predict", json={"rows": [{"features": row(site="Rome")}, {"features": row()}]}
    )
    assert [one["replaced"] for one in answer.json()["predictions"]] == [["site"], []]


def test_a_null_is_filled_only_where_the_feature_may_be_empty() -> None:
    asked = predictor()
    assert np.isnan(asked.read([row(echo=None)]).matrix[0, 1])
    with pytest.raises(RowsMismatchError, match="'volume' is null"):
        asked.predict([row(volume=None, echo=None)])


def test_a_number_is_no_place_for_a_word() -> None:
    with pytest.raises(RowsMismatchError, match="'volume' is not a number"):
        predictor().predict([row(volume="Oslo")])


@pytest.mark.parametrize(
    ("extraction", "sent", "fine"),
    [
        ("if_sent", None, True),
        ("if_sent", "abc", True),
        ("if_sent", "abd", False),
        ("required", None, False),
        ("required", "abc", True),
    ],
)
def test_the_settings_of_the_extraction_must_be_the_models(
    extraction: Literal["if_sent", "required"], sent: str | None, fine: bool
) -> None:
    client = Client(create_app({"words": predictor(extraction=extraction)}))
    body: dict[str, Any] = {"rows": [{"features": row()}], **({"extraction_hash": sent} if sent else {})}
    answer = client.ask("POST", "/v1/models/words/predict", json=body)
    assert answer.status_code == (200 if fine else 422)
    if not fine:
        assert [one["pointer"] for one in answer.json()["errors"]] == ["/extraction_hash"]


def test_a_table_with_words_scores_as_the_rows_do() -> None:
    asked = predictor()
    rows = [row(), row(site="2", volume=-1.0), row(echo=None)]
    table = asked.predict_table(pd.DataFrame(rows))
    assert table["probability"].tolist() == pytest.approx([one.probability for one in asked.predict(rows)], abs=1e-12)
