"""Writing a file that a user named."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from features.errors import InputError

LONGEST_NAME = 120


def file_name(name: str) -> str:
    """A name that any file system takes; names that differ stay different.

    Examples
    --------
    >>> file_name("p01_T2"), file_name("a b"), file_name("a-b")
    ('p01_T2', 'a-b-c8687a08', 'a-b')
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:LONGEST_NAME]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let something write a file beside its place, under a name of the same ending, and put it there when it is whole.

    Raises
    ------
    OSError
        It cannot be written; what was there stays.
    """
    stage = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(stage)
        stage.replace(path)
    finally:
        stage.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was.

    Raises
    ------
    InputError
        It cannot be written there.
    """
    try:
        replace_whole(path, lambda stage: stage.write_text(text, encoding="utf-8"))
    except OSError as cause:
        raise InputError(
            f"{path} cannot be written ({cause.strerror}); name a file in a folder that exists and is yours."
        ) from cause
