"""What is to be measured, and whether it was: light, so that a run in which nothing changed is over at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from features.errors import InputError
from features.imaging.archive import digest_of
from features.imaging.case import Case, Measured, Part, Redrawing
from features.imaging.errors import ImageError
from features.imaging.manifest import Entry, Manifest
from features.imaging.settings import Extraction

# A value may change with these: they are part of what a measurement is kept under.
COMPUTES = ("pyradiomics-bhklab", "simpleitk", "numpy", "scipy", "PyWavelets", "trimesh")
TABLES = ("features", "acquisition", "failures", "timings", "state")
STATE = "state.json"
READERS = 4  # files whose content is looked at at a time


@dataclass(frozen=True)
class Failure:
    """A case without values.

    Attributes
    ----------
    file : str or None
        As the user wrote it.
    reason : str
        One sentence.
    """

    sample: str
    sequence: str
    file: str | None
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes
    ----------
    cases : tuple of Case
    columns : tuple of str
        Sequences that the tables have columns of.
    failures : tuple of Failure
        Samples of which something is missing in the manifest.
    """

    cases: tuple[Case, ...]
    columns: tuple[str, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Prepared:
    """A plan, and what of it is known before anything is measured.

    Attributes
    ----------
    keys : dict of Case to str
        What each case is kept under: it changes with the content of its files and with all that decides a value.
    unreadable : dict of Case to Measured
        Cases of which a file is not there, or cannot be opened.
    """

    plan: Plan
    keys: dict[Case, str]
    unreadable: dict[Case, Measured]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that the tables depend on."""
        told = [(case.sample, case.patient, self.keys.get(case)) for case in self.plan.cases]
        return hashlib.sha256(repr((told, self.plan.columns, self.plan.failures)).encode()).hexdigest()

    def is_finished(self, output: Path) -> bool:
        """Whether an extraction of the same has left its files there, and they are as it left them."""
        try:
            state = json.loads((output / STATE).read_text(encoding="utf-8"))
            told, files = state["cases"], dict(state["files"])
            return not self.unreadable and told == self.hash and all(_sha256(output / name) == one for name, one in files.items())
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def state(self, files: Sequence[Path], output: Path) -> str:
        """What `is_finished` reads, as JSON."""
        return json.dumps({"cases": self.hash, "files": {str(path.relative_to(output)): _sha256(path) for path in files}})


def prepare(manifest: Manifest, extraction: Extraction, redrawings: Sequence[Redrawing] = ()) -> Prepared:
    """Plan, and look at the content of every file.

    Raises
    ------
    InputError
        A sequence that is wanted is nowhere in the manifest, or no case is left.
    """
    plan = plan_cases(manifest, extraction)
    if redrawings:
        plan = replace(plan, cases=tuple(replace(case, redrawing=one) for case in plan.cases for one in redrawings))
    return Prepared(plan, *_keys(plan.cases, extraction))


def plan_cases(manifest: Manifest, extraction: Extraction) -> Plan:
    """What a profile measures of a manifest.

    Raises
    ------
    InputError
        A sequence that is wanted is nowhere in the manifest, or no case is left.
    """
    unknown = [name for name in extraction.sequences if name not in manifest.sequences]
    if unknown:
        there = ", ".join(manifest.sequences)
        raise InputError(f"Sequence {unknown[0]!r} is not in the manifest (there: {there}); correct the sequences to measure.")
    wanted = extraction.sequences or manifest.sequences
    taken = [name for name in wanted if name.lower() in TABLES]
    if taken:
        raise InputError(f"Sequence {taken[0]!r} has the name of a table that is written; call it otherwise in the manifest.")
    plan = _plan_joint(manifest, extraction, wanted) if extraction.profile.joint else _plan_each(manifest, wanted)
    if not plan.cases:
        raise InputError(f"No case of the manifest can be measured: {plan.failures[0].reason}")
    return plan


def _plan_joint(manifest: Manifest, extraction: Extraction, wanted: Sequence[str]) -> Plan:
    profile, cases, failures = extraction.profile, [], []
    for sample in manifest.samples:
        entries = {entry.sequence: entry for entry in manifest.of(sample) if entry.sequence in wanted}
        try:
            placed = profile.place(tuple(entries))
        except InputError as error:
            failures.append(Failure(sample, "", None, str(error)))
            continue
        parts = tuple(replace(_part(manifest, entries[given], name), reference=None) for name, given in placed.items())
        cases.append(Case(sample, manifest.of(sample)[0].patient, tuple(placed), parts))
    return Plan(tuple(cases), profile.sequences, tuple(failures))


def _plan_each(manifest: Manifest, wanted: Sequence[str]) -> Plan:
    cases, failures = [], []
    for sample in manifest.samples:
        entries = {entry.sequence: entry for entry in manifest.of(sample)}
        for sequence in wanted:
            if sequence not in entries:
                failures.append(Failure(sample, sequence, None, f"The manifest has no {sequence} of {sample}."))
                continue
            entry = entries[sequence]
            named = [entry] + ([entries[entry.reference]] if entry.reference else [])
            parts = tuple(_part(manifest, one, one.sequence) for one in named)
            cases.append(Case(sample, entry.patient, (sequence,), parts))
    return Plan(tuple(cases), tuple(wanted), tuple(failures))


def _part(manifest: Manifest, entry: Entry, name: str) -> Part:
    return Part(
        sequence=name,
        image=manifest.folder / entry.image,
        mask=manifest.folder / entry.mask if entry.mask else None,
        label=entry.label,
        reference=entry.reference,
        shown=(entry.image, entry.mask),
    )


def _keys(cases: Sequence[Case], extraction: Extraction) -> tuple[dict[Case, str], dict[Case, Measured]]:
    """What each case is kept under: the content of its files and all that decides a value. Apart, those that have a file less."""
    paths = {path: shown for case in cases for part in case.parts for path, shown in part.files}
    with ThreadPoolExecutor(READERS) as pool:
        digests = dict(zip(paths, pool.map(_digest, paths, paths.values()), strict=True))
    common = [extraction.hash, *(f"{name} {version(name)}" for name in COMPUTES)]
    keys, unreadable = {}, {}
    for case in cases:
        told = [digests[path] for part in case.parts for path, _ in part.files]
        faults = [one for one in told if isinstance(one, ImageError)]
        if faults:
            unreadable[case] = Measured(failure=str(faults[0]), file=faults[0].file, transient=True)
        else:
            keys[case] = _key(case, digests, common)
    return keys, unreadable


def _key(case: Case, digests: Mapping[Path, object], common: Sequence[str]) -> str:
    parts = [
        (part.sequence, [digests[path] for path, _ in part.files], part.mask is None, str(part.label), part.reference)
        for part in case.parts
    ]
    drawn = (case.sample, sorted(case.redrawing.described.items())) if case.redrawing else ()
    return hashlib.sha256(repr((common, case.wanted, parts, *drawn)).encode()).hexdigest()


def _digest(path: Path, shown: str) -> str | ImageError:
    try:
        return digest_of(path, shown)
    except ImageError as error:
        return error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
