"""One case: images and masks of one sample in, named numbers out. What a worker does."""

from __future__ import annotations

from time import perf_counter

from features.imaging.acquisition import Acquisition
from features.imaging.case import Case, Measured, Part
from features.imaging.errors import ImageError
from features.imaging.images import Volume, read_volume, resample
from features.imaging.masks import check_finite, read_mask
from features.imaging.overlay import overlay
from features.imaging.profiles import Profile
from features.imaging.radiomics import CaseImage, measure
from features.imaging.settings import MaskSettings


def measure_case(case: Case, profile: Profile, masks: MaskSettings) -> Measured:
    """Read, check, measure and draw one case; a case that cannot be used says why."""
    started = perf_counter()
    try:
        volumes = {part.sequence: read_volume(part.image, shown=part.shown[0]) for part in case.parts}
        images = _with_masks(case, volumes, profile, masks)
        read = perf_counter()
        values = measure(profile, images)
    except ImageError as error:
        return Measured(failure=str(error), file=error.file, seconds={"read": perf_counter() - started})
    measured = perf_counter()
    masks_seen = [one.mask for one in images.values() if one.mask is not None]
    picture = overlay({name: one.image for name, one in images.items()}, masks_seen[0]) if case.pictured else b""
    return Measured(
        values=values,
        acquisition={name: _protocol(volumes[name].acquisition) for name in case.wanted},
        picture=picture,
        seconds={"read": read - started, "measure": measured - read, "draw": perf_counter() - measured},
    )


def _protocol(acquisition: Acquisition) -> dict[str, float | str | None]:
    """With what Halle et al. 2024 regressed on beside the parameters themselves: volume and shape of a voxel."""
    derived = {"voxel_volume_mm3": acquisition.voxel_volume_mm3, "anisotropy": acquisition.anisotropy}
    return {**acquisition.row(), **derived}


def _with_masks(case: Case, volumes: dict[str, Volume], profile: Profile, settings: MaskSettings) -> dict[str, CaseImage]:
    """Images as a profile takes them: in a joint one only the reference has a mask, and the profile moves the others."""
    parts = {part.sequence: part for part in case.parts}
    with_mask = profile.sequences[:1] if profile.joint else case.wanted
    return {
        name: _case_image(parts[name], case, volumes, settings) if name in with_mask else _moving(parts[name], volumes[name])
        for name in case.wanted
    }


def _case_image(part: Part, case: Case, volumes: dict[str, Volume], settings: MaskSettings) -> CaseImage:
    image = volumes[part.sequence].image
    if part.reference is not None:
        image = resample(image, volumes[part.reference].image)
    drawn = part if part.mask or part.reference is None else next(one for one in case.parts if one.sequence == part.reference)
    if drawn.mask is None:
        raise ImageError(
            f"{drawn.shown[0]} has no mask; name one in the manifest, or under reference the sequence whose mask is meant.",
            file=drawn.shown[0],
        )
    mask = read_mask(drawn.mask, drawn.label, image, settings, shown=drawn.shown[1], image_path=drawn.image)
    if case.redrawing is not None:
        mask = case.redrawing.redrawn(mask, case.sample, drawn.sequence)
    check_finite(image, mask, part.shown[0])
    return CaseImage(image, mask)


def _moving(part: Part, volume: Volume) -> CaseImage:
    check_finite(volume.image, None, part.shown[0])
    return CaseImage(volume.image)
