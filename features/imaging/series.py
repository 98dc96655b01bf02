"""Contrast series: several volumes of one place over time, from one file, several files, or DICOM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from features.imaging.acquisition import SUFFIXES, sidecars_of
from features.imaging.archive import Place, opened
from features.imaging.errors import ImageError
from features.imaging.images import LARGEST_VOLUME, is_dicom, quiet_itk, read_volume
from features.imaging.integrity import check_whole

if TYPE_CHECKING:
    from pydicom import Dataset

    from features.imaging.dicom import Frame

SHORTEST_FRAME_S = 1.0  # a repetition time below it is that between two pulses, not that between two volumes
DAY_S = 86400.0
LARGEST_SERIES = 4 * LARGEST_VOLUME
UNEVEN = 0.02  # of the distance of slices
TIMES = (
    "TemporalPositionIdentifier",
    "TemporalResolution",
    "TriggerTime",
    "AcquisitionTime",
    "ContentTime",
)


@dataclass(frozen=True)
class Series:
    """Volumes in order of time, on one grid.

    Attributes
    ----------
    frames : ndarray of shape (n_frames, n_slices, n_rows, n_columns)
        In the number type of the source, rescaled as its header says.
    grid : SimpleITK.Image
        The first volume: its geometry is that of all.
    times_s : tuple of float or None
        Start of each frame in seconds after the first; None is unknown.
    """

    frames: np.ndarray
    grid: sitk.Image
    times_s: tuple[float, ...] | None = None

    def signal(self, mask: np.ndarray) -> np.ndarray:
        """Signal of the voxels of a mask, of shape (n_voxels, n_frames), float64.

        Parameters
        ----------
        mask : ndarray of shape (n_slices, n_rows, n_columns), bool
        """
        return np.stack([frame[mask].astype(np.float64) for frame in self.frames], axis=1)


def read_series(paths: Sequence[Path], *, times_s: Sequence[float] | None = None, shown: str | None = None) -> Series:
    """Read a contrast series.

    Parameters
    ----------
    paths : sequence of Path
        One 4-D file (NIfTI, NRRD, MetaImage), one folder or zip archive with a DICOM series of all times; or one volume per
        time, in order.
    times_s : sequence of float, optional
        Times of the frames in seconds. Without them they are taken from the headers (DICOM) or from the sidecar beside the
        first file: ``FrameTimesStart``, ``VolumeTiming``, or ``RepetitionTime`` where it is that of volumes.
    shown : str, optional
        The first path as the user wrote it, for messages.

    Returns
    -------
    Series

    Raises
    ------
    ImageError
        It cannot be read, is no series, its volumes lie on different grids, or the times do not fit.
    """
    shown = shown or paths[0].name
    series = _read_one(paths[0], shown) if len(paths) == 1 else _read_several(paths, shown)
    if times_s is not None:
        series = replace(series, times_s=tuple(float(time) for time in times_s))
    if series.times_s is not None:
        _check_times(series.times_s, len(series.frames), shown)
    return series


def _check_times(times_s: tuple[float, ...], frames: int, shown: str) -> None:
    if len(times_s) != frames:
        raise ImageError(f"{shown} has {frames} frames but {len(times_s)} times are given; give one time per frame.", file=shown)
    steps = np.diff(times_s)
    if not np.isfinite(times_s).all() or (steps <= 0).any():
        at = int(np.argmin(steps > 0)) + 2
        raise ImageError(
            f"The times of {shown} do not increase (at frame {at} of {frames}); put the frames in order of time, in seconds.",
            file=shown,
        )


def _read_one(path: Path, shown: str) -> Series:
    with opened(path, shown) as place:
        if place.path.is_dir() or is_dicom(place.path):
            return _read_dicom(place, shown)
        return _read_file(place.path, shown)


def _read_file(path: Path, shown: str) -> Series:
    if not path.name.lower().endswith(SUFFIXES):
        raise ImageError(f"{shown} is neither DICOM nor one of {', '.join(SUFFIXES)}; convert it to one of them.", file=shown)
    check_whole(path, shown)
    try:
        with quiet_itk():
            header = sitk.ImageFileReader()
            header.SetFileName(str(path))
            header.ReadImageInformation()
            if np.prod(header.GetSize(), dtype=float) > LARGEST_SERIES:
                raise ImageError(f"{shown} claims {' x '.join(map(str, header.GetSize()))} voxels, more than fit.", file=shown)
            image = sitk.ReadImage(str(path))
    except RuntimeError as cause:
        raise ImageError(
            f"{shown} cannot be read (it is damaged, or not what its name says); check the file.", file=shown
        ) from cause
    frames, grid = _frames_of(image)
    if len(frames) < 2:
        raise ImageError(
            f"{shown} holds one volume, and a contrast series has several; name a 4-D file, or all volumes in order of time "
            "joined by ';'.",
            file=shown,
        )
    return Series(frames, grid, _times_beside(path, len(frames), shown))


def _frames_of(image: sitk.Image) -> tuple[np.ndarray, sitk.Image]:
    values = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 4:
        return values, image[..., 0]
    if image.GetNumberOfComponentsPerPixel() > 1:  # some writers of NRRD make time the components of a voxel
        return np.moveaxis(values, -1, 0), sitk.VectorIndexSelectionCast(image, 0)
    return values[np.newaxis], image


def _times_beside(path: Path, frames: int, shown: str) -> tuple[float, ...] | None:
    """Times in seconds from the sidecar of an image, if it has one that tells."""
    sidecar = sidecars_of(path)[0]
    if not sidecar.is_file():
        return None
    try:
        told = json.loads(sidecar.read_text(encoding="utf-8"))
        for key in ("FrameTimesStart", "VolumeTiming"):
            if key in told:
                return tuple(float(time) for time in told[key])
        step = float(told.get("RepetitionTime", 0.0))
    except (OSError, ValueError, TypeError) as cause:
        raise ImageError(
            f"{sidecar.name} beside {shown} tells no times in seconds; mend it, or give times_s in the manifest.", file=shown
        ) from cause
    return tuple(step * number for number in range(frames)) if step >= SHORTEST_FRAME_S else None


def _read_several(paths: Sequence[Path], shown: str) -> Series:
    first = read_volume(paths[0], shown=shown).image
    frames = [sitk.GetArrayFromImage(first)]
    for path in paths[1:]:
        image = read_volume(path, shown=path.name).image
        if not _same_grid(image, first):
            raise ImageError(
                f"{path.name} lies on another grid than {shown}; resample the volumes of a series onto one grid.", file=path.name
            )
        frames.append(sitk.GetArrayFromImage(image))
    return Series(np.stack(frames), first, _times_beside(paths[0], len(frames), shown))


def _same_grid(image: sitk.Image, other: sitk.Image) -> bool:
    return image.GetSize() == other.GetSize() and all(
        np.allclose(getattr(image, f"Get{name}")(), getattr(other, f"Get{name}")(), rtol=1e-4, atol=1e-3)
        for name in ("Spacing", "Origin", "Direction")
    )


def _temporal_position(header: Dataset) -> float | None:
    value = header.get("TemporalPositionIdentifier")
    return None if value is None else float(value)


def _trigger_time_s(header: Dataset) -> float | None:
    value = header.get("TriggerTime")
    return None if value is None else float(value) / 1000


def _clock_s(keyword: str) -> Callable[[Any], float | None]:
    def seconds(header: Dataset) -> float | None:
        text = str(header.get(keyword) or "").replace(":", "")
        if not text:
            return None
        return int(text[:2]) * 3600 + int(text[2:4] or 0) * 60 + float(text[4:] or 0)

    return seconds


CLOCKS: tuple[Callable[[Any], float | None], ...] = (_trigger_time_s, _clock_s("AcquisitionTime"), _clock_s("ContentTime"))


def _read_dicom(place: Place, shown: str) -> Series:
    """A dynamic series, its slices parted by what of their headers differs from one time to the next."""
    stacks = _stacks(_slices(place, shown), shown)
    ordered, times = _in_time(stacks, shown)
    files = [[stack[number].file for stack in ordered] for number in range(len(ordered[0]))]
    frames = [sitk.GetArrayFromImage(_read_volume_of(slices, shown)).astype(np.float32) for slices in files]
    return Series(np.stack(frames), _read_volume_of(files[0], shown), times)


def _slices(place: Place, shown: str) -> list[Frame]:
    from features.imaging.dicom import KEYWORDS, NO_IMAGE, dicom_files, frames_of, read_header

    found: list[Frame] = []
    for file, header in dicom_files(place.path):
        if "Rows" in header and header.get("Modality") not in NO_IMAGE:
            found += frames_of(file, read_header(file, (*KEYWORDS, *TIMES)), shown)
    if place.series is not None:
        found = [one for one in found if one.series_number == place.series]
    if not found:
        raise ImageError(f"{shown} holds no DICOM image; name the folder of the series.", file=shown)
    if any(one.number is not None for one in found):
        raise ImageError(f"{shown} is an enhanced (multi-frame) series; convert it to a 4-D NIfTI, with its times.", file=shown)
    return found


def _stacks(slices: list[Frame], shown: str) -> list[list[Frame]]:
    """The files of each slice position, positions ascending."""
    first = slices[0]
    if any(one.size != first.size or not np.allclose(one.axes, first.axes, atol=1e-3) for one in slices):
        raise ImageError(f"{shown} holds slices of several grids; name the folder of one dynamic series.", file=shown)
    stacks: dict[float, list[Frame]] = {}
    for one in slices:
        stacks.setdefault(round(float(one.position @ first.normal), 2), []).append(one)
    counts = {len(stack) for stack in stacks.values()}
    if len(counts) > 1:
        raise ImageError(
            f"{shown} has between {min(counts)} and {max(counts)} times at its slice positions; some slices are missing, copy "
            "them all.",
            file=shown,
        )
    if counts == {1}:
        raise ImageError(
            f"{shown} holds one volume, and a contrast series has several; name the folder of all times.", file=shown
        )
    steps = np.diff(sorted(stacks))
    if len(steps) and np.ptp(steps) > UNEVEN * steps.mean():
        raise ImageError(f"{shown} has slices at uneven distances; one or more are missing, copy them all.", file=shown)
    return [stacks[position] for position in sorted(stacks)]


def _in_time(stacks: list[list[Frame]], shown: str) -> tuple[list[list[Frame]], tuple[float, ...] | None]:
    """Each position's files in order of time, and the times in seconds after the first where the headers tell them."""
    for key in (_temporal_position, *CLOCKS):
        if not _tells(key, stacks):
            continue
        across_midnight = key in CLOCKS and np.ptp([key(one.header) for one in stacks[0]]) > DAY_S / 2

        def when(one: Frame, key: Any = key, wrapped: bool = bool(across_midnight)) -> float:
            value = float(key(one.header))
            return value + DAY_S if wrapped and value < DAY_S / 2 else value

        ordered = [sorted(stack, key=when) for stack in stacks]
        return ordered, _times_of(ordered)
    raise ImageError(
        f"{shown} does not say which slice belongs to which time (temporal position, trigger, acquisition and content time are "
        "missing or alike); convert it to a 4-D NIfTI with its times.",
        file=shown,
    )


