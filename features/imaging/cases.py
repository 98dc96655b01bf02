"""One case: images and masks of one sample in, named numbers out. What a worker does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import SimpleITK as sitk

from features.imaging.acquisition import Acquisition
from features.imaging.errors import ImageError
from features.imaging.images import Volume, read_volume, resample
from features.imaging.masks import check_finite, read_mask
from features.imaging.overlay import overlay
from features.imaging.perturb import PerturbationSettings, perturbed_masks
from features.imaging.profiles import Profile
from features.imaging.radiomics import CaseImage, measure
from features.imaging.settings import MaskSettings


@dataclass(frozen=True)
class Part:
    """One image of a case.

    Attributes
    ----------
    sequence : str
        As the columns call it.
    image, mask : Path
        `mask` is None where that of the reference is meant.
    label : int or str
        Of the region in the mask.
    reference : str or None
        Part onto whose grid the image is brought, and whose mask is used if it has none of its own.
    shown : str
        Image and mask as the user wrote them.
    """

    sequence: str
    image: Path
    mask: Path | None
    label: int | str
    reference: str | None
    shown: tuple[str, str | None]

    @property
    def files(self) -> tuple[tuple[Path, str], ...]:
        """Image and mask, with how the user wrote them."""
        mask = ((self.mask, self.shown[1] or self.mask.name),) if self.mask else ()
        return ((self.image, self.shown[0]), *mask)


@dataclass(frozen=True)
class Redrawing:
    """One of several ways to draw all masks of a manifest a little differently.

    Attributes
    ----------
    settings : PerturbationSettings
        How far; how many ways there are is of no account here.
    seed : int
    number : int
        Which of the ways, from 1.
    """

    settings: PerturbationSettings
    seed: int
    number: int

    @property
    def described(self) -> dict[str, Any]:
        """All that decides how it draws a mask."""
        return {**self.settings.model_dump(exclude={"count"}), "seed": self.seed, "number": self.number}

    def redrawn(self, mask: sitk.Image, sample: str, sequence: str) -> sitk.Image:
        """The mask of a sequence of a sample, drawn in this way; which others are drawn, and where, does not matter.

        Examples
        --------
        >>> mask = sitk.GetImageFromArray(np.pad(np.ones((4, 6, 6), dtype=np.uint8), 4))
        >>> way = Redrawing(PerturbationSettings(volume=0.0), seed=0, number=1)
        >>> int(sitk.GetArrayFromImage(way.redrawn(mask, "p01", "T2")).sum())
        144
        """
        words = repr((self.seed, self.number, sample, sequence)).encode()
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(words).digest(), "big"))
        [(_, drawn)] = perturbed_masks(mask, self.settings.model_copy(update={"count": 1}), rng)
        return drawn


@dataclass(frozen=True)
class Case:
    """What is measured together.

    Attributes
    ----------
    sample, patient : str
    wanted : tuple of str
        Sequences that are measured.
    parts : tuple of Part
        Their images, and those of the references that they need.
    redrawing : Redrawing or None
        How its masks are drawn differently; None: measured as they are.
    """

    sample: str
    patient: str
    wanted: tuple[str, ...]
    parts: tuple[Part, ...]
    redrawing: Redrawing | None = None

    @property
    def name(self) -> str:
        """For files and for people."""
        return "_".join((self.sample, *self.wanted))

    @property
    def pictured(self) -> bool:
        """Whether there is a picture of it: one of each image is enough to see how far masks are perturbed."""
        return self.redrawing is None or self.redrawing.number == 1


@dataclass(frozen=True)
class Measured:
    """What became of a case.

    Attributes
    ----------
    values : dict of str to float or str
        By column; empty if the case failed.
    acquisition : dict of str to dict
        Parameters of each sequence, as far as they are known.
    failure : str or None
        Why there are no values, as a sentence.
    file : str or None
        Of the failure, as the user wrote it.
    picture : bytes
        Mask on image, as PNG.
    seconds : dict of str to float
        Spent on reading, measuring and drawing.
    transient : bool
        Whether another attempt may end otherwise.
    """

    values: dict[str, float | str] = field(default_factory=dict)
    acquisition: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: str | None = None
    file: str | None = None
    picture: bytes = b""
    seconds: dict[str, float] = field(default_factory=dict)
    transient: bool = False


def measure_case(case: Case, profile: Profile, masks: MaskSettings, pictures: bool = True) -> Measured:
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
    picture = overlay({name: one.image for name, one in images.items()}, masks_seen[0]) if pictures and case.pictured else b""
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
