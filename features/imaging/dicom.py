"""DICOM series: slices sorted by position, checked to be a volume, with the parameters of their acquisition."""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag

from features.imaging.acquisition import PHASE_DIRECTIONS, Acquisition, pixel_side
from features.imaging.archive import Place
from features.imaging.errors import ImageError
from features.imaging.images import LARGEST_VOLUME, is_dicom, quiet_itk

# What a header is read for; nothing that identifies a patient is among it, and nothing else is read.
KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RepetitionTime",
    "EchoTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "NumberOfAverages",
    "EchoTrainLength",
    "InPlanePhaseEncodingDirection",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
# Where each vendor keeps the b-value: creator of the private block, group, element in the block.
PRIVATE_B = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("Philips Imaging DD 001", 0x2001, 0x03),
)
CSA = ("SIEMENS CSA HEADER", 0x0029, 0x10)
BLOCKS = range(0x10, 0x18)
GE_FLAG = 1e9  # GE adds a multiple of this to the b-value of some images
GAUSS_PER_T = 1e4
NO_IMAGE = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "SR", "KO", "REG")
UNEVEN = 0.05  # of the distance between slices
SHIFTED = 0.25  # of a pixel
SKEWED = 0.01  # of the cosines' products
SAME = 1e-3  # between direction cosines
# What pydicom and highdicom raise at a file that was damaged.
DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    EOFError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    BytesLengthException,
)

