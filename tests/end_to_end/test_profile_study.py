"""Profiles from a table to a recorded, registered model, and what a newcomer gets wrong, through the console command."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asked import Answer, ask
from mlflow import MlflowClient
from profiles_made import binary, grouped, profile_study

from features.bundle import load_bundle
from training.studies import read_study
from training.train import train_study

PATIENT = re.compile(r"t0p\d{3}")
NAMED = {"splits.json", "clusters.csv", "predictions.csv", "predictions_internal.csv"}  # whose job it is to name patients
Hypoxia = Callable[..., Answer]


@dataclass(frozen=True)
class Trained:
    """What training printed, and where it was recorded."""

    folder: Path
    printed: dict[str, Any]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/store/mlflow.db"

    @property
    def run(self) -> Any:
        return MlflowClient(self.uri).get_run(self.printed["run_id"])

    @property
    def artifacts(self) -> Path:
        return Path(self.run.info.artifact_uri.removeprefix("file://"))

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "grouped.csv", index_col="patient")


@pytest.fixture
def hypoxia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    return lambda *arguments: ask(monkeypatch, capsys, *map(str, arguments))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Harmonised, with all that a study can ask for but molecules."""
    folder = tmp_path_factory.mktemp("profile")
    changes = {"harmonise": {"kind": "regression"}, "combine": [[1, 2], [3]], "adjust": ["stage", "age"], "volume": "volume"}
    study = read_study(profile_study(folder, grouped(120, scanner=2.0, effect=2.0), **changes))
    return Trained(folder, train_study(study, f"sqlite:///{folder}/store/mlflow.db"))


def test_check_writes_nothing_and_train_registers_a_model(hypoxia: Hypoxia, tmp_path: Path) -> None:
    study = profile_study(tmp_path, grouped(60), clusters={"largest": 4, "by": "silhouette"})
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    checked = hypoxia("check", study, "--tracking-uri", uri, "--json")
    assert checked.code == 0, checked.err
    assert checked.json["clusters"] == [20, 20, 20]
    assert checked.json["criteria"]["silhouette"] == 3
    assert not (tmp_path / "store").exists()
    done = hypoxia("train", study, "--tracking-uri", uri, "--json")
    assert done.code == 0, done.err
    assert done.json["model"] == {"name": "three-profiles", "version": "1"}
    assert done.json["number_of_clusters"] == 3
    assert [one["patients"] for one in done.json["clusters"]] == [20, 20, 20]
    assert "Patients left out" in done.err
    assert PATIENT.findall(done.err + done.out) == []
    assert [one["name"] for one in hypoxia("models", "--tracking-uri", uri, "--json").json["models"]] == ["three-profiles"]


def test_the_run_holds_what_was_found(trained: Trained) -> None:
    files = {str(path.relative_to(trained.artifacts)) for path in trained.artifacts.rglob("*") if path.is_file()}
    tables = {
        "clusters",
        "clusters_side_by_side",
        "criteria",
        "features_ranked",
        "sequences",
        "families",
        "associations",
        "table2",
    }
    tables |= {"pairwise", "groups_side_by_side", "cox", "cox_adjusted", "volume", "predictions", "predictions_internal"}
    drawn = {"heat_map", "criteria", "consensus", "stability", "ranked_features", "volume", "kaplan_meier"}
    assert {f"{name}.csv" for name in tables} <= files
    assert {"splits.json", "audit.json", "profile.json", "schema.json", "study.yaml", "environment.txt"} <= files
    assert {"summary.md", "report.html", "bundle/card.json"} <= files
    assert {f"figures/{name}.png" for name in (*drawn, "kaplan_meier_combined")} <= files
    assert json.loads((trained.artifacts / "splits.json").read_text())["test"] == []
    found = json.loads((trained.artifacts / "profile.json").read_text())
    assert found["clusters"] == trained.printed["clusters"]
    assert read_study(trained.artifacts / "study.yaml").fingerprint == trained.printed["fingerprint"]


def test_metrics_say_what_can_be_believed_and_what_cannot(trained: Trained) -> None:
    metrics = trained.run.data.metrics
    assert metrics["permutation_p"] == trained.printed["choice"]["permutation_p"]
    assert metrics["naive_p_not_to_be_used"] == trained.printed["choice"]["naive_p"]  # the clusters were combined by outcome
    assert "outcome_p" not in metrics
    assert metrics["internal_c_index"] == trained.printed["out_of_sample"]["c_index"]["value"]
    assert metrics["clusters"] == 3
    assert not [name for name in metrics if name.startswith("held_out")]


