"""Robustness as a command: tables of the same samples compared, or every case measured again with its mask perturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from features.errors import InputError, did_you_mean
from features.extracted import BARRED, ExtractionRecord, is_as_written, read_record, record_path
from features.imaging.source import ImageSource
from features.robustness import FEWEST_SAMPLES, robustness_table
from features.sources import read_table
from training.console import say
from training.extracting import SHOWN_FAILURES, ExtractionProgress, alone, refuse_if_not_installed

if TYPE_CHECKING:
    from features.imaging.extraction import Done, Extracted
    from features.imaging.planning import Failure
    from features.imaging.settings import PerturbationSettings


@dataclass(frozen=True)
class Replicate:
    """One table of features that were measured again.

    Attributes
    ----------
    frame : DataFrame of shape (n_samples, n_features)
        Numbers only, and no diagnostics or acquisition parameters where the record tells which they are.
    record : ExtractionRecord or None
        How it was extracted, if that is known.
    """

    path: Path
    frame: pd.DataFrame
    record: ExtractionRecord | None


@dataclass(frozen=True)
class Robustness:
    """How far features came out the same.

    Attributes
    ----------
    table : DataFrame of shape (n_features, 10)
        As from ``robustness_table``, with the sequence and the family of a feature where they are known.
    tables : tuple of Path
        Which were compared.
    settings_hash : str or None
        With which all were extracted, if they say so.
    notes : tuple of str
        What was left out, or looks wrong.
    """

    table: pd.DataFrame
    tables: tuple[Path, ...]
    settings_hash: str | None
    notes: tuple[str, ...]

    @property
    def samples(self) -> int:
        """The most that a feature's correlation rests on."""
        return int(self.table["n"].max())


@dataclass(frozen=True)
class Perturbed:
    """Tables of a manifest's cases, each measured with its masks drawn in another way.

    Attributes
    ----------
    tables : tuple of Path
    folder : Path
        In which they are.
    recipe : dict
        What a study says to let only features be chosen that are robust by these tables.
    summary : dict
        Of the extraction, for ``--json``.
    """

    tables: tuple[Path, ...]
    folder: Path
    recipe: dict[str, Any]
    summary: dict[str, Any]


def compare_tables(paths: Sequence[Path], sample: str = "sample") -> Robustness:
    """Intraclass correlations of the features that tables of the same samples have in common.

    Parameters
    ----------
    paths : sequence of Path
        One per scan, reader or perturbed mask.
    sample : str
        Column with the sample's name.

    Raises
    ------
    InputError
        A table cannot be read or is named twice, the tables were extracted with different settings, or they share too little.
    """
    _refuse_twice(paths)
    replicates = [_replicate(path, sample) for path in paths]
    settings_hash = _one_hash(replicates)
    table = robustness_table([one.frame for one in replicates])
    known = {name: feature for one in replicates if one.record for name, feature in one.record.described.items()}
    described = [known.get(name) for name in table["feature"]]
    table.insert(1, "sequence", pd.Series([one.sequence if one else None for one in described], dtype=object))
    table.insert(2, "family", pd.Series([one.family if one else None for one in described], dtype=object))
    table.insert(3, "n", table.pop("n"))
    notes = (*_doubts(replicates), *table.attrs["notes"], *_undefined(table))
    return Robustness(table, tuple(paths), settings_hash, notes)


def perturb_images(
    source: ImageSource,
    folder: Path,
    perturbation: PerturbationSettings,
    seed: int,
    workers: int,
    scheduler: str | None,
    console: Console,
) -> Perturbed:
    """Measure every case again with perturbed masks, and write a table for each way to perturb them.

    What was measured before, by content of the files, settings and perturbation, is not measured again.

    Raises
    ------
    InputError
        The manifest or the profile cannot be used, or another extraction is writing to the same folder.
    """
    refuse_if_not_installed()
    from features.imaging.case import Redrawing
    from features.imaging.extraction import extract
    from features.imaging.manifest import load_manifest
    from features.imaging.profiles import preflight
    from features.imaging.tables import PERTURBED, write_redrawn

    manifest, extraction = load_manifest(folder / source.manifest), source.extraction(folder)
    preflight(extraction.profile)
    if len(manifest.samples) < FEWEST_SAMPLES:
        raise InputError(
            f"The manifest has {len(manifest.samples)} samples, and robustness is judged on {FEWEST_SAMPLES} or more; add some."
        )
    ways = tuple(Redrawing(perturbation, seed, number) for number in range(1, perturbation.count + 1))
    output = folder / source.output
    with alone(output), ExtractionProgress(console) as progress:
        extracted = extract(
            manifest,
            extraction,
            output / "measured",
            workers=workers,
            scheduler=scheduler,
            redrawings=ways,
            on_done=_each_failure_once(progress),
        )
        tables = write_redrawn(extracted, manifest, extraction, output / PERTURBED, ways)
    _print_extracted(console, extracted, len(ways), output / PERTURBED)
    shown = [f"{source.output}/{PERTURBED}/{path.name}" for path in tables]
    return Perturbed(tables, output / PERTURBED, _recipe(shown), _summary(extracted, perturbation, seed))


