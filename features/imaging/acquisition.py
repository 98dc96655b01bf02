"""How an image was acquired, as far as its header or the sidecar beside it tells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from features.imaging.errors import ImageError
from features.settings import Settings

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
MS_PER_S = 1000.0
# BIDS writes times in seconds; a value above these was written in milliseconds. (key, field, factor, largest)
SIDECAR_NUMBERS = (
    ("RepetitionTime", "repetition_time_ms", MS_PER_S, 100.0),
    ("EchoTime", "echo_time_ms", MS_PER_S, 5.0),
    ("FlipAngle", "flip_angle_deg", 1.0, 360.0),
    ("MagneticFieldStrength", "field_strength_t", 1.0, 30.0),
    ("NumberOfAverages", "averages", 1.0, math.inf),
    ("EchoTrainLength", "echo_train_length", 1.0, math.inf),
    ("SliceThickness", "slice_thickness_mm", 1.0, math.inf),
    ("DiffusionBValue", "b_value_s_mm2", 1.0, math.inf),
)
PHASE_DIRECTIONS: dict[str, Literal["ROW", "COL"]] = {"i": "ROW", "j": "COL", "ROW": "ROW", "COL": "COL", "COLUMN": "COL"}


class Acquisition(Settings):
    """Parameters of the acquisition; None is unknown.

    Attributes
    ----------
    repetition_time_ms, echo_time_ms : float or None
    flip_angle_deg : float or None
    field_strength_t : float or None
    averages : float or None
        Number of signal averages.
    echo_train_length : float or None
    phase_direction : {'ROW', 'COL'} or None
        Axis of the image along which the phase is encoded.
    slice_thickness_mm, pixel_spacing_mm : float or None
        The spacing is the side of a square pixel of the same area.
    b_value_s_mm2 : float or None
        Diffusion weighting of the image that was read.
    b_values : tuple of float
        All weightings that its series holds, ascending.

    Examples
    --------
    >>> Acquisition(slice_thickness_mm=5.0, pixel_spacing_mm=0.5).voxel_volume_mm3
    1.25
    """

    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    flip_angle_deg: float | None = None
    field_strength_t: float | None = None
    averages: float | None = None
    echo_train_length: float | None = None
    phase_direction: Literal["ROW", "COL"] | None = None
    slice_thickness_mm: float | None = None
    pixel_spacing_mm: float | None = None
    b_value_s_mm2: float | None = None
    b_values: tuple[float, ...] = ()

    @property
    def voxel_volume_mm3(self) -> float | None:
        """Slice thickness times the area of a pixel."""
        if self.slice_thickness_mm is None or self.pixel_spacing_mm is None:
            return None
        return self.slice_thickness_mm * self.pixel_spacing_mm**2

    @property
    def anisotropy(self) -> float | None:
        """Slice thickness over pixel spacing."""
        if self.slice_thickness_mm is None or not self.pixel_spacing_mm:
            return None
        return self.slice_thickness_mm / self.pixel_spacing_mm

    def row(self) -> dict[str, float | str | None]:
        """One cell per parameter; of the weightings, how many there are (None: it is no diffusion series).

        Examples
        --------
        >>> Acquisition(b_value_s_mm2=800, b_values=(0, 200, 800)).row()["b_value_count"]
        3.0
        """
        cells: dict[str, float | str | None] = self.model_dump(exclude={"b_values"})
        return {**cells, "b_value_count": float(len(self.b_values)) or None}


def stem_of(name: str) -> str:
    """Name of a file without the suffix of an image.

    Examples
    --------
    >>> stem_of("sub-01_T2w.nii.gz")
    'sub-01_T2w'
    """
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def sidecars_of(path: Path) -> tuple[Path, Path]:
    """Where the BIDS sidecar and the list of b-values of an image lie, if there are any."""
    stem = stem_of(path.name)
    return path.with_name(f"{stem}.json"), path.with_name(f"{stem}.bval")


def pixel_side(first: float, second: float) -> float:
    """Side of the square pixel with the area of a rectangular one.

    Examples
    --------
    >>> pixel_side(1.0, 4.0)
    2.0
    """
    return math.sqrt(first * second)


def acquisition_beside(path: Path, spacing_mm: tuple[float, ...], shown: str) -> Acquisition:
    """Parameters from the BIDS sidecar (``.json``, ``.bval``) beside an image; of its geometry only the pixels.

    The distance of slices is not their thickness, which a file without a sidecar does not know: taken for it, the format of a
    file would pass for a property of the scan.

    Parameters
    ----------
    spacing_mm : tuple of three float
        Of the image; slices are its third axis.
    shown : str
        The image as the user wrote it.

    Raises
    ------
    ImageError
        There is a sidecar that cannot be used.

    References
    ----------
    Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44
    """
    sidecar, weightings = sidecars_of(path)
    known: dict[str, Any] = {"pixel_spacing_mm": pixel_side(spacing_mm[0], spacing_mm[1])}
    if sidecar.is_file():
        known |= _from_sidecar(_read_sidecar(sidecar, shown), sidecar.name, shown)
    if weightings.is_file():
        known["b_values"] = _read_weightings(weightings, shown)
    elif "b_value_s_mm2" in known:
        known["b_values"] = (known["b_value_s_mm2"],)
    if len(known.get("b_values", ())) == 1:
        known["b_value_s_mm2"] = known["b_values"][0]
    return Acquisition(**known)


def _read_sidecar(path: Path, shown: str) -> Mapping[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise ImageError(f"{path.name} beside {shown} is no JSON; mend it or take it away.", file=shown) from cause
    if not isinstance(told, dict):
        raise ImageError(f"{path.name} beside {shown} holds no JSON object; mend it or take it away.", file=shown)
    return told


def _from_sidecar(told: Mapping[str, Any], name: str, shown: str) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, field, factor, largest in SIDECAR_NUMBERS:
        value = told.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
            unit = " (BIDS wants seconds)" if factor == MS_PER_S else ""
            raise ImageError(f"{key} is {value!r} in {name} beside {shown}, which cannot be{unit}; mend it.", file=shown)
        known[field] = value * factor
    axis = told.get("PhaseEncodingDirection", told.get("InPlanePhaseEncodingDirectionDICOM", told.get("PhaseEncodingAxis")))
    if str(axis).rstrip("+-") in PHASE_DIRECTIONS:
        known["phase_direction"] = PHASE_DIRECTIONS[str(axis).rstrip("+-")]
    return known


def _read_weightings(path: Path, shown: str) -> tuple[float, ...]:
    try:
        values = {float(word) for word in path.read_text(encoding="utf-8").split()}
    except (OSError, ValueError) as cause:
        raise ImageError(
            f"{path.name} beside {shown} does not hold b-values alone; mend it or take it away.", file=shown
        ) from cause
    return tuple(sorted(values))