Array = np.ndarray


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes
    ----------
    number : int or None
        In a file of many, from 1.
    series : str
        Its series; kept in memory only.
    position : ndarray of shape (3,)
        Of the first pixel, mm.
    axes : ndarray of shape (2, 3)
        Directions along a row and along a column.
    spacing_mm : tuple of float
        Between columns, and between rows.
    size : tuple of int
        Columns, rows.
    """

    file: Path
    number: int | None
    header: Dataset
    series: str
    series_number: int | None
    position: Array
    axes: Array
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    b_value: float | None

    @property
    def normal(self) -> Array:
        """Direction through the slices."""
        return np.cross(self.axes[0], self.axes[1])


def read_series(place: Place, shown: str, b_value: float | Literal["highest"] = "highest") -> tuple[sitk.Image, Acquisition]:
    """Read the one image series of a folder (or the file at `place`).

    Returns
    -------
    image : SimpleITK.Image
        float64, rescaled as each slice's header says.
    acquisition : Acquisition

    Raises
    ------
    ImageError
        There is none, there are several, or the slices make no volume.
    """
    frames = _one_series(place, shown)
    weightings = tuple(sorted({frame.b_value for frame in frames if frame.b_value is not None}))
    chosen = _weighted(frames, weightings, b_value, shown)
    ordered = _stacked(chosen, shown)
    image = _volume(ordered, _pixels(ordered, shown), shown)
    return image, _acquisition(ordered[0], image.GetSpacing(), weightings)


def read_header(path: Path, keywords: Sequence[str] = KEYWORDS) -> Dataset:
    """Read the named parts of a header, and nothing else of it; a part that cannot be read is left out."""
    tags = [tag_for_keyword(word) or 0 for word in keywords]
    blocks = [(group << 16) | block for _, group, _ in (*PRIVATE_B, CSA) for block in BLOCKS]
    private = [(group << 16) | (block << 8) | element for _, group, element in (*PRIVATE_B, CSA) for block in BLOCKS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that bend the standard; what matters is checked here
        header = dcmread(path, stop_before_pixels=True, specific_tags=[*tags, *blocks, *private])
        for tag in list(header.keys()):
            if not _is_readable(header, tag):
                del header[tag]
    return header


def _is_readable(header: Dataset, tag: BaseTag) -> bool:
    """Whether a value can be converted: pydicom does it at the first look, which is here."""
    try:
        if header[tag].VR == "SQ":
            for item in header[tag].value:
                for _ in item.iterall():
                    pass
    except DAMAGED:
        return False
    return True


def dicom_files(path: Path, shown: str | None = None) -> Iterator[tuple[Path, Dataset]]:
    """DICOM objects below a folder (or at a path), with their headers; what is none is passed over.

    Raises
    ------
    ImageError
        A file that says it is DICOM is damaged. It is counted and not named: archives call files after patients.
    """
    shown = shown or path.name
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for count, file in enumerate(files, start=1):
        if not is_dicom(file):
            continue
        try:
            header = read_header(file)
        except DAMAGED as cause:
            which = (
                f"holds a damaged DICOM file (number {count} of {len(files)} by name)" if path.is_dir() else "is damaged DICOM"
            )
            raise ImageError(f"{shown} {which}; copy it again from its source.", file=shown) from cause
        if "SOPClassUID" in header:  # else it is the directory of a disk
            yield file, header


def _one_series(place: Place, shown: str) -> list[Frame]:
    frames: list[Frame] = []
    for file, header in dicom_files(place.path, shown):
        if "Rows" in header and header.get("Modality") not in NO_IMAGE:
            frames += frames_of(file, header, shown)
    if not frames:
        raise ImageError(f"{shown} holds no DICOM image; name the folder of a series.", file=shown)
    if place.series is not None:
        frames = [frame for frame in frames if frame.series_number == place.series]
        if not frames:
            raise ImageError(f"{shown} holds no series of that number; name one that it holds.", file=shown)
    counts: dict[tuple[int | None, str], int] = {}
    for frame in frames:
        counts[frame.series_number, frame.series] = counts.get((frame.series_number, frame.series), 0) + 1
    if len(counts) > 1:
        listed = ", ".join(f"number {number} with {count} slices" for (number, _), count in list(counts.items())[:6])
        raise ImageError(
            f"{shown} holds {len(counts)} image series ({listed}{', ...' if len(counts) > 6 else ''}); name the folder of one, "
            f"or write its number after a hash ({shown}#{next(iter(counts))[0]}).",
            file=shown,
        )
    return frames


def frames_of(file: Path, header: Dataset, shown: str) -> list[Frame]:
    """Slices of a file.

    Raises
    ------
    ImageError
        It does not say where they lie.
    """
    numbers = range(1, int(header.get("NumberOfFrames") or 1) + 1) if "PerFrameFunctionalGroupsSequence" in header else [None]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if int(header.get("SamplesPerPixel") or 1) > 1:
                raise ImageError(f"{shown} holds a colour picture; name an image of intensities.", file=shown)
            return [_frame(file, header, number) for number in numbers]
    except DAMAGED as cause:
        raise ImageError(
            f"{shown} has a slice that does not say where it lies (position, orientation, pixel spacing); name a "
            "series of cross-sections.",
            file=shown,
        ) from cause


def _frame(file: Path, header: Dataset, number: int | None) -> Frame:
    spacing = _numbers(header, number, "PixelSpacing", 2)
    axes = _numbers(header, number, "ImageOrientationPatient", 6).reshape(2, 3)
    if spacing.min() <= 0 or np.abs(axes @ axes.T - np.eye(2)).max() > SKEWED:
        raise ValueError("no orientation")
    series_number = header.get("SeriesNumber")
    return Frame(
        file=file,
        number=number,
        header=header,
        series=str(header.get("SeriesInstanceUID")),
        series_number=None if series_number is None else int(series_number),
        position=_numbers(header, number, "ImagePositionPatient", 3),
        axes=axes,
        spacing_mm=(float(spacing[1]), float(spacing[0])),
        size=(int(header.Columns), int(header.Rows)),
        b_value=b_value_of(header, number),
    )


def _numbers(header: Dataset, number: int | None, keyword: str, count: int) -> Array:
    values = np.array(_value(header, number, keyword), dtype=float)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ValueError(keyword)
    return values


def _levels(header: Dataset, number: int | None) -> Iterator[Dataset]:
    """Where a value may be: for this frame, for all frames, for the file."""
    if number is not None:
        per_frame = header.PerFrameFunctionalGroupsSequence[number - 1 : number]
        for groups in (*per_frame, *header.get("SharedFunctionalGroupsSequence", [])):
            for element in groups:
                if element.VR == "SQ":
                    yield from element.value
    yield header


def _value(header: Dataset, number: int | None, *keywords: str) -> Any:
    for level in _levels(header, number):
        for keyword in keywords:
            value = level.get(keyword)
            if value is not None and value != "":
                return value
    return None


def _scalar(header: Dataset, number: int | None, *keywords: str) -> float | None:
    try:
        value = float(_value(header, number, *keywords))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def b_value_of(header: Dataset, number: int | None = None) -> float | None:
    """Diffusion weighting in s/mm^2: of the standard, else of Siemens, GE or Philips; None if there is none.

    References
    ----------
    Li et al. 2016 (dcm2niix), doi:10.1016/j.jneumeth.2016.03.001
    """
    standard = _scalar(header, number, "DiffusionBValue")
    if standard is not None:
        return standard
    for creator, group, element in PRIVATE_B:
        value = _private(header, creator, group, element)
        if value is not None:
            return _vendor_number(value, creator)
    csa = _private(header, *CSA)
    return _csa_b_value(csa) if isinstance(csa, bytes) else None


def _private(header: Dataset, creator: str, group: int, element: int) -> Any:
    try:
        return header.private_block(group, creator)[element].value
    except KeyError:
        return None


def _vendor_number(value: Any, creator: str) -> float | None:
    """First number of a private element; as bytes where the file does not say what they are."""
    try:
        if isinstance(value, bytes) and creator.startswith("Philips"):
            number = struct.unpack("<f", value[:4])[0]
        else:
            text = value.decode("ascii").split("\\") if isinstance(value, bytes) else value
            number = float(text[0] if isinstance(text, Sequence) and not isinstance(text, str) else text)
    except (ValueError, TypeError, IndexError, struct.error):
        return None
    if creator.startswith("GEMS"):
        number %= GE_FLAG
    return number if math.isfinite(number) and number >= 0 else None


def _csa_b_value(header: bytes) -> float | None:
    """Of the Siemens CSA header: a name of 64 bytes, five integers (the fourth counts items), items with their lengths."""
    start = header.find(b"B_value\x00")
    if start < 0 or len(header) < start + 100:
        return None
    items, length = struct.unpack_from("<i", header, start + 76)[0], struct.unpack_from("<i", header, start + 88)[0]
    found = re.match(rb"\s*(\d+)", header[start + 100 : start + 100 + max(0, length)]) if items > 0 else None
    return float(found[1]) if found else None


def _weighted(frames: list[Frame], weightings: tuple[float, ...], wanted: float | Literal["highest"], shown: str) -> list[Frame]:
    if not weightings:
        return frames
    b_value = weightings[-1] if wanted == "highest" else wanted
    if b_value not in weightings:
        there = ", ".join(f"{value:g}" for value in weightings)
        raise ImageError(
            f"{shown} has no images with b = {b_value:g} s/mm^2 (b-values there: {there}); name one of them.", file=shown
        )
    chosen = [frame for frame in frames if frame.b_value == b_value]
    averaged = [frame for frame in chosen if _value(frame.header, frame.number, "DiffusionDirectionality") == "ISOTROPIC"]
    return averaged or chosen  # beside it there may be an image for each direction


def _stacked(frames: list[Frame], shown: str) -> list[Frame]:
    """Slices in the order of their positions, if they make a volume."""
    first = frames[0]
    if any(frame.size != first.size or not np.allclose(frame.spacing_mm, first.spacing_mm, rtol=1e-4) for frame in frames):
        raise ImageError(f"{shown} holds slices of several sizes; name a folder with one volume.", file=shown)
    if any(np.abs(frame.axes - first.axes).max() > SAME for frame in frames):
        raise ImageError(
            f"{shown} holds slices of several orientations (a localizer?); name a folder with one volume.", file=shown
        )
    ordered = sorted(frames, key=lambda frame: float(frame.position @ first.normal))
    if len(ordered) > 1:
        _check_even(ordered, shown)
    return ordered


def _check_even(ordered: list[Frame], shown: str) -> None:
    positions = np.array([frame.position for frame in ordered])
    depths = positions @ ordered[0].normal
    gaps = np.diff(depths)
    distinct = gaps[gaps > SAME]
    if len(distinct) < len(gaps):
        at_most = int(np.unique(np.cumsum(np.r_[True, gaps > SAME]), return_counts=True)[1].max())
        raise ImageError(
            f"{shown} holds up to {at_most} slices at one position (time points, echoes or directions?); name a folder with "
            "one volume, or read the series as a perfusion study.",
            file=shown,
        )
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() > UNEVEN * usual:
        where = int(np.abs(gaps - usual).argmax())
        raise ImageError(
            f"{shown} has slices {gaps.min():.4g} to {gaps.max():.4g} mm apart (see the gap after slice {where + 1} of "
            f"{len(ordered)}); a slice is missing, or they are not evenly spaced; copy the series again.",
            file=shown,
        )
    aside = positions - positions[0] - np.outer(depths - depths[0], ordered[0].normal)
    if np.linalg.norm(aside, axis=1).max() > SHIFTED * min(ordered[0].spacing_mm):
        raise ImageError(
            f"{shown} has slices that are shifted against each other (a tilted gantry?); straighten it first.", file=shown
        )


def _pixels(ordered: list[Frame], shown: str) -> Array:
    """Rescaled intensities of shape (slices, rows, columns)."""
    if ordered[0].size[0] * ordered[0].size[1] * len(ordered) > LARGEST_VOLUME:
        raise ImageError(f"{shown} has more voxels than fit; check its headers.", file=shown)
    try:
        if ordered[0].number is not None:
            return np.concatenate([_enhanced_pixels(file, part) for file, part in _by_file(ordered)])
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(frame.file) for frame in ordered])
        reader.SetOutputPixelType(sitk.sitkFloat64)
        with quiet_itk():
            pixels = sitk.GetArrayFromImage(reader.Execute())
    except DAMAGED as cause:
        raise ImageError(
            f"{shown} has a slice whose pixels cannot be decoded; copy the series again from its source.", file=shown
        ) from cause
    if pixels.shape != (len(ordered), *ordered[0].size[::-1]):
        raise ImageError(f"{shown} holds files of many slices that do not say where each lies; convert it to NIfTI.", file=shown)
    return pixels


def _by_file(ordered: list[Frame]) -> Iterable[tuple[Path, list[int]]]:
    """Runs of frames of one file."""
    runs: list[tuple[Path, list[int]]] = []
    for frame in ordered:
        if not runs or runs[-1][0] != frame.file:
            runs.append((frame.file, []))
        runs[-1][1].append(int(frame.number or 1))
    return runs


def _enhanced_pixels(file: Path, numbers: list[int]) -> Array:
    """Frames of a file of many: ITK does not sort them, and rescales all as the first."""
    import highdicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = highdicom.imread(file)
        frames: Array = image.get_frames(
            numbers, dtype=np.float64, apply_real_world_transform=False, apply_presentation_lut=False, apply_icc_profile=False
        )
    return frames


def _volume(ordered: list[Frame], pixels: Array, shown: str) -> sitk.Image:
    first = ordered[0]
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((*first.spacing_mm, _slice_distance(ordered, shown)))
    image.SetOrigin(first.position.tolist())
    image.SetDirection(np.column_stack([first.axes[0], first.axes[1], first.normal]).ravel().tolist())
    return image


def _slice_distance(ordered: list[Frame], shown: str) -> float:
    if len(ordered) > 1:
        return float((ordered[-1].position - ordered[0].position) @ ordered[0].normal) / (len(ordered) - 1)
    told = _scalar(ordered[0].header, ordered[0].number, "SpacingBetweenSlices", "SliceThickness")
    if not told:
        raise ImageError(f"{shown} is one slice that does not say how thick it is; name the whole series.", file=shown)
    return told


def _acquisition(frame: Frame, spacing_mm: tuple[float, ...], weightings: tuple[float, ...]) -> Acquisition:
    def told(*keywords: str) -> float | None:
        return _scalar(frame.header, frame.number, *keywords)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        field = told("MagneticFieldStrength")
        thickness = told("SliceThickness")
        return Acquisition(
            repetition_time_ms=told("RepetitionTime"),
            echo_time_ms=told("EffectiveEchoTime", "EchoTime"),
            flip_angle_deg=told("FlipAngle"),
            field_strength_t=field / GAUSS_PER_T if field and field > 100 else field,  # some write it in gauss
            averages=told("NumberOfAverages"),
            echo_train_length=told("EchoTrainLength"),
            phase_direction=PHASE_DIRECTIONS.get(str(_value(frame.header, frame.number, "InPlanePhaseEncodingDirection"))),
            slice_thickness_mm=thickness if thickness else spacing_mm[2],
            pixel_spacing_mm=pixel_side(*frame.spacing_mm),
            b_value_s_mm2=frame.b_value,
            b_values=weightings,
        )
