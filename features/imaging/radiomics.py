"""Images and masks to radiomic features, by PyRadiomics: the only module that imports it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from threadpoolctl import threadpool_limits

from features.imaging.errors import ImageError
from features.imaging.images import resample, scale_to_mean
from features.imaging.profiles import Profile, Resolution

if TYPE_CHECKING:
    from radiomics.featureextractor import RadiomicsFeatureExtractor

# Between grids that are meant to be one, in voxels and in direction cosines.
SAME_GRID = 1e-3

# What PyRadiomics' refusals of a mask mean, by how they begin.
REFUSALS = {
    "No labels found": "nothing is left of the mask",
    "Label (": "nothing is left of the mask",
    "mask only contains 1": "only one voxel is left of the mask",
    "mask has too few dimensions": "the mask is flatter than the profile's minimumROIDimensions allows",
    "Size of the ROI is too small": "fewer than {minimum} voxels are left of the mask",
    "Bounding box of ROI is larger": "the mask reaches beyond the image",
    "Resegmentation excluded": "resegmentRange leaves no more than one voxel of the mask",
    "Size of the mask in dimension": "the mask spans several slices, and shape2D needs a single one",
}


# What PyRadiomics and SimpleITK raise over an image: the case fails, and the others go on.
FAILURES = (ValueError, RuntimeError, IndexError, ArithmeticError)

# A co-occurrence matrix of so many grey levels in 13 directions takes 1.7 GB.
MOST_LEVELS = 4096


@dataclass(frozen=True)
class CaseImage:
    """One image of a case and the region of interest in it.

    Attributes
    ----------
    image : SimpleITK.Image
        3-D; float64, so that interpolated values are not rounded.
    mask : SimpleITK.Image or None
        1 inside and 0 outside, on the image's grid. None: that of the reference, in a joint profile.
    """

    image: sitk.Image
    mask: sitk.Image | None = None


def measure(profile: Profile, images: Mapping[str, CaseImage]) -> dict[str, float | str]:
    """Every column of a profile for one case.

    Parameters
    ----------
    profile : Profile
    images : mapping from sequence to CaseImage
        In a joint profile under the profile's own names (`Profile.place`).

    Returns
    -------
    dict of str to float or str
        Exactly the columns of `profile.features(list(images))`, in that order. A feature that is not defined for this
        region is NaN; only diagnostics hold text.

    Raises
    ------
    ImageError
        The mask is too small or on another grid; the image is too small for a filter, or flat, not finite or beyond any
        sensible number of grey levels within the mask.
    InputError
        The profile measures other sequences.

    References
    ----------
    van Griethuysen et al. 2017, doi:10.1158/0008-5472.CAN-17-0339.

    Examples
    --------
    >>> from features.imaging.profiles import FeatureClass
    >>> ramp = np.arange(27.0).reshape(3, 3, 3)
    >>> case = CaseImage(sitk.GetImageFromArray(ramp), sitk.GetImageFromArray(np.ones((3, 3, 3), dtype=np.uint8)))
    >>> means = Profile(name="means", classes=(FeatureClass(family="firstorder", features=("Mean",)),))
    >>> measure(means, {"T2": case})
    {'T2_original_firstorder_Mean': 13.0}
    """
    columns = _columns(profile, tuple(images))
    found: dict[str, float | str] = {}
    with _single_threaded(), _quiet():
        for sequence, (image, mask) in _prepared(profile, images).items():
            _check_values(profile, sequence, image, mask)
            for resolution in sorted(profile.resolutions, key=_fineness):
                found |= _measured(profile, sequence, resolution, image, mask)
    return {name: found[name] for name in columns}


@lru_cache(maxsize=32)
def _columns(profile: Profile, sequences: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(feature.name for feature in profile.features(sequences))


@lru_cache(maxsize=64)
def _names(profile: Profile, sequence: str, resolution: Resolution) -> tuple[str, ...]:
    return profile.names_at(sequence, resolution)


def _measured(
    profile: Profile, sequence: str, resolution: Resolution, image: sitk.Image, mask: sitk.Image
) -> dict[str, float | str]:
    extractor = _extractor(profile, resolution, sequence)
    if _needs_only_the_region(profile, resolution):
        image, mask = _cropped(image, mask)
    image, mask = _at_the_origin(image), _at_the_origin(mask)
    where = f"{sequence} at {_shown(resolution)}"
    try:
        given = extractor.execute(image, mask)
    except FAILURES as cause:
        raise ImageError(f"{where}: {_reason(profile, cause)}; draw a larger region, or leave the case out.") from cause
    prefix = f"{resolution.name}_" if resolution.name else ""
    wanted = _names(profile, sequence, resolution)
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ImageError(
            f"{where}: PyRadiomics gives no {missing[0]} ({len(missing)} features are missing), since the image or the region is "
            "too small or too thick for it; take a profile without it, or leave the case out."
        )
    return {f"{sequence}_{prefix}{name}": _plain(given[name]) for name in wanted}


def _reason(profile: Profile, cause: Exception) -> str:
    text = " ".join(str(cause).split())
    known = next((meaning for start, meaning in REFUSALS.items() if text.startswith(start)), None)
    if known is None:
        return f"PyRadiomics cannot measure it ({type(cause).__name__}: {text})"
    return known.format(minimum=profile.minimum_voxels)


def _prepared(profile: Profile, images: Mapping[str, CaseImage]) -> dict[str, tuple[sitk.Image, sitk.Image]]:
    """Image and mask of each sequence, as they are measured."""
    if not profile.joint:
        return {sequence: _on_one_grid(sequence, _scaled(profile, case.image), case.mask) for sequence, case in images.items()}
    name, *moving = profile.sequences
    reference = images[name]
    prepared = {name: _on_one_grid(name, _scaled(profile, reference.image), reference.mask)}
    for sequence in moving:
        _refuse_own_mask(sequence, images[sequence], name, reference)
        _refuse_beyond_view(sequence, images[sequence].image, *prepared[name])
        image = resample(images[sequence].image, reference.image)
        inside = _inside(images[sequence].image, reference.image) if profile.mean_over == "field of view" else None
        prepared[sequence] = _on_one_grid(sequence, _scaled(profile, image, inside), reference.mask)
    return prepared


def _scaled(profile: Profile, image: sitk.Image, inside: np.ndarray | None = None) -> sitk.Image:
    if profile.scale_to_mean is None:
        return image
    if inside is None:
        return scale_to_mean(image, profile.scale_to_mean)
    # The mean over the stack is that over the voxels inside times their share, those outside being zeros.
    return scale_to_mean(image, profile.scale_to_mean * float(inside.mean()))


def _inside(moving: sitk.Image, reference: sitk.Image) -> np.ndarray:
    """Which voxels of the reference lie within the moving image's field of view: shape (slices, rows, columns)."""
    ones = sitk.Image(moving.GetSize(), sitk.sitkFloat64) + 1.0
    ones.CopyInformation(moving)
    return sitk.GetArrayFromImage(resample(ones, reference)) > 0.5


