"""All contrast series of a manifest: measured one after the other, written as tables, maps and pictures."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import SimpleITK as sitk

from features.errors import InputError, did_you_mean
from features.extracted import ExtractionRecord, record_path
from features.feature import Feature
from features.files import file_name, replace_whole, write_whole
from features.imaging.brix import check_frames
from features.imaging.errors import ImageError
from features.imaging.manifest import Entry, Manifest, load_manifest
from features.imaging.masks import read_mask
from features.imaging.overlay import shown_slices
from features.imaging.perfusion import (
    FLAGS,
    HypoxicFraction,
    PerfusionMaps,
    PerfusionSettings,
    hypoxic_fraction,
    percent_enhancement,
    perfusion_maps,
    signal_enhancement_ratio,
    three_phases,
)
from features.imaging.series import Series, read_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

PROFILE = "brix"
CONTRAST_SEQUENCE = "DCE"
INCHES, DPI, WINDOW = 3.0, 80, (1.0, 99.0)
QUARTILES = {"q25": 25, "median": 50, "q75": 75}
UNITS = {"kep": "1/min", "kel": "1/min", "arrival": "min", "percent": "%"}
COMPUTES = ("numpy", "simpleitk", "hypoxia-biomarkers")


@dataclass(frozen=True)
class SeriesCase:
    """One contrast series of a manifest.

    Attributes
    ----------
    entry : Entry
        Of the manifest; several volumes are joined by ``;`` in its image.
    images : tuple of Path
        One of all times, or one per time.
    mask : Path or None
    """

    entry: Entry
    images: tuple[Path, ...]
    mask: Path | None

    @property
    def shown(self) -> str:
        """The first image, as the user wrote it."""
        return self.entry.image.split(";")[0].strip()


@dataclass(frozen=True)
class PerfusionCase:
    """What was found in one contrast series.

    Attributes
    ----------
    case : SeriesCase
    values : dict of str to float
        By name without sequence.
    slices : DataFrame or None
        Hypoxic fraction slice by slice.
    maps : PerfusionMaps or None
    picture : bytes
        PNG.
    failure : str or None
        Why the fit, or all of it, is missing.
    file : str or None
        Of the failure, as the user wrote it.
    """

    case: SeriesCase
    values: dict[str, float] = field(default_factory=dict)
    slices: pd.DataFrame | None = None
    maps: PerfusionMaps | None = None
    picture: bytes = b""
    failure: str | None = None
    file: str | None = None


def load_series_manifest(path: Path, sequence: str | None = None) -> tuple[Manifest, tuple[SeriesCase, ...]]:
    """Read the contrast series of a manifest.

    Parameters
    ----------
    path : Path
        A manifest. Several volumes in its column image are joined by ``;`` in order of time.
    sequence : str, optional
        Whose rows are meant; else those called DCE, or the only ones.

    Raises
    ------
    InputError
        The manifest cannot be read, or does not say which rows are the contrast series.
    """
    manifest = load_manifest(path)
    wanted = sequence or (CONTRAST_SEQUENCE if CONTRAST_SEQUENCE in manifest.sequences else None)
    if wanted is None and len(manifest.sequences) == 1:
        wanted = manifest.sequences[0]
    if wanted not in manifest.sequences:
        hint = did_you_mean(wanted, manifest.sequences) if wanted else ""
        raise InputError(
            f"{path.name} has no sequence {wanted or CONTRAST_SEQUENCE!r}{hint} but {', '.join(manifest.sequences)}; name the "
            "contrast series with --sequence."
        )
    cases = [_case(manifest, entry) for entry in manifest.entries if entry.sequence == wanted]
    return manifest, tuple(cases)


def _case(manifest: Manifest, entry: Entry) -> SeriesCase:
    images = tuple(manifest.path(part.strip()) for part in entry.image.split(";") if part.strip())
    if not images:
        raise InputError(f"Sample {entry.sample!r} names no image; name a 4-D file, or all volumes joined by ';'.")
    mask = manifest.path(entry.mask) if entry.mask else None
    return SeriesCase(entry, images, mask)


def measure_series(case: SeriesCase, settings: PerfusionSettings, *, pictures: bool = True) -> PerfusionCase:
    """Measure one contrast series: the model of Brix where it has the frames, else percent enhancement and its ratio.

    Returns
    -------
    PerfusionCase
        With the reason where something is missing; a case that cannot be used does not stop the others.
    """
    try:
        series = read_series(case.images, times_s=(case.entry.times_s or None), shown=case.shown)
        mask = _mask(case, series, settings)
    except ImageError as error:
        return PerfusionCase(case, failure=str(error), file=error.file or case.shown)
    try:
        check_frames(np.arange(len(series.frames)), settings.brix)
    except InputError as refusal:
        return _without_fit(case, series, mask, settings, str(refusal))
    try:
        maps = perfusion_maps(series, mask, settings)
        found = hypoxic_fraction(maps, settings)
    except InputError as error:
        return PerfusionCase(case, failure=f"{case.shown}: {error}", file=case.shown)
    picture = draw(series, maps, settings.threshold) if pictures else b""
    return PerfusionCase(case, _values(maps, found), found.slices, maps, picture)


def _mask(case: SeriesCase, series: Series, settings: PerfusionSettings) -> sitk.Image:
    if case.mask is None:
        raise ImageError(f"{case.shown} has no mask; name that of the tumour in the manifest.", file=case.shown)
    written = case.entry.mask
    return read_mask(case.mask, case.entry.label, series.grid, settings.masks, shown=written, image_path=case.images[0])


def _without_fit(case: SeriesCase, series: Series, mask: sitk.Image, settings: PerfusionSettings, refusal: str) -> PerfusionCase:
    inside = sitk.GetArrayFromImage(mask) != 0
    try:
        before, early, late = three_phases(series, inside, settings.brix.baseline_frames)
    except ImageError as error:
        return PerfusionCase(case, failure=f"{case.shown}: {refusal} {error}", file=case.shown)
    enhancement = percent_enhancement(before, early, minimum_signal=settings.minimum_signal)
    ratio = signal_enhancement_ratio(
        before, early, late, enhancing_percent=settings.enhancing_percent, minimum_signal=settings.minimum_signal
    )
    valid = np.isfinite(enhancement)
    if (~valid).sum() > settings.most_invalid * len(valid):
        refusal += (
            f" Nor is there enhancement: {(~valid).sum()} of {len(valid)} voxels of the tumour have no signal before contrast."
        )
        return PerfusionCase(case, failure=f"{case.shown}: {refusal}", file=case.shown)
    values = {
        **_quartiles("percent_enhancement", enhancement),
        **_quartiles("SER", ratio),
        "enhancing_fraction": float((enhancement[valid] >= settings.enhancing_percent).mean()),
        "voxels": float(len(valid)),
        "invalid_voxels": float((~valid).sum()),
    }
    return PerfusionCase(case, values, failure=f"{case.shown}: {refusal}", file=case.shown)


def _quartiles(name: str, values: np.ndarray) -> dict[str, float]:
    there = values[np.isfinite(values)]
    return {f"{name}_{part}": float(np.percentile(there, q)) if len(there) else np.nan for part, q in QUARTILES.items()}


def _values(maps: PerfusionMaps, found: HypoxicFraction) -> dict[str, float]:
    fit = maps.fit
    return {
        "hypoxic_fraction": found.fraction,
        "hypoxic": float(found.hypoxic),
        **_quartiles("ABrix", fit.a_brix),
        "kep_median": _quartiles("kep", fit.kep)["kep_median"],
        "kel_median": _quartiles("kel", fit.kel)["kel_median"],
        "arrival_min": fit.arrival_min,
        "voxels": float(found.voxels),
        **{f"{flag}_voxels": float(getattr(fit, flag).sum()) for flag in FLAGS},
    }


def draw(series: Series, maps: PerfusionMaps, threshold: float) -> bytes:
    """Draw amplitude on the last frame, hypoxic voxels outlined, in the middle and in the largest slice of the tumour.

    Returns
    -------
    bytes
        PNG.
    """
    from matplotlib.figure import Figure

    slices = shown_slices(maps.inside)
    spacing = maps.grid.GetSpacing()
    amplitude = sitk.GetArrayFromImage(maps.image(maps.fit.a_brix))
    figure = Figure(figsize=(INCHES * len(slices) + 1, INCHES), layout="constrained")
    axes = figure.subplots(1, len(slices), squeeze=False)[0]
    top = float(max(2 * threshold, np.nanpercentile(maps.fit.a_brix, 95)))
    for axis, number in zip(axes, slices, strict=True):
        shown = _draw_slice(axis, series.frames[-1][number], amplitude[number], threshold, top)
        axis.set_aspect(spacing[1] / spacing[0])
        axis.set_title(f"slice {number + 1} of {len(amplitude)}", fontsize=8)
    figure.colorbar(shown, ax=list(axes), label=f"ABrix (outlined: below {threshold:g})")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def _draw_slice(axis: Axes, image: np.ndarray, amplitude: np.ndarray, threshold: float, top: float) -> AxesImage:
    there = image[np.isfinite(image)]
    low, high = np.percentile(there, WINDOW) if len(there) else (0.0, 1.0)
    axis.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
    shown = axis.imshow(np.ma.masked_invalid(amplitude), cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    hypoxic = np.nan_to_num(amplitude, nan=np.inf) < threshold
    if hypoxic.any():
        axis.contour(hypoxic, levels=[0.5], colors="#ff9f1c", linewidths=0.8)
    axis.set_axis_off()
    return shown


@dataclass(frozen=True)
class PerfusionTable:
    """What is left of all cases once their maps are on disk.

    Attributes
    ----------
    rows : DataFrame
        Indexed by sample, the patient first.
    slices : DataFrame
        Sample, slice, voxels, valid, hypoxic, fraction.
    failures : DataFrame
        Sample, sequence, file, reason.
    record : ExtractionRecord
        Settings and what each column is; beside the table it lets a study take the features, and not the diagnostics.
    warnings : tuple of str
        What a reader of the table must know.
    """

    rows: pd.DataFrame
    slices: pd.DataFrame
    failures: pd.DataFrame
    record: ExtractionRecord
    warnings: tuple[str, ...]


def run_perfusion(
    manifest: Manifest,
    cases: tuple[SeriesCase, ...],
    settings: PerfusionSettings,
    output: Path,
    said: Callable[[PerfusionCase], None] = lambda found: None,
) -> PerfusionTable:
    """Measure all cases and write what was found: the table last, each file whole or as it was.

    Parameters
    ----------
    said : callable
        Told of each case when it is done.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    found: list[PerfusionCase] = []
    try:
        for name in ("maps", "pictures"):
            (output / name).mkdir(parents=True, exist_ok=True)
        for case in cases:
            one = measure_series(case, settings)
            _write_case(one, output)
            found.append(replace(one, maps=None, picture=b""))  # one case at a time in memory
            said(one)
        table = _table(found, manifest, settings)
        _write_tables(table, output)
    except OSError as cause:
        raise InputError(f"{output} cannot be written to ({cause.strerror}); name another folder.") from cause
    return table


