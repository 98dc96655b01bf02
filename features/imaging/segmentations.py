"""Regions of interest that are DICOM objects: segmentations (SEG) and structure sets (RTSTRUCT)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from features.imaging.dicom import DAMAGED, dicom_files, read_header
from features.imaging.errors import ImageError
from features.imaging.masks import affine_of, refuse_outside

OFF_SLICE = 0.1  # of the distance between slices
MOST_NAMES = 10
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

Kind = Literal["SEG", "RTSTRUCT"]
Array = np.ndarray


def find_object(path: Path, shown: str) -> tuple[Kind, Path]:
    """The one segmentation or structure set at a path, or below a folder.

    Raises
    ------
    ImageError
        There is none, or there are several.
    """
    found: list[tuple[Kind, Path]] = []
    for file, header in dicom_files(path, shown):
        if header.get("Modality") == "SEG":
            found.append(("SEG", file))
        elif header.get("Modality") == "RTSTRUCT":
            found.append(("RTSTRUCT", file))
    if len(found) != 1:
        count = f"{len(found)} of them" if found else "none"
        raise ImageError(f"{shown} should hold one DICOM SEG or RTSTRUCT, and holds {count}; name the file of one.", file=shown)
    return found[0]


def read_segment(path: Path, label: int | str, shown: str) -> sitk.Image:
    """One segment of a DICOM SEG.

    Parameters
    ----------
    label : int or str
        Number or label of the segment.

    Returns
    -------
    SimpleITK.Image
        uint8; on the segmentation's own grid, which may leave out slices at both ends. Of a fractional segmentation, what is
        at least a half.

    Raises
    ------
    ImageError
        It is damaged, or there is no such segment.
    """
    import highdicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation = highdicom.seg.segread(path)
            names = {str(item.SegmentLabel): int(item.SegmentNumber) for item in segmentation.SegmentSequence}
            number = _chosen(label, names, "segment", shown)
            volume = segmentation.get_volume(segment_numbers=[number], dtype=np.float32, skip_overlap_checks=True)
    except DAMAGED as cause:
        raise ImageError(
            f"{shown} cannot be read as a DICOM segmentation of a volume; write it again from its source.", file=shown
        ) from cause
    return _as_image(volume.array[..., 0] >= 0.5, volume.affine)


def _as_image(inside: Array, affine: Array) -> sitk.Image:
    """Array of (slice, row, column) with the matrix from these to millimetres."""
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    axes = affine[:3, 2::-1]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    return image


def _chosen(label: int | str, names: dict[str, int], what: str, shown: str) -> int:
    """Number of what is called by a number or a name (in whatever case, if that is clear)."""
    wanted = str(label).strip()
    if wanted in names:
        return names[wanted]
    if wanted.isdecimal() and int(wanted) in names.values():
        return int(wanted)
    alike = [number for name, number in names.items() if name.strip().lower() == wanted.lower()]
    if len(alike) == 1:
        return alike[0]
    there = ", ".join(f"{number} {name!r}" for name, number in list(names.items())[:MOST_NAMES])
    more = " ..." if len(names) > MOST_NAMES else ""
    raise ImageError(
        f"{shown} has no {what} {label!r} ({what}s there: {there}{more}); name one by number or name in the column label.",
        file=shown,
    )


def draw_contours(path: Path, label: int | str, like: sitk.Image, shown: str, *, any_slice: bool = False) -> sitk.Image:
    """Fill the contours of one region of an RTSTRUCT on the slices of its image.

    A voxel is inside if its centre is. Where contours of a slice overlap, the inner one is a hole.

    Parameters
    ----------
    label : int or str
        Number or name of the region.
    any_slice : bool
        Whether a contour between two slices goes to the nearest one.

    Returns
    -------
    SimpleITK.Image
        uint8 on the grid of `like`.

    Raises
    ------
    ImageError
        There is no such region, or it was not drawn on the slices of this image.
    """
    inside = np.zeros(like.GetSize()[::-1], dtype=bool)
    to_index = np.linalg.inv(affine_of(like))
    polygons = [points @ to_index[:3, :3].T + to_index[:3, 3] for points in _contours(path, label, shown)]
    refuse_outside(np.concatenate(polygons), like, shown)
    for polygon in polygons:
        _fill(inside, polygon, shown, any_slice)
    mask = sitk.GetImageFromArray(inside.astype(np.uint8))
    mask.CopyInformation(like)
    return mask


def _contours(path: Path, label: int | str, shown: str) -> list[Array]:
    """Polygons of shape (n, 3) in millimetres."""
    try:
        header = read_header(path, ["StructureSetROISequence", "ROIContourSequence"])
        names = {str(item.ROIName): int(item.ROINumber) for item in header.get("StructureSetROISequence", [])}
        number = _chosen(label, names, "region", shown)
        polygons = list(_polygons(header, number))
    except DAMAGED as cause:
        raise ImageError(
            f"{shown} cannot be read as a DICOM structure set; write it again from its source.", file=shown
        ) from cause
    if not polygons:
        raise ImageError(f"{shown} is empty: region {label!r} has no closed contour; draw it, or leave the row out.", file=shown)
    return polygons


def _polygons(header: Dataset, number: int) -> Iterator[Array]:
    for region in header.get("ROIContourSequence", []):
        if int(region.ReferencedROINumber) != number:
            continue
        for contour in region.get("ContourSequence", []):
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            if contour.ContourGeometricType in CLOSED and len(points) > 2:
                yield points


def _fill(inside: Array, polygon: Array, shown: str, any_slice: bool) -> None:
    from matplotlib.path import Path as Outline

    depth = polygon[:, 2]
    number = round(float(depth.mean()))
    off = np.abs(depth - number).max()
    if np.ptp(depth) > 2 * OFF_SLICE or (off > OFF_SLICE and not any_slice):
        raise ImageError(
            f"{shown} was not drawn on the slices of this image (a contour is {off:.2g} slices off); name under reference the "
            "sequence that it was drawn on, or set masks.off_grid to resample (--masks off_grid=resample).",
            file=shown,
        )
    _, rows, columns = inside.shape
    low = np.maximum(np.floor(polygon[:, :2].min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(polygon[:, :2].max(axis=0)).astype(int) + 1, (columns, rows))
    x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    within = Outline(polygon[:, :2]).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
    inside[min(max(number, 0), len(inside) - 1), low[1] : high[1], low[0] : high[0]] ^= within