def test_the_card_signs_who_is_in_which_cluster_and_by_what_it_was_judged(trained: Trained) -> None:
    card = load_bundle(trained.artifacts / "bundle").card
    assert set(card.predictions) == {"clusters.csv", "predictions.csv", "predictions_internal.csv"}
    for name, digest in card.predictions.items():
        assert hashlib.sha256((trained.artifacts / name).read_bytes()).hexdigest() == digest
    assert (card.held_out, card.held_out_patients, card.judged_out_of_fold) == ({}, 0, True)


def test_the_bundle_puts_every_patient_into_its_recorded_cluster(trained: Trained) -> None:
    bundle = load_bundle(trained.artifacts / "bundle")
    recorded = pd.read_csv(trained.artifacts / "clusters.csv", index_col="sample")
    found = bundle.assigned(bundle.schema.conform(trained.table.loc[recorded.index]).to_numpy())
    assert (found.cluster + 1).tolist() == recorded["cluster"].tolist()
    np.testing.assert_allclose(found.margin, recorded["margin"], rtol=1e-9)


def test_the_report_is_one_file_that_fetches_nothing(trained: Trained) -> None:
    page = (trained.artifacts / "report.html").read_text()
    assert re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:|#)[^"'\s>]+|url\((?!data:)|@import|<script\b[^>]*src""", page) == []
    for words in ("How the clusters fare", "What parts the clusters", "Characteristics of the patients", "Research use only"):
        assert words in page
    assert page.count("data:image") + page.count("<svg") >= 8


