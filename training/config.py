"""One YAML file is one study."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator

from features.cohort import CohortSettings
from features.errors import InputError
from features.settings import Settings
from features.table import did_you_mean
from training.evaluation import EvaluationSettings
from training.partition import PartitionSettings
from training.recipe import Recipe, SearchLimits


class Compute(Settings):
    """How a study runs; it changes no result, except where a wall-clock limit is met, and then the run says so.

    Parameters
    ----------
    workers : int
        Processes that fit candidates.
    seconds_per_candidate : float or null
        A candidate of the search that takes longer is ended and counts as failed.
    seconds_per_search : float or null
        A search proposes nothing more after that.
    """

    workers: int = Field(default=2, ge=1)
    seconds_per_candidate: float | None = Field(default=300.0, gt=0)
    seconds_per_search: float | None = Field(default=None, gt=0)

    @property
    def limits(self) -> SearchLimits:
        """The wall-clock limits."""
        return SearchLimits(self.seconds_per_candidate, self.seconds_per_search)


class Study(Settings):
    """Everything that decides what a study finds.

    Parameters
    ----------
    name : str
        Also the experiment's name in MLflow.
    seed : int
        Every random choice derives from it, per named stage.
    model : str
        Name in the registry; with sequences, the sequence is appended.
    """

    name: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    cohort: CohortSettings
    partition: PartitionSettings = PartitionSettings()
    recipe: Recipe = Recipe()
    evaluation: EvaluationSettings = EvaluationSettings()
    model: str = Field(min_length=1)
    compute: Compute = Compute()

    _folder: Path = PrivateAttr(default=Path())

    @field_validator("model")
    @classmethod
    def _names_no_path(cls, name: str) -> str:
        if any(character in name for character in "/:@\\"):
            raise ValueError("a model's name may not contain / : @ or a backslash")
        return name

    @property
    def folder(self) -> Path:
        """Folder of the study file; its paths are relative to it."""
        return self._folder

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all settings that decide the result (all but ``compute``)."""
        settings = self.model_dump(mode="json", exclude={"compute"})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def rng(self, stage: str) -> np.random.Generator:
        """Generator of a named stage: adding a stage does not shift the others.

        Examples
        --------
        >>> study.rng("held out").random() == study.rng("held out").random()  # doctest: +SKIP
        True
        """
        return np.random.default_rng(np.random.SeedSequence([self.seed, zlib.crc32(stage.encode())]))


def load_study(path: Path) -> Study:
    """Read a study from its YAML file.

    Raises
    ------
    InputError
        The file is absent or no YAML, or a key is unknown, missing or has a value that it cannot have; the message has
        the dotted path of the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise InputError(f"{path} does not exist; give the path of a study file, for example configs/demo.yaml.") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} cannot be read ({type(cause).__name__}); give the path of a study file.") from cause
    except yaml.YAMLError as cause:
        where = getattr(cause, "problem_mark", None)
        at = f" at line {where.line + 1}" if where else ""
        raise InputError(f"{path} is not valid YAML{at}; compare it with configs/demo.yaml.") from cause
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no study; it should begin with keys such as name, cohort and model.")
    try:
        study = Study.model_validate(content)
    except ValidationError as cause:
        raise InputError(f"{path}: {_first_fault(cause)}") from cause
    study._folder = path.resolve().parent
    return study


def _first_fault(error: ValidationError) -> str:
    """The first fault as a sentence: misspelt keys before all else, since they explain the others."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    location = [part for part in fault["loc"] if not _is_union_tag(part)]
    where = ".".join(map(str, location))
    if fault["type"] == "extra_forbidden":
        return (
            f"unknown key {where!r}{did_you_mean(str(location[-1]), _known_keys())}; remove or correct it. See `hypoxia schema`."
        )
    if fault["type"] == "missing":
        return f"key {where!r} is missing; add it. See `hypoxia schema`."
    value = "" if isinstance(fault["input"], Mapping | list | tuple) else f" (it is {fault['input']!r})"
    return f"{where}{value}: {fault['msg'].removeprefix('Value error, ')}. See `hypoxia schema`."


def _is_union_tag(part: Any) -> bool:
    return part in {"table", "survset", "binary", "signature", "tpot", "optuna", "float"}


def _known_keys() -> list[str]:
    schema = Study.model_json_schema()
    groups = [schema, *schema.get("$defs", {}).values()]
    return sorted({key for group in groups for key in group.get("properties", {})})
