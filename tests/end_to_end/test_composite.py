"""Two biomarkers become one, from a simulated cohort to a registered model that scores a table, through the console command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from asked import Answer, ask
from mlflow import MlflowClient
from survival_made import FEW, composite_study, two_biomarkers

from features.bundle import load_bundle
from training import baselines, run
from training.studies import read_study
from training.train import train_study

TINY = {
    "selection": {"methods": ["cox_score"], "top": 3, "votes": 1},
    "search": {"kind": "optuna", "trials": 2, "folds": 2},
}
STACKED = {"kind": "stacked", "recipe": TINY, "evaluation": {"bootstrap": 100, "internal": {"folds": 2, "repeats": 1}}}
BINARY = {"kind": "binary", "column": "progressed"}


@dataclass(frozen=True)
class Trained:
    """What training printed, and where it was recorded."""

    folder: Path
    printed: dict[str, Any]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/store/mlflow.db"

    @property
    def artifacts(self) -> Path:
        run_of = MlflowClient(self.uri).get_run(self.printed["run_id"])
        return Path(run_of.info.artifact_uri.removeprefix("file://"))

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "two.csv", index_col="patient")


Hypoxia = Callable[..., Answer]


@pytest.fixture
def hypoxia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    return lambda *arguments: ask(monkeypatch, capsys, *map(str, arguments))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A separating line, with patients who lack a biomarker scored by the other one."""
    folder = tmp_path_factory.mktemp("composite")
    table = two_biomarkers(100, events=50)
    table.loc[:3, "gene_score"] = np.nan
    changes = {"missing": "alone", "cohort": {"clinical": ["stage", "age"]}}
    study = read_study(composite_study(folder, table, **changes))
    return Trained(folder, train_study(study, f"sqlite:///{folder}/store/mlflow.db"))


def test_a_simulated_cohort_is_trained_on_by_the_command(hypoxia: Hypoxia, tmp_path: Path) -> None:
    assert hypoxia("simulate", "--out", tmp_path / "two.csv", "--n", 80, "--events", 40, "--seed", 7).code == 0
    study = composite_study(tmp_path, pd.read_csv(tmp_path / "two.csv"))
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    checked = hypoxia("check", study, "--tracking-uri", uri, "--json")
    assert checked.code == 0, checked.err
    assert not (tmp_path / "store").exists()
    done = hypoxia("train", study, "--tracking-uri", uri, "--json")
    assert done.code == 0, done.err
    assert "cross-validated" in done.err
    assert "SELECTED AND BIASED" in done.err
    assert done.json["model"] == {"name": "two-as-one", "version": "1"}
    assert done.json["fingerprint"] == checked.json["fingerprint"]
    assert {name: rule["splits_searched"] for name, rule in done.json["rules"].items()} == checked.json["splits"]
    assert [one["name"] for one in hypoxia("models", "--tracking-uri", uri, "--json").json["models"]] == ["two-as-one"]


def test_the_run_holds_what_was_found(trained: Trained) -> None:
    files = {path.name for path in trained.artifacts.iterdir()}
    assert {
        "composite.json",
        "predictions.csv",
        "predictions_internal.csv",
        "biomarkers.csv",
        "splits.json",
        "summary.md",
    } <= files
    recorded = json.loads((trained.artifacts / "composite.json").read_text())
    assert recorded["rules"] == trained.printed["rules"]
    metrics = MlflowClient(trained.uri).get_run(trained.printed["run_id"]).data.metrics
    line = trained.printed["rules"]["separating_line"]
    assert metrics["separating_line_hazard_ratio_apparent_selected_and_biased"] == line["apparent_selected_and_biased"]["value"]
    assert metrics["separating_line_hazard_ratio_cross_validated"] == line["cross_validated"]["hazard_ratio_median"]
    assert metrics["permutation_p"] == trained.printed["permutation"]["p_value"]
    assert not [name for name in metrics if "apparent" in name and "biased" not in name]
    splits = json.loads((trained.artifacts / "splits.json").read_text())
    assert splits["test"] == []
    assert len(splits["train"]) == 100
    assert len(pd.read_csv(trained.artifacts / "predictions.csv")) == 100
    assert (trained.artifacts / "figures" / "kaplan_meier_cross_validated.png").stat().st_size > 5000
    study = yaml.safe_load((trained.artifacts / "study.yaml").read_text())
    assert read_study_again(trained, study) == trained.printed["fingerprint"]


