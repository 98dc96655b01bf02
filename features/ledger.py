"""An append-only log whose lines are chained by hashes: a line that is changed, left out or put in between is found.

Cutting lines off the end leaves a chain that is whole; keep the last hash elsewhere where that matters.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import HypoxiaError

FIRST = "0" * 64
# A line longer than this is not one of ours; bounds what is read back to find the last one.
LONGEST_LINE = 65_536


class LedgerError(HypoxiaError):
    """A log was changed after it was written."""


@dataclass(frozen=True)
class Ledger:
    """JSON lines in one file, each holding the hash of the line before it; several processes may append.

    Attributes
    ----------
    path : Path
        Made with its folder at the first line; readable by its owner only.

    Examples
    --------
    >>> import tempfile
    >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "audit.jsonl")
    >>> hash_of_the_line = ledger.append({"action": "promote"})
    >>> ledger.verify()
    1
    >>> [line["action"] for line in ledger.lines()]
    ['promote']
    """

    path: Path

    def append(self, entry: Mapping[str, Any]) -> str:
        """Add one line; returns its hash.

        Raises
        ------
        OSError
            The file cannot be written (a full disk, a folder of someone else); nothing was added.
        """
        with self._locked() as handle:
            end = os.lseek(handle, 0, os.SEEK_END)
            line = _chained(entry, _last_hash(handle, end))
            written = os.write(handle, line)
            if written != len(line):
                os.ftruncate(handle, end)
                raise OSError(f"{self.path.name} could not be written whole; is the disk full?")
        return _hash_of(line)

    def lines(self) -> Iterator[dict[str, Any]]:
        """The entries, oldest first; none where nothing was written yet."""
        for line in self._raw():
            entry: dict[str, Any] = json.loads(line)
            yield entry

    def verify(self) -> int:
        """Check the chain; returns the number of lines.

        Raises
        ------
        LedgerError
            A line does not follow from the one before it.
        """
        previous, number = FIRST, 0
        for number, line in enumerate(self._raw(), start=1):
            try:
                follows = json.loads(line)["previous"] == previous
            except (ValueError, KeyError, TypeError):
                follows = False
            if not follows:
                raise LedgerError(
                    f"Line {number} of {self.path.name} does not follow from the line before it: "
                    "the log was changed after it was written, or lines are missing."
                )
            previous = _hash_of(line)
        return number

    def _raw(self) -> Iterator[bytes]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            yield from file

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # closing gives it back
            yield handle
        finally:
            os.close(handle)


def _chained(entry: Mapping[str, Any], previous: str) -> bytes:
    return json.dumps({**entry, "previous": previous}, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _last_hash(handle: int, end: int) -> str:
    if end == 0:
        return FIRST
    tail = os.pread(handle, min(end, LONGEST_LINE), max(0, end - LONGEST_LINE))
    return _hash_of(tail.rstrip(b"\n").rpartition(b"\n")[2] + b"\n")


def _hash_of(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