def _write_case(found: PerfusionCase, output: Path) -> None:
    name = file_name(f"{found.case.entry.sample}_{found.case.entry.sequence}")
    if found.maps is not None:
        for parameter, image in found.maps.images().items():
            path = output / "maps" / f"{name}_{parameter}.nii.gz"
            replace_whole(path, lambda stage, image=image: sitk.WriteImage(image, str(stage)))  # type: ignore[misc]
    if found.picture:
        replace_whole(output / "pictures" / f"{name}.png", lambda stage: stage.write_bytes(found.picture))


def _write_tables(table: PerfusionTable, output: Path) -> None:
    """The record last: a table without one, or that does not fit it, was not finished."""
    text, parquet = output / "perfusion.csv", output / "perfusion.parquet"
    replace_whole(output / "slices.csv", lambda path: table.slices.to_csv(path, index=False))
    replace_whole(output / "failures.csv", lambda path: table.failures.to_csv(path, index=False))
    replace_whole(parquet, lambda path: table.rows.reset_index().to_parquet(path, index=False))
    replace_whole(text, lambda path: table.rows.to_csv(path))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (parquet, text)}
    write_whole(record_path(text), table.record.model_copy(update={"files": files}).model_dump_json(indent=1))


def _table(found: list[PerfusionCase], manifest: Manifest, settings: PerfusionSettings) -> PerfusionTable:
    sequence = found[0].case.entry.sequence
    measured = [one for one in found if one.values]
    rows = pd.DataFrame([{f"{sequence}_{name}": value for name, value in one.values.items()} for one in measured])
    rows.index = pd.Index([one.case.entry.sample for one in measured], name="sample")
    columns = tuple(_feature(str(name), sequence) for name in rows.columns)
    rows.insert(0, "patient", [one.case.entry.patient for one in measured])
    slices = [one.slices.assign(sample=one.case.entry.sample) for one in found if one.slices is not None]
    names = ["sample", "slice", "voxels", "valid", "hypoxic", "fraction"]
    failed = [(one.case.entry.sample, sequence, one.file or "", one.failure) for one in found if one.failure]
    return PerfusionTable(
        rows,
        pd.concat(slices, ignore_index=True)[names] if slices else pd.DataFrame(columns=names),
        pd.DataFrame(failed, columns=["sample", "sequence", "file", "reason"]),
        _record(columns, manifest, settings, len(found) - len(measured)),
        (settings.warning,) if slices else (),
    )


def _record(columns: tuple[Feature, ...], manifest: Manifest, settings: PerfusionSettings, failures: int) -> ExtractionRecord:
    """What the values depend on is hashed; what is said about it is not, and may be said better one day."""
    described = {"perfusion": settings.model_dump(mode="json"), "flags": FLAGS}
    return ExtractionRecord(
        profile=PROFILE,
        settings_hash=hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest(),
        settings={**described, "warning": settings.warning},
        manifest_hash=manifest.hash,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={name: version(name) for name in COMPUTES},
        columns=columns,
        patient="patient",
        failures=failures,
    )


def _feature(name: str, sequence: str) -> Feature:
    """Counts of voxels and the time of arrival say how a case was measured, and are no biomarkers."""
    what = name.removeprefix(f"{sequence}_")
    family = "diagnostics" if what.endswith("voxels") or what.startswith("arrival") else "perfusion"
    unit: Mapping[str, str] = UNITS
    return Feature(name=name, unit=unit.get(what.split("_")[0]), sequence=sequence, family=family)
