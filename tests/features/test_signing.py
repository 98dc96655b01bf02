from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.errors import InputError
from features.signing import SIGNATURE, SignatureError, keys_folder, sign, trusted_keys, verify


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("1 2 3")
    (folder / "card").write_text("a model")
    return folder


def test_what_was_signed_here_is_verified_here_with_the_same_key(keys: Path, model: Path) -> None:
    assert sign(model) == verify(model)


def test_the_private_key_is_its_owners_alone(keys: Path, model: Path) -> None:
    sign(model)
    assert stat.S_IMODE((keys / "signing.pem").stat().st_mode) == 0o600


def test_the_key_is_made_once(keys: Path, model: Path) -> None:
    first = sign(model)
    (model / SIGNATURE).unlink()
    assert sign(model) == first
    assert len(trusted_keys()) == 1


def test_several_that_start_at_once_agree_on_one_key(keys: Path, tmp_path: Path) -> None:
    folders = [tmp_path / f"model{number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
        (folder / "weights").write_text("1")
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(sign, folders))) == 1
    assert len({verify(folder) for folder in folders}) == 1


@pytest.mark.parametrize("name", ["extra", ".git", ".gitignore", ".gitattributes", ".github"])
def test_an_extra_file_is_refused_whatever_its_name(keys: Path, model: Path, name: str) -> None:
    sign(model)
    (model / name).write_text("x")
    with pytest.raises(SignatureError):
        verify(model)


def test_an_extra_folder_is_refused(keys: Path, model: Path) -> None:
    sign(model)
    (model / ".git").mkdir()
    (model / ".git" / "hook").write_text("x")
    with pytest.raises(SignatureError):
        verify(model)


def test_a_changed_byte_a_missing_file_and_a_link_are_refused(keys: Path, model: Path, tmp_path: Path) -> None:
    sign(model)
    (model / "weights").write_text("1 2 4")
    with pytest.raises(SignatureError):
        verify(model)
    (model / "weights").unlink()
    with pytest.raises(SignatureError):
        verify(model)
    (tmp_path / "elsewhere").write_text("1 2 3")
    (model / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SignatureError):
        verify(model)


def test_a_key_that_is_no_longer_trusted_counts_no_more(keys: Path, model: Path) -> None:
    sign(model)
    trusted_keys()[0].unlink()
    with pytest.raises(SignatureError, match="none of the 0 keys trusted here"):
        verify(model)


def test_a_key_that_cannot_be_read_is_a_sentence(keys: Path, model: Path) -> None:
    sign(model)
    (keys / "signing.pem").write_text("no key")
    with pytest.raises(InputError, match="cannot be read; restore it"):
        sign(model)


def test_a_folder_that_cannot_be_made_is_a_sentence(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "file" / "keys"))
    with pytest.raises(InputError, match="HYPOXIA_KEYS"):
        sign(model)


def test_keys_lie_among_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPOXIA_KEYS")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    assert keys_folder() == Path("/settings/hypoxia/keys")
