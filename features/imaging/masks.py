"""Regions of interest: read from the formats of the field, put on the image's grid, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from features.imaging.archive import Place, opened
from features.imaging.errors import ImageError
from features.imaging.images import is_dicom, read_file
from features.imaging.labels import present, select
from features.imaging.settings import MaskSettings

EDGE = 0.51  # voxels from a centre: a region may fill the last voxel


def read_mask(
    path: Path,
    label: int | str,
    like: sitk.Image,
    settings: MaskSettings,
    *,
    shown: str | None = None,
    image_path: Path | None = None,
) -> sitk.Image:
    """Read a region of interest onto the grid of its image.

    Parameters
    ----------
    path : Path
        Label image (NIfTI, NRRD, MetaImage), DICOM SEG or RTSTRUCT; or a folder or archive with one of the latter two.
    label : int or str
        Value in a label image (or name of a segment, in those of 3D Slicer), number or label of a DICOM segment, number or
        name of a region of an RTSTRUCT.
    like : SimpleITK.Image
        The image.
    shown, image_path : optional
        Mask as the user wrote it, and file of the image, for messages.

    Returns
    -------
    SimpleITK.Image
        uint8, 1 inside, with exactly the geometry of `like`.

    Raises
    ------
    ImageError
        There is no such region, it is empty or not where the image is, or odd in a way that `settings` refuse.
    """
    shown = shown or path.name
    onto = image_path.name if image_path else "its image"
    with opened(path, shown) as place:
        mask = _drawn(place, label, like, settings, (shown, onto))
    mask.CopyInformation(like)
    return check_mask(mask, settings, shown)


def _drawn(place: Place, label: int | str, like: sitk.Image, settings: MaskSettings, names: tuple[str, str]) -> sitk.Image:
    shown, onto = names
    if not (place.path.is_dir() or is_dicom(place.path)):
        drawn = select(read_file(place.path, shown, sitk.sitkUnknown), label, shown)
        return put_on_grid(drawn, like, settings, shown, onto)
    from features.imaging.segmentations import draw_contours, find_object, read_segment

    kind, found = find_object(place.path, shown)
    if kind == "RTSTRUCT":
        return draw_contours(found, label, like, shown, any_slice=settings.off_grid == "resample")
    return put_on_grid(read_segment(found, label, shown), like, settings, shown, onto, sparse=True)


def affine_of(image: sitk.Image) -> np.ndarray:
    """Matrix of shape (4, 4) from voxel index (x, y, z, 1) to millimetres."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def put_on_grid(
    mask: sitk.Image, like: sitk.Image, settings: MaskSettings, shown: str, onto: str, *, sparse: bool = False
) -> sitk.Image:
    """Bring a mask onto the grid of its image, if it is not there.

    Parameters
    ----------
    sparse : bool
        Whether the mask may leave out what is empty, as DICOM SEG does; its voxels must be those of the image all the same.

    Raises
    ------
    ImageError
        It lies on another grid that the settings refuse, or some of it outside of the image.
    """
    between = np.linalg.inv(affine_of(like)) @ affine_of(mask)  # from the mask's index to the image's
    shares_voxels = _shares_voxels(between, mask.GetSize(), settings.tolerance_voxels)
    same_size = shares_voxels and sorted(mask.GetSize()) == sorted(like.GetSize())
    if not (same_size or (sparse and shares_voxels)) and settings.off_grid == "refuse":
        raise ImageError(
            f"{shown} is on another grid than {onto} ({_difference(mask, like)}); set masks.off_grid to resample "
            "(--masks off_grid=resample), or name under reference the sequence that it was drawn on.",
            file=shown,
        )
    _check_inside(mask, like, between, shown, onto)
    if same_size and np.allclose(between[:3, :3], np.eye(3), atol=settings.tolerance_voxels):
        return sitk.Cast(mask, sitk.sitkUInt8)
    return sitk.Resample(mask, like, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)


def _shares_voxels(between: np.ndarray, size: tuple[int, ...], tolerance: float) -> bool:
    """Whether all voxels of one grid are voxels of another, in whatever order of axes."""
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in size], [1], indexing="ij")).reshape(4, -1)
    exact = np.round(between)
    return bool(np.abs((between - exact) @ corners).max() <= tolerance and abs(abs(np.linalg.det(exact[:3, :3])) - 1) < 1e-9)


def _check_inside(mask: sitk.Image, like: sitk.Image, between: np.ndarray, shown: str, onto: str) -> None:
    indices = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    there = indices @ between[:3, :3].T + between[:3, 3]
    refuse_outside(there, like, shown, onto)


def refuse_outside(there: np.ndarray, like: sitk.Image, shown: str, onto: str = "its image") -> None:
    """Refuse a region of which some lies outside of the image.

    Parameters
    ----------
    there : ndarray of shape (n, 3)
        Points of the region as index (x, y, z) into the image.
    """
    outside = float(((there < -EDGE) | (there > np.array(like.GetSize()) - 1 + EDGE)).any(axis=1).mean()) if len(there) else 0.0
    if outside == 1:
        raise ImageError(f"{shown} lies wholly outside of {onto}; check that the two belong together.", file=shown)
    if outside > 0:
        raise ImageError(
            f"{100 * outside:.2g} % of {shown} lies outside of {onto}; cut the mask, or measure on the image it was drawn on.",
            file=shown,
        )


