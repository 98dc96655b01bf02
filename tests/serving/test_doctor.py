"""What the doctor finds, each ailment made on purpose."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from features.ledger import Ledger
from serving import doctor
from serving.doctor import Finding, examine
from tests.serving.registered import NAME, Registered, register, small_bundle

FREE_PORT = 39_417


def by_check(uri: str, *, only: str, port: int = FREE_PORT) -> dict[str, Finding]:
    """Findings of one check by their names."""
    everything = dict(doctor.CHECKS)
    doctor.CHECKS.clear()
    doctor.CHECKS[only] = everything[only]
    try:
        return {finding.check: finding for finding in examine(uri, port)}
    finally:
        doctor.CHECKS.clear()
        doctor.CHECKS.update(everything)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the keys of the tests, to be spoilt."""
    folder = tmp_path / "keys"
    shutil.copytree(os.environ["HYPOXIA_KEYS"], folder)
    monkeypatch.setenv("HYPOXIA_KEYS", str(folder))
    return folder


def test_a_sound_installation_is_found_sound_and_nothing_is_changed(registered: Registered) -> None:
    root = Path(registered.uri.removeprefix("sqlite:///")).parent
    before = sorted(root.rglob("*"))
    result = CliRunner().invoke(_command(), ["--json", "--tracking-uri", registered.uri, "--port", str(FREE_PORT)])
    printed = json.loads(result.stdout)
    failed = [finding for finding in printed["findings"] if finding["state"] == "fail"]
    assert (result.exit_code, failed, printed["healthy"]) == (0, [], True)
    checks = {finding["check"] for finding in printed["findings"]}
    assert checks >= {"python", "packages", "extra serving", "store", "signing key", f"model {NAME}@champion", "port", "disk"}
    assert checks >= {"state folder", "clock", "audit.jsonl", "requests.jsonl"}
    assert sorted(root.rglob("*")) == before


def test_something_that_fails_ends_with_code_3_and_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(_command(), ["--tracking-uri", f"sqlite:///{tmp_path}/nowhere.db", "--port", str(FREE_PORT)])
    assert result.exit_code == 3
    assert "fail  store: There is no store of models at" in result.stdout
    assert "hypoxia train" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_changed_model_fails(tmp_path: Path) -> None:
    copy = register(small_bundle(), tmp_path, alias="champion")
    (copy.folder / "card.json").write_text("{}")
    found = by_check(copy.uri, only="models")[f"model {NAME}@champion"]
    assert found.state == "fail"
    assert "was changed" in found.found


def test_a_signing_key_that_others_can_read_fails_with_the_command_that_mends_it(registered: Registered, keys: Path) -> None:
    assert by_check(registered.uri, only="keys")["signing key"].state == "ok"
    (keys / "signing.pem").chmod(0o644)
    found = by_check(registered.uri, only="keys")["signing key"]
    assert (found.state, found.advice) == ("fail", f"chmod 600 {keys / 'signing.pem'}")


def test_a_trusted_key_that_others_can_replace_fails_and_none_at_all_is_worth_a_word(registered: Registered, keys: Path) -> None:
    (keys / "trusted").chmod(0o777)
    assert by_check(registered.uri, only="keys")["trusted keys"].state == "fail"
    (keys / "trusted").chmod(0o755)
    for key in (keys / "trusted").iterdir():
        key.unlink()
    assert by_check(registered.uri, only="keys")["trusted keys"].state == "warn"


def test_a_port_that_is_taken_is_worth_a_word(registered: Registered) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert by_check(registered.uri, only="port", port=port)["port"].state == "warn"
    assert by_check(registered.uri, only="port", port=FREE_PORT)["port"].state == "ok"


@pytest.mark.parametrize(("free", "state"), [(10 * 1024**3, "ok"), (1024**3, "warn"), (1024**2, "fail")])
def test_a_disk_that_fills_up_is_found(registered: Registered, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free * 2, free, free))
    assert by_check(registered.uri, only="disk")["disk"].state == state


def test_a_clock_that_is_behind_the_files_fails(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_check(registered.uri, only="clock")["clock"].state == "ok"
    now = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: now() - 10 * 365 * 86_400)
    assert by_check(registered.uri, only="clock")["clock"].state == "fail"


@pytest.mark.parametrize("spoil", [lambda lines: lines[1:], lambda lines: [lines[0].replace(b"one", b"two"), *lines[1:]]])
def test_a_log_that_was_changed_fails(tmp_path: Path, spoil: Callable[[list[bytes]], list[bytes]]) -> None:
    ledger = Ledger(tmp_path / "audit.jsonl")
    for word in ("one", "more", "last"):
        ledger.append({"action": word})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert by_check(uri, only="ledgers")["audit.jsonl"].found.startswith("3 lines")
    ledger.path.write_bytes(b"".join(spoil(ledger.path.read_bytes().splitlines(keepends=True))))
    assert by_check(uri, only="ledgers")["audit.jsonl"].state == "fail"


def test_a_python_that_is_too_old_and_a_package_out_of_range_fail(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1, "final", 0))
    assert by_check(registered.uri, only="python")["python"].state == "fail"
    monkeypatch.undo()
    requirement = doctor._declared("")[0]
    monkeypatch.setattr(doctor, "_declared", lambda _: [type(requirement)("numpy<1"), type(requirement)("not-there-at-all")])
    assert by_check(registered.uri, only="packages")["packages"].state == "fail"
    assert by_check(registered.uri, only="extras")["extra serving"].state == "warn"


def _command() -> object:
    from serving.cli_operations import doctor as command

    return command