def test_no_patient_is_named_but_where_that_is_the_job(trained: Trained) -> None:
    run = trained.run
    said = json.dumps(
        [run.data.metrics, run.data.params, {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")}]
    )
    assert PATIENT.findall(said) == []
    naming = [
        path.name
        for path in trained.artifacts.rglob("*")
        if path.is_file() and path.name not in NAMED and PATIENT.search(path.read_bytes().decode("latin-1"))
    ]
    assert naming == []


def test_a_row_that_is_asked_about_is_given_a_cluster_and_a_distance(trained: Trained, hypoxia: Hypoxia, tmp_path: Path) -> None:
    answer = hypoxia(
        "predict", "--model", "three-profiles:1", trained.folder / "grouped.csv", "--sample", "patient", "--tracking-uri",
        trained.uri, "-o", tmp_path / "scored.csv",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    scored = pd.read_csv(tmp_path / "scored.csv", index_col="sample")
    recorded = pd.read_csv(trained.artifacts / "clusters.csv", index_col="sample")
    assert scored["cluster"].str.removeprefix("cluster ").astype(int).tolist() == recorded["cluster"].tolist()
    assert not scored["unlike_any_cluster"].any()


def alike(table: pd.DataFrame) -> pd.DataFrame:
    """Two patients with the same features."""
    two = table.iloc[[0, 1]].reset_index(drop=True)
    features = [name for name in two if re.fullmatch(r"g\d\d", str(name))]
    two.loc[1, features] = two.loc[0, features].to_numpy()
    return two.assign(relapse=[0, 1], months=[30.0, 20.0])


def copied(table: pd.DataFrame) -> pd.DataFrame:
    """Three patients, three times each, under different names."""
    features = [name for name in table if re.fullmatch(r"g\d\d", str(name))]
    thrice = table.copy()
    thrice[features] = table[features].iloc[[0, 1, 2] * 3].to_numpy()
    return thrice.assign(relapse=[0, 1, 1] * 3)


def several_rows(table: pd.DataFrame) -> pd.DataFrame:
    twice = table.assign(row=[f"r{number}" for number in range(len(table))])
    twice.loc[1, ["patient", "months", "relapse"]] = twice.loc[0, ["patient", "months", "relapse"]].to_numpy()
    return twice


def two_apart(table: pd.DataFrame) -> pd.DataFrame:
    """Two patients who are unlike all others: a cluster of two."""
    far = table.copy()
    features = [name for name in far if re.fullmatch(r"g\d\d", str(name))]
    far.loc[:1, features] += 100
    return far


ROWS = {"source": {"kind": "table", "path": "grouped.csv", "sample": "row"}, "patient": "patient"}
MOLECULAR = {"mutations": "few.maf"}
MISTAKES: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "one patient": (grouped(1).assign(relapse=1, months=20.0), {}, "has one sample with an outcome"),
    "two identical patients": (alike(grouped(9)), {"clusters": 2}, "No feature varies: every column holds one value"),
    "fewer different patients than clusters": (copied(grouped(9)), {"clusters": 4}, "9 patients of whom no 4 differ"),
    "a column without a value": (grouped(30).assign(g05=np.nan), {}, "Feature 'g05' has no value in any patient"),
    "more clusters than patients": (
        grouped(12).head(5).assign(relapse=[1, 0, 1, 0, 1]),
        {"clusters": 8},
        "8 clusters cannot be made of 5 patients",
    ),
    "several rows of a patient": (several_rows(grouped(30)), {"cohort": ROWS}, "Patient 't0p000' has several rows"),
    "no clusters": (grouped(60, apart=0.0), {"clusters": {"largest": 4, "by": "gap"}}, "By the gap there is one cluster"),
    "a cluster of two, and molecules": (two_apart(grouped(30)), {"clusters": 2, "molecular": MOLECULAR}, "has 2 patients"),
    "no such clusters to combine": (
        grouped(60),
        {"clusters": {"largest": 6, "by": "silhouette"}, "combine": [[1, 2], [3, 4, 5]]},
        "combine names cluster 4",
    ),
    "adjusted for what is not clinical": (grouped(30), {"adjust": ["grade"]}, "adjust names 'grade'"),
    "a volume of words": (grouped(30), {"volume": "stage"}, "volume names 'stage', which holds words"),
    "more folds than events": (
        grouped(30).assign(relapse=(np.arange(30) < 3).astype(int), months=np.arange(30) + 20.0),
        {"evaluation": {"folds": 5, "repeats": 1}},
        "The event happened to 3 patients, fewer than the 5 folds (evaluation.folds)",
    ),
    "fewer patients in a fold than clusters": (grouped(9), {"clusters": 8}, "8 clusters cannot be made of the 6 patients that"),
    "a scanner of one patient": (
        grouped(60).assign(scanner=lambda table: table["scanner"].where(table.index != 4, "D")),
        {"harmonise": {"kind": "regression"}},
        "'scanner' is 'D' only in patients whom a fold of the cross-validation leaves out",
    ),
    "a site of two patients": (
        grouped(60).assign(site=lambda table: table["site"].where(table.index > 1, "small")),
        {"harmonise": {"kind": "combat"}, "cohort": {"site": "site", "drop": []}},
        "'small'",
    ),
    "a protocol with a gap": (
        grouped(30).assign(echo_time=lambda table: table["echo_time"].where(table.index != 4)),
        {"harmonise": {"kind": "regression"}},
        "echo_time",
    ),
}


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(
    mistake: str, command: str, hypoxia: Hypoxia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, changes, said = MISTAKES[mistake]
    study = profile_study(tmp_path, table, **changes)
    maf = "Hugo_Symbol\tTumor_Sample_Barcode\tVariant_Classification\n"
    maf += "".join(f"TP53\t{name}\tMissense_Mutation\n" for name in table["patient"])
    (tmp_path / "few.maf").write_text(maf)
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    answer = hypoxia(command, study.name)
    lines = [line for line in answer.err.splitlines() if line.startswith("Error: ")]
    assert answer.code == 2, answer.err
    assert answer.out == ""
    assert len(lines) == 1
    assert answer.err.splitlines()[-1] == lines[0]
    assert said in lines[0]
    assert "Traceback" not in answer.err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_of_two_classes_a_study_is_trained_and_recorded_as_well(hypoxia: Hypoxia, tmp_path: Path) -> None:
    table = grouped(60, effect=2.0)
    study = profile_study(tmp_path, table, binary(table), model="of-classes")
    done = hypoxia("train", study, "--tracking-uri", f"sqlite:///{tmp_path}/store/mlflow.db", "--json")
    assert done.code == 0, done.err
    assert "roc_auc" in done.json["out_of_sample"]
    assert "risk_by_horizon" not in done.json["clusters"][0]
