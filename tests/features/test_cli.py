from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import features
from features.cli import COMMANDS, hypoxia, main
from features.errors import BundleError, InputError

HEAVY = ("pandas", "numpy", "sklearn", "scipy", "mlflow", "tpot", "optuna", "bentoml", "shap", "training", "serving")
EVERYTHING_OF_FEATURES = [path.stem for path in Path(features.__file__).parent.glob("*.py")]

# Runs in an interpreter of its own, because this one has loaded everything already.
REPORT_IMPORTS = """
import json, sys
touched = []
sys.addaudithook(lambda event, _: touched.append(event) if event.startswith("socket.") else None)
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps({"loaded": sorted({name.split(".")[0] for name in sys.modules}), "touched": touched}))
"""


def imports_of(*modules: str) -> dict[str, list[str]]:
    done = subprocess.run([sys.executable, "-c", REPORT_IMPORTS, *modules], capture_output=True, text=True, check=True)
    report: dict[str, list[str]] = json.loads(done.stdout)
    return report


def test_the_command_line_loads_nothing_heavy_until_a_command_is_called() -> None:
    assert set(imports_of("features.cli")["loaded"]) & set(HEAVY) == set()


def test_features_and_serving_load_no_search_and_no_training_and_touch_no_network() -> None:
    report = imports_of("features", "serving", *(f"features.{name}" for name in EVERYTHING_OF_FEATURES))
    assert {"pandas", "sklearn"} <= set(report["loaded"])  # they were imported, so the next line says something
    assert set(report["loaded"]) & {"tpot", "optuna", "training", "mlflow", "bentoml", "shap", "lightgbm"} == set()
    assert report["touched"] == []


def test_help_lists_every_command_with_its_line() -> None:
    shown = " ".join(CliRunner().invoke(hypoxia, ["--help"], terminal_width=300).output.split())
    assert [name for name, (_, line) in COMMANDS.items() if f"{name} {line}" not in shown] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_is_there_and_takes_json(name: str) -> None:
    answer = CliRunner().invoke(hypoxia, [name, "--help"])
    assert answer.exit_code == 0, answer.output
    command = hypoxia.get_command(click.Context(hypoxia), name)
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    assert all(any("--json" in option.opts for option in one.params) for one in commands)


def test_an_unknown_command_is_refused() -> None:
    answer = CliRunner().invoke(hypoxia, ["trian"])
    assert answer.exit_code == 2
    assert "No such command 'trian'" in answer.output


def test_a_command_whose_extra_is_not_installed_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "train", ("training_that_is_not_there.cli:train", ""))
    answer = CliRunner().invoke(hypoxia, ["train", "study.yaml"])
    assert answer.exit_code == 2
    assert "needs training_that_is_not_there, which is not installed; pip install" in answer.output


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(InputError("the thing."), 2, "Error: the thing.\n"), (BundleError("a class."), 3, "Refused: a class.\n")],
)
def test_an_error_that_is_ours_to_say_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("features.cli.hypoxia", fail)
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == code
    assert capsys.readouterr() == ("", line)


def test_any_other_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("features.cli.hypoxia", fail)
    with pytest.raises(ZeroDivisionError):
        main()
