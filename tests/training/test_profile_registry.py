"""Profile models in the registry: listed, compared, promoted, given back and judged elsewhere, by the real commands."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from asked import Answer, ask
from mlflow import MlflowClient
from profiles_made import binary, grouped, profile_study
from survival_made import written

from features.bundle import load_bundle
from training.horizon import observed_risk
from training.judged import load_judged
from training.studies import read_study
from training.tracking import open_store
from training.train import train_study

Hypoxia = Callable[..., Answer]
PATIENTS = 180
COHORT, ELSEWHERE = (grouped(PATIENTS, effect=2.0, scanner=1.0, seed=seed) for seed in (1, 2))
FEATURES = [name for name in COHORT if str(name).startswith("g") and name != "group"]


def no_better_than_chance() -> pd.DataFrame:
    """The same patients with features of nobody."""
    return COHORT.assign(**dict(zip(FEATURES, np.random.default_rng(3).normal(size=(len(FEATURES), PATIENTS)), strict=True)))


def trained(folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any) -> None:
    study = read_study(profile_study(folder, table, cohort, **changes))
    pictures = (patch("training.profile.record.profile_figures", return_value={}), patch("training.profile.record.profile_page"))
    with pictures[0], pictures[1] as page:  # seconds, and nobody looks at them here
        page.return_value = ""
        train_study(study, f"sqlite:///{folder}/store/mlflow.db")


def classifier(folder: Path, table: pd.DataFrame) -> None:
    """A Cox regression of the same patients and outcome."""
    table.drop(columns="group").to_csv(folder / "grouped.csv", index=False)
    recipe = {"selection": {"methods": ["cox_score"], "votes": 1}, "search": {"kind": "optuna", "trials": 2, "folds": 2}}
    body = {
        "name": "regression",
        "seed": 7,
        "cohort": {
            "source": {"kind": "table", "path": "grouped.csv", "sample": "patient"},
            "endpoint": {"kind": "survival", "time": "months", "event": "relapse", "horizon": 60},
            "drop": ["site", "scanner", "stage"],
        },
        "recipe": recipe,
        "evaluation": {"bootstrap": 100, "internal": None},
        "model": "regression",
        "compute": {"workers": 1},
    }
    train_study(read_study(written(folder / "regression.yaml", body)), f"sqlite:///{folder}/store/mlflow.db")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions that know two features, all, none, and all again; noise, two classes, and a Cox regression of the same."""
    folder = tmp_path_factory.mktemp("profiles")
    for table, changes in (
        (COHORT.assign(**no_better_than_chance()[FEATURES[2:]]), {}),
        (COHORT, {"harmonise": {"kind": "regression"}, "combine": [[1, 2], [3]]}),
        (no_better_than_chance(), {"combine": "outcome"}),
        (COHORT, {"harmonise": {"kind": "regression"}, "combine": [[1, 2], [3]]}),
    ):
        trained(folder, table, **changes)
    trained(folder, no_better_than_chance(), model="noise")
    trained(folder, COHORT, binary(COHORT), model="of-classes")
    classifier(folder, COHORT)
    return folder / "store"


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    """A copy of the test's own; the addresses of artifacts, which are absolute, are moved with it."""
    root = tmp_path / "store"
    shutil.copytree(template, root)
    columns = ("runs.artifact_uri", "experiments.artifact_location", "model_versions.source", "model_versions.storage_location")
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, column in (name.split(".") for name in columns):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(root)))
    database.close()
    return root


@pytest.fixture
def hypoxia(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    uri = f"sqlite:///{store}/mlflow.db"
    return lambda *arguments: ask(monkeypatch, capsys, *map(str, arguments), "--tracking-uri", uri)


@pytest.fixture
def promote(hypoxia: Hypoxia, tmp_path: Path) -> Hypoxia:
    policy = tmp_path / "gate.yaml"
    policy.write_text("bootstrap: 1000\nlooks: ignore\nequal_data: false\n")
    return lambda *arguments: hypoxia("promote", *arguments, "--policy", policy, "--json")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere.csv"
    ELSEWHERE.drop(columns="group").to_csv(path, index=False)
    return path


def checks(answer: Answer) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in answer.json["verdict"]["checks"]}


def failed(answer: Answer) -> set[str]:
    return {name for name, outcome in checks(answer).items() if outcome == "failed"}


def champion(store: Path, name: str) -> str | None:
    uri = f"sqlite:///{store}/mlflow.db"
    version = MlflowClient(uri, registry_uri=uri).get_registered_model(name).aliases.get("champion")
    return None if version is None else str(version)


