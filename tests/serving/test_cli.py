"""``hypoxia predict`` and what ``hypoxia serve`` refuses before it starts anything."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from features.bundle import RESEARCH_USE_ONLY
from features.errors import BundleError, InputError
from serving import cli
from tests.serving.profiles import NAME as PROFILE
from tests.serving.profiles import planted
from tests.serving.registered import FEATURES, NAME, Registered, register, rows_like_training, small_bundle


def run(command: str, *arguments: str | Path) -> Result:
    """The command's result; its errors are raised, as they are for the one place that shows them."""
    return CliRunner().invoke(getattr(cli, command), [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Seven rows with the features among other columns; samples called 001, 002, ..."""
    frame = pd.DataFrame(rows_like_training(7)).assign(score=[0.5 + number for number in range(7)], site="A")
    frame.insert(2, "ID", [f"{number:03}" for number in range(1, 8)])
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def test_predict_writes_what_the_pipeline_says_of_every_row(registered: Registered, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    result = run("predict", "--model", f"{NAME}@champion", table, "-o", output, "--tracking-uri", registered.uri)
    written = pd.read_csv(output, dtype={"sample": str, "version": str})
    assert result.exit_code == 0
    assert list(written.columns) == ["sample", "probability", "label", "threshold", "model", "version", "out_of_distribution"]
    assert written["sample"].tolist() == ["001", "002", "003", "004", "005", "006", "007"]
    assert written["probability"].tolist() == pytest.approx(registered.probabilities(rows_like_training(7)), abs=1e-9)
    assert ((written["probability"] >= 0.4) == (written["label"] == "hypoxic")).all()
    assert (written["model"] == NAME).all()
    assert (written["version"] == "1").all()
    assert (written["threshold"] == 0.4).all()
    assert result.stdout == ""
    assert "7 rows" in result.stderr
    assert RESEARCH_USE_ONLY in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "table.csv"]


def test_predict_without_output_prints_the_table_and_nothing_else(registered: Registered, table: Path) -> None:
    result = run("predict", "--model", NAME, table, "--tracking-uri", registered.uri)
    assert result.stdout.splitlines()[0] == "sample,probability,label,threshold,model,version,out_of_distribution"
    assert len(result.stdout.splitlines()) == 8


def test_predict_prints_one_object_for_machines(registered: Registered, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    answer = json.loads(run("predict", "--model", NAME, table, "-o", output, "--json", "--tracking-uri", registered.uri).stdout)
    expected = registered.probabilities(rows_like_training(7))
    assert (answer["model"], answer["version"], answer["threshold"], answer["rows"]) == (NAME, "1", 0.4, 7)
    assert answer["output"] == str(output)
    assert answer["positive"] == sum(probability >= 0.4 for probability in expected)
    assert [row["sample"] for row in answer["predictions"]] == ["001", "002", "003", "004", "005", "006", "007"]
    assert [row["probability"] for row in answer["predictions"]] == pytest.approx(expected, abs=1e-9)
    assert output.is_file()


def test_predict_explains_every_row_in_a_file_and_in_the_object(registered: Registered, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    arguments = ("predict", "--model", NAME, table, "-o", output, "--explain", "--json", "--tracking-uri", registered.uri)
    answer = json.loads(run(*arguments).stdout)
    shap_values = pd.read_csv(tmp_path / "out.shap.csv", dtype={"sample": str})
    probabilities = registered.probabilities(rows_like_training(7))
    assert list(shap_values.columns) == ["sample", "base_value", *FEATURES]
    assert shap_values.drop(columns="sample").sum(axis=1).tolist() == pytest.approx(probabilities, abs=1e-6)
    for prediction, probability in zip(answer["predictions"], probabilities, strict=True):
        explanation = prediction["explanation"]
        assert explanation["base_value"] + sum(explanation["features"].values()) == pytest.approx(probability, abs=1e-6)


def test_shap_values_without_a_place_are_refused(registered: Registered, table: Path) -> None:
    with pytest.raises(InputError, match="--output"):
        run("predict", "--model", NAME, table, "--explain", "--tracking-uri", registered.uri)


def test_a_column_may_have_a_name_that_stands_for_a_feature(registered: Registered, table: Path) -> None:
    pd.read_csv(table).rename(columns={"CA9": "CAIX"}).to_csv(table, index=False)
    answer = json.loads(run("predict", "--model", NAME, table, "--json", "--tracking-uri", registered.uri).stdout)
    assert [row["probability"] for row in answer["predictions"]] == pytest.approx(
        registered.probabilities(rows_like_training(7)), abs=1e-9
    )


def test_rows_are_named_by_the_column_that_is_asked_for(registered: Registered, table: Path) -> None:
    result = run("predict", "--model", NAME, table, "--sample", "site", "--tracking-uri", registered.uri)
    assert [line.split(",")[0] for line in result.stdout.splitlines()[1:]] == ["A"] * 7


def test_rows_without_a_name_are_numbered(registered: Registered, tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    pd.DataFrame(rows_like_training(3)).assign(score=[0.1, 0.2, 0.3], site="A").to_csv(path, index=False)
    result = run("predict", "--model", NAME, path, "--tracking-uri", registered.uri)
    assert [line.split(",")[0] for line in result.stdout.splitlines()[1:]] == ["1", "2", "3"]


def test_parquet_is_scored_too(registered: Registered, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame(rows_like_training(3), index=pd.Index(["x", "y", "z"], name="lesion")).to_parquet(path)
    result = run("predict", "--model", NAME, path, "--tracking-uri", registered.uri)
    assert [line.split(",")[0] for line in result.stdout.splitlines()[1:]] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.drop(columns="CA9"), "'CA9' is missing"),
        (lambda frame: frame.assign(CA9="high"), "'CA9' has a value that is missing or is not a finite number"),
        (
            lambda frame: frame.assign(CA9=[None, *frame["CA9"][1:]]),
            "'CA9' has a value that is missing or is not a finite number",
        ),
        (lambda frame: frame.iloc[:0], "no rows"),
    ],
)
def test_a_table_that_cannot_be_scored_is_refused_and_nothing_is_written(
    registered: Registered, table: Path, change: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    change(pd.read_csv(table)).to_csv(table, index=False)
    output = table.with_name("out.csv")
    with pytest.raises(InputError, match=says):
        run("predict", "--model", NAME, table, "-o", output, "--tracking-uri", registered.uri)
    assert not output.exists()


def test_a_misspelt_sample_column_is_refused_with_the_nearest_name(registered: Registered, table: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'site'"):
        run("predict", "--model", NAME, table, "--sample", "sites", "--tracking-uri", registered.uri)


def test_an_output_that_cannot_be_written_is_refused_and_leaves_nothing(registered: Registered, table: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        run("predict", "--model", NAME, table, "-o", table.parent / "nowhere" / "out.csv", "--tracking-uri", registered.uri)
    (table.parent / "folder").mkdir()
    with pytest.raises(InputError, match="is a folder; name the file to write"):
        run("predict", "--model", NAME, table, "-o", table.parent / "folder", "--tracking-uri", registered.uri)
    assert sorted(path.name for path in table.parent.iterdir()) == ["folder", "table.csv"]


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Programs that would have taken the place of this process."""
    started: list[str] = []
    monkeypatch.setattr(cli.os, "execve", lambda *arguments: started.append(arguments[0]))
    return started


def test_serve_refuses_a_port_that_is_taken(registered: Registered, no_server: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="choose another with --port"):
        run("serve", "--model", NAME, "--port", str(taken.getsockname()[1]), "--tracking-uri", registered.uri)
    assert no_server == []


def test_serve_refuses_a_changed_bundle_before_it_starts(registered: Registered, tmp_path: Path, no_server: list[str]) -> None:
    copy = register(small_bundle(), tmp_path)
    (copy.folder / "card.json").write_text("{}")
    with pytest.raises(BundleError, match="changed"):
        run("serve", "--model", NAME, "--tracking-uri", copy.uri)
    assert no_server == []


def test_serve_refuses_an_unknown_model_before_it_starts(registered: Registered, no_server: list[str]) -> None:
    with pytest.raises(InputError, match="no model"):
        run("serve", "--model", "other", "--tracking-uri", registered.uri)
    assert no_server == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_serve_says_nothing_of_an_address_before_its_log_was_tried(
    registered: Registered,
    no_server: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match="log of requests"):
        cli.serve.main(
            ["--model", NAME, "--json", "--audit-log", "/dev/full", "--tracking-uri", registered.uri, "--port", "3999"],
            standalone_mode=False,
        )
    assert capsys.readouterr().out == ""
    assert not no_server


@pytest.fixture
def welcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """What `hypoxia serve` says of a registered model before it becomes the server, which it does not here."""
    served: list[Any] = []
    monkeypatch.setattr(cli, "become_server", lambda *what: served.append(what))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def say(registered: Registered) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        said = run("serve", "--model", registered.name, "--port", port, "--tracking-uri", registered.uri).stderr
        assert len(served) == 1
        return said

    return say


def body_of(said: str) -> str:
    [command] = [line for line in said.splitlines() if line.startswith("  curl")]
    return shlex.split(command)[-1]


def test_the_command_to_try_names_every_feature_of_a_small_model(registered: Registered, welcome: Callable[..., str]) -> None:
    said = welcome(registered)
    [row] = json.loads(body_of(said))["rows"]
    assert list(row["features"]) == list(FEATURES)
    assert "Template CSV" not in said


def test_of_three_hundred_features_it_names_two_and_says_where_the_others_are(
    tmp_path: Path, welcome: Callable[..., str]
) -> None:
    made = planted(wide=293)
    registered = register(made.bundle, tmp_path, PROFILE, golden=made.patients[:2] + 0.1)
    said = welcome(registered)
    assert body_of(said) == '{"rows": [{"id": "a", "features": {"volume": 0.0, "entropy": 0.0, ...}}]}'
    assert "(300 features)" in said
    assert f"/v1/models/{PROFILE}/schema" in said
    assert "Template CSV" in said
    assert len(said) < 1000
