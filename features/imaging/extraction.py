"""Measuring all cases of a manifest: planned, looked up among what was measured before, shared among workers, kept.

Dask was chosen for the workers because the same code runs on local processes and on a cluster that a user has; a task
that fails, or whose worker dies, leaves the others alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from features.errors import InputError
from features.imaging.archive import digest_of
from features.imaging.cases import Case, Measured, Part, Redrawing, measure_case
from features.imaging.errors import ImageError
from features.imaging.manifest import Entry, Manifest
from features.imaging.settings import Extraction

if TYPE_CHECKING:
    from distributed import Client, Future

# A value may change with these: they are part of what a measurement is kept under.
COMPUTES = ("pyradiomics-bhklab", "simpleitk", "numpy", "scipy", "PyWavelets", "trimesh")
# A worker is one process with one thread and one case; who dies once with a case would die with it again.
_ALONE = {
    "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": 1,
    "distributed.nanny.pre-spawn-environ.ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": 1,
    "distributed.scheduler.allowed-failures": 1,
}
# Encrypted with a key of this run's own: who else is on this machine cannot hand tasks to the workers.
_LOCAL: dict[str, Any] = {
    "threads_per_worker": 1,
    "processes": True,
    "dashboard_address": None,
    "security": True,
    "silence_logs": "CRITICAL",
}
CONNECT_S = 20
TABLES = ("features", "acquisition", "failures", "timings")
DIES = "its process ended while it was measured (out of memory?); give it a machine with more memory or fewer workers"


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
class Done:
    """A case that is finished, for whoever watches."""

    case: Case
    measured: Measured
    kept: bool
    finished: int
    total: int


@dataclass(frozen=True)
class Extracted:
    """What an extraction found.

    Attributes
    ----------
    results : tuple of (Case, Measured)
        In the order of the manifest.
    recalled : int
        Cases that had been measured before.
    seconds : float
    """

    plan: Plan
    results: tuple[tuple[Case, Measured], ...]
    recalled: int
    seconds: float

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """All cases without values, and why."""
        failed = [
            Failure(case.sample, ", ".join(case.wanted), one.file, one.failure)
            for case, one in self.results
            if one.failure is not None
        ]
        return (*self.plan.failures, *failed)

    def of(self, redrawing: Redrawing) -> Extracted:
        """What was found with the masks drawn in one way."""
        return replace(self, results=tuple((case, one) for case, one in self.results if case.redrawing == redrawing))


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
        parts = tuple(_part(manifest, entries[given], name) for name, given in placed.items())
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


def extract(
    manifest: Manifest,
    extraction: Extraction,
    memory: Path,
    *,
    workers: int = 2,
    scheduler: str | None = None,
    redrawings: Sequence[Redrawing] = (),
    on_done: Callable[[Done], None] = lambda done: None,
) -> Extracted:
    """Measure what was not measured before.

    Parameters
    ----------
    memory : Path
        Folder of what was measured, by the content of images and masks and by the settings.
    workers : int
        Local processes; each has one case in memory at a time.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see the same files; then `workers` has no meaning.
    redrawings : sequence of Redrawing
        Ways to draw the masks: every case is measured once with each. None: with the masks as they are.
    on_done : callable
        Called with every finished case.

    Returns
    -------
    Extracted
        Equal whatever the number of workers, and whether or not a run before was interrupted.
    """
    started, plan = monotonic(), plan_cases(manifest, extraction)
    if redrawings:
        plan = replace(plan, cases=tuple(replace(case, redrawing=one) for case in plan.cases for one in redrawings))
    keys, found = _keys(plan.cases, extraction, workers)
    kept = {case: recalled for case, key in keys.items() if (recalled := _recall(memory, key)) is not None}
    found |= kept
    for number, (case, measured) in enumerate(found.items(), start=1):
        on_done(Done(case, measured, case in kept, number, len(plan.cases)))
    pending = [case for case in plan.cases if case not in found]
    for case, measured in _measured(pending, extraction, min(workers, len(pending)), scheduler) if pending else ():
        if not measured.transient:
            _keep(memory, keys[case], measured)
        found[case] = measured
        on_done(Done(case, measured, False, len(found), len(plan.cases)))
    return Extracted(plan, tuple((case, found[case]) for case in plan.cases), len(kept), monotonic() - started)


def _measured(
    cases: Sequence[Case], extraction: Extraction, workers: int, scheduler: str | None
) -> Iterator[tuple[Case, Measured]]:
    from distributed import as_completed

    with _client(workers, scheduler) as client:
        futures: dict[Future[Measured], Case] = {
            client.submit(measure_case, case, extraction.profile, extraction.masks, pure=False): case for case in cases
        }
        for future in as_completed(list(futures), loop=client.loop):
            yield futures.pop(future), _result(future)


def _result(future: Future[Measured]) -> Measured:
    """A case that failed for a reason that nobody foresaw fails alone: the others, hours of work, are not lost."""
    from distributed import KilledWorker

    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, KilledWorker):
        return Measured(failure=DIES, transient=True)
    return Measured(failure=f"Not foreseen: {type(error).__name__}: {error}", transient=True)


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as cause:
            raise InputError(f"No Dask scheduler answers at {scheduler}; start one, or leave compute.scheduler out.") from cause
        with client:
            yield client
        return
    with (
        dask.config.set(_ALONE),
        LocalCluster(**_LOCAL, n_workers=workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _keys(cases: Sequence[Case], extraction: Extraction, workers: int) -> tuple[dict[Case, str], dict[Case, Measured]]:
    """What each case is kept under: the content of its files and all that decides a value. Apart, those that have a file less."""
    paths = {path: shown for case in cases for part in case.parts for path, shown in part.files}
    with ThreadPoolExecutor(workers) as pool:
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


def _recall(memory: Path, key: str) -> Measured | None:
    try:
        content = json.loads((memory / f"{key}.json").read_text(encoding="utf-8"))
        picture = (memory / f"{key}.png").read_bytes() if content.pop("drawn") else b""
    except (OSError, ValueError, KeyError):
        return None  # not there, or not whole: it is measured again
    return Measured(**content, picture=picture)


def _keep(memory: Path, key: str, measured: Measured) -> None:
    """The picture first: where the numbers are, everything is."""
    memory.mkdir(parents=True, exist_ok=True)
    content = asdict(measured)
    picture = content.pop("picture")
    content.pop("transient")
    if picture:
        _write(memory / f"{key}.png", picture)
    _write(memory / f"{key}.json", json.dumps({**content, "drawn": bool(picture)}).encode())


def _write(path: Path, content: bytes) -> None:
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    stage.write_bytes(content)
    stage.replace(path)
