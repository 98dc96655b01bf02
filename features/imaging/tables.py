"""What an extraction leaves: tables with their records, failures, timings, pictures. Each is there whole or as it was."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from features.errors import InputError
from features.extracted import ExtractionRecord, record_path
from features.feature import Feature
from features.files import file_name, replace_whole
from features.imaging.case import Redrawing
from features.imaging.extraction import Extracted
from features.imaging.manifest import Manifest
from features.imaging.planning import COMPUTES, STATE, Prepared
from features.imaging.settings import Extraction

FEATURES, ACQUISITION, PERTURBED = "features", "acquisition", "perturbed"
UNITS = {"ms": "ms", "deg": "degree", "t": "T", "mm": "mm", "mm3": "mm^3", "mm2": "s/mm^2"}  # by the end of a parameter's name


def write_tables(
    extracted: Extracted, manifest: Manifest, extraction: Extraction, output: Path, prepared: Prepared | None = None
) -> tuple[Path, ...]:
    """Write everything that an extraction found.

    Parameters
    ----------
    prepared : Prepared, optional
        What it was made of: the state is written last, so that the next run sees that nothing changed.

    Returns
    -------
    tuple of Path
        Tables of features, the one of all sequences first.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        frames = _feature_tables(extracted, extraction)
        for name, (frame, columns) in frames.items():
            _write_table(output / name, frame, columns, extracted, manifest, extraction)
        protocol = _acquisition(extracted)
        if protocol is not None:
            _write_table(output / ACQUISITION, *protocol, extracted, manifest, extraction)
        replace_whole(output / "failures.csv", lambda path: _failures(extracted).to_csv(path, index=False))
        replace_whole(output / "timings.csv", lambda path: _timings(extracted).to_csv(path, index=False))
        _write_pictures(extracted, output / "pictures")
        if prepared is not None:
            kinds = ("[!.]*.csv", "[!.]*.parquet", "[!.]*.json", "pictures/[!.]*.png")
            written = sorted(path for kind in kinds for path in output.glob(kind) if path.name != STATE)
            replace_whole(output / STATE, lambda path: path.write_text(prepared.state(written, output), encoding="utf-8"))
    except OSError as cause:
        raise InputError(f"{output} cannot be written to ({cause.strerror}); name another folder.") from cause
    return tuple(output / f"{name}.csv" for name in frames)


