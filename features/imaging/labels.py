"""One region out of a label image."""

from __future__ import annotations

import re

import numpy as np
import SimpleITK as sitk

from features.imaging.errors import ImageError

WHOLE = 1e-3  # a label that was stored as a fraction of a scale is as near to an integer as this
MOST_LABELS = 10


def select(image: sitk.Image, label: int | str, shown: str) -> sitk.Image:
    """Mark the voxels of one label.

    Parameters
    ----------
    image : SimpleITK.Image
        Of integers; layers of segments, as 3D Slicer writes them, are its components.
    label : int or str
        Value, or name of a segment.

    Returns
    -------
    SimpleITK.Image
        uint8, 1 inside.

    Raises
    ------
    ImageError
        It holds no such label, or no labels at all.

    Examples
    --------
    >>> labels = sitk.GetImageFromArray(np.array([[[0, 1, 2, 2]]], dtype="int16"))
    >>> sitk.GetArrayFromImage(select(labels, 2, "mask.nrrd")).tolist()
    [[[0, 0, 1, 1]]]
    """
    layer, value = _value(image, label, shown)
    if image.GetNumberOfComponentsPerPixel() > 1:
        image = sitk.VectorIndexSelectionCast(image, layer)
    voxels = sitk.GetArrayViewFromImage(image)
    inside = np.abs(voxels.astype(np.float64) - value) < WHOLE
    if not inside.any():
        raise ImageError(f"{shown} {_lack(image, value)}", file=shown)
    marked = sitk.GetImageFromArray(inside.astype(np.uint8))
    marked.CopyInformation(image)
    return marked


def present(image: sitk.Image) -> tuple[int, ...]:
    """Labels of an image, ascending, without the background; none, if its values are no labels."""
    values = np.unique(sitk.GetArrayViewFromImage(image))
    whole = np.round(values[np.isfinite(values)])
    if len(whole) < len(values) or np.abs(values - whole).max(initial=0) > WHOLE:
        return ()
    return tuple(sorted({int(value) for value in whole} - {0}))


def _lack(image: sitk.Image, value: int) -> str:
    values = np.unique(sitk.GetArrayViewFromImage(image))
    if not values.any():
        return "is empty: no voxel is marked; draw the region, or leave the row out."
    labels = present(image)
    if not labels:
        return f"holds values that are no labels ({values[0]:g} to {values[-1]:g}); name a mask of integers."
    more = " ..." if len(labels) > MOST_LABELS else ""
    there = ", ".join(map(str, labels[:MOST_LABELS]))
    return f"does not hold label {value} (labels there: {there}{more}); name one of them in the column label."


def _value(image: sitk.Image, label: int | str, shown: str) -> tuple[int, int]:
    """Layer and value of a label; segments of 3D Slicer have names in the header."""
    named = _segments(image)
    if str(label) in named:
        return named[str(label)]
    if str(label).lstrip("-").isdecimal():
        if int(label) == 0:
            raise ImageError(f"Label 0 of {shown} is its background; name the label of the region.", file=shown)
        return 0, int(label)
    there = f"; segments there: {', '.join(named)}" if named else ", and its labels are numbers; name one in the column label"
    raise ImageError(f"{shown} has no segment {label!r}{there}.", file=shown)


def _segments(image: sitk.Image) -> dict[str, tuple[int, int]]:
    found = {}
    for key in image.GetMetaDataKeys():
        if match := re.fullmatch(r"Segment(\d+)_Name", key):
            start = f"Segment{match[1]}_"
            layer, value = (
                image.GetMetaData(start + what) if image.HasMetaDataKey(start + what) else "" for what in ("Layer", "LabelValue")
            )
            found[image.GetMetaData(key)] = (int(layer or 0), int(value or 1))
    return found