def _refuse_own_mask(sequence: str, case: CaseImage, name: str, reference: CaseImage) -> None:
    if case.mask is None or reference.mask is None:
        return
    theirs, ours = (sitk.GetArrayViewFromImage(mask) for mask in (case.mask, reference.mask))
    if theirs.shape != ours.shape or not np.array_equal(theirs, ours):
        raise ImageError(f"{sequence} has a mask of its own, and all is measured in that of {name}; leave its mask empty.")


def _refuse_beyond_view(sequence: str, moving: sitk.Image, reference: sitk.Image, mask: sitk.Image) -> None:
    """Voxels of the mask that the moving image does not reach would be measured as zeros."""
    box = _box(mask)
    if box is None or _reaches(moving, reference, box):
        return
    within = sitk.GetArrayFromImage(mask) == 1
    beyond = int((within & ~_inside(moving, reference)).sum())
    if beyond:
        raise ImageError(
            f"{sequence} does not reach {beyond} of the {int(within.sum())} voxels of the mask; draw the mask where all images "
            "are, or leave the case out."
        )


def _reaches(moving: sitk.Image, reference: sitk.Image, box: tuple[int, ...]) -> bool:
    """Whether a box of voxels, given by start and size, lies in an image's field of view: it does if its corners do."""
    corners = product(*((start, start + size - 1) for start, size in zip(box[:3], box[3:], strict=True)))
    indices = [
        moving.TransformPhysicalPointToContinuousIndex(reference.TransformIndexToPhysicalPoint(corner)) for corner in corners
    ]
    return bool(np.all(np.greater_equal(indices, -0.5) & np.less_equal(indices, np.subtract(moving.GetSize(), 0.5))))


def _on_one_grid(sequence: str, image: sitk.Image, mask: sitk.Image | None) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask with the very same geometry: PyRadiomics' tolerance is global, and whoever came last has set it."""
    if mask is None:
        raise ImageError(f"{sequence} has no mask; name one in the manifest.")
    apart = np.abs(np.subtract(image.GetOrigin(), mask.GetOrigin())).max() / min(image.GetSpacing())
    turned = np.abs(np.subtract(image.GetDirection(), mask.GetDirection())).max()
    stretched = np.abs(np.divide(image.GetSpacing(), mask.GetSpacing()) - 1).max()
    if image.GetSize() != mask.GetSize() or max(apart, turned, stretched) > SAME_GRID:
        raise ImageError(f"The mask of {sequence} is on another grid than the image; set masks.off_grid to resample.")
    same = sitk.Cast(mask, sitk.sitkUInt8)
    same.CopyInformation(image)
    return image, same