def print_recipe(console: Console, perturbed: Perturbed, folder: Path) -> None:
    """Lines to paste into a study file."""
    say(console, "Lines of a study that let only robust features be chosen", f"paths are relative to {folder}")
    console.print(yaml.safe_dump(perturbed.recipe, sort_keys=False).rstrip(), soft_wrap=True)


def _refuse_twice(paths: Sequence[Path]) -> None:
    """Equal tables are of perfect robustness, and so are the two forms in which one extraction is written."""
    seen: dict[Path, Path] = {}
    for path in paths:
        what = (record_path(path) if read_record(path) else path).resolve()
        if what in seen:
            raise InputError(f"{seen[what]} and {path} are the same measurement; name tables of several.")
        seen[what] = path


def _replicate(path: Path, sample: str) -> Replicate:
    frame, record = read_table(path, text_columns=(sample,)), read_record(path)
    if sample not in frame.columns:
        hint = did_you_mean(sample, list(frame.columns))
        raise InputError(f"Column {sample!r} (--sample) is not in {path}{hint}; name the column that identifies a row.")
    if frame[sample].isna().any():
        raise InputError(f"{path} has a row without a value in the sample column {sample!r}; name every row.")
    numbers = frame.set_index(sample).select_dtypes("number")
    if record is not None:
        described = record.described
        numbers = numbers[[name for name in numbers if name in described and described[name].family not in BARRED]]
    return Replicate(path, numbers, record)


def _one_hash(replicates: Sequence[Replicate]) -> str | None:
    recorded = [(one.path, one.record.settings_hash) for one in replicates if one.record]
    for path, settings_hash in recorded:
        first, expected = recorded[0]
        if settings_hash != expected:
            raise InputError(
                f"{first} and {path} were extracted with different settings ({expected[:12]} and {settings_hash[:12]}), which "
                "alone makes values differ; extract both with the same profile and the same treatment of masks."
            )
    return recorded[0][1] if recorded else None


def _doubts(replicates: Sequence[Replicate]) -> tuple[str, ...]:
    said = [
        f"{one.path} was changed after its features were extracted."
        for one in replicates
        if one.record and not is_as_written(one.path, one.record)
    ]
    without = [one for one in replicates if one.record is None]
    if without and len(without) < len(replicates):
        said.append(f"{without[0].path} does not say with which settings its features were extracted; others do.")
    if without:
        said += _equal(replicates)
    return tuple(said)


def _equal(replicates: Sequence[Replicate]) -> tuple[str, ...]:
    """Columns that nobody measured again: numbers of patients, ages, outcomes."""
    first, *others = [one.frame for one in replicates]
    shared = [name for name in first if all(name in frame for frame in others)]
    equal = [
        name for name in shared if not first[name].dropna().empty and all(first[name].equals(frame[name]) for frame in others)
    ]
    return (
        (f"{len(equal)} columns are the same in all tables ({', '.join(map(str, equal[:3]))}): no measurements?",)
        if equal
        else ()
    )


def _undefined(table: pd.DataFrame) -> tuple[str, ...]:
    none = table.loc[table["icc_2_1"].isna(), "feature"]
    if none.empty:
        return ()
    return (f"{len(none)} features have no correlation ({none.iloc[0]}): no difference between samples, or too few samples.",)


def _each_failure_once(progress: Callable[[Done], None]) -> Callable[[Done], None]:
    """A file that cannot be read fails for every mask, with the same words."""
    told: set[tuple[str, str | None]] = set()

    def once(done: Done) -> None:
        what = (done.case.name, done.measured.failure)
        progress(replace(done, measured=replace(done.measured, failure=None)) if what in told else done)
        told.add(what)

    return once


def _print_extracted(console: Console, extracted: Extracted, ways: int, output: Path) -> None:
    measured = sum(one.failure is None for _, one in extracted.results)
    words = (
        f"{measured} of {len(extracted.results)} measurements have values, {ways} of each case, after {extracted.seconds:.0f} s"
    )
    recalled = f" ({extracted.recalled} were known from before)" if extracted.recalled else ""
    say(console, "Perturbed masks", words + recalled)
    failures = _failures(extracted)
    if failures:
        table = Table(title=f"Without values (all in {output / 'failures.csv'})", title_justify="left")
        for heading in ("sample", "sequence", "masks", "reason"):
            table.add_column(heading, overflow="fold")
        for one, count in list(failures.items())[:SHOWN_FAILURES]:
            table.add_row(one.sample, one.sequence, str(count), one.reason)
        console.print(table)
    say(console, "One of the perturbed masks of each case", str(output / "pictures"))


def _failures(extracted: Extracted) -> Counter[Failure]:
    """With how many masks each was met; what the manifest lacks is counted once."""
    return Counter(extracted.failures)


def _recipe(tables: Sequence[str]) -> dict[str, Any]:
    return {"recipe": {"robust": {"tables": list(tables), "samples": "cohort", "icc": "2,1", "minimum": 0.75, "by": "value"}}}


def _summary(extracted: Extracted, perturbation: PerturbationSettings, seed: int) -> dict[str, Any]:
    return {
        "perturbation": {**perturbation.model_dump(), "seed": seed},
        "measurements": len(extracted.results),
        "measured_before": extracted.recalled,
        "failures": [{**asdict(one), "masks": count} for one, count in _failures(extracted).items()],
        "seconds": round(extracted.seconds, 2),
    }
