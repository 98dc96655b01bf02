"""The list of images and masks of a study: read from a CSV file, or drafted from a folder tree."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from features.errors import InputError, did_you_mean
from features.settings import Settings

COLUMNS = ("sample", "patient", "sequence", "image", "mask", "label", "reference")
REQUIRED = ("sample", "sequence", "image")
IGNORED = "note"
TIMES = "times_s"
SEQUENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
UNFIT = re.compile(r"[/\\\x00-\x1f]|^\.+$")  # a sample's pictures are files of its name


class Entry(Settings):
    """One image of a sample.

    Attributes
    ----------
    sample, patient : str
    sequence : str
        Begins the names of the columns that are measured in it.
    image, mask : str
        Paths as written; no mask is None.
    label : int or str
        Of the region in the mask.
    reference : str or None
        Sequence of the same sample onto whose grid the image is brought; its mask is meant where none is named.
    times_s : tuple of float
        When the frames of a contrast series were taken, where the manifest says so.
    """

    sample: str
    patient: str
    sequence: str
    image: str
    mask: str | None = None
    label: int | str = 1
    reference: str | None = None
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Images of a study.

    Attributes
    ----------
    entries : tuple of Entry
        As in the file; a sample has a sequence once.
    folder : Path
        To which their paths are relative.
    """

    entries: tuple[Entry, ...]
    folder: Path

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples, in order of appearance."""
        return tuple(dict.fromkeys(entry.sample for entry in self.entries))

    @cached_property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences, in order of appearance."""
        return tuple(dict.fromkeys(entry.sequence for entry in self.entries))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the entries; notes and the order of columns do not matter."""
        told = [entry.model_dump(mode="json") for entry in self.entries]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def of(self, sample: str) -> tuple[Entry, ...]:
        """Entries of one sample."""
        return tuple(entry for entry in self.entries if entry.sample == sample)

    def path(self, written: str) -> Path:
        """Where a path of an entry leads."""
        return self.folder / written


@dataclass(frozen=True)
class Draft:
    """What a folder tree seems to hold.

    Attributes
    ----------
    entries : tuple of Entry
        Paths relative to the folder.
    unplaced : tuple of (str, str)
        Path and why it was not placed, or what is to be decided about it.
    """

    entries: tuple[Entry, ...]
    unplaced: tuple[tuple[str, str], ...]


def load_manifest(path: Path) -> Manifest:
    """Read a manifest; whether its images are there is seen when they are read.

    Parameters
    ----------
    path : Path
        CSV (or TSV, or parted by semicolons) in UTF-8 with columns sample, sequence, image, and optionally patient (else the
        sample), mask, label (else 1), reference, times_s (of the frames of a contrast series, in seconds, joined by ``;``) and
        note. All cells are text: 007 stays 007.

    Raises
    ------
    InputError
        It cannot be read, or says something that cannot be.
    """
    rows = _rows(_text(path), path.name)
    entries = tuple(_entry(row, f"{path.name}, line {line}") for line, row in rows)
    if not entries:
        raise InputError(f"{path.name} names no image; give it a row for each image, under {', '.join(COLUMNS)}.")
    check_entries(entries, path.name)
    return Manifest(entries, path.parent)


def write_rows(entries: Iterable[Entry]) -> str:
    """Entries as the text of a manifest.

    Examples
    --------
    >>> print(write_rows([Entry(sample="a", patient="a", sequence="T2", image="a.nii")]).splitlines()[1])
    a,a,T2,a.nii,,1,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow(["" if cell is None else cell for cell in (getattr(entry, column) for column in COLUMNS)])
    return text.getvalue()


def draft_manifest(folder: Path) -> Draft:
    """Guess the manifest of a folder tree from the names of files and folders, and from the headers of DICOM files.

    Raises
    ------
    InputError
        It is no folder.
    """
    from features.imaging.drafting import draft

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; name the folder that holds the images.")
    entries, unplaced = draft(folder)
    return Draft(tuple(entries), tuple(unplaced))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as cause:
        raise InputError(
            f"The manifest {path} cannot be opened ({cause.strerror}); `hypoxia manifest FOLDER` drafts one."
        ) from cause
    except UnicodeDecodeError as cause:
        raise InputError(f"{path.name} is not text in UTF-8; save it as CSV in UTF-8.") from cause