def write_redrawn(
    extracted: Extracted, manifest: Manifest, extraction: Extraction, output: Path, redrawings: Sequence[Redrawing]
) -> tuple[Path, ...]:
    """Write what was found with each way to draw the masks, as one table of all sequences.

    The records have the hash of the extraction, since all but the masks is the same, and say under ``perturbation`` how the
    masks were drawn. Tables of more ways, from a run before, are removed: what lies there belongs together.

    Returns
    -------
    tuple of Path
        ``perturbed-1.parquet`` and so on.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    columns = extraction.profile.features(extracted.plan.columns)
    found = {f"{PERTURBED}-{way.number}": (way, extracted.of(way)) for way in redrawings}
    failures, timings = (
        pd.concat([listed(one).assign(table=name) for name, (_, one) in found.items()]) for listed in (_failures, _timings)
    )
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in output.iterdir():
            if re.fullmatch(rf"{PERTURBED}-\d+\.(csv|parquet|json)", path.name) and path.stem not in found:
                path.unlink()
        for name, (way, one) in found.items():
            _write_table(output / name, *_table(one, columns), one, manifest, extraction, way)
        replace_whole(output / "failures.csv", lambda path: failures.to_csv(path, index=False))
        replace_whole(output / "timings.csv", lambda path: timings.to_csv(path, index=False))
        _write_pictures(extracted.of(redrawings[0]), output / "pictures")
    except OSError as cause:
        raise InputError(f"{output} cannot be written to ({cause.strerror}); name another folder.") from cause
    return tuple(output / f"{name}.parquet" for name in found)


def _feature_tables(extracted: Extracted, extraction: Extraction) -> dict[str, tuple[pd.DataFrame, tuple[Feature, ...]]]:
    """A table of all sequences, and where a profile measures each by itself one of each."""
    profile, sequences = extraction.profile, extracted.plan.columns
    tables = {FEATURES: _table(extracted, profile.features(sequences))}
    if not profile.joint:
        tables |= {name: _table(extracted, profile.features((name,))) for name in sequences}
    return tables


def _table(extracted: Extracted, columns: Sequence[Feature]) -> tuple[pd.DataFrame, tuple[Feature, ...]]:
    """A row per sample that has a value in any of the columns, in the order of the manifest."""
    names = [column.name for column in columns]
    rows: dict[str, dict[str, float | str]] = {}
    patients: dict[str, str] = {}
    for case, measured in extracted.results:
        if measured.values and not measured.values.keys().isdisjoint(names):
            rows.setdefault(case.sample, {}).update(measured.values)
            patients[case.sample] = case.patient
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=None).reindex(columns=names)
    frame.insert(0, "patient", pd.Series(patients, dtype=object).reindex(frame.index))
    return frame.rename_axis("sample"), tuple(columns)


def _acquisition(extracted: Extracted) -> tuple[pd.DataFrame, tuple[Feature, ...]] | None:
    rows: dict[str, dict[str, object]] = {}
    for case, measured in extracted.results:
        for sequence, parameters in measured.acquisition.items():
            known = {f"{sequence}_{name}": value for name, value in parameters.items() if value is not None}
            rows.setdefault(case.sample, {}).update(known)
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("sample")
    if frame.shape[1] == 0:
        return None
    sequence_of = {
        f"{sequence}_{name}": sequence
        for _, measured in extracted.results
        for sequence, parameters in measured.acquisition.items()
        for name in parameters
    }
    columns = tuple(
        Feature(name=name, unit=UNITS.get(name.rsplit("_", 1)[1]), sequence=sequence_of[name], family="acquisition")
        for name in map(str, frame.columns)
    )
    return frame, columns


def _write_table(
    stem: Path,
    frame: pd.DataFrame,
    columns: tuple[Feature, ...],
    extracted: Extracted,
    manifest: Manifest,
    extraction: Extraction,
    redrawing: Redrawing | None = None,
) -> None:
    """The record last: a table without one, or that does not fit it, was not finished."""
    parquet, text = stem.with_name(f"{stem.name}.parquet"), stem.with_name(f"{stem.name}.csv")
    replace_whole(parquet, lambda path: frame.reset_index().to_parquet(path, index=False))
    replace_whole(text, lambda path: frame.to_csv(path))
    record = ExtractionRecord(
        profile=extraction.profile.name,
        settings_hash=extraction.hash,
        settings=extraction.described | ({"perturbation": redrawing.described} if redrawing else {}),
        manifest_hash=manifest.hash,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={name: version(name) for name in COMPUTES},
        columns=columns,
        patient="patient" if "patient" in frame.columns else None,
        files={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (parquet, text)},
        failures=len(extracted.failures),
    )
    replace_whole(record_path(text), lambda path: path.write_text(record.model_dump_json(indent=1), encoding="utf-8"))


def _failures(extracted: Extracted) -> pd.DataFrame:
    rows = [(one.sample, one.sequence, one.file or "", one.reason) for one in extracted.failures]
    return pd.DataFrame(rows, columns=["sample", "sequence", "file", "reason"])


def _timings(extracted: Extracted) -> pd.DataFrame:
    rows: list[Mapping[str, object]] = [
        {
            "sample": case.sample,
            "sequence": ", ".join(case.wanted),
            **{f"{part}_s": round(s, 3) for part, s in one.seconds.items()},
        }
        for case, one in extracted.results
    ]
    return pd.DataFrame(rows)


def _write_pictures(extracted: Extracted, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for case, measured in extracted.results:
        path = folder / f"{file_name(case.name)}.png"
        if measured.picture and not (path.is_file() and path.read_bytes() == measured.picture):
            picture = measured.picture
            replace_whole(path, lambda stage, picture=picture: stage.write_bytes(picture))  # type: ignore[misc]
