"""A Bento with a model frozen in it: what it holds, and what it must not."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from features.bundle import load_bundle
from features.errors import BundleError, InputError
from features.signing import trusted_keys
from serving import packaging
from serving.cli_operations import package
from serving.packaging import PackagingError, pinned_requirements
from serving.shelf import Shelf
from tests.serving.registered import NAME, Registered, register, small_bundle


@dataclass(frozen=True)
class Packaged:
    """A Bento and what the command printed."""

    folder: Path
    printed: dict[str, object]


@pytest.fixture(scope="module")
def packaged(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    folder = tmp_path_factory.mktemp("packaged") / "bento"
    arguments = [f"{NAME}@champion", "-o", str(folder), "--json", "--tracking-uri", registered.uri]
    result = CliRunner().invoke(package, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return Packaged(folder, json.loads(result.stdout))


def test_the_command_says_what_it_packaged_and_where(packaged: Packaged) -> None:
    models = [{"name": NAME, "version": "1"}]
    assert packaged.printed == {"folder": str(packaged.folder), "models": models, "image": None}


def test_the_model_is_frozen_in_it_and_verifies_with_the_key_that_is_in_it(
    packaged: Packaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = packaged.folder / "src"
    [model] = Shelf(source / "models").read().models
    assert (model.name, model.current.version, model.reference) == (NAME, "1", None)
    monkeypatch.setenv("HYPOXIA_KEYS", str(source / "keys"))
    assert len(trusted_keys()) == 1
    assert load_bundle(source / "models" / model.current.folder).schema.names


def test_it_holds_no_secret_and_nothing_that_trains(packaged: Packaged) -> None:
    files = [path.relative_to(packaged.folder) for path in packaged.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if "training" in path.parts or path.suffix in {".pem", ".db", ".pyc", ".pkl"}]
    lines = [line for path in (packaged.folder / "src").rglob("*.py") for line in path.read_text().splitlines()]
    assert not [line for line in lines if line.strip().startswith(("from training", "import training"))]
    lines = (packaged.folder / "env" / "python" / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines}
    assert {"scikit-learn", "fastapi", "bentoml", "model-signing", "skops"} <= pinned
    assert not pinned & {"tpot", "optuna", "mlflow", "mlflow-skinny", "xgboost", "pytest"}


def test_every_requirement_is_pinned_to_the_version_that_is_installed() -> None:
    pins = dict(line.split("==") for line in pinned_requirements())
    assert pins["scikit-learn"] == version("scikit-learn")
    assert "threadpoolctl" in pins, "and what is required by what is required"


def test_a_folder_that_is_there_already_is_left_as_it_is(registered: Registered, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is there already"):
        packaging.package([NAME], registered.uri, tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_a_changed_model_is_not_packaged(tmp_path: Path) -> None:
    copy = register(small_bundle(), tmp_path)
    (copy.folder / "card.json").write_text("{}")
    with pytest.raises(BundleError, match="changed"):
        packaging.package([NAME], copy.uri, tmp_path / "bento", None)
    assert not (tmp_path / "bento").exists()


def test_an_image_without_docker_is_refused_with_the_way_out(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"no Docker on this machine.*Leave --image out"):
        packaging.package([NAME], registered.uri, None, "hypoxia:1")


def test_an_image_without_an_engine_is_refused(registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(InputError, match="engine does not answer"):
        packaging.package([NAME], registered.uri, None, "hypoxia:1")


@pytest.mark.parametrize(("folder", "line"), [("training", "numpy==2.0"), ("serving", "tpot==1.1.0")])
def test_a_bento_that_could_train_is_thrown_away(tmp_path: Path, folder: str, line: str) -> None:
    (tmp_path / "src" / folder).mkdir(parents=True)
    (tmp_path / "env" / "python").mkdir(parents=True)
    (tmp_path / "env" / "python" / "requirements.txt").write_text(line)
    with pytest.raises(PackagingError, match="must not"):
        packaging._require_no_training(tmp_path)
