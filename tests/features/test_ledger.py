from __future__ import annotations

import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.ledger import Ledger, LedgerError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "audit.jsonl")


def filled(ledger: Ledger, number: int) -> Ledger:
    for step in range(number):
        ledger.append({"step": step})
    return ledger


def append_many(path: Path, who: int) -> None:
    for step in range(50):
        Ledger(path).append({"who": who, "step": step})


def test_lines_come_back_in_order_and_the_chain_holds(ledger: Ledger) -> None:
    assert ledger.verify() == 0
    filled(ledger, 5)
    assert [line["step"] for line in ledger.lines()] == list(range(5))
    assert ledger.verify() == 5


def test_the_file_is_its_owners_alone(ledger: Ledger) -> None:
    filled(ledger, 1)
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_several_processes_append_without_breaking_the_chain(ledger: Ledger) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        list(pool.map(append_many, [ledger.path] * 4, range(4)))
    assert ledger.verify() == 200
    assert all([line["step"] for line in ledger.lines() if line["who"] == who] == list(range(50)) for who in range(4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 4), how=st.sampled_from(["change", "drop", "repeat", "swap"]))
def test_whatever_is_done_before_the_last_line_is_found(tmp_path: Path, at: int, how: str) -> None:
    ledger = Ledger(tmp_path / f"{at}-{how}.jsonl")
    ledger.path.unlink(missing_ok=True)
    lines = filled(ledger, 6).path.read_bytes().splitlines(keepends=True)
    if how == "change":
        lines[at] = lines[at].replace(b'"step":%d' % at, b'"step":9')
    elif how == "drop":
        del lines[at]
    elif how == "repeat":
        lines.insert(at, lines[at])
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    ledger.path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match="changed after it was written"):
        ledger.verify()


def test_a_line_that_is_no_json_is_named(ledger: Ledger) -> None:
    filled(ledger, 2)
    with ledger.path.open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(LedgerError, match=r"Line 3 of audit\.jsonl"):
        ledger.verify()


def test_a_number_that_is_none_is_never_written(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.append({"value": float("nan")})
    assert ledger.verify() == 0
