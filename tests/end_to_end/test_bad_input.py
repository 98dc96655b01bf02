"""What a newcomer gets wrong: exit code 2, one sentence that says what and what to do, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.cli import main
from tests.tables import small_table

NO_INTERNAL = {"evaluation": {"internal": None}}


def text_in_a_feature() -> pd.DataFrame:
    table = small_table().astype({"volume": object})
    table.loc[7, "volume"] = "n/d"
    return table


# What is wrong: the table, changes of the study, what the sentence names, and the way out that it shows.
MISTAKES: dict[str, tuple[pd.DataFrame, dict[str, Any], str, str]] = {
    "a misspelt key": (small_table(), {"modle": "x"}, "unknown key 'modle'", "did you mean 'model'"),
    "a misspelt key inside": (
        small_table(),
        {"recipe": {"search": {"kind": "tpot", "popluation": 9}}},
        "unknown key 'recipe.search.popluation'",
        "did you mean 'population'",
    ),
    "a missing outcome": (small_table().drop(columns="Target"), {}, "Column 'Target'", "cohort.endpoint.column"),
    "a misspelt patient": (small_table(), {"cohort": {"patient": "PatientId"}}, "Column 'PatientId'", "did you mean 'PatientID'"),
    "one class": (small_table().assign(Target=1), {}, "Only one class is left in 'Target'", "cohort.endpoint.positive"),
    "three classes": (small_table().assign(Target=np.arange(40) % 3), {}, "'Target' has 3 different values", "Recode it"),
    "text in a feature": (text_in_a_feature(), {}, "Feature 'volume' holds text, for example 'n/d'", "cohort.drop"),
    "an empty table": (small_table(0), {}, "table.csv holds no rows", "export the table again"),
    "too few for the search": (small_table(8), NO_INTERNAL, "The smaller class has 4 patients", "Use fewer folds"),
    "too few for internal validation": (small_table(14), {}, "The smaller class has 7 patients", "Use fewer folds"),
    "too few patients, many rows": (
        small_table().assign(PatientID=[f"p{row % 4}" for row in range(40)]),
        NO_INTERNAL,
        "The smaller class has 2 patients",
        "collect more patients",
    ),
    "too few to hold out": (
        small_table(4),
        {**NO_INTERNAL, "recipe": {"search": {"kind": "optuna", "folds": 2}}},
        "The smaller class has 2 patients",
        "collect more patients",
    ),
}


def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    monkeypatch.setattr(sys, "argv", ["hypoxia", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    return (ending.value.code, *capfd.readouterr())


def run_apart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same as a user would, in a folder."""
    root = str(Path(__file__).parents[2])
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {"PYTHONPATH": root}
    command = [sys.executable, "-m", "features.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(
    mistake: str,
    command: str,
    write_study: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    table, changes, thing, way_out = MISTAKES[mistake]
    study = write_study(table, **changes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, stdout, stderr = run_here(monkeypatch, capfd, command, "study.yaml")
    said = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert code == 2
    assert stdout == ""
    assert len(said) == 1
    assert thing in said[0]
    assert way_out in said[0]
    assert stderr.splitlines()[-1] == said[0]
    assert command == "check" or stderr.splitlines() == said  # check shows first what it found in a table too small
    assert {path.name for path in tmp_path.iterdir()} == {study.name, "table.csv"}


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("check", None, "Error: nowhere.yaml does not exist; give the path of a study file"),
        ("train", b"\x89PNG\r\n\x1a\n\xff\xfe", "table.csv cannot be read as csv (UnicodeDecodeError); save it as UTF-8."),
        ("train", b"", "table.csv cannot be read as csv (EmptyDataError); check that the file is whole."),
    ],
)
def test_a_file_that_cannot_be_read_ends_a_real_command_with_one_sentence(
    command: str, content: bytes | None, words: str, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    study = write_study(small_table())
    if content is not None:
        (tmp_path / "table.csv").write_bytes(content)
    ended = run_apart(tmp_path, command, "nowhere.yaml" if content is None else study.name)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("Error: ")
    assert words in ended.stderr
    assert not (tmp_path / "mlruns").exists()


def test_check_on_a_good_study_finds_what_is_wrong_and_writes_nothing(write_study: Callable[..., Path], tmp_path: Path) -> None:
    table = small_table()
    noise = np.random.default_rng(0).normal(scale=0.05, size=len(table))
    write_study(table.assign(leak=table["Target"] + noise))
    ended = run_apart(tmp_path, "check", "study.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "'leak'" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"study.yaml", "table.csv"}
