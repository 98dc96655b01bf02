"""Profiles at the endpoint and offline: the cluster of a patient, how far it is from each, and which features decided."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from features.bundle import load_bundle, save_bundle
from features.errors import InputError
from serving.app import Answerers, create_app
from serving.loader import LoadedModel
from serving.open_inference import InferResponse
from serving.predictor import TOO_LARGE, Predictor
from serving.schemas import PredictResponse
from serving.served import TrialError, try_out
from tests.serving.conftest import Client
from tests.serving.profiles import CLUSTERS, ECHO, FEATURES, GROUPS, NAME, Planted, planted
from tests.serving.registered import register
from tests.serving.registered import rows_like_training as other_rows
from tests.serving.test_cli import run

PREDICT, INFER = f"/v1/models/{NAME}/predict", f"/v2/models/{NAME}/infer"
NAMES = [f"cluster {number}" for number in range(1, CLUSTERS + 1)]
OWN = [NAMES[group] for group in GROUPS]


@pytest.fixture(scope="module")
def made() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def profile(made: Planted, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A profile model that was saved and loaded."""
    return loaded(made, tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def asked(profile: Predictor) -> Client:
    return Client(create_app({NAME: profile}))


def loaded(made: Planted, folder: Path) -> Predictor:
    save_bundle(made.bundle, folder / "bundle", made.patients[:2] + 0.1)
    return Predictor(LoadedModel(NAME, "1", load_bundle(folder / "bundle")))


def answer(client: Client, *rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    body = {"rows": [{"features": row} for row in rows], **options}
    response = client.ask("POST", PREDICT, json=body)
    assert response.status_code == 200, response.text
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def by_hand(made: Planted, row: dict[str, float]) -> np.ndarray:
    """Squared distances of standard scores from the medoids, shape (n_clusters,)."""
    sd = made.patients.std(axis=0, ddof=1)
    medoids = made.patients[list(made.bundle.pipeline[-1].medoids)]
    values = np.array([row[name] for name in made.bundle.schema.names])
    return np.asarray((((values - medoids) / sd) ** 2).sum(axis=1))


def test_every_training_patient_is_given_its_own_cluster_in_a_batch_and_alone_and_in_any_order_of_keys(
    made: Planted, asked: Client
) -> None:
    rng = np.random.default_rng(0)
    together = answer(asked, *made.rows)
    assert [one["profile"]["cluster"] for one in together] == OWN
    assert not any(one["profile"]["unlike_any_cluster"] for one in together)
    for row, found in zip(made.rows, together, strict=True):
        shuffled = {name: row[name] for name in rng.permutation(list(row)).tolist()}
        [alone] = answer(asked, shuffled)
        assert alone["profile"] == found["profile"]


def test_requests_that_come_at_once_do_not_take_each_others_clusters(made: Planted, asked: Client) -> None:
    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asked.app), base_url="http://testserver") as client:
            bodies = [{"rows": [{"features": row}]} for row in made.rows]
            return await asyncio.gather(*(client.post(PREDICT, json=body) for body in bodies))

    found = [response.json()["predictions"][0]["profile"]["cluster"] for response in asyncio.run(all_at_once())]
    assert found == OWN


def test_a_table_is_given_the_same_clusters_and_distances_as_the_endpoint_gives(
    made: Planted, profile: Predictor, asked: Client
) -> None:
    table = profile.predict_table(pd.DataFrame(made.rows))
    served = [one["profile"] for one in answer(asked, *made.rows)]
    assert table["cluster"].tolist() == OWN
    for name in NAMES:
        column = table[f"distance.{name.replace(' ', '_')}"]
        assert column.tolist() == [one["distances"][name] for one in served]  # to the last digit
    for name in ("margin", "runner_up", "unlike_any_cluster"):
        assert table[name].tolist() == [one[name] for one in served]


