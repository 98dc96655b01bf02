"""What is measured together, and what became of it; light, since planning needs no imaging library."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.imaging.settings import PerturbationSettings

if TYPE_CHECKING:
    import SimpleITK as sitk


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
        >>> import SimpleITK as sitk
        >>> from features.imaging.settings import PerturbationSettings
        >>> mask = sitk.GetImageFromArray(np.pad(np.ones((4, 6, 6), dtype=np.uint8), 4))
        >>> way = Redrawing(PerturbationSettings(volume=0.0), seed=0, number=1)
        >>> int(sitk.GetArrayFromImage(way.redrawn(mask, "p01", "T2")).sum())
        144
        """
        from features.imaging.perturb import perturbed_masks

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
