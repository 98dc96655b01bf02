"""What a table of extracted features says of itself: with which settings it was made, and what each column is.

The record lies beside the table: ``features.json`` tells of ``features.csv`` and ``features.parquet``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from features.errors import InputError
from features.feature import Feature
from features.settings import Settings

if TYPE_CHECKING:
    from features.contract import Contract

KIND = "hypoxia-extraction"
# Columns of these families are kept for the record, and are no biomarkers.
BARRED = frozenset({"diagnostics", "acquisition"})


class ExtractionRecord(Settings):
    """How a table of features was made.

    Attributes
    ----------
    settings_hash : str
        SHA-256 of everything that decides a value: profile, masks, resampling. Tables with one hash may be compared.
    settings : dict
        What was hashed, for the reader.
    manifest_hash : str
        SHA-256 of the manifest's rows.
    versions : dict of str to str
        Of the libraries that computed.
    columns : tuple of Feature
        All columns but the sample's name and the patient.
    patient : str or None
        Column that says whose sample it is.
    files : dict of str to str
        SHA-256 by name of the files that were written.
    failures : int
        Cases without values.
    """

    kind: Literal["hypoxia-extraction"] = "hypoxia-extraction"
    format: Literal[1] = 1
    profile: str
    settings_hash: str
    settings: dict[str, Any]
    manifest_hash: str
    created: str
    versions: dict[str, str]
    columns: tuple[Feature, ...]
    patient: str | None = None
    files: dict[str, str] = {}
    failures: int = 0

    def __deepcopy__(self, memory: dict[int, Any] | None = None) -> ExtractionRecord:
        """Itself: nothing in it changes, and pandas copies what goes with a table at every step."""
        return self

    @property
    def described(self) -> dict[str, Feature]:
        """Columns by name."""
        return {column.name: column for column in self.columns}


def record_path(table: Path) -> Path:
    """Where the record of a table lies.

    Examples
    --------
    >>> record_path(Path("extracted/features.csv.gz")).name
    'features.json'
    """
    return table.with_name(table.name.split(".")[0] + ".json")


def read_record(table: Path) -> ExtractionRecord | None:
    """The record beside a table; None if there is none.

    Raises
    ------
    InputError
        There is one, but it was changed so that it is none any more.
    """
    path = record_path(table)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # a JSON file of that name need not be ours
    if not isinstance(content, dict) or content.get("kind") != KIND:
        return None
    try:
        return ExtractionRecord.model_validate(content)
    except ValidationError as cause:
        raise InputError(f"{path} is no record of an extraction any more; extract the features again.") from cause


def is_as_written(table: Path, record: ExtractionRecord) -> bool:
    """Whether a table holds what was extracted, byte for byte."""
    return record.files.get(table.name) == hashlib.sha256(table.read_bytes()).hexdigest()


def refuse_other_extraction(table: Path, contract: Contract) -> None:
    """Values of one name that were measured with different settings are not the same feature.

    Raises
    ------
    InputError
        The record beside a table tells of other settings than a model's, or there is none and the model requires it.
    """
    record = read_record(table)
    wrong = contract.other_extraction(record.settings_hash if record else None)
    if wrong is not None:
        way_out = "" if record else "; put the JSON file that `hypoxia extract` wrote beside the table"
        raise InputError(f"{table.name}: the hash of its extraction's settings {wrong}{way_out}.")


def joint_hash(hashes: Sequence[str]) -> str | None:
    """One hash for features that come from several extractions; None if none is known.

    Examples
    --------
    >>> joint_hash(["ab", "ab"])
    'ab'
    """
    different = sorted(set(hashes))
    if len(different) < 2:
        return different[0] if different else None
    return hashlib.sha256("\n".join(different).encode()).hexdigest()
