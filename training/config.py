"""One YAML file is one study."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from features.cohort import CohortSettings
from features.contract import ContractSettings
from features.errors import InputError, did_you_mean
from features.settings import Settings
from features.survival import SurvivalEndpoint
from training.evaluation import EvaluationSettings
from training.partition import PartitionSettings
from training.recipe import Recipe, SearchLimits


class Compute(Settings):
    """How a study runs; it changes no result, except where a wall-clock limit is met, and then the run says so.

    Parameters
    ----------
    workers : int
        Processes that fit candidates, or measure cases.
    scheduler : str or null
        Address of a Dask scheduler that measures cases, in place of local processes; its workers must see the same files.
    seconds_per_candidate : float or null
        A candidate of the search that takes longer is ended and counts as failed.
    seconds_per_search : float or null
        A search proposes nothing more after that.
    """

    workers: int = Field(default=2, ge=1)
    scheduler: str | None = None
    seconds_per_candidate: float | None = Field(default=300.0, gt=0)
    seconds_per_search: float | None = Field(default=None, gt=0)

    @property
    def limits(self) -> SearchLimits:
        """The wall-clock limits."""
        return SearchLimits(self.seconds_per_candidate, self.seconds_per_search)


class StudyBase(Settings):
    """What every kind of study has.

    Parameters
    ----------
    name : str
        Also the experiment's name in MLflow.
    seed : int
        Every random choice derives from it, per named stage.
    model : str
        Name in the registry; with sequences, the sequence is appended.
    contract : mapping
        What the model takes when it is served.
    scores : mapping of str to str
        More features: the out-of-sample scores of registered models, by the name that the feature shall have. A probability
        becomes log odds in standard deviations of each model's left-out patients; on that scale the feature is served too.
    """

    name: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    cohort: CohortSettings
    model: str = Field(min_length=1)
    contract: ContractSettings = ContractSettings()
    scores: dict[str, str] = {}
    compute: Compute = Compute()

    _folder: Path = PrivateAttr(default=Path())

    @field_validator("model")
    @classmethod
    def _names_no_path(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("a model's name has letters, digits, dots, dashes and underscores only (it is part of addresses)")
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
        """Generator of a named stage: adding a stage does not shift the others."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, zlib.crc32(stage.encode())]))


class Study(StudyBase):
    """Everything that decides what a study of one model finds: of classes, or of times to an event.

    Parameters
    ----------
    baselines : list of str, optional
        Published signatures that the recipe is compared with in the same folds. Left out: all of which the table has at least
        half of the genes.
    """

    kind: Literal["classifier"] = "classifier"
    partition: PartitionSettings = PartitionSettings()
    recipe: Recipe = Recipe()
    evaluation: EvaluationSettings = EvaluationSettings()
    baselines: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _recipe_is_of_the_endpoint(self) -> Self:
        survival = isinstance(self.cohort.endpoint, SurvivalEndpoint)
        try:
            self.recipe.threshold_rule(survival), self.recipe.selection.needed(survival)
        except InputError as cause:
            raise ValueError(str(cause)) from cause
        if self.scores and self.cohort.sequences:
            raise ValueError("scores and cohort.sequences are both there; a model's score is of a patient, not of a sequence")
        return self


S = TypeVar("S", bound=StudyBase)


def load_study(path: Path) -> Study:
    """Read a study of one model from its YAML file.

    Raises
    ------
    InputError
        The file is absent or no YAML, or a key is unknown, missing or has a value that it cannot have; the message has
        the dotted path of the key.
    """
    study = study_of(Study, path, read_study_file(path))
    return study if study.recipe.robust is None else _with_tables_in(study, path.resolve().parent)


def read_study_file(path: Path) -> Mapping[str, Any]:
    """The content of a study file, of whatever kind."""
    return read_mapping(path, "study", "configs/demo.yaml", "name, cohort and model")


def study_of(kind: type[S], path: Path, content: Mapping[str, Any], told_by: str = "`hypoxia schema`") -> S:
    """The settings of a kind of study from the content of its file; paths in it are relative to the file.

    Parameters
    ----------
    told_by : str
        The command that says what such a file may hold, for the messages.
    """
    try:
        study = kind.model_validate(content)
    except ValidationError as cause:
        raise InputError(f"{path}: {_first_fault(cause, content, kind)} See {told_by}.") from cause
    study._folder = path.resolve().parent
    return study


def _with_tables_in(study: Study, folder: Path) -> Study:
    robust = study.recipe.robust and study.recipe.robust.located(folder)
    located = study.model_copy(update={"recipe": study.recipe.model_copy(update={"robust": robust})})
    located._folder = folder
    return located