def test_an_answer_holds_the_distances_the_margin_and_what_is_known_of_the_cluster(made: Planted, asked: Client) -> None:
    row = made.rows[1]
    [found] = answer(asked, row)
    distances = by_hand(made, row)
    nearest, second, _ = np.argsort(distances)
    card = made.bundle.card.profile
    assert card is not None
    cluster, profile = card.clusters[nearest], found["profile"]
    assert profile["distances"] == pytest.approx(dict(zip(NAMES, distances.tolist(), strict=True)), rel=1e-9)
    assert profile["margin"] == pytest.approx(distances[second] - distances[nearest], rel=1e-9)
    assert (profile["cluster"], profile["number"], profile["runner_up"]) == (NAMES[nearest], nearest + 1, NAMES[second])
    assert (profile["patients"], profile["events"], profile["limit"]) == (cluster.patients, cluster.events, cluster.limit)
    assert found["probability"] == cluster.risk
    assert found["label"] == ("high risk" if cluster.risk >= made.bundle.card.threshold else "low risk")
    assert (found["score"], found["composite"]) == (None, None)


def test_the_features_that_decide_are_those_that_bring_the_patient_nearer_to_its_cluster_than_to_the_next(
    made: Planted, asked: Client
) -> None:
    sd = made.patients.std(axis=0, ddof=1)
    medoids = made.patients[list(made.bundle.pipeline[-1].medoids)] / sd
    for row, found in zip(made.rows[:10], answer(asked, *made.rows[:10]), strict=True):
        profile, values = found["profile"], np.array(list(row.values())) / sd
        near, second = NAMES.index(profile["cluster"]), NAMES.index(profile["runner_up"])
        added = dict(zip(FEATURES, (values - medoids[second]) ** 2 - (values - medoids[near]) ** 2, strict=True))
        largest = sorted((name for name in FEATURES if added[name] > 0), key=lambda name: -added[name])[:5]
        assert [one["feature"] for one in profile["deciding"]] == largest
        for one in profile["deciding"]:
            assert one["contribution"] == pytest.approx(added[one["feature"]], rel=1e-9)
        whole = sum(one["contribution"] for one in profile["deciding"]) + profile["rest"]
        assert whole == pytest.approx(profile["margin"], rel=1e-9)


@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_the_patient_that_a_limit_is_of_is_not_flagged_whoever_read_its_numbers(
    made: Planted, profile: Predictor, towards: float
) -> None:
    """Readers of CSV differ in the last digit: pandas', with which a study is read, and that of a client."""
    for values in (made.patients, np.nextafter(made.patients, towards)):
        table = profile.predict_table(pd.DataFrame(values, columns=FEATURES))
        assert table["cluster"].tolist() == OWN
        assert not table["unlike_any_cluster"].any()


@pytest.mark.parametrize("by", [10.0, -10.0])
def test_a_patient_of_ten_standard_deviations_is_flagged_twice_offline_and_at_the_endpoint(
    made: Planted, profile: Predictor, asked: Client, by: float
) -> None:
    far = made.far(by)
    [found] = answer(asked, far)
    assert found["profile"]["unlike_any_cluster"]
    assert found["out_of_distribution"]["flagged"]
    assert found["profile"]["distances"][found["profile"]["cluster"]] > found["profile"]["limit"]
    table = profile.predict_table(pd.DataFrame([far, made.rows[0]]))
    assert table["unlike_any_cluster"].tolist() == table["out_of_distribution"].tolist() == [True, False]


def test_a_patient_between_two_clusters_is_unlike_any_though_no_value_is_extraordinary(made: Planted, asked: Client) -> None:
    medoids = made.patients[list(made.bundle.pipeline[-1].medoids)]
    between = dict(zip(FEATURES, (0.45 * medoids[1] + 0.55 * medoids[2]).tolist(), strict=True))
    [found] = answer(asked, between)
    assert found["profile"]["unlike_any_cluster"]
    assert found["out_of_distribution"]["outside_range"] == []
    assert found["profile"]["margin"] < min(one["profile"]["margin"] for one in answer(asked, *made.rows))


