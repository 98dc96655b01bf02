"""Models of times to an event, and composites, through the gate by the real command."""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from asked import Answer, Hypoxia, ask
from mlflow import MlflowClient
from recorded_survival import store_of


@dataclass(frozen=True)
class Copied:
    """A store of the test's own."""

    uri: str

    def champion(self, name: str) -> str | None:
        version = MlflowClient(self.uri, registry_uri=self.uri).get_registered_model(name).aliases.get("champion")
        return None if version is None else str(version)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Copied:
    """The artifacts, whose addresses are absolute, are moved with the store in the database."""
    template, root = store_of(tmp_path_factory), tmp_path / "store"
    shutil.copytree(template, root)
    columns = ("runs.artifact_uri", "experiments.artifact_location", "model_versions.source", "model_versions.storage_location")
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, column in (name.split(".") for name in columns):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(root)))
    database.close()
    return Copied(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture
def promote(store: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    policy = tmp_path / "gate.yaml"
    policy.write_text("bootstrap: 1000\nlooks: ignore\nequal_data: false\n")

    def run(*arguments: str) -> Answer:
        return ask(
            monkeypatch, capsys, "promote", *arguments, "--policy", str(policy), "--tracking-uri", store.uri, "--json"
        )  # fmt: skip

    return run


def failed(answer: Answer) -> list[str]:
    return [check["name"] for check in answer.json["verdict"]["checks"] if check["outcome"] == "failed"]


def test_noise_is_no_first_version_and_what_ranks_is(store: Copied, promote: Hypoxia) -> None:
    noise = promote("prognosis", "3")
    assert (noise.code, failed(noise)) == (3, ["floor"])
    assert promote("prognosis", "1").code == 0
    assert store.champion("prognosis") == "1"


def test_a_better_version_takes_the_place_and_noise_and_the_same_again_do_not(store: Copied, promote: Hypoxia) -> None:
    promote("prognosis", "1")
    better = promote("prognosis", "2")
    assert better.code == 0, better.err
    assert store.champion("prognosis") == "2"
    noise, again = promote("prognosis", "3"), promote("prognosis", "4")
    assert (noise.code, "superiority" in failed(noise)) == (3, True)
    assert (again.code, failed(again)) == (3, ["another model"])
    assert len(again.err.strip().splitlines()) == 1
    assert store.champion("prognosis") == "2"


def test_a_composite_is_promoted_by_its_out_of_fold_predictions(store: Copied, promote: Hypoxia) -> None:
    first = promote("composite", "1")
    assert first.code == 0, first.err
    assert any("no held-out patients" in words for words in first.json["verdict"]["warnings"])
    noise = promote("composite", "2")
    assert noise.code == 3
    assert {"permutation", "superiority"} <= set(failed(noise))
    assert "permutation: failed" in noise.err
    assert store.champion("composite") == "1"