def read_mapping(path: Path, kind: str, example: str, keys: str) -> Mapping[str, Any]:
    """Read a YAML file that holds one mapping, none of whose keys is there twice.

    Parameters
    ----------
    kind, example, keys : str
        What the file should be, one that is right, and keys that it begins with, for the messages.

    Raises
    ------
    InputError
        The file is absent or no YAML, or holds something else.
    """
    try:
        content = _StrictLoader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError as cause:
        raise InputError(f"{path} does not exist; give the path of a {kind} file, for example {example}.") from cause
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} cannot be read ({type(cause).__name__}); give the path of a {kind} file.") from cause
    except (yaml.YAMLError, ValueError) as cause:  # a date such as 2020-13-01 is a ValueError
        where = getattr(cause, "problem_mark", None)
        at = f" at line {where.line + 1}" if where else ""
        problem = getattr(cause, "problem", None) or str(cause).splitlines()[0]
        raise InputError(f"{path} is not valid YAML{at} ({problem}); compare it with {example}.") from cause
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no {kind}; it should begin with keys such as {keys}.")
    return content


class _StrictLoader(yaml.SafeLoader):
    """YAML without keys that are written twice, of which the last would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


# What pydantic calls by the name of a Python type, in words of YAML.
_IN_WORDS = {
    "model_type": "a mapping, written as key: value",
    "model_attributes_type": "a mapping, written as key: value",
    "dict_type": "a mapping, written as key: value",
    "tuple_type": "a list, written as [a, b]",
    "string_type": "text, in quotes",
}


def _first_fault(error: ValidationError, content: Mapping[str, Any], kind: type[StudyBase]) -> str:
    """The first fault as a sentence: misspelt keys before all else, since they explain the others."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault, where = faults[0], _as_written(faults[0], content)
    beside = _alternatives_at(kind, fault["loc"][:-1])
    if fault["type"] == "extra_forbidden":
        known = sorted({key for mapping in beside for key in mapping.get("properties", {})})
        hint = did_you_mean(str(fault["loc"][-1]), known) or f" (known there: {', '.join(known)})"
        return f"unknown key {where!r}{hint}; remove or correct it."
    if fault["type"] == "missing":
        return f"key {where!r} is missing; add it."
    if fault["type"] == "union_tag_not_found":
        kinds = [mapping["properties"]["kind"]["const"] for mapping in _alternatives_at(kind, fault["loc"])]
        return f"key '{where}.kind' is missing; it says which of {', '.join(kinds)} is meant."
    if fault["type"] == "union_tag_invalid":
        tag, kinds = fault["ctx"]["tag"], fault["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{where} is of unknown kind {tag!r}{did_you_mean(tag, kinds)}; known: {', '.join(kinds)}."
    value = "" if isinstance(fault["input"], Mapping | list | tuple) else f" (it is {fault['input']!r})"
    wanted = dict.fromkeys(_in_words(other) for other in faults if _as_written(other, content) == where)
    words = " or ".join(wanted).replace(" or should be ", " or ").rstrip(".")
    return f"{where}{value}: {words}." if where else f"{words}."


def _in_words(fault: Any) -> str:
    if fault["type"] in _IN_WORDS:
        return f"should be {_IN_WORDS[fault['type']]}"
    return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _as_written(fault: Any, content: Any) -> str:
    """Dotted path of a fault in the file: pydantic's, without the names of the alternatives that it tried."""
    keys = []
    for part in fault["loc"]:
        if (isinstance(content, Mapping) and part in content) or (isinstance(content, list) and isinstance(part, int)):
            keys.append(part)
            content = content[part]
    return ".".join(map(str, [*keys, fault["loc"][-1]] if fault["type"] == "missing" else keys))


def _alternatives_at(kind: type[StudyBase], location: Sequence[int | str]) -> list[dict[str, Any]]:
    """JSON schemas of what may be at a place in a study; the place as pydantic writes it, with the kinds that it tried."""
    schema = kind.model_json_schema(mode="serialization")
    found = [schema]
    for part in location:
        below = [one["items"] if isinstance(part, int) else one["properties"][part] for one in found if _has(one, part)]
        of_kind = [one for one in found if one.get("properties", {}).get("kind", {}).get("const") == part]
        found = (of_kind if len(found) > 1 else []) or [leaf for one in below for leaf in _leaves(one, schema["$defs"])] or found
    return found


def _has(schema: dict[str, Any], part: int | str) -> bool:
    return "items" in schema if isinstance(part, int) else part in schema.get("properties", {})


def _leaves(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return _leaves(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    branches = schema.get("oneOf") or schema.get("anyOf")
    return [leaf for branch in branches for leaf in _leaves(branch, definitions)] if branches else [schema]
