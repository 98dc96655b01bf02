"""Volumes: read from the formats of the field, brought onto one grid and one scale."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from features.imaging.acquisition import SUFFIXES, Acquisition, acquisition_beside
from features.imaging.archive import digest_of, opened, unreadable
from features.imaging.errors import ImageError as ImageError
from features.imaging.integrity import check_whole

LARGEST_VOLUME = 2**29  # voxels: 4 GiB in double precision
DIGITS = 7  # that single precision can tell apart
COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline}
Interpolator = Literal["linear", "nearest", "bspline"]


@dataclass(frozen=True)
class Volume:
    """An image and how it was acquired.

    Attributes
    ----------
    image : SimpleITK.Image
        Three-dimensional, float64, in the units of its source.
    """

    image: sitk.Image
    acquisition: Acquisition


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK's own warnings off stderr: what matters of them becomes an error here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def read_volume(path: Path, *, shown: str | None = None, b_value: float | Literal["highest"] = "highest") -> Volume:
    """Read one volume: NIfTI, NRRD, MetaImage, or a DICOM series from a folder or a zip archive.

    Parameters
    ----------
    path : Path
        File, folder, ``study.zip`` or ``study.zip/RELATIVE/PATH``; ``#5`` at the end means series number 5 of several.
    shown : str, optional
        The path as the user wrote it, for messages.
    b_value : float or 'highest'
        Which diffusion weighting (s/mm^2) is taken of a DICOM series that holds several.

    Returns
    -------
    Volume
        Rescaled as its header says; slices of a DICOM series in the order of their positions.

    Raises
    ------
    ImageError
        It cannot be read, is not three-dimensional, or its slices make no volume.
    """
    shown = shown or path.name
    with opened(path, shown) as place:
        if place.path.is_dir() or is_dicom(place.path):
            from features.imaging.dicom import read_series

            image, acquisition = read_series(place, shown, b_value)
            return Volume(_with_clean_spacing(image), acquisition)
        image = _with_clean_spacing(read_file(place.path, shown))
        return Volume(image, acquisition_beside(place.path, image.GetSpacing(), shown))


def _with_clean_spacing(image: sitk.Image) -> sitk.Image:
    """Without the noise of single precision, which differs from format to format and moves the voxels of a finer grid."""
    image.SetSpacing([float(f"{length:.{DIGITS}g}") for length in image.GetSpacing()])
    return image


def is_dicom(path: Path) -> bool:
    """Whether a file carries the mark of DICOM.

    Raises
    ------
    ImageError
        It cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError as cause:
        raise unreadable(path.name, cause) from cause


def read_file(path: Path, shown: str, pixel: int = sitk.sitkFloat64) -> sitk.Image:
    """Read an image that is one file; ``pixel`` is the type that voxels are given (``sitk.sitkUnknown``: that of the file).

    Raises
    ------
    ImageError
        It is damaged, of no known format, or (where voxels are to be float64) no volume of single numbers.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise ImageError(f"{shown} is neither DICOM nor one of {', '.join(SUFFIXES)}; convert it to one of them.", file=shown)
    check_whole(path, shown)
    try:
        with quiet_itk():
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            _check_kind(reader, shown, scalar=pixel != sitk.sitkUnknown)
            image = sitk.ReadImage(str(path), pixel)
    except RuntimeError as cause:
        raise ImageError(f"{shown} cannot be read: {_reason(cause)}; write it again from its source.", file=shown) from cause
    return image[..., 0] if image.GetDimension() == 4 else image


def _check_kind(reader: sitk.ImageFileReader, shown: str, scalar: bool) -> None:
    size = reader.GetSize()
    if np.prod(size, dtype=float) > LARGEST_VOLUME:
        raise ImageError(f"{shown} claims {' x '.join(map(str, size))} voxels, more than fit; check its header.", file=shown)
    if len(size) < 3:
        raise ImageError(f"{shown} is flat (two-dimensional); stack the slices to a volume with their true distance.", file=shown)
    if any(length > 1 for length in size[3:]):
        raise ImageError(
            f"{shown} holds {int(np.prod(size[3:]))} volumes; save the one that is meant as a file of its own, or read the "
            "series as a perfusion study.",
            file=shown,
        )
    if scalar and (reader.GetNumberOfComponents() > 1 or reader.GetPixelIDValue() in COMPLEX):
        raise ImageError(f"{shown} has several numbers in each voxel (colour, vectors or complex); save one of them.", file=shown)


def _reason(cause: RuntimeError) -> str:
    text = str(cause)
    if "orthonormal" in text:
        return "the axes in its header are not at right angles"
    return "its content is not what its name says" if "Unable to determine ImageIO" in text else "it is damaged"


def content_digest(path: Path) -> str:
    """SHA-256 of an image's content, with what is beside it that is read too (sidecar, detached voxels).

    Returns
    -------
    str
        Of a folder or archive: of the files in it, whatever their names and order.

    Raises
    ------
    ImageError
        Nothing is there, or it cannot be read.
    """
    return digest_of(path, path.name)


def resample(image: sitk.Image, like: sitk.Image, interpolator: Interpolator = "linear") -> sitk.Image:
    """Bring an image onto the grid of another, in floating point: an integer type would round.

    Parameters
    ----------
    interpolator : {'linear', 'nearest', 'bspline'}

    Returns
    -------
    SimpleITK.Image
        float64; 0 where the image does not reach.

    Examples
    --------
    >>> ramp = sitk.GetImageFromArray(np.arange(8, dtype="int16").reshape(1, 1, 8).repeat(4, 0).repeat(4, 1))
    >>> fine = sitk.Image(13, 4, 4, sitk.sitkUInt8)
    >>> fine.SetSpacing((0.5, 1.0, 1.0))
    >>> resample(ramp, fine)[3, 0, 0]
    1.5
    """
    moving = sitk.Cast(image, sitk.sitkFloat64)
    return sitk.Resample(moving, like, sitk.Transform(), INTERPOLATORS[interpolator], 0.0, sitk.sitkFloat64)


def scale_to_mean(image: sitk.Image, to: float = 100.0, *, shown: str = "The image") -> sitk.Image:
    """Divide a volume by its mean, air included, and multiply by ``to``, as Halle et al. 2024 did.

    Raises
    ------
    ImageError
        The mean is not above zero, or not finite.

    References
    ----------
    Halle et al. 2024

    Examples
    --------
    >>> scaled = scale_to_mean(sitk.GetImageFromArray(np.array([[[1.0, 3.0]]])))
    >>> sitk.GetArrayFromImage(scaled).tolist()
    [[[50.0, 150.0]]]
    """
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    mean = float(values.mean())
    if not np.isfinite(mean) or mean <= 0:
        raise ImageError(
            f"{shown} has a mean of {mean:g}, by which it cannot be divided; check that it holds intensities, and that it "
            "overlaps with its reference.",
            file=shown,
        )
    scaled = sitk.GetImageFromArray(values * (to / mean))
    scaled.CopyInformation(image)
    return scaled
