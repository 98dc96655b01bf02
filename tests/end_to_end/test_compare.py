"""Two real trainings put side by side through the console command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from toy import toy_cohort, toy_study

HYPOXIA = [sys.executable, "-m", "features.cli"]


def hypoxia(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run([*HYPOXIA, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two versions of one model, from one seed, and a third from another: other patients are held out."""
    folder = tmp_path_factory.mktemp("compared")
    cohort = toy_cohort(90, p=12, signal=0.8)
    cohort.features.assign(Target=cohort.labels).rename_axis("ID").to_csv(folder / "toy.csv")
    for number, (seed, votes) in enumerate(((3, 1), (3, 3), (4, 1))):
        body = toy_study(seed=seed, evaluation={"bootstrap": 100, "internal": None}).model_dump(mode="json")
        body["recipe"]["selection"]["votes"] = votes
        body["recipe"]["search"]["trials"] = 3
        (folder / f"toy{number}.yaml").write_text(yaml.safe_dump(body))
        done = hypoxia(folder, "train", f"toy{number}.yaml")
        assert done.returncode == 0, done.stderr
    return folder


def test_two_versions_of_one_split_are_paired(trained: Path) -> None:
    done = hypoxia(trained, "compare", "toy-hypoxia:1", "toy-hypoxia:2", "--json", "--html", "report.html")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, second = found["models"]
    assert first["split_hash"] == second["split_hash"]
    assert first["fingerprint"] != second["fingerprint"]
    assert len(found["paired"]) == 1
    assert (trained / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_two_splits_are_refused_with_exit_code_2_and_one_sentence(trained: Path) -> None:
    done = hypoxia(trained, "compare", "toy-hypoxia:1", "toy-hypoxia:3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: The models were judged on different patients: toy-hypoxia:1")
    assert "--on TABLE" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_splits_are_paired_on_a_table_of_others(trained: Path) -> None:
    others = toy_cohort(60, p=12, signal=0.8, seed=5)
    table = others.features.assign(Target=others.labels)
    table.index = "new" + table.index
    table.rename_axis("ID").to_csv(trained / "others.csv")
    arguments = ("--on", "others.csv", "--label", "Target", "--json")
    done = hypoxia(trained, "compare", "toy-hypoxia:1", "toy-hypoxia:3", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [model["samples"] for model in found["models"]] == [60, 60]
    assert found["paired"][0]["p_origin"] == "DeLong"


def test_the_studys_own_table_holds_what_was_learnt_from(trained: Path) -> None:
    arguments = ("compare", "toy-hypoxia:1", "toy-hypoxia:3", "--on", "toy.csv", "--label", "Target")
    done = hypoxia(trained, *arguments)
    assert done.returncode == 2
    assert "--learnt leave-out" in done.stderr
    assert not any(f"s{number:03d}" in done.stderr for number in range(90))
    left = hypoxia(trained, *arguments, "--learnt", "leave-out", "--json")
    held_out = [set(pd.read_csv(path)["sample"]) for path in sorted(trained.glob("mlruns/artifacts/*/artifacts/predictions.csv"))]
    in_no_development = set.intersection(*held_out)
    assert left.returncode == 0, left.stderr
    found = json.loads(left.stdout)
    assert found["on"]["samples"] == len(in_no_development) < 20
    assert all(model["not_estimable"] for model in found["models"])
