"""Measuring all cases of a manifest: planned, looked up among what was measured before, shared among workers, kept.

Dask was chosen for the workers because the same code runs on local processes and on a cluster that a user has; a task
that fails, or whose worker dies, leaves the others alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from features.errors import InputError
from features.files import replace_whole
from features.imaging.case import Case, Measured, Redrawing
from features.imaging.cases import measure_case
from features.imaging.manifest import Manifest
from features.imaging.planning import Failure, Plan, Prepared, prepare
from features.imaging.settings import Extraction

if TYPE_CHECKING:
    from distributed import Client, Future

# A worker is one process with one thread and one case; who dies once with a case would die with it again.
_ALONE = {
    "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": 1,
    "distributed.nanny.pre-spawn-environ.ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": 1,
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
# Encrypted with a key of this run's own: who else is on this machine cannot hand tasks to the workers.
_LOCAL: dict[str, Any] = {
    "threads_per_worker": 1,
    "processes": True,
    "dashboard_address": "127.0.0.1:0",  # None is not none: it would be port 8787, taken by whoever extracts beside this one
    "security": True,
    "silence_logs": "CRITICAL",
}
CONNECT_S = 20
TOO_LARGE = "There was not enough memory to measure it, or its process ended; use fewer workers, or a machine with more memory."


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


def extract(
    manifest: Manifest,
    extraction: Extraction,
    memory: Path,
    *,
    workers: int = 2,
    scheduler: str | None = None,
    redrawings: Sequence[Redrawing] = (),
    prepared: Prepared | None = None,
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
    prepared : Prepared, optional
        From `prepare`, where that was done already.
    on_done : callable
        Called with every finished case.

    Returns
    -------
    Extracted
        Equal whatever the number of workers, and whether or not a run before was interrupted.
    """
    started = monotonic()
    prepared = prepared or prepare(manifest, extraction, redrawings)
    plan, keys = prepared.plan, prepared.keys
    kept = {case: recalled for case, key in keys.items() if (recalled := _recall(memory, key, case)) is not None}
    found = {**prepared.unreadable, **kept}
    for number, (case, measured) in enumerate(found.items(), start=1):
        on_done(Done(case, measured, case in kept, number, len(plan.cases)))
    pending = [case for case in plan.cases if case not in found]
    for case, measured in _measured(pending, extraction, min(workers, len(pending)), scheduler) if pending else ():
        if not measured.transient:
            try:
                _keep(memory, keys[case], measured)
            except OSError as cause:
                raise InputError(
                    f"{memory} cannot be written to ({cause.strerror}); make room, or name another output. What is kept is used."
                ) from cause
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
    if isinstance(error, KilledWorker | MemoryError):
        return Measured(failure=TOO_LARGE, transient=True)
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


def _recall(memory: Path, key: str, case: Case) -> Measured | None:
    """What is kept of a case; a failure that names a file only if that is still its name."""
    try:
        content = json.loads((memory / f"{key}.json").read_text(encoding="utf-8"))
        picture = (memory / f"{key}.png").read_bytes() if content.pop("drawn") else b""
    except (OSError, ValueError, KeyError):
        return None  # not there, or not whole: it is measured again
    measured = Measured(**content, picture=picture)
    shown = {name for part in case.parts for _, name in part.files}
    return measured if measured.file is None or measured.file in shown else None


def _keep(memory: Path, key: str, measured: Measured) -> None:
    """The picture first: where the numbers are, everything is."""
    memory.mkdir(parents=True, exist_ok=True)
    content = asdict(measured)
    picture = content.pop("picture")
    content.pop("transient")
    if picture:
        replace_whole(memory / f"{key}.png", lambda stage: stage.write_bytes(picture))
    told = json.dumps({**content, "drawn": bool(picture)})
    replace_whole(memory / f"{key}.json", lambda stage: stage.write_text(told, encoding="utf-8"))
