"""From a study file to a judged, recorded, registered model, through the console command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from toy import toy_cohort, toy_study

from features.bundle import load_bundle
from training.config import load_study

METRICS = ["roc_auc", "pr_auc", "accuracy", "sensitivity", "specificity", "f1", "npv", "ppv", "brier"]
HYPOXIA = [sys.executable, "-m", "features.cli"]


def written_study(folder: Path, **changes: object) -> Path:
    """The toy study and its table as files; 44 patients, some of whom have two lesions."""
    cohort = toy_cohort(44, p=12)
    table = cohort.features.assign(Target=cohort.labels, PatientID=cohort.patients).rename_axis("ID")
    second = table.iloc[:8].copy()
    second.index = second.index + "b"
    second.iloc[:, :12] += 0.1
    pd.concat([table, second]).to_csv(folder / "toy.csv")
    body = toy_study().model_dump(mode="json")
    body["cohort"]["patient"] = "PatientID"
    body["recipe"]["search"]["trials"] = 4
    body.update(changes)
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def hypoxia(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run([*HYPOXIA, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A folder in which the toy study was trained, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained")
    study = written_study(folder)
    done = hypoxia(folder, "train", str(study), "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_printed_object_has_what_machines_are_promised(trained: tuple[Path, dict]) -> None:
    folder, printed = trained
    assert printed["fingerprint"] == load_study(folder / "toy.yaml").fingerprint
    assert printed["model"] == {"name": "toy-hypoxia", "version": "1"}
    assert printed["seconds"] > 0
    assert {"f000", "f001"} <= set(printed["selected_features"])
    assert "penalty" in printed["pipeline"] or "," in printed["pipeline"]
    for where in ("held_out", "internal"):
        for name in METRICS:
            estimate = printed[where][name]
            assert estimate["value"] is None or estimate["lower"] <= estimate["value"] <= estimate["upper"]
    assert printed["internal"]["roc_auc"]["value"] > 0.8
    assert "roc_auc_pooled" in printed["internal"]


def test_the_run_holds_every_decision_as_a_file(trained: tuple[Path, dict]) -> None:
    folder, printed = trained
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    run = client.get_run(printed["run_id"])
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert run.info.status == "FINISHED"
    assert run.data.tags["hypoxia.fingerprint"] == printed["fingerprint"]
    assert run.data.tags["hypoxia.data_hash"] == printed["data_hash"]
    for name in METRICS:
        value = printed["held_out"][name]["value"]
        if value is not None:
            logged = [run.data.metrics[f"held_out_{name}{end}"] for end in ("", "_lower", "_upper")]
            assert logged == [value, printed["held_out"][name]["lower"], printed["held_out"][name]["upper"]]
    figures = {path.stem for path in (artifacts / "figures").glob("*.png")}
    assert figures >= {"roc", "precision_recall", "calibration", "scores_by_class", "votes", "shap_beeswarm", "shap_bar"}
    splits = json.loads((artifacts / "splits.json").read_text())
    patient = pd.read_csv(folder / "toy.csv", index_col="ID")["PatientID"]
    assert not set(patient[splits["train"]]) & set(patient[splits["test"]])
    assert set(splits["train_patients"]) == set(patient[splits["train"]])
    predictions = pd.read_csv(artifacts / "predictions.csv")
    assert list(predictions["sample"]) == splits["test"]
    shap = pd.read_csv(artifacts / "shap_values.csv", index_col="sample").sum(axis=1)
    base = json.loads((artifacts / "shap.json").read_text())["base_value"]
    np.testing.assert_allclose(base + shap[predictions["sample"]], predictions["probability"], atol=1e-6)
    trace = pd.read_csv(artifacts / "search.csv")
    out_of_fold = pd.read_parquet(artifacts / "search_out_of_fold.parquet")
    assert out_of_fold.shape == (len(splits["train"]), trace["failure"].isna().sum())
    assert trace["winner"].sum() == 1
    selection = pd.read_csv(artifacts / "selection.csv", index_col="feature")
    assert set(selection.index[selection["selected"]]) == set(printed["selected_features"])
    assert load_study(artifacts / "study.yaml").fingerprint == printed["fingerprint"]
    assert "scikit-learn==" in (artifacts / "environment.txt").read_text()


def test_the_bundle_scores_the_held_out_patients_as_the_run_did(trained: tuple[Path, dict]) -> None:
    folder, printed = trained
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    source = Path(client.get_model_version("toy-hypoxia", "1").source.removeprefix("file://"))
    bundle = load_bundle(source)
    predictions = pd.read_csv(source.parent / "predictions.csv", index_col="sample")
    table = pd.read_csv(folder / "toy.csv", index_col="ID").loc[predictions.index]
    np.testing.assert_allclose(bundle.score(bundle.schema.conform(table).to_numpy()), predictions["probability"], atol=1e-9)
    assert bundle.card.threshold == printed["threshold"] == predictions["threshold"].iloc[0]
    golden = np.array(json.loads((source / "golden.json").read_text())["rows"])
    values = table[list(bundle.schema.names)].to_numpy()
    assert not any(np.isclose(row, patient).all() for row in golden for patient in values)


def test_the_same_study_again_gives_the_same_numbers_as_a_new_version(trained: tuple[Path, dict]) -> None:
    folder, printed = trained
    again = json.loads(hypoxia(folder, "train", "toy.yaml", "--json", "--workers", "2").stdout)
    assert again["model"]["version"] == "2"
    for key in ("fingerprint", "data_hash", "selected_features", "pipeline", "threshold", "held_out", "internal"):
        assert again[key] == printed[key], key


def test_looking_into_an_empty_folder_creates_nothing(tmp_path: Path) -> None:
    for command in ("runs", "models"):
        done = hypoxia(tmp_path, command, "--json")
        assert json.loads(done.stdout) == {command: []}
    assert not list(tmp_path.iterdir())


def test_runs_and_models_are_listed(trained: tuple[Path, dict]) -> None:
    folder, printed = trained
    runs = json.loads(hypoxia(folder, "runs", "--json").stdout)["runs"]
    models = json.loads(hypoxia(folder, "models", "--json").stdout)["models"]
    assert printed["run_id"] in [run["run_id"] for run in runs]
    assert ("toy-hypoxia", "1") in [(model["name"], model["version"]) for model in models]


def test_predict_scores_a_table_as_the_run_did(trained: tuple[Path, dict]) -> None:
    folder, printed = trained
    done = hypoxia(folder, "predict", "--model", "toy-hypoxia:1", "toy.csv", "--sample", "ID", "-o", "scores.csv")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    artifacts = Path(client.get_run(printed["run_id"]).info.artifact_uri.removeprefix("file://"))
    judged = pd.read_csv(artifacts / "predictions.csv", index_col="sample")["probability"]
    scored = pd.read_csv(folder / "scores.csv").set_index("sample")["probability"]
    np.testing.assert_allclose(scored[judged.index], judged, atol=1e-9)


@contextmanager
def caught_at(words: str, study: Path) -> Iterator[subprocess.Popen[str]]:
    """A training that has just said some words on stderr."""
    command = [*HYPOXIA, "train", str(study)]
    with subprocess.Popen(command, cwd=study.parent, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert any(words in line for line in process.stderr)
        yield process


def long_study(folder: Path) -> Path:
    """A study that would take minutes."""
    return written_study(folder, recipe={"search": {"kind": "optuna", "trials": 400, "folds": 3}})


def statuses(folder: Path) -> list[str]:
    """What the database says, asked without any command of ours."""
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    return [run.info.status for run in client.search_runs([client.get_experiment_by_name("toy").experiment_id])]


def test_a_run_that_is_killed_is_marked_by_the_next_command(tmp_path: Path) -> None:
    with caught_at("candidates", long_study(tmp_path)) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert statuses(tmp_path) == ["RUNNING"]
    runs = json.loads(hypoxia(tmp_path, "runs", "--json").stdout)["runs"]
    assert [run["status"] for run in runs] == statuses(tmp_path) == ["KILLED"]


def test_an_interrupted_study_goes_on_and_finds_what_it_would_have_found(trained: tuple[Path, dict], tmp_path: Path) -> None:
    _, printed = trained
    study = written_study(tmp_path)
    with caught_at("fold 3 of 3", study) as process:
        os.killpg(process.pid, signal.SIGKILL)
    done = hypoxia(tmp_path, "train", str(study), "--json")
    assert "fold 2 of 3: finished before an interruption" in done.stderr
    again = json.loads(done.stdout)
    for key in ("selected_features", "pipeline", "threshold", "held_out", "internal", "selection_stability"):
        assert again[key] == printed[key], key
    assert not list((tmp_path / "mlruns" / "unfinished").iterdir())


def test_a_run_that_is_asked_to_end_says_that_it_was_killed(tmp_path: Path) -> None:
    with caught_at("candidates", long_study(tmp_path)) as process:
        process.terminate()
        process.stderr.read()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert statuses(tmp_path) == ["KILLED"]


def test_two_trainings_that_start_together_on_an_empty_folder_both_finish(tmp_path: Path) -> None:
    study = written_study(tmp_path, evaluation={"bootstrap": 100, "internal": None})
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: hypoxia(tmp_path, "train", str(study), "--json"), range(2)))
    assert [done.returncode for done in both] == [0, 0], both[0].stderr + both[1].stderr
    printed = [json.loads(done.stdout) for done in both]
    assert sorted(one["model"]["version"] for one in printed) == ["1", "2"]
    assert printed[0]["internal"] is None


def test_sequences_give_a_parent_run_a_model_each_and_one_table(tmp_path: Path) -> None:
    study = written_study(tmp_path, evaluation={"bootstrap": 100, "internal": None})
    table = pd.read_csv(tmp_path / "toy.csv", index_col="ID")
    table[[f"f{i:03d}" for i in range(6)]].iloc[4:].to_csv(tmp_path / "adc.csv")
    table[[f"f{i:03d}" for i in range(3, 9)]].iloc[:40].to_csv(tmp_path / "b200.csv")
    table[["Target", "PatientID"]].to_csv(tmp_path / "clinical.csv")
    body = yaml.safe_load(study.read_text())
    body["cohort"]["source"]["path"] = "clinical.csv"
    body["cohort"]["sequences"] = {"adc": "adc.csv", "b200": "b200.csv"}
    study.write_text(yaml.safe_dump(body))
    done = hypoxia(tmp_path, "train", str(study), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {one["model"]["name"] for one in printed["sequences"].values()} == {"toy-hypoxia-adc", "toy-hypoxia-b200"}
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    held_out = {}
    for name, one in printed["sequences"].items():
        run = client.get_run(one["run_id"])
        assert run.data.tags["mlflow.parentRunId"] == printed["run_id"]
        splits = json.loads((Path(run.info.artifact_uri.removeprefix("file://")) / "splits.json").read_text())
        held_out[name] = {side: set(table.loc[names, "PatientID"]) for side, names in splits.items() if side != "train_patients"}
    assert not held_out["adc"]["test"] & held_out["b200"]["train"]
    assert not held_out["b200"]["test"] & held_out["adc"]["train"]
    parent = Path(client.get_run(printed["run_id"]).info.artifact_uri.removeprefix("file://"))
    rows = pd.read_csv(parent / "sequences.csv", index_col="sequence")
    assert rows.loc["adc", "train"] + rows.loc["adc", "test"] == 48
    assert rows.loc["b200", "roc_auc"] == pytest.approx(printed["sequences"]["b200"]["held_out"]["roc_auc"]["value"])
