"""Composites at the endpoint: two values, the features behind them, or one of each; and what becomes of a missing one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from features.bundle import ModelBundle, load_bundle, save_bundle
from serving.app import create_app
from serving.loader import LoadedModel
from serving.predictor import TOO_LARGE, Predictor
from serving.schemas import PredictResponse
from serving.served import TrialError, try_out
from tests.serving.composites import COEFFICIENTS, CUTOFF, GENES, NAME, PARTS, component_folders, composite_bundle, gene_bundle
from tests.serving.conftest import Client
from tests.serving.registered import FEATURES, rows_like_training, small_bundle

PREDICT = f"/v1/models/{NAME}/predict"
VALUES = {"hypoxic_fraction": 0.45, "gene_score": 0.3}
IMAGING = rows_like_training(1)[0]
EXPRESSION = dict(zip(GENES, (8.1, 7.9, 8.4, 8.0, 7.7, 8.6), strict=True))
Make = Callable[..., Client]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return component_folders(tmp_path_factory.mktemp("parts") / "saved")


@pytest.fixture(scope="module")
def predictor_of(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Predictor]:
    """A composite that was saved and loaded, with components or without."""
    made: dict[tuple[str, tuple[str, ...]], Predictor] = {}

    def make(missing: str = "refuse", components: tuple[str, ...] = PARTS) -> Predictor:
        key = missing, components
        if key not in made:
            folder = tmp_path_factory.mktemp("composite") / "bundle"
            bundle = composite_bundle(missing)  # type: ignore[arg-type]
            save_bundle(bundle, folder, np.array([[0.3, 1.0], [0.5, -1.0]]), {name: parts[name] for name in components})
            made[key] = Predictor(LoadedModel(NAME, "1", load_bundle(folder)))
        return made[key]

    return make


@pytest.fixture(scope="module")
def client_of(predictor_of: Callable[..., Predictor]) -> Make:
    return lambda *asked: Client(create_app({NAME: predictor_of(*asked)}))


@pytest.fixture(scope="module")
def alone(client_of: Make) -> Client:
    """A composite that judges by one biomarker where the other is missing."""
    return client_of("alone")


def ask(client: Client, *rows: dict[str, Any], **options: Any) -> httpx.Response:
    return client.ask("POST", PREDICT, json={"rows": list(rows), **options})


def answer(client: Client, *rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    response = ask(client, *rows, **options)
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def faults(response: httpx.Response) -> list[tuple[str, str]]:
    assert response.status_code == 422, response.text
    return [(fault["pointer"], fault["detail"]) for fault in response.json()["errors"]]


@cache
def pipeline_of(bundle: Callable[..., ModelBundle], *how: str) -> Pipeline:
    return bundle(*how).pipeline


def by_hand(hypoxic_fraction: float, gene_score: float) -> tuple[float, float]:
    """Distance from the line, by its formula, and risk, by a pipeline that was never saved."""
    score = COEFFICIENTS[0] * hypoxic_fraction + COEFFICIENTS[1] * gene_score - CUTOFF
    return score, float(pipeline_of(composite_bundle).predict_proba(np.array([[hypoxic_fraction, gene_score]]))[0, 1])


def imaging_value(row: dict[str, float] = IMAGING) -> float:
    return float(pipeline_of(small_bundle).predict_proba(np.array([[row[name] for name in FEATURES]]))[0, 1])


def gene_value(row: dict[str, float] = EXPRESSION) -> float:
    steps = pipeline_of(gene_bundle).named_steps
    return float(steps["score"].transform(steps["scale"].transform(np.array([[row[name] for name in GENES]])))[0, 0])


def test_two_values_are_answered_with_score_label_risk_and_parts(client_of: Make) -> None:
    [found] = answer(client_of(), {"id": "a", "features": VALUES})
    score, risk = by_hand(**VALUES)
    assert found["probability"] == pytest.approx(risk, abs=1e-9)
    assert found["score"] == found["composite"]["score"] == pytest.approx(score, abs=1e-9)
    assert found["label"] == found["composite"]["label"]
    assert (found["composite"]["cutoff"], found["composite"]["rule"]) == (0.0, "separating_line")
    assert found["composite"]["missing"] is None
    assert found["composite"]["parts"] == [
        {
            "name": "hypoxic_fraction",
            "modality": "imaging",
            "model": None,
            "version": None,
            "value": 0.45,
            "source": "sent",
            "imputed": [],
            "replaced": [],
            "out_of_distribution": None,
        },
        {
            "name": "gene_score",
            "modality": "genes",
            "model": "small-genes",
            "version": "2",
            "value": 0.3,
            "source": "sent",
            "imputed": [],
            "replaced": [],
            "out_of_distribution": None,
        },
    ]


def test_features_of_both_components_give_what_the_models_give_one_after_the_other(client_of: Make) -> None:
    sent = {"hypoxic_fraction": IMAGING, "gene_score": EXPRESSION}
    [found] = answer(client_of(), {"components": sent})
    fraction, genes = imaging_value(), gene_value()
    score, risk = by_hand(fraction, genes)
    assert found["probability"] == pytest.approx(risk, abs=1e-9)
    assert found["score"] == pytest.approx(score, abs=1e-9)
    values = {part["name"]: part["value"] for part in found["composite"]["parts"]}
    assert values == pytest.approx({"hypoxic_fraction": fraction, "gene_score": genes}, abs=1e-9)
    assert [part["source"] for part in found["composite"]["parts"]] == ["model", "model"]
    assert [part["out_of_distribution"]["flagged"] for part in found["composite"]["parts"]] == [False, False]


@pytest.mark.parametrize("null", [{}, {"gene_score": None}])
def test_one_value_and_the_features_of_the_other_are_answered_too(client_of: Make, null: dict[str, None]) -> None:
    row = {"features": {"hypoxic_fraction": 0.45, **null}, "components": {"gene_score": EXPRESSION, "hypoxic_fraction": None}}
    [found] = answer(client_of(), row)
    assert found["probability"] == pytest.approx(by_hand(0.45, gene_value())[1], abs=1e-9)
    assert [part["source"] for part in found["composite"]["parts"]] == ["sent", "model"]


def test_the_score_decides_and_not_the_probability(client_of: Make) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 2)) * [0.2, 1.5] + [0.4, 0.0]
    rows = [{"features": dict(zip(PARTS, row, strict=True))} for row in values.tolist()]
    found = answer(client_of(), *rows)
    assert any((one["score"] >= 0) != (one["probability"] >= one["threshold"]) for one in found)
    assert all(one["label"] == ("more hypoxic" if one["score"] >= 0 else "less hypoxic") for one in found)


def test_a_mix_of_rows_is_answered_as_each_row_alone(client_of: Make) -> None:
    client = client_of("alone")
    rows: list[dict[str, Any]] = [
        {"id": "values", "features": VALUES},
        {"id": "both", "components": {"hypoxic_fraction": IMAGING, "gene_score": EXPRESSION}},
        {"id": "one", "features": {"gene_score": 1.0}, "components": {"hypoxic_fraction": IMAGING}},
        {"id": "alone", "features": {"gene_score": 1.0}},
        {"id": "alone too", "components": {"gene_score": EXPRESSION}},
    ]
    together = answer(client, *rows)
    for row, found in zip(rows, together, strict=True):
        [alone] = answer(client, row)
        assert alone["id"] == found["id"] == row["id"]
        assert alone["probability"] == pytest.approx(found["probability"], abs=1e-12)
        assert [part["value"] for part in alone["composite"]["parts"]] == pytest.approx(
            [part["value"] for part in found["composite"]["parts"]], abs=1e-12
        )


def test_requests_that_come_at_once_do_not_take_each_others_parts(client_of: Make) -> None:
    app = client_of().app
    rows = rows_like_training(40, seed=5)

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            bodies = [{"rows": [{"features": {"gene_score": 0.1}, "components": {"hypoxic_fraction": row}}]} for row in rows]
            return await asyncio.gather(*(client.post(PREDICT, json=body) for body in bodies))

    for row, response in zip(rows, asyncio.run(all_at_once()), strict=True):
        [found] = response.json()["predictions"]
        assert found["composite"]["parts"][0]["value"] == pytest.approx(imaging_value(row), abs=1e-9)
        assert found["probability"] == pytest.approx(by_hand(imaging_value(row), 0.1)[1], abs=1e-9)


@pytest.mark.parametrize(
    ("row", "pointer", "detail"),
    [
        ({"features": VALUES, "components": {"gene_score": EXPRESSION}}, "/components/gene_score", "is sent as a value too"),
        ({"features": VALUES, "components": {"gene": {}}}, "/components/gene", "no part of this composite (its parts: hypoxic"),
        (
            {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": {**EXPRESSION, "STC3": 1.0}}},
            "/components/gene_score/STC3",
            "is not a feature of this model (did you mean 'STC2'?)",
        ),
        (
            {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": {**EXPRESSION, "HIG2": 1.0}}},
            "/components/gene_score/HIG2",
            "is the same feature as 'HILPDA'",
        ),
        (
            {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": {**EXPRESSION, "DDIT3": "8.1"}}},
            "/components/gene_score/DDIT3",
            "is not a number",
        ),
        (
            {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": {**EXPRESSION, "DDIT3": None}}},
            "/components/gene_score/DDIT3",
            "is null, and this model takes no missing values",
        ),
        (
            {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": dict.fromkeys(GENES[1:], 8.0)}},
            "/components/gene_score/DDIT3",
            "is missing",
        ),
        (
            {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": {**EXPRESSION, "DDIT3": 10**400}}},
            "/components/gene_score/DDIT3",
            "is too large",
        ),
        ({"features": {"hypoxic_fraction": 1}, "components": {"gene_score": [8.0]}}, "/components/gene_score", "dictionary"),
        ({"features": {"hypoxic_fraction": 1}, "components": []}, "/components", "dictionary"),
        ({"features": VALUES, "components": {str(n): {} for n in range(9)}}, "/components", "at most 8"),
        ({"features": None, "components": {"gene_score": EXPRESSION}}, "/features", "dictionary"),
        ({"components": None}, "/features", "required"),
        ({"components": {"gene_score": EXPRESSION}}, "/features/hypoxic_fraction", "is missing"),
        ({"features": {"hypoxic_fraction": 1, "gene_score": None}}, "/features/gene_score", "is null"),
        ({"features": {**VALUES, "age": 50}}, "/features/age", "is not a feature of this model"),
        (
            {"components": {"gene_score": {**EXPRESSION, "DDIT3": "x"}}, "features": {"hypoxic_fraction": 1, "a": 1}},
            "/features/a",
            "not",
        ),
    ],
)
def test_what_is_wrong_is_pointed_to(client_of: Make, row: dict[str, Any], pointer: str, detail: str) -> None:
    found = dict(faults(ask(client_of(), {"features": VALUES}, row)))
    assert detail in found[f"/rows/1{pointer}"]
    assert all(place.startswith("/rows/1/") for place in found)


def test_a_gene_may_be_sent_under_its_other_name(client_of: Make) -> None:
    other = {("HIG2" if name == "HILPDA" else name): value for name, value in EXPRESSION.items()}
    rows = [{"features": {"hypoxic_fraction": 1.0}, "components": {"gene_score": genes}} for genes in (EXPRESSION, other)]
    one, same = answer(client_of(), *rows)
    assert one == same


def test_components_are_not_taken_by_a_model_that_is_no_composite(client: Client) -> None:
    path = "/v1/models/small-hypoxia/predict"
    rows = [{"features": IMAGING}, {"features": IMAGING, "components": {"gene_score": EXPRESSION}}]
    refused = client.ask("POST", path, json={"rows": rows})
    assert faults(refused) == [
        ("/rows/1/components", "is not taken: this model is no composite; send its features under 'features'")
    ]
    reported = client.ask("POST", path, json={"rows": rows, "invalid_rows": "report"}).json()["predictions"]
    assert [one["problem"] is None for one in reported] == [True, False]
    assert (reported[0]["score"], reported[0]["composite"]) == (None, None)


def test_a_plain_column_has_no_model_that_could_compute_it(client_of: Make) -> None:
    row = {"components": {"hypoxic_fraction": IMAGING, "gene_score": EXPRESSION}}
    found = dict(faults(ask(client_of("refuse", ("gene_score",)), row)))
    assert found == {
        "/rows/0/components/hypoxic_fraction": "has no model here that could compute it; send its value under 'features'"
    }


@pytest.mark.parametrize(
    "row", [{"features": {"hypoxic_fraction": 0.4}}, {"features": {"hypoxic_fraction": 0.4, "gene_score": None}}]
)
def test_a_missing_biomarker_is_answered_by_the_other_alone_where_the_card_says_so(client_of: Make, row: dict[str, Any]) -> None:
    [found] = answer(client_of("alone"), row)
    pipeline = pipeline_of(composite_bundle, "alone")
    assert found["probability"] == pytest.approx(pipeline.predict_proba(np.array([[0.4, np.nan]]))[0, 1], abs=1e-9)
    assert found["composite"]["missing"] == {
        "part": "gene_score",
        "answered": "by hypoxic_fraction alone, at its own cutpoint",
    }
    assert [(part["value"], part["source"]) for part in found["composite"]["parts"]] == [(0.4, "sent"), (None, None)]
    assert found["imputed"] == []


@pytest.mark.parametrize("row", [{"features": {}}, {"features": dict.fromkeys(PARTS)}, {"components": dict.fromkeys(PARTS)}])
def test_a_row_without_either_biomarker_is_always_refused(client_of: Make, row: dict[str, Any]) -> None:
    assert faults(ask(client_of("alone"), row)) == [
        ("/rows/0/features", "have neither hypoxic_fraction nor gene_score; send at least one of them")
    ]
    assert {place for place, _ in faults(ask(client_of("refuse"), row))} == {f"/rows/0/features/{name}" for name in PARTS}


def test_features_unlike_a_components_training_flag_the_part_and_the_row(client_of: Make) -> None:
    far = {**EXPRESSION, "DDIT3": 800.0}
    row = {"features": {"hypoxic_fraction": 0.4}, "components": {"gene_score": far}}
    [found] = answer(client_of(), row)
    part = found["composite"]["parts"][1]["out_of_distribution"]
    assert part["flagged"]
    assert part["outside_range"] == [{"feature": "DDIT3", "side": "above"}]
    assert found["out_of_distribution"]["flagged"]
    assert "gene_score" in found["out_of_distribution"]["drivers"]
    refused = dict(faults(ask(client_of(), row, out_of_distribution="refuse")))
    assert refused["/rows/0/components/gene_score/DDIT3"] == "is above the range that the model was trained on"


def test_a_part_is_flagged_though_the_composites_own_values_look_ordinary(client_of: Make) -> None:
    """Genes that move against each other leave the score where it was."""
    odd = {**EXPRESSION, "DDIT3": 12.0, "ERO1A": 4.0}
    [found] = answer(client_of(), {"features": {"hypoxic_fraction": 0.4}, "components": {"gene_score": odd}})
    assert found["out_of_distribution"]["distance"] < found["out_of_distribution"]["limit"]
    assert found["out_of_distribution"] == {**found["out_of_distribution"], "flagged": True, "drivers": ["gene_score"]}


def test_invalid_rows_are_reported_among_the_others_where_that_is_asked_for(client_of: Make) -> None:
    rows = [
        {"id": "good", "features": {"hypoxic_fraction": 0.4}, "components": {"gene_score": EXPRESSION}},
        {"id": "bad gene", "features": {"hypoxic_fraction": 0.4}, "components": {"gene_score": {**EXPRESSION, "DDIT3": "x"}}},
        {"id": "bad form", "components": {"gene_score": 7}},
        {"id": "good too", "features": VALUES},
    ]
    found = answer(client_of(), *rows, invalid_rows="report")
    assert [one["problem"] is None for one in found] == [True, False, False, True]
    assert found[1]["problem"]["errors"] == [{"pointer": "/rows/1/components/gene_score/DDIT3", "detail": "is not a number"}]
    assert found[2]["problem"]["errors"][0]["pointer"] == "/rows/2/components/gene_score"
    assert found[0]["probability"] == pytest.approx(by_hand(0.4, gene_value())[1], abs=1e-9)
    assert found[3]["probability"] == pytest.approx(by_hand(**VALUES)[1], abs=1e-9)


@pytest.mark.parametrize(
    "row", [{"features": VALUES}, {"features": {"gene_score": 0.7}}, {"components": {"gene_score": EXPRESSION}}]
)
def test_an_explanation_of_both_values_adds_up_also_where_one_is_missing(client_of: Make, row: dict[str, Any]) -> None:
    [found] = answer(client_of("alone"), row, explain=True)
    explanation = found["explanation"]
    assert {one["feature"] for one in explanation["features"]} == set(PARTS)
    total = explanation["base_value"] + sum(one["shap"] for one in explanation["features"])
    assert total == pytest.approx(found["probability"], abs=1e-6)


class Overflowing(ModelBundle):
    """Computes with no value above 1e90."""

    def score(self, matrix: np.ndarray) -> np.ndarray:
        if (np.abs(matrix) > 1e90).any():
            raise ValueError("infinity")
        return super().score(matrix)


def test_a_value_that_is_too_large_for_a_component_is_refused_where_it_stands(predictor_of: Callable[..., Predictor]) -> None:
    bundle = predictor_of().loaded.bundle
    genes = Overflowing(**vars(bundle.components["gene_score"]))
    predictor = Predictor(LoadedModel(NAME, "1", replace(bundle, components={"gene_score": genes})))
    rows = [
        {"features": {"hypoxic_fraction": 0.4}, "components": {"gene_score": one}}
        for one in (EXPRESSION, {**EXPRESSION, "DDIT3": 1e99})
    ]
    client = Client(create_app({NAME: predictor}))
    assert faults(ask(client, *rows)) == [("/rows/1/components/gene_score", TOO_LARGE)]
    good, refused = answer(client, *rows, invalid_rows="report")
    assert good["probability"] == pytest.approx(by_hand(0.4, gene_value())[1], abs=1e-9)
    assert refused["problem"]["errors"][0]["pointer"] == "/rows/1/components/gene_score"


def test_settings_of_another_extraction_are_refused_for_a_component_too(predictor_of: Callable[..., Predictor]) -> None:
    bundle = predictor_of().loaded.bundle
    imaging = bundle.components["hypoxic_fraction"]
    strict = replace(imaging, contract=imaging.contract.model_copy(update={"extraction_hash": "ours", "extraction": "required"}))
    loaded = LoadedModel(NAME, "1", replace(bundle, components={**bundle.components, "hypoxic_fraction": strict}))
    client = Client(create_app({NAME: Predictor(loaded)}))
    row = {"features": {"gene_score": 0.1}, "components": {"hypoxic_fraction": IMAGING}}
    assert faults(ask(client, row))[0][0] == "/extraction_hash"
    assert faults(ask(client, row, extraction_hash="theirs"))[0][0] == "/extraction_hash"
    assert ask(client, row, extraction_hash="ours").status_code == 200
    assert ask(client, {"features": VALUES}).status_code == 200


def test_the_description_says_what_may_be_sent(client_of: Make) -> None:
    client = client_of("refuse", ("gene_score",))
    imaging, genes = client.ask("GET", f"/v1/models/{NAME}").json()["parts"]
    assert (imaging["name"], imaging["schema"], imaging["contract"]) == ("hypoxic_fraction", None, None)
    assert (genes["model"], genes["version"], genes["modality"]) == ("small-genes", "2", "genes")
    assert [one["name"] for one in genes["schema"]["features"]] == list(GENES)
    [contract] = client.ask("GET", f"/v1/models/{NAME}/schema").json()["components"]
    assert contract["name"] == "gene_score"
    assert [one["name"] for one in contract["contract"]["features"]] == list(GENES)
    assert contract["contract"]["features"][-1]["aliases"] == ["HIG2"]


def test_a_model_that_is_no_composite_describes_no_parts(client: Client) -> None:
    assert client.ask("GET", "/v1/models/small-hypoxia").json()["parts"] is None
    assert client.ask("GET", "/v1/models/small-hypoxia/schema").json()["components"] is None


@pytest.mark.parametrize("missing", ["refuse", "alone"])
def test_the_openapi_document_is_valid_and_holds_the_features_of_the_components(client_of: Make, missing: str) -> None:
    client = client_of(missing)
    document = client.ask("GET", "/openapi.json").json()
    validate(document, cls=OpenAPIV31SpecValidator)
    body = document["paths"][PREDICT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = {**body, "components": document["components"]}
    row = body["properties"]["rows"]["items"]
    assert row["properties"]["components"]["properties"]["gene_score"]["required"] == list(GENES)
    for sent in (
        *body["examples"],
        {"rows": [{"components": {"hypoxic_fraction": IMAGING, "gene_score": EXPRESSION}}]},
        {"rows": [{"features": {"hypoxic_fraction": 0.4}, "components": {"gene_score": EXPRESSION}}]},
    ):
        jsonschema.validate(sent, schema)
        assert client.ask("POST", PREDICT, json=sent).status_code == 200
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rows": [{"id": "a"}]}, schema)


def test_an_answer_is_as_the_openapi_document_says(client_of: Make) -> None:
    rows = [{"features": VALUES}, {"components": {"gene_score": EXPRESSION}}, {"features": {"gene_score": "x"}}]
    response = ask(client_of("alone"), *rows, invalid_rows="report", explain=True)
    parsed = PredictResponse.model_validate_json(response.text)
    assert parsed.model_dump() == response.json()


def test_tensors_of_both_values_are_answered_with_the_score(client_of: Make) -> None:
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in VALUES.items()]
    outputs = client_of().ask("POST", f"/v2/models/{NAME}/infer", json={"inputs": inputs}).json()["outputs"]
    found = {one["name"]: one["data"][0] for one in outputs}
    score, risk = by_hand(**VALUES)
    assert found["score"] == pytest.approx(score, abs=1e-9)
    assert found["probability"] == pytest.approx(risk, abs=1e-9)
    metadata = client_of().ask("GET", f"/v2/models/{NAME}").json()
    assert [one["name"] for one in metadata["outputs"]] == ["probability", "label", "out_of_distribution", "score"]


def test_a_tensor_may_be_left_out_where_one_biomarker_is_enough(client_of: Make) -> None:
    body = {"inputs": [{"name": "gene_score", "shape": [1], "datatype": "FP64", "data": [0.4]}]}
    path = f"/v2/models/{NAME}/infer"
    outputs = client_of("alone").ask("POST", path, json=body).json()["outputs"]
    pipeline = pipeline_of(composite_bundle, "alone")
    assert outputs[0]["data"][0] == pytest.approx(pipeline.predict_proba(np.array([[np.nan, 0.4]]))[0, 1], abs=1e-9)
    assert faults(client_of().ask("POST", path, json=body)) == [("/inputs", "lack the feature 'hypoxic_fraction'")]


def test_a_score_is_not_given_by_a_model_that_has_none(client: Client) -> None:
    body = {"inputs": [{"name": "volume", "shape": [1], "datatype": "FP64", "data": [1.5]}], "outputs": [{"name": "score"}]}
    assert faults(client.ask("POST", "/v2/models/small-hypoxia/infer", json=body))[0][0] == "/outputs/0/name"


def test_neither_values_nor_features_come_into_a_log(client_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(client_of(), {"id": "canary", "features": {"hypoxic_fraction": 0.48151623}, "components": {"gene_score": EXPRESSION}})
        ask(client_of(), {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": {**EXPRESSION, "DDIT3": "canary"}}})
    assert not [word for word in ("canary", "0.4815", str(gene_value())[:8]) if word in caplog.text]


def test_as_many_features_as_a_row_may_have_a_component_may_have_and_no_other_object(client_of: Make) -> None:
    many = {f"feature{number}": 1.0 for number in range(2_000)}
    row = {"features": {"hypoxic_fraction": 1}, "components": {"gene_score": many}}
    assert ask(client_of(), row).status_code == 422
    for wrong in ({**row, "components": {name: {} for name in many}}, {**row, "other": many}):
        refused = ask(client_of(), wrong)
        assert refused.status_code == 400
        assert "far more keys" in refused.json()["detail"]


def test_a_composite_that_cannot_judge_by_one_biomarker_alone_is_not_taken_into_use(
    predictor_of: Callable[..., Predictor],
) -> None:
    loaded = predictor_of("alone").loaded
    try_out(Predictor(loaded))
    X = loaded.bundle.background
    fitted = Pipeline([("score", PCA(n_components=1)), ("risk", LogisticRegression())]).fit(X, np.arange(len(X)) % 2)
    with pytest.raises(TrialError, match="cannot score"):
        try_out(Predictor(replace(loaded, bundle=replace(loaded.bundle, pipeline=fitted))))


def test_a_component_whose_parts_do_not_fit_is_not_taken_into_use(predictor_of: Callable[..., Predictor]) -> None:
    bundle = predictor_of().loaded.bundle
    wrong = replace(bundle.components["gene_score"], contract=small_bundle().contract)
    with pytest.raises(TrialError, match="do not fit together"):
        try_out(Predictor(LoadedModel(NAME, "1", replace(bundle, components={"gene_score": wrong}))))


class Heavy(ModelBundle):
    """Counts what it scores."""

    calls = 0

    def score(self, matrix: np.ndarray) -> np.ndarray:
        Heavy.calls += len(matrix)
        return super().score(matrix)


def test_a_component_scores_only_the_rows_that_need_it(predictor_of: Callable[..., Predictor]) -> None:
    bundle = predictor_of().loaded.bundle
    heavy = Heavy(**vars(bundle.components["hypoxic_fraction"]))
    predictor = Predictor(LoadedModel(NAME, "1", replace(bundle, components={"hypoxic_fraction": heavy})))
    client = Client(create_app({NAME: predictor}))
    answer(client, {"features": VALUES})
    before = Heavy.calls
    answer(client, *[{"features": VALUES}] * 5, {"features": {"gene_score": 1}, "components": {"hypoxic_fraction": IMAGING}})
    assert Heavy.calls == before + 1


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from([*PARTS, *GENES, "x"]), inner, max_size=3),
)


@given(components=junk, features=junk)
def test_whatever_is_sent_is_answered_or_refused_and_fails_nothing(alone: Client, components: Any, features: Any) -> None:
    body = json.dumps(
        {"rows": [{"features": features, "components": components}, {"features": VALUES}], "invalid_rows": "report"}
    )
    response = alone.ask("POST", PREDICT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200
    first, second = response.json()["predictions"]
    assert (first["problem"] is None) == (first["probability"] is not None)
    assert second["probability"] == pytest.approx(by_hand(**VALUES)[1], abs=1e-9)