def test_the_acquisition_is_taken_out_before_clusters_are_compared_and_decides_nothing(tmp_path: Path) -> None:
    made = planted(protocol=True, horizon=60.0)
    client = Client(create_app({NAME: loaded(made, tmp_path)}))
    found = answer(client, *made.rows)
    assert [one["profile"]["cluster"] for one in found] == OWN
    assert not {one["feature"] for each in found for one in each["profile"]["deciding"]} & {ECHO}
    row, slopes = made.rows[0], made.bundle.pipeline["scores"].coefficients_[1]
    moved = {name: row[name] + 20 * slope for name, slope in zip(FEATURES, slopes.tolist(), strict=True)}
    [same] = answer(client, {**moved, ECHO: row[ECHO] + 20})
    assert same["profile"]["distances"] == pytest.approx(found[0]["profile"]["distances"], rel=1e-6)


def test_of_one_cluster_there_is_no_margin(tmp_path: Path) -> None:
    made = planted(clusters=1)
    predictor = loaded(made, tmp_path)
    client = Client(create_app({NAME: predictor}))
    [found] = answer(client, made.rows[0])
    assert found["profile"] == {
        **found["profile"],
        "cluster": "cluster 1",
        "margin": None,
        "runner_up": None,
        "deciding": [],
        "rest": 0.0,
    }
    table = predictor.predict_table(pd.DataFrame(made.rows[:2]))
    assert table["runner_up"].tolist() == [None, None]
    assert json.dumps(predictor.profile.account_of(table.to_dict("records")[0]))  # type: ignore[union-attr]
    assert client.ask("POST", PREDICT, json={"rows": [{"features": made.far()}]}).json()["predictions"][0]["profile"][
        "unlike_any_cluster"
    ]


def test_a_gap_is_filled_as_in_training_and_mostly_gaps_are_flagged(made: Planted, asked: Client) -> None:
    row = {**made.rows[1], "entropy": None}
    filled = {**made.rows[1], "entropy": float(np.median(made.patients[:, 1]))}
    gap, median, empty = answer(asked, row, filled, dict.fromkeys(FEATURES))
    assert gap["imputed"] == ["entropy"]
    assert gap["profile"]["distances"] == pytest.approx(median["profile"]["distances"], rel=1e-9)
    assert empty["out_of_distribution"]["flagged"]


@pytest.mark.parametrize("value", [1e99, 1e60, -1e100])
def test_a_value_of_any_size_gives_finite_numbers_or_a_refusal(made: Planted, asked: Client, value: float) -> None:
    good, large = answer(asked, made.rows[0], {**made.rows[1], "entropy": value}, invalid_rows="report")
    assert good["profile"] == answer(asked, made.rows[0])[0]["profile"]
    assert large["profile"]["unlike_any_cluster"]
    assert np.isfinite(list(large["profile"]["distances"].values())).all()


def test_a_value_whose_distance_is_no_number_is_too_large(tmp_path: Path) -> None:
    """A feature of the size 1e-60, and a value of 1e100."""
    made = planted()
    made.bundle.pipeline["scores"].scale_[1] = 1e-60
    client = Client(create_app({NAME: Predictor(LoadedModel(NAME, "1", made.bundle))}))
    rows = [{**made.rows[0], "entropy": float(made.bundle.pipeline["scores"].mean_[1])}, {**made.rows[1], "entropy": 1e100}]
    refused = client.ask("POST", PREDICT, json={"rows": [{"features": row} for row in rows]})
    assert [(one["pointer"], one["detail"]) for one in refused.json()["errors"]] == [("/rows/1/features", TOO_LARGE)]
    good, problem = answer(client, *rows, invalid_rows="report")
    assert good["profile"]["cluster"] in NAMES
    assert (problem["profile"], problem["problem"] is None) == (None, False)


@given(z=arrays(float, len(FEATURES), elements=st.floats(-50, 50)))
def test_the_cluster_is_the_nearest_and_every_number_finite(made: Planted, asked: Client, z: np.ndarray) -> None:
    values = made.patients.mean(axis=0) + z * made.patients.std(axis=0, ddof=1)
    [found] = answer(asked, dict(zip(FEATURES, values.tolist(), strict=True)))
    profile = found["profile"]
    assert profile["distances"][profile["cluster"]] == min(profile["distances"].values())
    assert profile["distances"][profile["runner_up"]] - profile["distances"][profile["cluster"]] == profile["margin"] >= 0
    assert profile["unlike_any_cluster"] == (profile["distances"][profile["cluster"]] > profile["limit"])


