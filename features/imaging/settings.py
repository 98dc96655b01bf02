"""What decides the values that an extraction gives; light, since every study is read with it."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from features.imaging.profiles import Profile
from features.settings import Settings


class MaskSettings(Settings):
    """What becomes of a mask in which something is odd.

    Parameters
    ----------
    off_grid : {'refuse', 'resample'}
        A mask on another grid than its image: refused, or resampled by nearest neighbour.
    disconnected : {'refuse', 'keep', 'largest'}
        A region of several parts (voxels touch by face, edge or corner): refused, kept, or only its largest part.
    one_slice : {'refuse', 'keep'}
        A region one voxel thick.
    minimum_voxels : int
        Fewest voxels of a region.
    tolerance_voxels : float
        How far a corner of the mask's grid may lie from that of the image. Headers in single precision, and coordinates
        written with six digits, differ by up to a thousandth.
    """

    off_grid: Literal["refuse", "resample"] = "refuse"
    disconnected: Literal["refuse", "keep", "largest"] = "refuse"
    one_slice: Literal["refuse", "keep"] = "refuse"
    minimum_voxels: int = Field(default=2, ge=2)
    tolerance_voxels: float = Field(default=0.01, gt=0, lt=0.5)


class PerturbationSettings(Settings):
    """How far a mask is perturbed: each mask gets its own draw, uniform between minus and plus each of these.

    Parameters
    ----------
    count : int
        Perturbed masks per mask.
    shift_voxels : float
        Shift along each axis of the grid, in voxels.
    shift_mm : float
        Further shift along each axis of the grid, in millimetres.
    turn_degrees : float
        Rotation about the centroid, around the axis across slices.
    volume : float
        Share of its volume that the mask gains or loses.
    """

    count: int = Field(default=10, ge=1)
    shift_voxels: float = Field(default=0.5, ge=0)
    shift_mm: float = Field(default=0.0, ge=0)
    turn_degrees: float = Field(default=5.0, ge=0, le=180)
    volume: float = Field(default=0.15, ge=0, lt=1)


class Extraction(Settings):
    """Profile, treatment of masks, and sequences.

    Attributes
    ----------
    sequences : tuple of str
        Those to measure; all of the manifest if there is none.
    """

    profile: Profile
    masks: MaskSettings = MaskSettings()
    sequences: tuple[str, ...] = ()

    @cached_property
    def described(self) -> dict[str, Any]:
        """What a value depends on; neither the profile's name nor which sequences are measured beside it is among it."""
        return {"profile": self.profile.model_dump(mode="json", exclude={"name"}), "masks": self.masks.model_dump(mode="json")}

    @cached_property
    def hash(self) -> str:
        """SHA-256 that travels with every table, bundle and prediction."""
        return hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()