def _rows(text: str, name: str) -> list[tuple[int, dict[str, str]]]:
    first = text.splitlines()[0] if text.strip() else ""
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header, name)
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                raise InputError(
                    f"{name}, line {reader.line_num} has {len(cells)} cells for {len(header)} columns; quote cells with commas."
                )
            rows.append((reader.line_num, {key: cell.strip() for key, cell in zip(header, cells, strict=False)}))
    except csv.Error as cause:
        raise InputError(f"{name}, line {reader.line_num} is no CSV ({cause}); mend its quotes.") from cause
    return rows


def _check_header(header: Sequence[str], name: str) -> None:
    known = (*COLUMNS, TIMES, IGNORED)
    for column in header:
        if column not in known:
            raise InputError(
                f"{name} has a column {column!r}{did_you_mean(column, known)}; a manifest has {', '.join(COLUMNS)}, {TIMES} for "
                f"contrast series, and {IGNORED!r} for whatever else is to be kept."
            )
        if header.count(column) > 1:
            raise InputError(f"{name} has the column {column!r} twice; leave one out.")
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise InputError(
            f"{name} has no column {missing[0]!r}; a manifest has {', '.join(COLUMNS)} (from {', '.join(REQUIRED)} on)."
        )


def _entry(row: dict[str, str], where: str) -> Entry:
    for column in REQUIRED:
        if not row.get(column):
            raise InputError(f"{where} has no {column}; fill the cell.")
    if UNFIT.search(row["sample"]):
        raise InputError(f"{where} names the sample {row['sample']!r}, after which no file can be called; leave out slashes.")
    if not SEQUENCE.fullmatch(row["sequence"]):
        raise InputError(
            f"{where} names the sequence {row['sequence']!r}; use letters, digits, dots, dashes and underscores (T2, ADC, b800), "
            "since columns are called after it."
        )
    label = row.get("label") or "1"
    return Entry(
        sample=row["sample"],
        patient=row.get("patient") or row["sample"],
        sequence=row["sequence"],
        image=row["image"],
        mask=row.get("mask") or None,
        label=int(label) if label.isdecimal() else label,
        reference=row.get("reference") or None,
        times_s=_times(row.get(TIMES, ""), where),
    )


def _times(cell: str, where: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in cell.split(";")) if cell else ()
    except ValueError as cause:
        raise InputError(
            f"{where} has {cell[:40]!r} as {TIMES}; write the times of the frames in seconds joined by ';' (0;30;60)."
        ) from cause


def check_entries(entries: Sequence[Entry], name: str) -> None:
    """Refuse entries that contradict each other.

    Raises
    ------
    InputError
        A sample has a sequence twice, two patients, or a reference that is not there.
    """
    placed: dict[tuple[str, str], Entry] = {}
    patients: dict[str, str] = {}
    for entry in entries:
        if (entry.sample, entry.sequence) in placed:
            raise InputError(
                f"{name} has {entry.sequence} of sample {entry.sample!r} twice; give each lesion or visit a sample name of its "
                "own, or each sequence another name."
            )
        placed[entry.sample, entry.sequence] = entry
        if patients.setdefault(entry.sample, entry.patient) != entry.patient:
            raise InputError(
                f"{name} gives sample {entry.sample!r} the patients {patients[entry.sample]!r} and {entry.patient!r}; name one."
            )
    for entry in entries:
        if entry.reference is not None:
            _check_reference(entry, placed, name)


def _check_reference(entry: Entry, placed: dict[tuple[str, str], Entry], name: str) -> None:
    what = f"{name} gives {entry.sequence} of sample {entry.sample!r} the reference {entry.reference!r}"
    found = placed.get((entry.sample, entry.reference or ""))
    if found is None:
        there = [sequence for sample, sequence in placed if sample == entry.sample]
        raise InputError(
            f"{what}, which the sample does not have{did_you_mean(str(entry.reference), there)}; it has {', '.join(there)}."
        )
    if found is entry:
        raise InputError(f"{what}, which is itself; leave the cell empty.")
    if found.reference is not None:
        raise InputError(f"{what}, which has a reference itself; name {found.reference!r} for both.")