@pytest.fixture
def without_shap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants SHAP values fails."""

    def refuse() -> None:
        raise AssertionError("SHAP was asked for")

    monkeypatch.setattr("serving.explainer.load_shap", refuse)


@pytest.mark.usefixtures("without_shap")
@pytest.mark.parametrize("action", ["predict", "explain"])
def test_what_decided_is_the_explanation_and_no_shap_values_are_made(made: Planted, asked: Client, action: str) -> None:
    body = {"rows": [{"features": row} for row in made.rows[:32]], "explain": True}
    response = asked.ask("POST", f"/v1/models/{NAME}/{action}", json=body)
    assert response.status_code == 200
    found = response.json()["predictions"]
    assert [one["explanation"] for one in found] == [None] * 32
    assert [one["profile"] for one in found] == [one["profile"] for one in answer(asked, *made.rows[:32])]
    assert all(one["profile"]["deciding"] for one in found)


@pytest.mark.usefixtures("without_shap")
def test_explanations_do_not_wait_for_each_other(made: Planted, asked: Client) -> None:
    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asked.app), base_url="http://testserver") as client:
            body = {"rows": [{"features": made.rows[0]}]}
            return await asyncio.gather(*(client.post(f"/v1/models/{NAME}/explain", json=body) for _ in range(40)))

    assert {response.status_code for response in asyncio.run(all_at_once())} == {200}


@pytest.mark.usefixtures("without_shap")
def test_there_is_no_explanation_to_make_ready(profile: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    Answerers({NAME: profile}).warm()
    assert profile.explainer is None
    assert caplog.records == []


def test_three_hundred_features_are_decided_upon() -> None:
    made = planted(wide=293)
    predictor = Predictor(LoadedModel(NAME, "1", made.bundle))
    [found] = answer(Client(create_app({NAME: predictor})), made.rows[0], explain=True)
    profile = found["profile"]
    assert profile["cluster"] == OWN[0]
    assert len(profile["deciding"]) == 5
    whole = sum(one["contribution"] for one in profile["deciding"]) + profile["rest"]
    assert whole == pytest.approx(profile["margin"], rel=1e-9)


def test_another_model_has_no_profile(client: Client) -> None:
    body = {"rows": [{"features": row} for row in other_rows(2)]}
    assert [
        one["profile"] for one in client.ask("POST", "/v1/models/small-hypoxia/predict", json=body).json()["predictions"]
    ] == [
        None,
        None,
    ]
    assert client.ask("GET", "/v1/models/small-hypoxia").json()["card"]["profile"] is None


def test_the_card_shows_the_clusters_and_the_schema_is_that_of_any_model(made: Planted, asked: Client, client: Client) -> None:
    card = made.bundle.card.profile
    assert card is not None
    for path in (f"/v1/models/{NAME}", f"/v1/models/{NAME}/card"):
        assert asked.ask("GET", path).json()["card"]["profile"] == json.loads(card.model_dump_json())
    ours = asked.ask("GET", f"/v1/models/{NAME}/schema").json()
    others = client.ask("GET", "/v1/models/small-hypoxia/schema").json()
    assert ours.keys() == others.keys()
    assert [one["name"] for one in ours["features"]] == list(FEATURES)


def test_the_openapi_document_is_valid_and_an_answer_is_as_it_says(made: Planted, asked: Client) -> None:
    document = asked.ask("GET", "/openapi.json").json()
    validate(document, cls=OpenAPIV31SpecValidator)
    assert "ProfileAnswer" in document["components"]["schemas"]
    rows = [{"features": row} for row in (made.rows[0], made.far(), {"x": 1})]
    response = asked.ask("POST", PREDICT, json={"rows": rows, "invalid_rows": "report", "explain": True})
    assert PredictResponse.model_validate_json(response.text).model_dump() == response.json()


def tensors(*rows: dict[str, float]) -> list[dict[str, Any]]:
    return [{"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[name] for row in rows]} for name in FEATURES]


def test_tensors_are_answered_with_the_clusters_number_and_the_flag(made: Planted, asked: Client) -> None:
    inputs = tensors(*made.rows, made.far())
    response = asked.ask("POST", INFER, json={"inputs": inputs})
    InferResponse.model_validate_json(response.text)
    found = {one["name"]: one for one in response.json()["outputs"]}
    assert found["cluster"]["datatype"] == "INT64"
    assert found["cluster"]["data"][:-1] == (GROUPS + 1).tolist()
    assert found["unlike_any_cluster"]["data"] == [False] * len(made.rows) + [True]
    only = asked.ask("POST", INFER, json={"inputs": inputs, "outputs": [{"name": "cluster"}]}).json()["outputs"]
    assert [one["name"] for one in only] == ["cluster"]
    metadata = asked.ask("GET", f"/v2/models/{NAME}").json()["outputs"]
    assert [one["name"] for one in metadata] == ["probability", "label", "out_of_distribution", "cluster", "unlike_any_cluster"]


def test_clusters_are_not_given_by_a_model_that_has_none(client: Client) -> None:
    body = {"inputs": [{"name": "volume", "shape": [1], "datatype": "FP64", "data": [1.5]}], "outputs": [{"name": "cluster"}]}
    [fault] = client.ask("POST", "/v2/models/small-hypoxia/infer", json=body).json()["errors"]
    assert (fault["pointer"], fault["detail"]) == ("/outputs/0/name", "is not given by this model, which has no clusters")


def test_the_command_writes_the_clusters_of_a_table_and_says_how_many_are_unlike_any(made: Planted, tmp_path: Path) -> None:
    registered = register(made.bundle, tmp_path, NAME, golden=made.patients[:2] + 0.1)
    table, output = tmp_path / "table.csv", tmp_path / "out.csv"
    pd.DataFrame([*made.rows, made.far()]).assign(ID=[f"p{number}" for number in range(91)]).to_csv(table, index=False)
    result = run("predict", "--model", NAME, table, "-o", output, "--json", "--tracking-uri", registered.uri)
    scored = pd.read_csv(output)
    assert list(scored.columns)[7:] == [
        "cluster", "distance.cluster_1", "distance.cluster_2", "distance.cluster_3", "margin", "runner_up", "unlike_any_cluster",
    ]  # fmt: skip
    assert scored["cluster"].tolist()[:-1] == OWN
    assert scored["unlike_any_cluster"].tolist() == [False] * 90 + [True]
    assert "1 unlike any cluster." in result.stderr
    said = json.loads(result.stdout)
    assert said["unlike_any_cluster"] == 1
    first = said["predictions"][0]["profile"]
    assert first["cluster"] == OWN[0]
    assert list(first["distances"]) == NAMES
    assert first["margin"] == pytest.approx(scored["margin"][0], rel=1e-12)


def test_the_command_has_no_shap_values_of_a_profile_and_says_where_to_ask(made: Planted, tmp_path: Path) -> None:
    registered = register(made.bundle, tmp_path, NAME, golden=made.patients[:2] + 0.1)
    table = tmp_path / "table.csv"
    pd.DataFrame(made.rows).to_csv(table, index=False)
    with pytest.raises(InputError, match=f"{NAME} assigns patients to clusters .* leave out --explain"):
        run("predict", "--model", NAME, table, "--explain", "--json", "--tracking-uri", registered.uri)


def test_values_do_not_come_into_a_log(made: Planted, asked: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        [found] = answer(asked, {**made.rows[0], "entropy": 0.48151623})
    assert "0.4815" not in caplog.text
    assert str(found["profile"]["margin"])[:8] not in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.model_copy(update={"clusters": card.clusters[:2]}),
        lambda card: card.model_copy(update={"clusters": (*card.clusters, card.clusters[0])}),
    ],
)
def test_a_card_with_other_clusters_than_the_pipelines_is_not_taken_into_use(made: Planted, change: Callable[..., Any]) -> None:
    bundle = made.bundle
    try_out(Predictor(LoadedModel(NAME, "1", bundle)))
    wrong = replace(bundle, card=bundle.card.model_copy(update={"profile": change(bundle.card.profile)}))
    with pytest.raises(TrialError, match=r"do not fit together \(clusters\)"):
        try_out(Predictor(LoadedModel(NAME, "1", wrong)))
