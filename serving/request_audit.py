"""One line per request in an append-only, hash-chained log: who asked which model when, and what became of it; never a value.

The lines are those of `features.ledger`, whose ``verify`` checks them. This writer keeps the file open and remembers its last
hash, since every request waits for it; several workers may write.
"""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from features.ledger import FIRST, LONGEST_LINE
from serving.limits import TokenBucket
from serving.telemetry import RequestFacts, reason_of

# Who has no token must not be able to fill the disk; what is left out is counted in the next line.
UNKNOWN_PER_SECOND = 10.0


class RequestAudit:
    """The log of requests.

    Parameters
    ----------
    path : Path
        Made with its folder when first written; readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1
        self._device_and_inode = (-1, -1)
        self._end = -1
        self._last = FIRST
        self._unknown = TokenBucket(UNKNOWN_PER_SECOND, UNKNOWN_PER_SECOND)
        self._left_out = 0

    def record(self, facts: RequestFacts) -> None:
        """Append a line about a request, before it is answered.

        Raises
        ------
        OSError
            The line cannot be written (a full disk, say); nothing was added.
        """
        if facts.status == 401 and not self._unknown.take():
            self._left_out += 1
            return
        self._append(_entry(facts) | ({"left_out": self._left_out} if self._left_out else {}))
        self._left_out = 0

    def check(self) -> None:
        """Append a line that says that the log can be written (again).

        Raises
        ------
        OSError
        """
        self._append({"time": _now(), "event": "the log is written"})

    def close(self) -> None:
        """Give the file back."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _append(self, entry: dict[str, Any]) -> None:
        self._open()
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            self._find_end()
            entry["previous"] = self._last
            line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n"
            self._write(line)
            self._last = sha256(line).hexdigest()
            self._end += len(line)
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _write(self, line: bytes) -> None:
        written = os.write(self._handle, line)
        if written != len(line):
            os.ftruncate(self._handle, self._end)
            raise OSError(f"{self.path.name} could not be written whole; is the disk full?")

    def _open(self) -> None:
        """Open the file, again if another was put in its place (as those do who rotate logs): that one starts a new chain."""
        try:
            found = self.path.stat()
            if self._handle >= 0 and (found.st_dev, found.st_ino) == self._device_and_inode:
                return
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self.close()
        self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        opened = os.fstat(self._handle)
        self._device_and_inode = opened.st_dev, opened.st_ino
        self._end = -1

    def _find_end(self) -> None:
        """Read the last line if it is not the one that this process wrote."""
        end = os.fstat(self._handle).st_size
        if end == self._end:
            return
        tail = os.pread(self._handle, min(end, LONGEST_LINE), max(0, end - LONGEST_LINE))
        # What follows the last line break is half a line: its writer was killed, and nobody was answered on the strength of it.
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) != len(tail):
            end -= len(tail) - len(whole)
            os.ftruncate(self._handle, end)
        self._last = sha256(whole[:-1].rpartition(b"\n")[2] + b"\n").hexdigest() if whole else FIRST
        self._end = end


def _entry(facts: RequestFacts) -> dict[str, Any]:
    return {
        "time": _now(),
        "request": facts.request,
        "token": facts.token,
        "route": facts.route,
        "model": facts.model,
        "version": facts.version,
        "rows": facts.rows,
        "status": facts.status,
        "reason": reason_of(facts) if facts.status >= 400 else None,
        "ms": round(facts.milliseconds, 2),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