def test_runs_and_models_show_estimates_out_of_fold(hypoxia: Hypoxia) -> None:
    runs = [one for one in hypoxia("runs", "--json").json["runs"] if one["study"] == "grouped"]
    assert all(one["held_out_c_index"] is None and one["held_out_roc_auc"] is None for one in runs)
    assert all((one["internal_c_index"] is None) != (one["internal_roc_auc"] is None) for one in runs)
    shown = " ".join(hypoxia("models").out.split())
    assert "out" in shown
    assert "fold" in shown
    models = {one["name"]: one for one in hypoxia("models", "--json").json["models"]}
    assert models["three-profiles"]["internal_c_index"].startswith("0.")
    assert "nearest medoid" in models["three-profiles"]["pipeline"]


def test_versions_are_compared_out_of_fold_and_that_is_said(hypoxia: Hypoxia) -> None:
    answer = hypoxia("compare", "three-profiles:2", "three-profiles:3", "--bootstrap", "100")
    assert answer.code == 0, answer.err
    assert "Performance on out-of-fold predictions" in answer.out
    said = " ".join(answer.out.split())
    assert "Profiles have no held-out patients (three-profiles:2, three-profiles:3)" in said
    assert "omposite" not in said
    found = hypoxia("compare", "three-profiles:2", "three-profiles:3", "--bootstrap", "100", "--json").json
    assert [one["profile"] for one in found["models"]] == [True, True]
    assert found["models"][0]["estimates"]["c_index"]["value"] > found["models"][1]["estimates"]["c_index"]["value"]


def test_a_classifier_that_was_judged_on_others_is_compared_on_a_table(hypoxia: Hypoxia, elsewhere: Path) -> None:
    apart = hypoxia("compare", "regression:1", "three-profiles:2")
    assert apart.code == 2
    assert "score all models on one labelled table with --on TABLE" in apart.err
    answer = hypoxia("compare", "regression:1", "three-profiles:2", "--on", elsewhere, "--bootstrap", "100")
    assert answer.code == 0, answer.err
    assert "Performance on the table" in answer.out
    assert "no held-out patients" not in answer.out
    mixed = hypoxia("compare", "of-classes:1", "three-profiles:2")
    assert mixed.code == 2
    assert "name models of one kind" in mixed.err


def test_noise_is_no_first_version_and_profiles_that_rank_are(store: Path, promote: Hypoxia) -> None:
    noise = promote("noise", "1")
    assert noise.code == 3
    assert "permutation" in failed(noise)
    assert "permutation: failed" in noise.err
    said = next(one["sentence"] for one in noise.json["verdict"]["checks"] if one["name"] == "permutation")
    assert said.endswith("patients are parted as well where the outcome was dealt to them anew.")
    first = promote("three-profiles", "2")
    assert first.code == 0, first.json
    assert any("A profile has no held-out patients" in words for words in first.json["verdict"]["warnings"])
    assert not any("held-out patients of this table" in words for words in first.json["verdict"]["warnings"])
    assert "omposite" not in first.out
    assert champion(store, "three-profiles") == "2"


def test_a_better_version_takes_the_place_noise_and_the_same_again_do_not_and_it_is_given_back(
    store: Path, promote: Hypoxia, hypoxia: Hypoxia
) -> None:
    promote("three-profiles", "1", "--override", "a champion to be compared with")
    better = promote("three-profiles", "2")
    assert better.code == 0, better.json
    assert checks(better)["permutation"] == "passed"
    assert champion(store, "three-profiles") == "2"
    noise, again = promote("three-profiles", "3"), promote("three-profiles", "4")
    assert noise.code == 3
    assert {"permutation", "superiority"} <= failed(noise)
    assert (again.code, failed(again)) == (3, {"another model"})
    back = hypoxia("rollback", "three-profiles")
    assert back.code == 0, back.err
    assert champion(store, "three-profiles") == "1"
    actions = [line["action"] for line in hypoxia("audit", "--json").json["lines"]]
    assert actions == ["promoted", "promoted", "refused", "refused", "rolled back"]


def test_of_two_classes_profiles_are_promoted_by_their_area_under_the_curve(promote: Hypoxia) -> None:
    first = promote("of-classes", "1")
    assert first.code == 0, first.json
    floor = next(one["sentence"] for one in first.json["verdict"]["checks"] if one["name"] == "floor")
    assert floor.startswith("First promotion: AUC")


def test_predictions_that_were_made_better_after_training_are_noticed(store: Path, promote: Hypoxia) -> None:
    judged = load_judged(open_store(f"sqlite:///{store}/mlflow.db"), "three-profiles:2")
    path = judged.bundle_folder.parent / "predictions_internal.csv"
    table = pd.read_csv(path)
    table.assign(probability=table["label"] * 0.9 + 0.05).to_csv(path, index=False)
    answer = promote("three-profiles", "2")
    assert answer.code == 3
    assert "predictions" in failed(answer)