def read_study_again(trained: Trained, content: dict[str, Any]) -> str:
    path = trained.folder / "again.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_study(path).fingerprint


def test_the_bundle_reproduces_every_patients_side(trained: Trained) -> None:
    bundle = load_bundle(trained.artifacts / "bundle")
    biomarkers = trained.table[list(bundle.schema.names)]
    X = bundle.schema.conform(biomarkers).to_numpy()
    score = bundle.pipeline[:-1].transform(X)[:, 0]
    rule = trained.printed["rules"]["separating_line"]["rule"]
    complete = biomarkers.notna().all(axis=1).to_numpy()
    angle = np.radians(rule["theta_degrees"])
    by_line = biomarkers.to_numpy() @ [np.cos(angle), np.sin(angle)] - rule["offset"]
    np.testing.assert_allclose(score[complete], by_line[complete], atol=1e-9)
    sides = trained.printed["rules"]["separating_line"]["patients"]
    assert [int((score[complete] < 0).sum()), int((score[complete] >= 0).sum())] == sides
    assert np.isfinite(score[~complete]).all()  # by the biomarker that they have


def test_predict_answers_as_the_pipeline_does(trained: Trained, hypoxia: Hypoxia, tmp_path: Path) -> None:
    answer = hypoxia(
        "predict", "--model", "two-as-one:1", trained.folder / "two.csv", "--sample", "patient", "--tracking-uri", trained.uri,
        "-o", tmp_path / "scored.csv",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    scored = pd.read_csv(tmp_path / "scored.csv", index_col="sample")
    bundle = load_bundle(trained.artifacts / "bundle")
    X = bundle.schema.conform(trained.table).to_numpy()
    np.testing.assert_allclose(scored["probability"], bundle.pipeline.predict_proba(X)[:, 1], atol=1e-9)
    score = bundle.pipeline[:-1].transform(X)[:, 0]
    np.testing.assert_allclose(scored["score"], score, atol=1e-9)
    assert (scored["label"] == np.where(score >= 0, "more hypoxic", "less hypoxic")).all()


def spoilt(column: str, value: Any, row: int | slice = 3) -> pd.DataFrame:
    table = two_biomarkers()
    table[column] = table[column].astype(object if isinstance(value, str) else float)
    table.loc[row, column] = value
    return table


def two_rows_of_one() -> pd.DataFrame:
    table = two_biomarkers().assign(whose=lambda frame: frame["patient"])
    table.loc[1, ["whose", "pfs_months", "progressed"]] = table.loc[0, ["whose", "pfs_months", "progressed"]]
    return table


MISTAKES: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "negative follow-up": (spoilt("pfs_months", -3.0), {}, "has a follow-up of -3 in 'pfs_months'"),
    "zero times refused": (
        spoilt("pfs_months", 0.0),
        {"cohort": {"endpoint": {"kind": "survival", "time": "pfs_months", "event": "progressed", "zero_times": "refuse"}}},
        "1 sample with a follow-up of zero",
    ),
    "no events": (two_biomarkers().assign(progressed=0), {}, "No row has the event by 60 months"),
    "few events": (
        two_biomarkers().assign(progressed=(np.arange(90) < 4).astype(int)),
        {},
        "a rule is not learnt from fewer than 5",
    ),
    "more folds than events": (
        two_biomarkers().assign(progressed=(np.arange(90) < 8).astype(int), pfs_months=np.arange(90) % 50 + 1.0),
        {"evaluation": {**FEW, "folds": 9}},
        "There are 8 events, fewer than the 9 folds (evaluation.folds)",
    ),
    "a constant biomarker": (two_biomarkers().assign(gene_score=1.0), {}, "Biomarker 'gene_score' has one value in all patients"),
    "text in a biomarker": (spoilt("gene_score", "n/d"), {}, "Feature 'gene_score' holds text, for example 'n/d'"),
    "fewer than ten on a side": (two_biomarkers(20, events=12).iloc[:19], {}, "leaves 10 of 19 patients on each side"),
    "several rows of a patient": (
        two_rows_of_one(),
        {"cohort": {"patient": "whose"}},
        "has several rows; a composite is of one row",
    ),
    "a biomarker that is not there": (
        two_biomarkers(),
        {"genes": {"kind": "column", "column": "gene_scor"}},
        "'gene_scor'",
    ),
    "a model that is not there": (two_biomarkers(), {"genes": {"kind": "model", "model": "six-genes"}}, "'six-genes'"),
    "a misspelt key": (two_biomarkers(), {"composite": {"kind": "separating_line", "monoton": True}}, "did you mean 'monotone'"),
}


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_two_and_nothing_is_written(
    mistake: str, command: str, hypoxia: Hypoxia, tmp_path: Path
) -> None:
    table, changes, sentence = MISTAKES[mistake]
    study = composite_study(tmp_path, table, **changes)
    answer = hypoxia(command, study, "--tracking-uri", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert answer.code == 2, answer.err
    lines = [line for line in answer.err.strip().splitlines() if line]
    assert sentence in lines[-1]
    assert len(lines) == 1 or command == "check"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.csv", "two.yaml"]


def with_vectors() -> pd.DataFrame:
    """Two imaging features and two genes beside the two biomarkers."""
    rng = np.random.default_rng(3)
    table = two_biomarkers(80, events=45, effect=2.5)
    for name in ("hypoxic_fraction", "gene_score"):
        short = name[:4]
        table[f"{short}_a"] = (table[name] + 0.1 * rng.normal(size=80)).round(4)
        table[f"{short}_b"] = rng.normal(size=80).round(4)
    return table


VECTORS = {
    "imaging": {"kind": "vector", "columns": ["hypo_*"]},
    "genes": {"kind": "vector", "columns": ["gene_a", "gene_b"]},
}


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({}, {"imaging": ["hypoxic_fraction"], "genes": ["gene_score"]}),
        (VECTORS, {"imaging": ["hypo_a", "hypo_b"], "genes": ["gene_a", "gene_b"]}),
    ],
    ids=["scores", "vectors"],
)
def test_a_stacked_composite_is_judged_against_each_modality_in_the_same_folds(
    changes: dict[str, Any], columns: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[list[str], Any]] = []

    def spied(original: Callable[..., Any]) -> Callable[..., Any]:
        def validate(recipe: Any, development: Any, *rest: Any, **more: Any) -> Any:
            found = original(recipe, development, *rest, **more)
            judged.append((list(development.features.columns), found.predictions[["repeat", "fold", "sample"]]))
            return found

        return validate

    for module in (run, baselines):
        monkeypatch.setattr(module, "validate_internally", spied(module.validate_internally))
    study = read_study(composite_study(tmp_path, with_vectors(), composite=STACKED, evaluation=None, **changes))
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    printed = train_study(study, uri)
    both, *alone = judged
    assert sorted(both[0]) == sorted(columns["imaging"] + columns["genes"])
    assert [one[0] for one in alone] == [columns["imaging"], columns["genes"]]
    for _, folds in alone:
        pd.testing.assert_frame_equal(folds, both[1])
    assert set(printed["alone"]) == {"imaging", "genes"}
    difference = printed["alone"]["genes"]["recipe_less_baseline"]["c_index"]
    value = printed["internal"]["c_index"]["value"] - printed["alone"]["genes"]["internal"]["c_index"]["value"]
    assert difference["value"] == pytest.approx(value, abs=1e-9)
    assert difference["lower"] <= difference["value"] <= difference["upper"]
    bundle = load_bundle(Trained(tmp_path, printed).artifacts / "bundle")
    assert set(bundle.schema.names) <= set(both[0])
    assert bundle.card.horizon == 60


def test_a_stacked_composite_of_classes_is_checked_before_it_is_searched_for(hypoxia: Hypoxia, tmp_path: Path) -> None:
    recipe = {"selection": {"methods": ["correlation"], "votes": 1}, "search": TINY["search"]}
    stacked = {**STACKED, "recipe": recipe}
    study = composite_study(
        tmp_path, with_vectors(), {"endpoint": BINARY, "drop": ["pfs_months"]}, composite=stacked, evaluation=None, **VECTORS
    )
    answer = hypoxia("check", study, "--tracking-uri", f"sqlite:///{tmp_path}/store/mlflow.db", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["features_of"] == {"imaging": ["hypo_a", "hypo_b"], "genes": ["gene_a", "gene_b"]}
    assert not (tmp_path / "store").exists()