def _tells(key: Callable[[Any], float | None], stacks: list[list[Frame]]) -> bool:
    """Whether a header value is there and differs between all files of each position."""
    for stack in stacks:
        values = [key(one.header) for one in stack]
        if None in values or len(set(values)) < len(values):
            return False
    return True


def _times_of(ordered: list[list[Frame]]) -> tuple[float, ...] | None:
    """Times of the frames by the first clock that runs with them: the earliest slice of each."""
    for clock in CLOCKS:
        if _tells(clock, ordered):
            starts = np.array([min(float(clock(stack[n].header) or 0.0) for stack in ordered) for n in range(len(ordered[0]))])
            starts[1:] += DAY_S * (np.diff(starts) < -DAY_S / 2).cumsum()
            if (np.diff(starts) > 0).all():
                return tuple(float(time) for time in starts - starts[0])
    step_ms = ordered[0][0].header.get("TemporalResolution")
    return tuple(float(step_ms) / 1000 * n for n in range(len(ordered[0]))) if step_ms else None


def _read_volume_of(files: list[Path], shown: str) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    reader.SetOutputPixelType(sitk.sitkFloat64)
    try:
        with quiet_itk():
            return reader.Execute()
    except RuntimeError as cause:
        raise ImageError(f"{shown} cannot be read: a slice is damaged or of a kind that is not known.", file=shown) from cause
