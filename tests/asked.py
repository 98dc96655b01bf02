"""The console command, called in this process, with what it answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from features import cli


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Hypoxia = Callable[..., Answer]


def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    """Call ``hypoxia`` with these arguments, as from a shell."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["hypoxia", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
        sys.exit(0)
    captured = capsys.readouterr()
    return Answer(int(ending.value.code or 0), captured.out, captured.err)
