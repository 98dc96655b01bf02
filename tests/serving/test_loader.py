"""From a reference to a verified bundle."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from features.errors import BundleError, InputError
from serving.loader import ModelReference, load_registered, parse_reference
from tests.serving.registered import NAME, Registered, register, small_bundle


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("m", ModelReference("m")),
        ("song2020-hypoxia@champion", ModelReference("song2020-hypoxia", alias="champion")),
        ("a b.c:12", ModelReference("a b.c", version="12")),
        (" m ", ModelReference("m")),
    ],
)
def test_a_reference_names_a_model_and_perhaps_an_alias_or_a_version(text: str, reference: ModelReference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["", "@champion", "m@", "m:", "m:0", "m:x", "m:1@champion", "m@2", "a,b", "models:/m/1"])
def test_what_is_no_reference_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(InputError, match="NAME@ALIAS or NAME:VERSION"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["m", "m@champion", "m:3"])
def test_a_reference_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_reference(text)) == text


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """Eleven versions, so that the highest number is not the last in the alphabet; the second is the champion."""
    root = tmp_path_factory.mktemp("versions")
    for number in range(10):
        register(small_bundle(seed=number), root, alias="champion" if number == 1 else None)
    return register(small_bundle(seed=10), root)


def test_without_alias_or_version_the_highest_number_is_loaded(versions: Registered) -> None:
    assert load_registered(parse_reference(NAME), versions.uri).version == "11"


def test_an_alias_and_a_version_are_loaded_as_named(versions: Registered) -> None:
    champion = load_registered(parse_reference(f"{NAME}@champion"), versions.uri)
    second = load_registered(parse_reference(f"{NAME}:2"), versions.uri)
    assert (champion.version, second.version) == ("2", "2")
    assert champion.bundle.pipeline["classify"].coef_.tolist() == small_bundle(seed=1).pipeline["classify"].coef_.tolist()


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("small-hypoxai", "no model 'small-hypoxai'.*did you mean 'small-hypoxia'.*registered"),
        (f"{NAME}:12", "no version 12; its versions: 1, 2, 3"),
        (f"{NAME}@champoin", "no alias 'champoin'.*did you mean 'champion'"),
        ("o'brien", "no model"),
    ],
)
def test_what_is_not_registered_is_answered_with_what_is(versions: Registered, reference: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_registered(parse_reference(reference), versions.uri)


def test_looking_into_a_store_that_is_not_there_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no store of models at .*nowhere"):
        load_registered(parse_reference("m"), f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    other, text = tmp_path / "other.db", tmp_path / "text.db"
    sqlite3.connect(other).close()
    other.touch()
    text.write_text("this is a text and no database")
    for path in (other, text):
        before = path.read_bytes()
        with pytest.raises(InputError, match="not a store of models"):
            load_registered(parse_reference("m"), f"sqlite:///{path}")
        assert path.read_bytes() == before


def test_a_folder_as_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sqlite:///PATH"):
        load_registered(parse_reference("m"), str(tmp_path))


def _own_copy(registered: Registered, root: Path) -> Registered:
    return register(registered.bundle, root)


@pytest.mark.parametrize("name", ["pipeline.skops", "schema.json", "card.json", "golden.json"])
def test_a_bundle_with_one_changed_byte_is_refused(registered: Registered, tmp_path: Path, name: str) -> None:
    copy = _own_copy(registered, tmp_path)
    content = bytearray((copy.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy.folder / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name}.* was changed"):
        load_registered(parse_reference(NAME), copy.uri)


def test_a_bundle_that_was_moved_away_is_missed_by_its_place(registered: Registered, tmp_path: Path) -> None:
    copy = _own_copy(registered, tmp_path)
    shutil.move(copy.folder, tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"not at {copy.folder}"):
        load_registered(parse_reference(NAME), copy.uri)


def test_a_password_in_the_address_is_not_repeated(registered: Registered) -> None:
    with pytest.raises(InputError) as caught:
        load_registered(parse_reference("m"), "ftp://someone:secret@host/store")
    assert "secret" not in str(caught.value)


def test_importing_serving_loads_nothing_heavy_and_none_of_training() -> None:
    heavy = ("mlflow", "bentoml", "tpot", "optuna", "shap", "training")
    script = (
        f"import serving, serving.cli, serving.loader, serving.predictor, sys; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_a_loaded_model_says_the_name_and_version_it_is_registered_under(registered: Registered) -> None:
    loaded = load_registered(parse_reference(f"{NAME}@champion"), registered.uri)
    assert replace(loaded, bundle=registered.bundle) == type(loaded)(NAME, "1", registered.bundle)