def test_patients_from_elsewhere_are_spread_over_the_clusters(store: Path, hypoxia: Hypoxia, elsewhere: Path) -> None:
    answer = hypoxia("validate", "three-profiles:2", "--on", elsewhere, "--json")
    assert answer.code == 0, answer.err
    uri = f"sqlite:///{store}/mlflow.db"
    bundle = load_bundle(load_judged(open_store(uri), "three-profiles:2").bundle_folder)
    assigned = bundle.assigned(bundle.schema.conform(ELSEWHERE).to_numpy())
    spread = answer.json["clusters"]
    assert [one["number"] for one in spread] == [1, 2, 3]
    assert [one["samples"] for one in spread] == np.bincount(assigned.cluster, minlength=3).tolist()
    assert sum(one["share"] for one in spread) == pytest.approx(1)
    assert sum(one["share_learnt"] for one in spread) == pytest.approx(1)
    assert [one["unlike"] for one in spread] == [int(assigned.unlike[assigned.cluster == k].sum()) for k in range(3)]
    assert [one["risk"] for one in spread] == bundle.pipeline[-1].risks_.tolist()
    mine = ELSEWHERE[assigned.cluster == 2]
    cut = pd.DataFrame(
        {"time": mine["months"].clip(upper=60), "label": ((mine["relapse"] == 1) & (mine["months"] <= 60)).astype(int)}
    )
    assert spread[2]["events"] == cut["label"].sum()
    assert spread[2]["observed"] == pytest.approx(observed_risk(cut, 60.0))
    run = MlflowClient(uri).get_run(answer.json["run_id"])
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert json.loads((folder / "external_validation.json").read_text())["clusters"] == spread
    rows = pd.read_csv(folder / "clusters.csv")
    assert (rows["cluster"] - 1).tolist() == assigned.cluster.tolist()
    assert run.data.metrics["external_unlike_any_cluster"] == pytest.approx(assigned.unlike.mean())
    assert answer.json["held_out"] == {}


def test_the_groups_are_found_again_elsewhere(hypoxia: Hypoxia, elsewhere: Path) -> None:
    found = hypoxia("validate", "three-profiles:2", "--on", elsewhere, "--json").json
    assert [one["samples"] for one in found["clusters"]] == [60, 60, 60]  # as many as were planted
    assert found["clusters"][0]["observed"] < found["clusters"][2]["observed"]
    assert not any("unlike any cluster" in words or "No sample is nearest" in words for words in found["warnings"])


def test_what_is_validated_is_printed_and_patients_who_are_unlike_all_are_warned_of(
    hypoxia: Hypoxia, elsewhere: Path, tmp_path: Path
) -> None:
    answer = hypoxia("validate", "of-classes:1", "--on", elsewhere, "--label", "relapse")
    assert answer.code == 0, answer.err
    for words in ("Samples by the nearest cluster", "cluster 3", "unlike any cluster", "ROC AUC"):
        assert words in answer.out
    assert "omposite" not in answer.out
    far = ELSEWHERE.assign(**{name: ELSEWHERE[name] + 30 for name in FEATURES})
    far.to_csv(tmp_path / "far.csv", index=False)
    warned = hypoxia("validate", "three-profiles:2", "--on", tmp_path / "far.csv", "--json").json["warnings"]
    assert any("180 of 180 samples are unlike any cluster" in words for words in warned)
    assert any("No sample is nearest to cluster" in words for words in warned)


def test_a_classifier_has_no_clusters_to_speak_of(hypoxia: Hypoxia, elsewhere: Path) -> None:
    answer = hypoxia("validate", "regression:1", "--on", elsewhere, "--json")
    assert answer.code == 0, answer.err
    assert "clusters" not in answer.json


def test_patients_learnt_from_and_a_scanner_that_is_not_known_are_refused(hypoxia: Hypoxia, tmp_path: Path) -> None:
    pd.concat([ELSEWHERE, COHORT.head(3)]).to_csv(tmp_path / "mixed.csv", index=False)
    known = hypoxia("validate", "three-profiles:2", "--on", tmp_path / "mixed.csv")
    assert known.code == 3
    assert "3 of 183 samples of the table have the name of a sample that three-profiles:2 learnt from" in known.err
    ELSEWHERE.replace({"scanner": {"A": "D"}}).to_csv(tmp_path / "other.csv", index=False)
    other = hypoxia("validate", "three-profiles:2", "--on", tmp_path / "other.csv")
    assert other.code == 2
    assert "'scanner' is 'D', which was not seen in training (seen: A, B, C)" in other.err


def test_a_table_is_scored_with_the_cluster_of_each_row(hypoxia: Hypoxia, elsewhere: Path, tmp_path: Path) -> None:
    answer = hypoxia("predict", "--model", "three-profiles:2", elsewhere, "--sample", "patient", "-o", tmp_path / "scored.csv")
    assert answer.code == 0, answer.err
    assert set(pd.read_csv(tmp_path / "scored.csv")["cluster"]) == {"cluster 1", "cluster 2", "cluster 3"}
