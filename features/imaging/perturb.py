"""The same tumour outlined a little differently: masks moved, turned, grown and shrunk, to see which features care."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from features.imaging.settings import PerturbationSettings

MARGIN_VOXELS = 4
SMOOTHING_VOXELS = 0.7  # standard deviation; enough that the contour of a mask of voxels lies between them


@dataclass(frozen=True)
class Perturbation:
    """One way to outline a tumour differently.

    Attributes
    ----------
    shift_mm : tuple of float
        Along each axis of the grid.
    turn_degrees : float
        Anticlockwise about the centroid, seen against the axis across slices.
    volume : float
        Share of the volume gained (negative: lost).
    """

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_degrees: float = 0.0
    volume: float = 0.0


def perturbed_masks(mask: sitk.Image, settings: PerturbationSettings, rng: np.random.Generator) -> list[tuple[str, sitk.Image]]:
    """Masks like this one, each shifted, turned, and grown or shrunk at random.

    Parameters
    ----------
    mask : SimpleITK.Image
        Three-dimensional, 0 and 1, not empty.

    Returns
    -------
    list of tuple of str and SimpleITK.Image
        ``perturbed-1`` and so on, on the grid of the mask; none is empty.

    References
    ----------
    Zwanenburg et al. 2019, doi:10.1038/s41598-018-36938-4.

    Examples
    --------
    >>> mask = sitk.GetImageFromArray(np.pad(np.ones((4, 6, 6), dtype=np.uint8), 4))
    >>> masks = perturbed_masks(mask, PerturbationSettings(count=2, volume=0.0), np.random.default_rng(0))
    >>> [(name, int(sitk.GetArrayFromImage(one).sum())) for name, one in masks]
    [('perturbed-1', 144), ('perturbed-2', 144)]
    """
    spacing = np.array(mask.GetSpacing())
    reach = settings.shift_voxels * spacing + settings.shift_mm
    masks = []
    for number in range(settings.count):
        shift, turn, volume = rng.uniform(-reach, reach), *rng.uniform(-1, 1, 2)
        drawn = Perturbation(tuple(shift.tolist()), float(turn) * settings.turn_degrees, float(volume) * settings.volume)
        masks.append((f"perturbed-{number + 1}", perturbed(mask, drawn)))
    return masks


def perturbed(mask: sitk.Image, perturbation: Perturbation) -> sitk.Image:
    """A mask moved, turned and resized.

    Its signed distance to the contour, a little smoothed, is moved and turned in place of the mask, so that a shift by a
    fraction of a voxel has an effect; then the voxels deepest inside are taken, as many as the volume asks for. What leaves
    the image is thereby made up for within it, and no mask is ever empty.
    """
    if perturbation == Perturbation():
        return sitk.Cast(mask > 0, sitk.sitkUInt8)
    values = sitk.GetArrayFromImage(mask) > 0
    start, size = _box_around(values, np.array(mask.GetSpacing()), perturbation)
    part = sitk.RegionOfInterest(sitk.Cast(mask > 0, sitk.sitkUInt8), size.tolist(), start.tolist())
    distance = _signed_distance(part)
    far = float(np.linalg.norm(size * np.array(mask.GetSpacing())))
    moved = sitk.Resample(distance, part, _movement(part, perturbation), sitk.sitkLinear, far)
    wanted = max(1, round(int(values.sum()) * (1 + perturbation.volume)))
    inside = _deepest(sitk.GetArrayFromImage(moved), wanted)
    whole = np.zeros(values.shape, dtype=np.uint8)
    whole[tuple(slice(first, first + extent) for first, extent in zip(start[::-1], size[::-1], strict=True))] = inside
    image = sitk.GetImageFromArray(whole)
    image.CopyInformation(mask)
    return image


def _signed_distance(part: sitk.Image) -> sitk.Image:
    """Distance to the contour in millimetres, negative inside, smoothed; beyond the image there is no tumour."""
    padded = sitk.ConstantPad(part, [1] * 3, [1] * 3)
    outside, inside = (
        sitk.SignedMaurerDistanceMap(one, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
        for one in (padded, 1 - padded)
    )
    both = sitk.Cast(sitk.Maximum(outside, 0.0) - sitk.Maximum(inside, 0.0), sitk.sitkFloat64)
    variance = [(SMOOTHING_VOXELS * spacing) ** 2 for spacing in part.GetSpacing()]
    return sitk.Crop(sitk.DiscreteGaussian(both, variance), [1] * 3, [1] * 3)


def _box_around(values: np.ndarray, spacing: np.ndarray, perturbation: Perturbation) -> tuple[np.ndarray, np.ndarray]:
    """First voxel and extent, as x, y, z, of a box that the perturbed mask cannot leave."""
    occupied = np.argwhere(values)[:, ::-1]
    low, high = occupied.min(axis=0), occupied.max(axis=0)
    extent_mm = float(np.linalg.norm((high - low + 1) * spacing))
    reach_mm = (
        np.abs(perturbation.shift_mm) + extent_mm * (np.radians(abs(perturbation.turn_degrees)) + abs(perturbation.volume)) / 2
    )
    margin = np.ceil(reach_mm / spacing).astype(int) + MARGIN_VOXELS
    start = np.maximum(low - margin, 0)
    return start, np.minimum(high + margin + 1, values.shape[::-1]) - start


def _movement(part: sitk.Image, perturbation: Perturbation) -> sitk.Transform:
    """From where a voxel is to where it was."""
    axes = np.array(part.GetDirection()).reshape(3, 3)
    centroid = np.argwhere(sitk.GetArrayFromImage(part) > 0).mean(axis=0)[::-1]
    transform = sitk.VersorRigid3DTransform()
    transform.SetCenter(part.TransformContinuousIndexToPhysicalPoint(centroid.tolist()))
    transform.SetRotation(axes[:, 2].tolist(), float(np.radians(perturbation.turn_degrees)))
    transform.SetTranslation((axes @ np.array(perturbation.shift_mm)).tolist())
    return transform.GetInverse()


def _deepest(distance: np.ndarray, count: int) -> np.ndarray:
    inside = np.zeros(distance.size, dtype=np.uint8)
    inside[np.argsort(distance, axis=None, kind="stable")[:count]] = 1
    return inside.reshape(distance.shape)
