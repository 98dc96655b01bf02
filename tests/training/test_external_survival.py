"""`hypoxia validate` of models of times to an event and of composites, by the real command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asked import Answer, Hypoxia, ask
from mlflow import MlflowClient
from recorded_survival import EXTERNAL, followed, store_of

from features.bundle import load_bundle
from training.judged import load_judged
from training.survival.discrimination import brier_at, harrell_c
from training.tracking import open_store


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{store_of(tmp_path_factory) / 'mlflow.db'}"


@pytest.fixture
def validate(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    """`hypoxia validate` on a table that is written first."""

    def run(model: str, table: pd.DataFrame, *more: str) -> Answer:
        path = tmp_path / "external.csv"
        table.to_csv(path, index=False)
        return ask(monkeypatch, capsys, "validate", model, "--on", str(path), *more, "--tracking-uri", uri)

    return run


def seen_until(table: pd.DataFrame, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    time = table["months"].clip(upper=horizon).to_numpy()
    return time, ((table["status"] == 1) & (table["months"] <= horizon)).to_numpy()


def test_the_estimates_are_those_of_the_frozen_model_with_follow_up_cut_at_its_horizon(uri: str, validate: Hypoxia) -> None:
    answer = validate("short", EXTERNAL, "--json")
    assert answer.code == 0, answer.err
    bundle = load_bundle(load_judged(open_store(uri), "short").bundle_folder)
    risk, (time, event) = bundle.score(EXTERNAL[["f0", "f1"]].to_numpy()), seen_until(EXTERNAL, 36.0)
    external = answer.json["external"]
    assert external["c_index"]["value"] == pytest.approx(harrell_c(time, event, risk).value, abs=1e-9)
    assert external["brier_at_horizon"]["value"] == pytest.approx(brier_at(time, event, risk, 36.0).value, abs=1e-9)
    assert external["c_index"]["lower"] < external["c_index"]["value"] < external["c_index"]["upper"]
    assert set(external) == set(answer.json["held_out"])
    assert answer.json["table"]["events"] == event.sum()
    assert (answer.json["table"]["horizon"], answer.json["table"]["time_unit"]) == (36.0, "months")
    assert answer.json["intercept_update"] is None


def test_prognosis_and_calibration_at_the_horizon_are_printed(validate: Hypoxia) -> None:
    answer = validate("clinical", EXTERNAL)
    assert answer.code == 0, answer.err
    for words in (
        "Harrell's C",
        "Observed to expected by the horizon",
        "hazard ratio per standard deviation",
        "adjusted for clinical covariates",
        "Risk by 60 months",
        "observed (Kaplan-Meier)",
        "Research use only",
    ):
        assert words in answer.out
    assert "ROC AUC" not in answer.out
    assert "every logit" not in answer.out


def test_a_table_without_the_clinical_covariates_is_not_adjusted_and_that_is_said(validate: Hypoxia) -> None:
    adjusted = validate("clinical", EXTERNAL, "--json").json
    plain = validate("clinical", EXTERNAL.drop(columns="age"), "--json").json
    assert adjusted["prognosis"]["adjusted_model"].keys() == {"score (per standard deviation)", "age"}
    assert plain["prognosis"]["adjusted_model"] is None
    assert any("clinical covariates age" in warning for warning in plain["warnings"])
    assert not any("clinical covariates" in warning for warning in adjusted["warnings"])


def test_columns_and_the_event_may_be_named_otherwise(validate: Hypoxia) -> None:
    words = EXTERNAL.rename(columns={"months": "t"}).assign(status=EXTERNAL["status"].map({1: "dead", 0: "alive"}))
    named = validate("good", words, "--time", "t", "--event", "dead", "--json")
    assert named.code == 0, named.err
    assert named.json["external"] == validate("good", EXTERNAL, "--json").json["external"]


def test_a_zero_time_is_handled_by_the_rule_of_the_study_and_counted(validate: Hypoxia) -> None:
    zero = EXTERNAL.assign(months=EXTERNAL["months"].where(EXTERNAL.index != 3, 0.0))
    assert any("follow-up of zero counts as" in warning for warning in validate("good", zero, "--json").json["warnings"])


def test_rows_without_a_time_or_an_event_are_left_out_and_counted(validate: Hypoxia) -> None:
    gaps = EXTERNAL.astype({"status": float})
    gaps.loc[:2, "months"], gaps.loc[5, "status"] = np.nan, np.nan
    answer = validate("good", gaps, "--json").json
    assert answer["table"]["samples"] == 126
    assert any("4 of 130 rows have no outcome" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("model", "change", "more", "said"),
    [
        ("good", {}, ("--time", "month"), "Column 'month' (--time) is not in external.csv (did you mean 'months'?)"),
        ("good", {"months": "soon"}, (), "(--time) holds 'soon', which is no time"),
        ("good", {"status": 0}, (), "No row has the event by 60 months"),
        ("good", {"f0": "high"}, (), "f0"),
        ("classes", {}, (), "needs the column of the outcome; name it with --label COLUMN"),
        ("classes", {}, ("--label", "status", "--time", "months"), "--time is of models of times to an event"),
    ],
)
def test_a_mistake_is_one_sentence(validate: Hypoxia, model: str, change: dict, more: tuple[str, ...], said: str) -> None:
    answer = validate(model, EXTERNAL.assign(**change), *more)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert "cohort.endpoint" not in answer.err


def test_samples_that_the_model_learnt_from_are_refused(validate: Hypoxia) -> None:
    for model, learnt in (("good", followed(150, seed=99)), ("composite:1", followed(120, seed=50))):
        answer = validate(model, pd.concat([EXTERNAL, learnt.head(3)]))
        assert answer.code == 3
        assert "3 of 133 samples of the table have the name of a sample" in answer.err


def test_a_composite_takes_its_two_biomarkers_and_its_score_decides(uri: str, validate: Hypoxia) -> None:
    answer = validate("composite:1", EXTERNAL, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["held_out"] == {}
    assert set(found["calibration"]) == {"external", "internal"}
    assert found["external"]["c_index"]["value"] > 0.6
    run = MlflowClient(uri).get_run(found["run_id"])
    predictions = pd.read_csv(Path(run.info.artifact_uri.removeprefix("file://")) / "predictions.csv")
    assert ((predictions["score"] >= 0) == predictions["called"]).all()
    assert 0 < predictions["called"].mean() < 1
    bundle = load_bundle(load_judged(open_store(uri), "composite:1").bundle_folder)
    expected = bundle.raw_score(EXTERNAL[list(bundle.schema.names)].to_numpy())
    assert predictions["score"].to_numpy() == pytest.approx(expected, abs=1e-9)


def test_a_table_without_a_biomarker_of_the_composite_is_refused_with_the_way_out(validate: Hypoxia) -> None:
    answer = validate("composite:1", EXTERNAL.drop(columns="f1"))
    assert answer.code == 2
    assert "lacks 'f1'; a composite takes its two biomarkers as columns 'f0' and 'f1'" in answer.err


def test_the_validation_is_a_run_with_its_metrics_and_names_no_patient(uri: str, validate: Hypoxia) -> None:
    answer = validate("good", EXTERNAL, "--json", "--patient", "patient")
    run = MlflowClient(uri).get_run(answer.json["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["hypoxia.kind"] == "external validation"
    assert run.data.metrics["external_c_index"] == answer.json["external"]["c_index"]["value"]
    assert run.data.metrics["external_calibration_slope"] == answer.json["external"]["calibration_slope"]["value"]
    assert run.data.metrics["external_log_rank_p"] == pytest.approx(answer.json["prognosis"]["log_rank_p"], rel=1e-9)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert json.loads((folder / "external_validation.json").read_text()) == answer.json
    said = answer.out + validate("good", EXTERNAL, "--patient", "patient").out
    assert [name for name in (*EXTERNAL["sample"], *EXTERNAL["patient"]) if name in said] == []


def test_a_dozen_patients_are_not_estimable(validate: Hypoxia) -> None:
    answer = validate("good", EXTERNAL.head(12))
    assert answer.code == 0, answer.err
    assert "External performance is not estimable: 12 patients" in answer.out
    assert "Prognosis" not in answer.out