def _difference(mask: sitk.Image, like: sitk.Image) -> str:
    def differing(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
        return len(first) != len(second) or not np.allclose(first, second, rtol=1e-4, atol=1e-4)

    told = []
    for name in ("Size", "Spacing", "Origin", "Direction"):
        first, second = (getattr(image, f"Get{name}")() for image in (mask, like))
        if differing(first, second):
            told.append(f"{name.lower()} {_numbers(first)} against {_numbers(second)}")
    return "; ".join(told) or "a little apart"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def check_mask(mask: sitk.Image, settings: MaskSettings, shown: str) -> sitk.Image:
    """Refuse a region that is no volume of one piece, as far as the settings say so.

    Returns
    -------
    SimpleITK.Image
        The mask; its largest part alone, if that is what the settings say.

    Raises
    ------
    ImageError
        It is empty, too small, one voxel thick or in several parts.
    """
    sizes, mask = _parts(mask, settings)
    voxels = sum(sizes)
    if voxels == 0:
        raise ImageError(f"{shown} is empty: no voxel is marked; draw the region, or leave the row out.", file=shown)
    if voxels < settings.minimum_voxels:
        counted = "one voxel" if voxels == 1 else f"{voxels} voxels"
        raise ImageError(f"{shown} has only {counted}; {settings.minimum_voxels} are the fewest (minimum_voxels).", file=shown)
    if len(sizes) > 1 and settings.disconnected == "refuse":
        raise ImageError(
            f"{shown} is in {len(sizes)} parts that do not touch (of {_listed(sizes)} voxels); set masks.disconnected to "
            "largest or keep (--masks disconnected=largest).",
            file=shown,
        )
    _check_thick(mask, settings, shown)
    return mask


def _parts(mask: sitk.Image, settings: MaskSettings) -> tuple[list[int], sitk.Image]:
    """Sizes of the parts that touch by face, edge or corner, largest first, and the mask that is kept."""
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask, True), sortByObjectSize=True)
    sizes = np.bincount(sitk.GetArrayViewFromImage(parts).ravel())[1:].tolist()
    if settings.disconnected == "largest" and len(sizes) > 1:
        return sizes[:1], sitk.Cast(parts == 1, sitk.sitkUInt8)
    return sizes, mask


def _listed(sizes: list[int]) -> str:
    shown = ", ".join(str(size) for size in sizes[:5])
    return f"{shown} and {len(sizes) - 5} more sizes" if len(sizes) > 5 else shown


def _check_thick(mask: sitk.Image, settings: MaskSettings, shown: str) -> None:
    inside = sitk.GetArrayViewFromImage(mask).astype(bool)
    extents = [int(np.ptp(np.nonzero(inside.any(axis=others))[0])) + 1 for others in ((1, 2), (0, 2), (0, 1))]
    thin = extents.count(1)
    if thin > 1:
        raise ImageError(f"{shown} is a line of {inside.sum()} voxels, which has no texture; draw the region.", file=shown)
    if thin == 1 and settings.one_slice == "refuse":
        where = "lies in one slice" if extents[0] == 1 else "is one voxel thick"
        raise ImageError(
            f"{shown} {where}; set masks.one_slice to keep (--masks one_slice=keep) to measure it all the same, or leave the row "
            "out.",
            file=shown,
        )


def check_finite(image: sitk.Image, mask: sitk.Image | None, shown: str) -> None:
    """Refuse an image with a value that is no number, or with one value in the whole region.

    PyRadiomics answers both with finite features that mean nothing.

    Raises
    ------
    ImageError
        A voxel is NaN or infinite, or the region is flat.
    """
    values = sitk.GetArrayViewFromImage(image)
    inside = np.zeros(values.shape, dtype=bool) if mask is None else sitk.GetArrayViewFromImage(mask) != 0
    bad = ~np.isfinite(values)
    if bad.any():
        where = f"{int((bad & inside).sum())} of them inside the mask" if (bad & inside).any() else "none inside the mask"
        raise ImageError(
            f"{shown} has {int(bad.sum())} voxels that are no finite number ({where}), which filters and means would spread; "
            "write the image with numbers everywhere.",
            file=shown,
        )
    region = values[inside]
    if region.size and region.min() == region.max():
        raise ImageError(
            f"{shown} is constant ({region[0]:g}) all over the mask, which has no texture; "
            "check that image and mask belong together.",
            file=shown,
        )


def labels_in(path: Path) -> tuple[int, ...]:
    """Labels that a label image holds, ascending, without the background.

    Raises
    ------
    ImageError
        It cannot be read.
    """
    return present(read_file(path, path.name, sitk.sitkUnknown))
