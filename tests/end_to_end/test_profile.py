"""A profile, from a simulated cohort to a real server: every training patient is given its own cluster, offline and over HTTP."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from features.bundle import RESEARCH_USE_ONLY
from features.cli import hypoxia
from serving.cli import score_file
from serving.loader import load_registered, parse_reference
from serving.predictor import Predictor
from tests.end_to_end.started import Started, started
from training.studies import read_study
from training.train import train_study

CONFIG = Path(__file__).parents[2] / "configs" / "profile_simulated.yaml"
NAME = "profile-simulated"
QUICK = {"resamples": 20, "references": 10, "permutations": 99, "folds": 2, "repeats": 1, "bootstrap": 100}
ROWS_AT_A_TIME = 20  # of 300 features with long names: a body has a megabyte


@dataclass(frozen=True)
class Trained:
    """A cohort, and the profile that was learnt from it."""

    folder: Path
    printed: dict[str, Any]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def table(self) -> Path:
        return self.folder / "simulated" / "profile.csv"

    @property
    def clusters(self) -> list[str]:
        """Cluster of each patient, in the order of the table, as the run has recorded it."""
        run = MlflowClient(self.uri).get_run(self.printed["run_id"])
        recorded = pd.read_csv(Path(run.info.artifact_uri.removeprefix("file://")) / "clusters.csv", index_col=0)
        patients = pd.read_csv(self.table)["patient"]
        return [f"cluster {number}" for number in recorded.loc[patients, "cluster"]]

    def predictor(self) -> Predictor:
        return Predictor(load_registered(parse_reference(NAME), self.uri))

    def rows(self) -> list[dict[str, float | str]]:
        """The patients as a client reads them: each number to its last digit, which pandas does not."""
        predictor = self.predictor()
        with self.table.open(encoding="utf-8", newline="") as file:
            return [
                {name: row[name] if name in predictor.levels else float(row[name]) for name in predictor.features}
                for row in csv.DictReader(file)
            ]

    def far(self, rng: np.random.Generator) -> dict[str, float | str]:
        """Ten standard deviations from the mean in every feature, up or down, with the first patient's acquisition."""
        first, table = self.rows()[0], pd.read_csv(self.table)
        features = self.predictor().loaded.bundle.schema.features
        return {
            one.name: first[one.name]
            if one.family == "acquisition"
            else float(table[one.name].mean() + rng.choice([-10, 10]) * table[one.name].std())
            for one in features
        }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("profile")
    table = folder / "simulated" / "profile.csv"
    hypoxia(["simulate", "--kind", "profile", "--out", str(table), "--n", "60", "--events", "25"], standalone_mode=False)
    study = yaml.safe_load(CONFIG.read_text())
    del study["molecular"]
    (folder / "study.yaml").write_text(yaml.safe_dump({**study, "evaluation": QUICK}, sort_keys=False))
    return Trained(folder, train_study(read_study(folder / "study.yaml"), f"sqlite:///{folder}/mlflow.db"))


@pytest.fixture(scope="module")
def server(trained: Trained) -> Iterator[Started]:
    with started(trained.folder, "--model", f"{NAME}:1") as server:
        yield server


def predictions(server: Started, rows: list[dict[str, float | str]], action: str = "predict") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for first in range(0, len(rows), ROWS_AT_A_TIME):
        body = {"rows": [{"features": row} for row in rows[first : first + ROWS_AT_A_TIME]]}
        answer = server.ask("POST", f"/v1/models/{NAME}/{action}", json=body)
        assert answer.status_code == 200, answer.text
        found += answer.json()["predictions"]
    return found


def test_every_training_patient_is_given_its_own_cluster_over_http_and_offline(trained: Trained, server: Started) -> None:
    rng = np.random.default_rng(0)
    rows = trained.rows()
    shuffled = [{name: row[name] for name in rng.permutation(list(row)).tolist()} for row in rows]
    served = [one["profile"] for one in predictions(server, shuffled)]
    assert [one["cluster"] for one in served] == trained.clusters
    assert len(set(trained.clusters)) == 3
    alone = [predictions(server, [row])[0]["profile"] for row in rows[:10]]
    assert alone == served[:10]
    table = score_file(trained.predictor(), trained.table, "patient")
    assert table["cluster"].tolist() == trained.clusters
    for name in served[0]["distances"]:
        column = table[f"distance.{name.replace(' ', '_')}"]
        assert [one["distances"][name] for one in served] == pytest.approx(column.tolist(), rel=1e-9)


def test_no_training_patient_is_unlike_any_cluster(trained: Trained, server: Started) -> None:
    assert not any(one["profile"]["unlike_any_cluster"] for one in predictions(server, trained.rows()))
    assert not score_file(trained.predictor(), trained.table, "patient")["unlike_any_cluster"].any()


def test_a_patient_of_ten_standard_deviations_is_flagged_over_http_and_offline(trained: Trained, server: Started) -> None:
    far = trained.far(np.random.default_rng(1))
    [found] = predictions(server, [far])
    assert found["profile"]["unlike_any_cluster"]
    assert found["out_of_distribution"]["flagged"]
    [scored] = trained.predictor().predict_table(pd.DataFrame([far])).to_dict("records")
    assert (scored["unlike_any_cluster"], scored["out_of_distribution"]) == (True, True)
    assert scored["cluster"] == found["profile"]["cluster"]


def test_three_hundred_features_are_explained_by_what_decided(trained: Trained, server: Started) -> None:
    [found] = predictions(server, trained.rows()[:1], "explain")
    profile = found["profile"]
    assert found["explanation"] is None
    assert len(profile["deciding"]) == 5
    whole = sum(one["contribution"] for one in profile["deciding"]) + profile["rest"]
    assert whole == pytest.approx(profile["margin"], rel=1e-9)


def test_the_model_says_what_it_is(trained: Trained, server: Started) -> None:
    found = server.ask("GET", f"/v1/models/{NAME}").json()
    assert found["research_use_only"] == RESEARCH_USE_ONLY
    profile = found["card"]["profile"]
    assert [one["number"] for one in profile["clusters"]] == [1, 2, 3]
    assert sum(one["patients"] for one in profile["clusters"]) == 60
    assert "ProfileAnswer" in json.dumps(server.ask("GET", "/openapi.json").json())
