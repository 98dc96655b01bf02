"""Contrast series to maps of perfusion, and maps to the hypoxic fraction of a tumour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import SimpleITK as sitk
from pydantic import Field

from features.imaging.brix import BrixFit, BrixSettings, fit_brix
from features.imaging.errors import ImageError
from features.imaging.series import Series
from features.imaging.settings import MaskSettings
from features.settings import Settings

PAPER = "Fjeldbo et al. 2020, doi:10.1016/j.ebiom.2020.102841"
THRESHOLD, CUTOFF = 1.56, 0.27
SHORTEST_S = 60.0
FLAGS = {"invalid": 1, "at_bound": 2, "poor_fit": 4, "no_enhancement": 8}


class PerfusionSettings(Settings):
    """What a voxel, and what a tumour, is called hypoxic by.

    Parameters
    ----------
    threshold : float
        A voxel with an amplitude below it is hypoxic.
    cutoff : float
        A tumour of which this part or more is hypoxic is called more hypoxic.
    most_invalid : float
        A tumour of which a larger part cannot be measured has failed.
    minimum_signal : float
        Signal before contrast below which a voxel is background; at or below zero it always is.
    enhancing_percent : float
        Early enhancement from which on the signal-enhancement ratio means something.
    brix : BrixSettings
    masks : MaskSettings
        A hypoxic fraction needs no texture: regions in parts, or in one slice, are kept.
    """

    threshold: float = Field(default=THRESHOLD, gt=0, allow_inf_nan=False)
    cutoff: float = Field(default=CUTOFF, ge=0, le=1)
    most_invalid: float = Field(default=0.10, ge=0, lt=1)
    minimum_signal: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    enhancing_percent: float = Field(default=70.0, gt=0, allow_inf_nan=False)
    brix: BrixSettings = BrixSettings()
    masks: MaskSettings = MaskSettings(disconnected="keep", one_slice="keep")

    @property
    def warning(self) -> str:
        """What a reader of the hypoxic fraction must know of its two numbers."""
        threshold, cutoff = f"threshold {self.threshold:g} of ABrix", f"cut-off {self.cutoff:g} of the hypoxic fraction"
        published = [said for said, own in ((threshold, self.threshold == THRESHOLD), (cutoff, self.cutoff == CUTOFF)) if own]
        if not published:
            return f"The {threshold} and the {cutoff} are choices of this analysis; if outcome chose them, test them elsewhere."
        several = len(published) > 1
        return (
            f"The {' and the '.join(published)} {'were' if several else 'was'} tuned on outcome in the paper's own patients "
            f"({PAPER}), with other scanners and sequences; "
            f"{'they are no independent cut-offs' if several else 'it is no independent cut-off'}."
        )


@dataclass(frozen=True)
class PerfusionMaps:
    """Parameters of the model of Brix in the voxels of a tumour.

    Attributes
    ----------
    inside : ndarray of shape (n_slices, n_rows, n_columns), bool
        The tumour; the fit's voxels are its True values, in order.
    fit : BrixFit
    grid : SimpleITK.Image
        Geometry.
    """

    inside: np.ndarray
    fit: BrixFit
    grid: sitk.Image

    def image(self, values: np.ndarray, outside: float = np.nan) -> sitk.Image:
        """A value per voxel of the tumour as an image on its grid.

        Parameters
        ----------
        values : ndarray of shape (n_voxels,)
        outside : float
            Value elsewhere.
        """
        whole = np.full(self.inside.shape, outside, dtype=np.float32 if values.dtype.kind == "f" else np.uint8)
        whole[self.inside] = values
        image = sitk.GetImageFromArray(whole)
        image.CopyInformation(self.grid)
        return image

    def images(self) -> dict[str, sitk.Image]:
        """``ABrix``, ``kep``, ``kel`` and ``r2`` (NaN where there is none), and ``flags`` as a sum of ``FLAGS``."""
        fit = self.fit
        flags = np.sum([value * getattr(fit, name) for name, value in FLAGS.items()], axis=0).astype(np.uint8)
        maps = {"ABrix": fit.a_brix, "kep": fit.kep, "kel": fit.kel, "r2": fit.r_squared}
        return {**{name: self.image(values) for name, values in maps.items()}, "flags": self.image(flags, 0)}


@dataclass(frozen=True)
class HypoxicFraction:
    """How much of a tumour is hypoxic.

    Attributes
    ----------
    fraction : float
        Hypoxic voxels over valid voxels, all slices pooled.
    hypoxic : bool
        Whether the fraction is at or above the cut-off.
    slices : DataFrame
        One row per slice of the tumour: slice (counted from 0), voxels, valid, hypoxic, fraction.
    warning : str
        What a reader of the two must know.
    """

    fraction: float
    hypoxic: bool
    slices: pd.DataFrame
    warning: str

    @property
    def voxels(self) -> int:
        """Voxels of the tumour."""
        return int(self.slices["voxels"].sum())

    @property
    def invalid(self) -> int:
        """Voxels that could not be measured."""
        return self.voxels - int(self.slices["valid"].sum())


def relative_signal_increase(signal: np.ndarray, baseline_frames: int, minimum_signal: float = 0.0) -> np.ndarray:
    """``(S - S0) / S0``, S0 the mean of the frames before contrast.

    Parameters
    ----------
    signal : ndarray of shape (n_voxels, n_frames)

    Returns
    -------
    ndarray of shape (n_voxels, n_frames)
        NaN where S0 is not above zero, below the minimum or not finite.

    Examples
    --------
    >>> relative_signal_increase(np.array([[90.0, 110.0, 300.0], [0.0, 0.0, 5.0]]), baseline_frames=2)
    array([[-0.1,  0.1,  2. ],
           [ nan,  nan,  nan]])
    """
    before = signal[:, :baseline_frames].mean(axis=1)
    usable = np.isfinite(before) & (before > 0) & (before >= minimum_signal)
    before = np.where(usable, before, np.nan)[:, np.newaxis]
    return (signal - before) / before


def perfusion_maps(series: Series, mask: sitk.Image, settings: PerfusionSettings) -> PerfusionMaps:
    """Fit the model of Brix in every voxel of a tumour.

    Parameters
    ----------
    mask : SimpleITK.Image
        Not 0 inside the tumour, on the grid of the series.

    Raises
    ------
    ImageError
        The times are unknown, or all within a minute.
    InputError
        The series has too few frames.

    References
    ----------
    Brix et al., J Comput Assist Tomogr 15:621-628 (1991); Fjeldbo et al. 2020, doi:10.1016/j.ebiom.2020.102841
    """
    if series.times_s is None:
        raise ImageError(
            "The times of the frames are not known; give them in seconds in column times_s of the manifest (joined by ';'), or "
            "as FrameTimesStart in the JSON sidecar."
        )
    covered = max(series.times_s) - min(series.times_s)
    if covered < SHORTEST_S:
        raise ImageError(
            f"The frames cover {covered:g} s, and nothing washes out in less than {SHORTEST_S:g} s; give the times in seconds, "
            "or leave the series out."
        )
    inside = sitk.GetArrayFromImage(mask) != 0
    increase = relative_signal_increase(series.signal(inside), settings.brix.baseline_frames, settings.minimum_signal)
    return PerfusionMaps(inside, fit_brix(increase, np.array(series.times_s) / 60, settings.brix), series.grid)


def hypoxic_fraction(maps: PerfusionMaps, settings: PerfusionSettings) -> HypoxicFraction:
    """Part of a tumour whose amplitude is below the threshold; voxels that do not enhance count as hypoxic.

    Raises
    ------
    ImageError
        More voxels are invalid than the settings allow.

    References
    ----------
    Fjeldbo et al. 2020, doi:10.1016/j.ebiom.2020.102841
    """
    slices = _by_slice(maps, settings.threshold)
    voxels, valid, hypoxic = (int(slices[name].sum()) for name in ("voxels", "valid", "hypoxic"))
    if valid == 0 or voxels - valid > settings.most_invalid * voxels:
        share = 100 * (voxels - valid) / voxels
        raise ImageError(
            f"{voxels - valid} of {voxels} voxels of the tumour ({share:.0f} %) have no signal before contrast or no finite one, "
            f"more than {100 * settings.most_invalid:g} %; check that the mask lies on the tumour, and the first frames."
        )
    fraction = hypoxic / valid
    return HypoxicFraction(fraction, fraction >= settings.cutoff, slices, settings.warning)


def _by_slice(maps: PerfusionMaps, threshold: float) -> pd.DataFrame:
    """Strictly below the threshold; a voxel that is invalid is neither hypoxic nor not."""
    frame = pd.DataFrame(
        {
            "slice": np.nonzero(maps.inside)[0],
            "voxels": 1,
            "valid": (~maps.fit.invalid).astype(int),
            "hypoxic": (maps.fit.a_brix < threshold).astype(int),
        }
    )
    slices = frame.groupby("slice", as_index=False).sum()
    return slices.assign(fraction=slices["hypoxic"] / slices["valid"].where(slices["valid"] > 0))


def percent_enhancement(before: np.ndarray, early: np.ndarray, *, minimum_signal: float = 0.0) -> np.ndarray:
    """``100 (S1 - S0) / S0``; NaN in background, where S0 is not above zero or below the minimum.

    Parameters
    ----------
    before, early : ndarray
        Signal before and early after contrast.

    References
    ----------
    Signal-enhancement ratio imaging of breast tumours with three time points, PMC5410941

    Examples
    --------
    >>> percent_enhancement(np.array([50.0, 0.0]), np.array([85.0, 10.0]))
    array([70., nan])
    """
    return 100 * relative_signal_increase(np.stack([before, early], axis=-1).reshape(-1, 2), 1, minimum_signal)[:, 1].reshape(
        np.shape(before)
    )


def signal_enhancement_ratio(
    before: np.ndarray, early: np.ndarray, late: np.ndarray, *, enhancing_percent: float = 70.0, minimum_signal: float = 0.0
) -> np.ndarray:
    """``(S1 - S0) / (S2 - S0)``: above 1 washes out, below 1 still takes up.

    Parameters
    ----------
    before, early, late : ndarray
        Signal before, early and late after contrast.
    enhancing_percent : float
        Voxels that enhance less early on have no ratio: it would be one of noise.

    Returns
    -------
    ndarray
        NaN in background, where early enhancement is too weak, and where nothing is left late (S2 at or below S0).

    References
    ----------
    Signal-enhancement ratio imaging of breast tumours with three time points, PMC5410941

    Examples
    --------
    >>> signal_enhancement_ratio(np.array([50.0, 50.0]), np.array([100.0, 60.0]), np.array([90.0, 90.0]))
    array([1.25,  nan])
    """
    enhancement = percent_enhancement(before, early, minimum_signal=minimum_signal)
    left = np.asarray(late, dtype=float) - before
    usable = (enhancement >= enhancing_percent) & (left > 0)
    return np.where(usable, (np.asarray(early, dtype=float) - before) / np.where(usable, left, 1.0), np.nan)


def three_phases(series: Series, inside: np.ndarray, baseline_frames: int) -> Sequence[np.ndarray]:
    """Signal before, early and late after contrast in the voxels of a mask: mean of the baseline, the next frame, the last.

    Raises
    ------
    ImageError
        There are no two frames after contrast.
    """
    if len(series.frames) < baseline_frames + 2:
        raise ImageError(
            f"The series has {len(series.frames)} frames, {baseline_frames} of them before contrast; percent enhancement and "
            "signal-enhancement ratio need two after it."
        )
    signal = series.signal(inside)
    return signal[:, :baseline_frames].mean(axis=1), signal[:, baseline_frames], signal[:, -1]
