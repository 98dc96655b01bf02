"""Writing a file that a user named."""

from __future__ import annotations

import hashlib
import os
import re
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


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was.

    Raises
    ------
    InputError
        It cannot be written there.
    """
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        stage.write_text(text, encoding="utf-8")
        stage.replace(path)
    except OSError as cause:
        stage.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({cause.strerror}); name a file in a folder that exists and is yours."
        ) from cause
