"""Extraction as a command and as the first stage of a study: progress while it runs, a summary when it has."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from features.errors import InputError
from features.extracted import read_record
from features.imaging.source import ImageSource
from training.console import say, stderr_console

if TYPE_CHECKING:
    from features.imaging.extraction import Done, Extracted
    from features.imaging.manifest import Manifest
    from features.imaging.planning import Prepared
    from features.imaging.settings import Extraction
    from training.config import StudyBase

SHOWN_FAILURES = 20
SECONDS_BETWEEN_LINES = 10.0
NEEDED = {"SimpleITK": "simpleitk", "radiomics": "pyradiomics-bhklab", "distributed": "dask[distributed]", "pydicom": "pydicom"}


def ensure_extracted(study: StudyBase, workers: int | None = None) -> None:
    """Extract a study's features, if images are its source; what was measured before is not measured again."""
    source = study.cohort.source
    if isinstance(source, ImageSource):
        extract_images(source, study.folder, workers or study.compute.workers, study.compute.scheduler, stderr_console())


def extract_images(source: ImageSource, folder: Path, workers: int, scheduler: str | None, console: Console) -> dict[str, Any]:
    """Measure, write, and say what was found; returns what ``hypoxia extract --json`` prints.

    Raises
    ------
    InputError
        The manifest or the profile cannot be used, or another extraction is writing to the same folder.
    """
    refuse_if_not_installed()
    from features.imaging.manifest import load_manifest
    from features.imaging.planning import prepare
    from features.imaging.profiles import preflight

    started = time.monotonic()
    manifest, extraction = load_manifest(folder / source.manifest), source.extraction(folder)
    preflight(extraction.profile)
    output, prepared = folder / source.output, prepare(manifest, extraction)
    if prepared.is_finished(output):
        found = _as_it_was(prepared, output)
        say(console, extraction.profile.name, f"nothing changed since {output} was written; settings {extraction.hash[:12]}")
    else:
        extracted, tables = _extracted(manifest, extraction, prepared, output, workers, scheduler, console)
        found = _found(extracted, tables)
    _print_failures(console, found["failures"], output)
    say(console, "Features", ", ".join(found["tables"]))
    return {
        "profile": extraction.profile.name,
        "settings_hash": extraction.hash,
        "samples": len(manifest.samples),
        **found,
        "seconds": round(time.monotonic() - started, 2),
    }


def _extracted(
    manifest: Manifest,
    extraction: Extraction,
    prepared: Prepared,
    output: Path,
    workers: int,
    scheduler: str | None,
    console: Console,
) -> tuple[Extracted, tuple[Path, ...]]:
    from features.imaging.extraction import extract
    from features.imaging.tables import write_tables

    before = read_record(output / "features.csv")
    if before and (before.settings_hash, before.manifest_hash) != (extraction.hash, manifest.hash):
        what = f"profile {before.profile}, settings {before.settings_hash[:12]}"
        say(console, "Warning", f"the tables in {output} are of another extraction ({what}) and will be replaced", "yellow")
    with alone(output), ExtractionProgress(console) as progress:
        extracted = extract(
            manifest,
            extraction,
            output / "measured",
            workers=workers,
            scheduler=scheduler,
            prepared=prepared,
            on_done=progress,
        )
        tables = write_tables(extracted, manifest, extraction, output, prepared)
    _print_measured(console, extracted, extraction, output)
    return extracted, tables


class ExtractionProgress:
    """A bar with the time left on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console, self._started, self._last = console, time.monotonic(), time.monotonic()
        self._measured, self._first = 0, 0.0
        columns = (TextColumn("measuring"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> ExtractionProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, done: Done) -> None:
        """One more case is finished."""
        self._measured += not done.kept
        if self._measured == 1 and not done.kept:
            self._first = time.monotonic()  # until then workers were started
        self._bar.update(
            self._task, total=done.total, completed=done.finished, description=f"{done.finished} of {done.total} cases"
        )
        if done.measured.failure is not None and not done.kept:
            self._console.print(f"  {done.case.name}: {done.measured.failure}", soft_wrap=True)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last > SECONDS_BETWEEN_LINES:
            self._last = now
            left = (now - self._first) / max(self._measured - 1, 1) * (done.total - done.finished)
            known = f"about {left:.0f} s left" if self._measured > 1 else "time left not known yet"
            self._console.print(f"{now - self._started:6.0f} s  {done.finished} of {done.total} cases, {known}")


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Nobody else writes to a folder of an extraction inside the block.

    Raises
    ------
    InputError
        Somebody does already, or nobody may.
    """
    lock = FileLock(output / ".lock", timeout=0)
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as cause:
        raise InputError(f"Another extraction is writing to {output}; wait for it, or name another output.") from cause
    except OSError as cause:
        raise InputError(f"{output} cannot be written to ({cause.strerror}); name another output.") from cause
    try:
        yield
    finally:
        lock.release()


def refuse_if_not_installed() -> None:
    """Say which library images need, before anything begins.

    Raises
    ------
    InputError
    """
    absent = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if absent:
        raise InputError(f"{absent[0]} is not installed, and images need it; pip install 'hypoxia-biomarkers[radiomics]'.")


def _print_measured(console: Console, extracted: Extracted, extraction: Extraction, output: Path) -> None:
    measured = [one for _, one in extracted.results if one.failure is None]
    words = f"{len(measured)} of {len(measured) + len(extracted.failures)} cases have values, after {extracted.seconds:.0f} s"
    if extracted.recalled:
        words += f" ({extracted.recalled} of {len(extracted.results)} were known from before)"
    say(console, extraction.profile.name, f"{words}; settings {extraction.hash[:12]}")
    undefined = Counter(name for one in measured for name, value in one.values.items() if value != value)
    if undefined:
        most = ", ".join(f"{name} ({count})" for name, count in undefined.most_common(3))
        say(console, "Warning", f"{len(undefined)} features are undefined for some cases: {most}", "yellow")
    say(console, "Look at every mask before you train", str(output / "pictures"))


def _print_failures(console: Console, failures: list[dict[str, str]], output: Path) -> None:
    if not failures:
        return
    table = Table(title=f"{len(failures)} without values (all in {output / 'failures.csv'})", title_justify="left")
    for heading in ("sample", "sequence", "reason"):
        table.add_column(heading, overflow="fold")
    for one in failures[:SHOWN_FAILURES]:
        table.add_row(Text(one["sample"]), Text(one["sequence"]), Text(one["reason"]))
    console.print(table)


def _found(extracted: Extracted, tables: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "cases": len(extracted.results),
        "measured_before": extracted.recalled,
        "failures": [
            {"sample": one.sample, "sequence": one.sequence, "file": one.file or "", "reason": one.reason}
            for one in extracted.failures
        ],
        "tables": [str(path) for path in tables],
    }


def _as_it_was(prepared: Prepared, output: Path) -> dict[str, Any]:
    """The same of an extraction whose files are all there, read from them."""
    with (output / "failures.csv").open(encoding="utf-8", newline="") as stream:
        failures = list(csv.DictReader(stream))
    names = ["features", *(name for name in prepared.plan.columns if (output / f"{name}.csv").exists())]
    return {
        "cases": len(prepared.plan.cases),
        "measured_before": len(prepared.plan.cases),
        "failures": failures,
        "tables": [str(output / f"{name}.csv") for name in names],
    }
