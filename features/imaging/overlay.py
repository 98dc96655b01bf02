"""The mask drawn on the image, so that a wrong one is seen.

Pillow was chosen over matplotlib because a worker is ready to draw in milliseconds, not in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw

HEIGHT = 320  # pixels of a slice
CONTRAST = (1.0, 99.0)  # percentiles of a slice that are black and white
OUTLINE = (255, 159, 28)
INK = (255, 255, 255)


def overlay(images: Mapping[str, sitk.Image], mask: sitk.Image) -> bytes:
    """Draw the outline of a mask on the middle and on the largest of its slices.

    Parameters
    ----------
    images : mapping of str to 3-D image
        By sequence; a row of the picture each. Images on another grid are brought onto the mask's.
    mask : 3-D image
        Not 0 inside.

    Returns
    -------
    bytes
        PNG.
    """
    from features.imaging.images import resample

    inside = sitk.GetArrayFromImage(mask) != 0
    size = _size(inside.shape, mask.GetSpacing())
    rows = []
    for name, image in images.items():
        values = sitk.GetArrayFromImage(resample(image, mask))
        titles = {number: f"{name}, slice {number + 1} of {len(values)}" for number in shown_slices(inside)}
        rows.append(np.hstack([_drawn(values[number], inside[number], size, title) for number, title in titles.items()]))
    picture = BytesIO()
    Image.fromarray(np.vstack(rows)).save(picture, format="png")
    return picture.getvalue()


def shown_slices(inside: np.ndarray) -> Sequence[int]:
    """The middle slice of a region and its largest one, counted from 0; one where both are the same.

    Parameters
    ----------
    inside : ndarray of shape (n_slices, n_rows, n_columns), bool

    Examples
    --------
    >>> region = np.zeros((5, 4, 4), dtype=bool)
    >>> region[1:4, 1, 1], region[3, 2, :] = True, True
    >>> shown_slices(region)
    [2, 3]
    """
    area = inside.sum(axis=(1, 2))
    there = np.flatnonzero(area)
    return list(dict.fromkeys([int(there[len(there) // 2]), int(area.argmax())]))


def _size(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int]:
    """Width and height in pixels, in the true proportions of a slice."""
    return max(1, round(HEIGHT * shape[2] * spacing[0] / (shape[1] * spacing[1]))), HEIGHT


def _outline(region: np.ndarray) -> np.ndarray:
    """Pixels of a region that have a neighbour outside it."""
    padded = np.pad(region, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inner


def _drawn(values: np.ndarray, inside: np.ndarray, size: tuple[int, int], title: str) -> np.ndarray:
    low, high = np.percentile(values, CONTRAST)
    gray = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0) * 255
    picture = np.asarray(Image.fromarray(gray.astype(np.uint8)).resize(size).convert("RGB")).copy()
    region = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    picture[_outline(region)] = OUTLINE
    labelled = Image.fromarray(picture)
    ImageDraw.Draw(labelled).text((6, 4), title, fill=INK)
    return np.asarray(labelled)