def _at_the_origin(image: sitk.Image) -> sitk.Image:
    """The same voxels in no particular place: no feature depends on it, but its rounding does decide ties.

    Where a resampled voxel lies midway between two of the mask, the last digit of the origin says which it takes, and that
    digit differs between DICOM and NIfTI.
    """
    moved = sitk.Image(image)
    moved.SetOrigin((0.0,) * image.GetDimension())
    moved.SetDirection(np.eye(image.GetDimension()).ravel().tolist())
    return moved


def _needs_only_the_region(profile: Profile, resolution: Resolution) -> bool:
    """Whether voxels outside the mask's box change nothing: no filter, no resampling, no normalisation, no diagnostics."""
    unfiltered = all(image.kind == "Original" for image in profile.images)
    return unfiltered and resolution.spacing is None and not profile.options.normalize and not profile.diagnostics


def _cropped(image: sitk.Image, mask: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    box = _box(mask)
    if box is None:
        return image, mask
    return sitk.RegionOfInterest(image, box[3:], box[:3]), sitk.RegionOfInterest(mask, box[3:], box[:3])


def _box(mask: sitk.Image) -> tuple[int, ...] | None:
    """Start and size of the box around the mask, in voxels along x, y and z; None if it is empty."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOff()
    shape.Execute(mask)
    return tuple(shape.GetBoundingBox(1)) if shape.HasLabel(1) else None


def _check_values(profile: Profile, sequence: str, image: sitk.Image, mask: sitk.Image) -> None:
    """Refuse what PyRadiomics gives finite numbers for all the same, or runs out of memory over."""
    inside = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(mask) == 1]
    if inside.size < 2 or all(entry.family.startswith("shape") for entry in profile.classes_of(sequence)):
        return
    spread = float(np.ptp(inside))
    if not np.isfinite(spread):
        raise ImageError(f"{sequence} has values in the mask that are not finite numbers; repair the image.")
    if spread == 0:
        raise ImageError(f"{sequence} has one value in the whole mask, {inside[0]:g}; check that they belong together.")
    levels = spread / profile.options.bin_width
    if levels > MOST_LEVELS and profile.options.bin_count is None and not profile.options.normalize:
        raise ImageError(
            f"{sequence}: bins of width {profile.options.bin_width:g} make {levels:.0f} grey levels of its values, more than "
            f"{MOST_LEVELS}; rescale the image, or take a profile with a larger binWidth."
        )


@lru_cache(maxsize=32)
def _extractor(profile: Profile, resolution: Resolution, sequence: str) -> RadiomicsFeatureExtractor:
    """Made once per process: it looks its features up anew each time."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    base = profile.options.radiomics()
    extractor = RadiomicsFeatureExtractor(
        **base,
        label=1,
        additionalInfo=profile.diagnostics,
        minimumROISize=profile.minimum_voxels - 1,  # it wants more than this
        resampledPixelSpacing=resolution.spacing,
    )
    extractor.disableAllImageTypes()
    for image in profile.images:
        own = {key: value for key, value in image.options.radiomics().items() if value != base[key]}
        extractor.enableImageTypeByName(image.kind, customArgs=own)
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(**{entry.family: list(entry.names) for entry in profile.classes_of(sequence)})
    return extractor


@contextmanager
def _single_threaded() -> Iterator[None]:
    """One thread per worker: cases are what runs in parallel."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyRadiomics logs what our columns say anyway: a feature that failed is NaN, and one left out is an error of ours.

    Its warnings come from dividing by zero in flat regions (NaN) and from names that SciPy is about to withdraw, whose
    absence the preflight finds; where warnings are errors it would make NaN of sound values.
    """
    import radiomics

    logger = radiomics.logger  # whose level its import sets
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=RuntimeWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _fineness(resolution: Resolution) -> float:
    """Coarsest first: it is where a mask proves too small, before time is spent on the others."""
    return -prod(resolution.spacing or (0.0,))


def _shown(resolution: Resolution) -> str:
    if resolution.spacing is None:
        return "its own resolution"
    return f"{' x '.join(f'{spacing:g}' for spacing in dict.fromkeys(resolution.spacing))} mm"


def _plain(value: Any) -> float | str:
    """A number as float; text as it is; several numbers as a JSON list."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return json.dumps([number.item() if isinstance(number, np.generic) else number for number in value])
    return float(value)
