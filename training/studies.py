"""Every kind of study, and how its file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Union

from pydantic import TypeAdapter

from features.errors import InputError, did_you_mean
from training.composite.study import CompositeStudy
from training.config import Study, StudyBase, load_study, read_study_file, study_of
from training.profile.study import ProfileStudy

KINDS: dict[str, type[StudyBase]] = {"classifier": Study, "composite": CompositeStudy, "profile": ProfileStudy}


def read_study(path: Path) -> StudyBase:
    """Read a study of any kind; a file without ``kind`` is of a single model.

    Raises
    ------
    InputError
        As ``load_study`` raises it, the kind is not known, or the file is one for ``hypoxia correlate``.
    """
    content = read_study_file(path)
    if "grouping" in content and "cohort" not in content:
        raise InputError(f"{path} is a study of groups of patients, for `hypoxia correlate`; a study of a model has a cohort.")
    kind = content.get("kind", "classifier")
    if kind not in KINDS:
        raise InputError(f"{path}: kind is {kind!r}{did_you_mean(str(kind), list(KINDS))}; known: {', '.join(KINDS)}.")
    return load_study(path) if kind == "classifier" else study_of(KINDS[kind], path, content)


def json_schema() -> dict[str, Any]:
    """What a study file of any kind may say, as a JSON schema."""
    every: Any = Union[tuple(KINDS.values())]  # noqa: UP007 - of a list that grows
    return TypeAdapter(every).json_schema()
