"""A frozen model on a table from elsewhere, by the real command."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asked import Answer, ask
from mlflow import MlflowClient
from recorded import recorded_model, table_of
from sklearn.metrics import roc_auc_score

from features.bundle import load_bundle

NAME = "toy-hypoxia"
FEATURES = ["f0", "f1"]


@dataclass(frozen=True)
class Frozen:
    """A registered model, and where its run lies."""

    uri: str
    folder: Path


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    root = tmp_path_factory.mktemp("external") / "store"
    recorded_model(root, NAME, FEATURES, table_of(60))
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(uri, registry_uri=uri)
    client.set_registered_model_alias(NAME, "champion", "1")
    return Frozen(uri, Path(client.get_model_version(NAME, "1").source.removeprefix("file://")).parent)


Validate = Callable[..., Answer]


@pytest.fixture
def validate(frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Validate:
    """`hypoxia validate` on a table that is written first."""

    def run(table: pd.DataFrame, *more: str, label: str = "Target", columns: bool = True) -> Answer:
        path = tmp_path / "external.csv"
        table.to_csv(path, index=False)
        named = ["--patient", "patient", "--sample", "sample"] if columns else []
        arguments = [f"{NAME}@champion", "--on", str(path), "--label", label, *named, "--tracking-uri", frozen.uri, *more]
        return ask(monkeypatch, capsys, "validate", *arguments)

    return run


def elsewhere(**about: float) -> pd.DataFrame:
    return table_of(80, seed=7, **about)  # type: ignore[arg-type]


def test_the_estimates_are_those_of_the_frozen_model_on_the_table(frozen: Frozen, validate: Validate) -> None:
    table = elsewhere()
    answer = validate(table, "--json")
    assert answer.code == 0, answer.err
    expected = roc_auc_score(table["Target"], load_bundle(frozen.folder / "bundle").score(table[FEATURES].to_numpy()))
    estimate = answer.json["external"]["roc_auc"]
    assert estimate["value"] == pytest.approx(expected, abs=1e-12)
    assert estimate["lower"] < expected < estimate["upper"]
    assert set(answer.json["external"]) == set(answer.json["held_out"])
    assert answer.json["table"] | {"sha256": ""} == {
        "name": "external.csv",
        "sha256": "",
        "samples": 80,
        "patients": 80,
        "events": 40,
    }


def test_columns_in_another_order_and_columns_more_change_nothing_but_are_said(validate: Validate) -> None:
    table = elsewhere()
    plain = validate(table, "--json").json
    moved = validate(table[table.columns[::-1]].assign(age=3), "--json").json
    assert moved["external"] == plain["external"]
    assert moved["schema"]["extra"] == ["f5", "f4", "f3", "f2", "age"]


def test_internal_held_out_and_external_stand_side_by_side(validate: Validate) -> None:
    answer = validate(elsewhere())
    assert answer.code == 0, answer.err
    for words in ("held out", "external", "ROC AUC", "Calibration slope", "Observed to expected", "Research use only"):
        assert words in answer.out


def test_a_dozen_patients_are_not_estimable(validate: Validate) -> None:
    answer = validate(elsewhere().head(12))
    assert answer.code == 0, answer.err
    assert "External performance is not estimable: 12 patients" in answer.out
    line = next(line for line in answer.out.splitlines() if "ROC AUC" in line)
    assert line.rstrip(" │").endswith("not estimable")
    assert "every logit" not in answer.out


def test_the_intercept_update_makes_as_many_events_expected_as_were_seen(frozen: Frozen, validate: Validate) -> None:
    table = elsewhere().assign(f0=lambda rows: rows["f0"] + 1.5)
    answer = validate(table, "--json").json
    update = answer["intercept_update"]
    assert update < -0.3
    probability = load_bundle(frozen.folder / "bundle").score(table[FEATURES].to_numpy())
    updated = 1 / (1 + (1 - probability) / probability * np.exp(-update))
    assert updated.sum() == pytest.approx(table["Target"].sum(), abs=1e-6)
    assert answer["calibration"]["external"]["intercept"]["value"] == update


def test_what_lies_outside_of_training_is_said_by_feature(validate: Validate) -> None:
    table = elsewhere()
    table.loc[:19, "f1"] = 50.0
    answer = validate(table, "--json").json
    worst = answer["shift"]["features"][0]
    assert worst["feature"] == "f1"
    assert worst["above"] >= 0.25
    assert answer["shift"]["rows_unlike_training"] >= 0.25
    assert any("unlike what the model was trained on" in warning for warning in answer["warnings"])


def test_a_missing_feature_is_named_with_what_may_be_meant_and_nothing_is_guessed(validate: Validate) -> None:
    answer = validate(elsewhere().rename(columns={"f1": "f01", "f2": "f1x"}))
    assert answer.code == 2
    assert "lacks 1 of the 2 features of the model: 'f1' (did you mean 'f" in answer.err
    assert "Nothing is guessed" in answer.err


def test_samples_that_the_model_learnt_from_are_refused(validate: Validate) -> None:
    learnt = table_of(60, seed=99)
    answer = validate(pd.concat([elsewhere(), learnt.iloc[:3]]))
    assert answer.code == 3
    assert "3 of 83 samples of the table have the name of a sample that toy-hypoxia:1 learnt from" in answer.err
    assert learnt["sample"].iloc[0] not in answer.err


def test_a_table_that_begins_with_a_measurement_does_not_hide_whom_the_model_learnt_from(
    validate: Validate, frozen: Frozen
) -> None:
    mixed = pd.concat([elsewhere(), table_of(60, seed=99).iloc[:3]])[[*FEATURES, "Target", "sample"]]
    assert validate(mixed.rename(columns={"sample": "ID"}), columns=False).code == 3
    nameless = validate(mixed.drop(columns="sample"), "--json", columns=False)
    assert any("have no names" in warning for warning in nameless.json["warnings"])


def test_patients_with_an_identifier_that_the_model_knows_are_warned_of(validate: Validate) -> None:
    known = table_of(60).loc[:4, "patient"].tolist()
    table = elsewhere()
    table.loc[:4, "patient"] = known
    answer = validate(table, "--json")
    assert answer.code == 0
    assert any(warning.startswith("5 patients of the table have the identifier") for warning in answer.json["warnings"])
    assert not any("identifier" in warning for warning in validate(elsewhere(), "--json").json["warnings"])


def test_rows_without_names_are_judged_with_a_warning(validate: Validate) -> None:
    answer = validate(elsewhere().drop(columns=["sample", "patient"])[["Target", *FEATURES]], "--json", columns=False)
    assert answer.code == 0, answer.err
    assert any("have no names" in warning for warning in answer.json["warnings"])


def test_several_lesions_of_a_patient_widen_the_interval(validate: Validate) -> None:
    table = elsewhere()
    tripled = pd.concat([table.assign(sample=table["sample"] + suffix) for suffix in "abc"])
    estimates = [validate(one, "--json").json["external"]["roc_auc"] for one in (table, tripled)]
    widths = [one["upper"] - one["lower"] for one in estimates]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_words_can_be_the_outcome(validate: Validate) -> None:
    table = elsewhere()
    worded = table.assign(Target=table["Target"].map({1: "hypoxic", 0: "normoxic"}))
    plain, words = validate(table, "--json").json, validate(worded, "--event", "hypoxic", "--json").json
    assert words["external"] == plain["external"]


def test_rows_without_outcome_are_left_out_and_counted(validate: Validate) -> None:
    table = elsewhere()
    table["Target"] = table["Target"].astype(float)
    table.loc[:3, "Target"] = np.nan
    answer = validate(table, "--json").json
    assert answer["table"]["samples"] == 76
    assert any("4 of 80 rows" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        ({}, {"label": "Tagret"}, "did you mean 'Target'"),
        ({"Target": 1}, {}, "--event"),
        ({"f0": "high"}, {}, "f0"),
    ],
)
def test_a_mistake_is_one_sentence_without_a_value_of_a_patient(validate: Validate, change: dict, more: dict, said: str) -> None:
    answer = validate(elsewhere().assign(**change), **more)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_the_validation_is_a_run_of_its_own_kind_with_its_metrics(frozen: Frozen, validate: Validate) -> None:
    answer = validate(elsewhere(), "--json").json
    client = MlflowClient(frozen.uri)
    run = client.get_run(answer["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["hypoxia.kind"] == "external validation"
    assert run.data.tags["hypoxia.model"] == NAME
    assert run.data.metrics["external_roc_auc"] == answer["external"]["roc_auc"]["value"]
    assert run.data.metrics["external_calibration_intercept"] == answer["intercept_update"]
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert json.loads((folder / "external_validation.json").read_text()) == answer
    assert len(pd.read_csv(folder / "predictions.csv")) == 80


def test_no_patient_is_named_on_the_screen_or_in_the_metrics(validate: Validate) -> None:
    table = elsewhere()
    said = validate(table).out + validate(table, "--json").out
    assert [name for name in (*table["sample"], *table["patient"]) if name in said] == []


def test_a_model_that_is_not_what_was_signed_is_not_run(frozen: Frozen, validate: Validate) -> None:
    golden = frozen.folder / "bundle" / "golden.json"
    content = golden.read_bytes()
    try:
        golden.write_bytes(content + b" ")
        answer = validate(elsewhere())
    finally:
        golden.write_bytes(content)
    assert answer.code == 3
    assert "changed after it was saved" in answer.err
