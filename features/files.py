"""Writing a file that a user named."""

from __future__ import annotations

import os
from pathlib import Path

from features.errors import InputError


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
