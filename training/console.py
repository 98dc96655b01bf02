"""Where commands speak to people: stderr, names as they are written, commands as they can be typed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text


def stderr_console() -> Console:
    """Console on stderr, so that stdout is left to machines."""
    return console_on(sys.stderr)


def console_on(stream: TextIO) -> Console:
    """Console that prints names as they are, and wide where nobody's window limits it."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else 180)


def say(console: Console, label: str, words: str, style: str = "bold") -> None:
    """A labelled line; what users named is printed as it is, brackets included."""
    console.print(Text.assemble((label, style), ": ", words))


def as_typed(command: str) -> str:
    """A command as it can be typed here: by its name, or where it is not on the path by where it lies.

    Examples
    --------
    >>> as_typed("python3").endswith("python3")
    True
    """
    beside = Path(sys.executable).with_name(command)
    if shutil.which(command) or not beside.exists():
        return command
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)
