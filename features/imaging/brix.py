"""The pharmacokinetic model of Brix and its fit to every voxel of a contrast series at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator
from threadpoolctl import threadpool_limits

from features.errors import InputError
from features.settings import Settings

PARAMETERS = 3
CHUNK = 4096  # voxels at a time, so that memory is bounded and the working set stays near the processor
BLOCK = 512  # of them compared with all of the dictionary at a time, for the same reason
SMALL = 0.05  # below it a power series is more exact than a difference of exponentials
TERMS = 8
PHI = tuple(1 / factorial(n + 1) for n in range(TERMS))
PHI_SLOPE = tuple(n / factorial(n + 1) for n in range(1, TERMS + 1))
DAMPING = (1e-3, 1e-12, 1e12)
CONVERGED = 1e-9  # a step that promises less than this part of what is left is the last
EXACT = 1e-24  # so is one at a fit this close to the whole signal
ARRIVALS, ARRIVAL_PASSES = 11, 3  # candidate times of arrival, each time five times as close
ARRIVAL_VOXELS, ARRIVAL_STEPS, COARSE = 150, 10, (16, 8)  # voxels that are asked, and how closely they are fitted
NOISE_FREE = 1e-9  # of a voxel's signal: fits that leave less are equally good

Array = np.ndarray


class BrixSettings(Settings):
    """How the model of Brix is fitted.

    Parameters
    ----------
    form : {'bolus', 'infusion'}
        Whether the contrast agent is injected at once or evenly over ``infusion_min`` minutes.
    infusion_min : float
        Length of the infusion in minutes; only read where ``form`` is infusion.
    baseline_frames : int
        Frames at the start of the series that were taken before contrast arrives.
    minimum_frames : int
        Fewest frames after the baseline. Three parameters leave two of five to judge the fit by; fewer than that are fitted by
        almost any curve.
    arrival : float or 'estimate'
        When contrast reaches the tumour, in minutes on the time axis of the series; one per patient. The estimate is the time,
        between the last frame before contrast and the peak, at which the voxels are together fitted best.
    kep_bounds, kel_bounds : tuple of float
        Range of the exchange rate and of the elimination rate, per minute.
    grid : tuple of int
        Exchange and elimination rates tried to find where a fit begins.
    steps : int
        Most steps of a fit.
    poor_fit : float
        Fits that explain a smaller part of the variance are flagged (and kept).
    """

    form: Literal["bolus", "infusion"] = "bolus"
    infusion_min: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    baseline_frames: int = Field(default=1, ge=1)
    minimum_frames: int = Field(default=PARAMETERS + 2, ge=PARAMETERS + 1)
    arrival: float | Literal["estimate"] = "estimate"
    kep_bounds: tuple[float, float] = (0.1, 20.0)
    kel_bounds: tuple[float, float] = (0.0, 0.5)
    grid: tuple[int, int] = (60, 40)
    steps: int = Field(default=60, ge=1)
    poor_fit: float = 0.5

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if not 0 < self.kep_bounds[0] < self.kep_bounds[1] < np.inf:
            raise ValueError("kep_bounds must be two numbers, 0 < lower < upper")
        if not 0 <= self.kel_bounds[0] < self.kel_bounds[1] < np.inf:
            raise ValueError("kel_bounds must be two numbers, 0 <= lower < upper")
        if self.kel_bounds[0] >= self.kep_bounds[0] or self.kel_bounds[1] >= self.kep_bounds[1]:
            raise ValueError("kel_bounds must begin and end below kep_bounds, or the two rates change places")
        if min(self.grid) < 2:
            raise ValueError("grid must have at least 2 rates on each axis")
        return self


@dataclass(frozen=True)
class BrixFit:
    """Parameters of every voxel, and how far they can be trusted.

    Attributes
    ----------
    a_brix : ndarray of shape (n_voxels,)
        Amplitude, dimensionless; 0 where nothing enhances, NaN where the voxel is invalid.
    kep, kel : ndarray of shape (n_voxels,)
        Exchange and elimination rate, per minute, ``kep >= kel``; NaN where nothing enhances or the voxel is invalid.
    r_squared : ndarray of shape (n_voxels,)
        Part of the variance over time that the curve explains; 0 where nothing enhances.
    invalid, at_bound, poor_fit, no_enhancement : ndarray of bool of shape (n_voxels,)
        Flags: the enhancement is no number; a rate ended at a bound; ``r_squared`` is low; the amplitude is zero.
    arrival_min : float
        When contrast arrives, in minutes on the time axis of the series.
    """

    a_brix: Array
    kep: Array
    kel: Array
    r_squared: Array
    invalid: Array
    at_bound: Array
    poor_fit: Array
    no_enhancement: Array
    arrival_min: float


def brix_curve(
    times_min: Array, a_brix: Array | float, kep: Array | float, kel: Array | float, *, infusion_min: float = 0.0
) -> Array:
    """Relative signal increase after contrast, by the model of Brix.

    Parameters
    ----------
    times_min : ndarray
        Minutes since contrast arrived; nothing enhances before zero.
    a_brix, kep, kel : float or ndarray
        Amplitude (dimensionless), exchange and elimination rate (per minute); broadcast against the times.
    infusion_min : float
        Length of the infusion in minutes; 0 is a bolus.

    Returns
    -------
    ndarray
        ``(S - S0) / S0``, dimensionless.

    References
    ----------
    Brix et al., J Comput Assist Tomogr 15:621-628 (1991).

    Examples
    --------
    >>> brix_curve(np.array([0.5, 1, 2, 5]), 2, 3, 0.1).round(6)
    array([1.506412, 1.76907 , 1.688797, 1.25489 ])
    """
    times, kep, kel = np.broadcast_arrays(*(np.asarray(one, dtype=float) for one in (times_min, kep, kel)))
    curve = _shape(np.atleast_1d(np.maximum(times, 0.0)), np.atleast_1d(kep), np.atleast_1d(kel), infusion_min)[0]
    return np.asarray(a_brix) * curve.reshape(times.shape)


def fit_brix(enhancement: Array, times_min: Array, settings: BrixSettings) -> BrixFit:
    """Fit the model of Brix to all voxels at once.

    A dictionary of curves, each scaled to the voxel, says where to begin; Levenberg-Marquardt steps of all voxels together, on
    amplitude, logarithm of the exchange rate and elimination rate, end it. ``(A, kep, kel)`` and ``(A kep / kel, kel, kep)``
    are one curve: the one with ``kep >= kel`` is reported. Voxels that do not enhance are kept, since they are the hypoxic ones.

    Parameters
    ----------
    enhancement : ndarray of shape (n_voxels, n_frames)
        Relative signal increase. A voxel with a value that is no finite number is invalid.
    times_min : ndarray of shape (n_frames,)
        Increasing times of the frames in minutes.

    Returns
    -------
    BrixFit

    Raises
    ------
    InputError
        There are too few frames, or times that do not increase.

    References
    ----------
    Brix et al., J Comput Assist Tomogr 15:621-628 (1991).

    Examples
    --------
    >>> times = np.arange(14) * 0.5
    >>> curve = brix_curve(times - 0.5, 2, 3, 0.1)
    >>> float(fit_brix(curve[np.newaxis], times, BrixSettings(arrival=0.5)).a_brix[0].round(6))
    2.0
    """
    enhancement, times = np.asarray(enhancement, dtype=float), np.asarray(times_min, dtype=float)
    check_frames(times, settings)
    invalid = ~np.isfinite(enhancement).all(axis=1)
    found = np.full((4, len(enhancement)), np.nan)
    with threadpool_limits(limits=1, user_api="blas"):  # products this small are slower shared, and much so on a busy machine
        arrival, found[:, ~invalid] = _fit_valid(enhancement[~invalid], times, settings)
    amplitude, kep, kel, r_squared = found
    return BrixFit(
        amplitude,
        kep,
        kel,
        r_squared,
        invalid=invalid,
        at_bound=_at_bound(kep, settings.kep_bounds) | _at_bound(kel, settings.kel_bounds),
        poor_fit=r_squared < settings.poor_fit,
        no_enhancement=amplitude == 0,
        arrival_min=arrival,
    )


def _fit_valid(valid: Array, times: Array, settings: BrixSettings) -> tuple[float, Array]:
    """The time of arrival, and amplitude, kep, kel and r squared as rows."""
    arrival = _arrival(valid, times, settings)
    since = _since(times, arrival, settings)
    dictionary = _Dictionary.of(since[since > 0], settings.grid, settings)
    fitted = [_fit_chunk(valid[start : start + CHUNK].T, since, dictionary, settings) for start in range(0, len(valid), CHUNK)]
    return arrival, np.concatenate([np.empty((4, 0)), *fitted], axis=1)


def check_frames(times_min: Array, settings: BrixSettings) -> None:
    """Refuse a series that the model cannot be fitted to.

    Raises
    ------
    InputError
        There are too few frames, or times that do not increase.
    """
    after = len(times_min) - settings.baseline_frames
    if after < settings.minimum_frames:
        needed = settings.minimum_frames + settings.baseline_frames
        raise InputError(
            f"The series has {len(times_min)} frames, {settings.baseline_frames} of them before contrast; a Brix fit has "
            f"{PARAMETERS} parameters and needs at least {needed} frames in all ({settings.minimum_frames} after contrast), so "
            "give a longer series, or use percent enhancement and signal-enhancement ratio."
        )
    if not np.isfinite(times_min).all() or (np.diff(times_min) <= 0).any():
        raise InputError(
            "The times of the frames do not increase from frame to frame; put the frames in order of time and give one time each."
        )


def _shape(times: Array, kep: Array, kel: Array, infusion_min: float) -> tuple[Array, Array, Array]:
    """The curve of amplitude 1 and its derivatives by kep and kel; times from arrival, none negative."""
    if not infusion_min:
        uptake, by_kep, by_kel = _uptake(times, kep, kel)
        return kep * uptake, uptake + kep * by_kep, kep * by_kel
    # An infusion is the mean of boluses given over its length.
    now = _exposure(times, kep, kel)
    ended = _exposure(np.maximum(times - infusion_min, 0.0), kep, kel)
    exposure, by_kep, by_kel = (last - first for last, first in zip(now, ended, strict=True))
    rate = kep / infusion_min
    return rate * exposure, exposure / infusion_min + rate * by_kep, rate * by_kel


def _uptake(times: Array, kep: Array, kel: Array) -> tuple[Array, Array, Array]:
    """``(exp(-kel t) - exp(-kep t)) / (kep - kel)`` and its derivatives, exact where the rates meet and never overflowing."""
    apart = kep - kel
    near = np.abs(apart) < SMALL
    inverse = 1.0 / np.where(near, 1.0, apart)
    exchanged, eliminated = np.exp(-kep * times), np.exp(-kel * times)
    uptake = (eliminated - exchanged) * inverse
    by_kep, by_kel = (times * exchanged - uptake) * inverse, (uptake - times * eliminated) * inverse
    if near.any():
        where = np.broadcast_to(near, uptake.shape)
        uptake[where], by_kep[where], by_kel[where] = _uptake_of_near_rates(
            *(np.broadcast_to(one, uptake.shape)[where] for one in (times, kep, kel))
        )
    return uptake, by_kep, by_kel


def _uptake_of_near_rates(times: Array, kep: Array, kel: Array) -> tuple[Array, Array, Array]:
    decay = times * np.exp(-kel * times)
    ratio, slope = _phi((kel - kep) * times)
    by_kep = -times * decay * slope
    return decay * ratio, by_kep, -times * decay * ratio - by_kep


def _phi(x: Array) -> tuple[Array, Array]:
    """``expm1(x) / x`` and its derivative."""
    near = np.abs(x) < SMALL
    away = np.where(near, 1.0, x)
    grown = np.expm1(away)
    ratio = grown / away
    slope = (grown + 1.0 - ratio) / away
    if near.any():
        ratio[near], slope[near] = (np.polynomial.polynomial.polyval(x[near], series) for series in (PHI, PHI_SLOPE))
    return ratio, slope


def _exposure(times: Array, kep: Array, kel: Array) -> tuple[Array, Array, Array]:
    """Integral of the uptake from arrival, and its derivatives.

    It is ``t**2`` times the second divided difference of the exponential at 0, ``-kel t`` and ``-kep t``.
    """
    a, b = np.broadcast_arrays(kel * times, kep * times)
    span = np.maximum(a, b)
    near = span < SMALL
    a, b, span = np.where(near, 0.5, a), np.where(near, 1.0, b), np.where(near, 1.0, span)
    low = np.minimum(a, b)
    once, slope = _phi(-low)
    pair, by_b, by_a = _uptake(np.ones_like(a), b, a)
    total = (once - pair) / span
    first = -slope  # by the smaller of the two
    by_a = (np.where(a <= b, first - by_a, -by_a - total)) / span
    by_b = (np.where(a <= b, -by_b - total, first - by_b)) / span
    if near.any():
        small = _exposure_series(np.broadcast_to(kel * times, near.shape)[near], np.broadcast_to(kep * times, near.shape)[near])
        for whole, part in zip((total, by_a, by_b), small, strict=True):
            whole[near] = part
    squared = times**2
    return squared * total, squared * times * by_b, squared * times * by_a


def _exposure_series(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The second divided difference of the exponential at 0, -a, -b for small a and b, and its derivatives by a and b."""
    total, by_a, by_b = np.zeros_like(a), np.zeros_like(a), np.zeros_like(a)
    for n in range(TERMS):
        weight = (-1.0) ** n / factorial(n + 2)
        for power in range(n + 1):
            total += weight * a**power * b ** (n - power)
            if power:
                by_a += weight * power * a ** (power - 1) * b ** (n - power)
            if power < n:
                by_b += weight * (n - power) * a**power * b ** (n - power - 1)
    return total, by_a, by_b


@dataclass(frozen=True)
class _Dictionary:
    """Curves of amplitude 1 scaled to unit length (frames, atoms), their lengths and their rates."""

    curves: Array
    lengths: Array
    kep: Array
    kel: Array

    @classmethod
    def of(cls, since: Array, grid: tuple[int, int], settings: BrixSettings) -> Self:
        keps, kels = np.geomspace(*settings.kep_bounds, grid[0]), np.linspace(*settings.kel_bounds, grid[1])
        kep, kel = (rates.ravel() for rates in np.meshgrid(keps, kels, indexing="ij"))
        kep, kel = kep[kep > kel], kel[kep > kel]
        curves = _shape(since[:, np.newaxis], kep, kel, _infusion(settings))[0]
        lengths = np.linalg.norm(curves, axis=0)
        return cls(curves / lengths, lengths, kep, kel)

    def start(self, signal: Array) -> Array:
        """Amplitude, logarithm of kep, and kel, as rows, where the fit of each column of the signal begins."""
        # Single precision is enough to choose where to begin, and half the work.
        voxels, curves = signal.T.astype(np.float32), self.curves.astype(np.float32)
        best = np.concatenate([(voxels[at : at + BLOCK] @ curves).argmax(axis=1) for at in range(0, max(len(voxels), 1), BLOCK)])
        amplitude = np.einsum("tv,tv->v", signal, self.curves[:, best]) / self.lengths[best]
        return np.stack([amplitude, np.log(self.kep[best]), self.kel[best]])


def _infusion(settings: BrixSettings) -> float:
    return settings.infusion_min if settings.form == "infusion" else 0.0


def _fit_chunk(signal: Array, since: Array, dictionary: _Dictionary, settings: BrixSettings) -> Array:
    """Amplitude, kep, kel and r squared, as rows, of voxels that are the columns of the signal."""
    late = since > 0
    start = dictionary.start(signal[late])
    enhancing = start[0] > 0
    signal = signal[:, enhancing]
    parameters, left = _levenberg_marquardt(signal[late], since[late, np.newaxis], start[:, enhancing], settings)
    found = np.full((4, len(enhancing)), np.nan)
    found[0], found[3] = 0.0, 0.0
    left += np.square(signal[~late]).sum(axis=0)
    spread = np.maximum(np.square(signal - signal.mean(axis=0)).sum(axis=0), np.finfo(float).tiny)
    found[:, enhancing] = (*_ordered(*parameters), 1.0 - left / spread)
    return found


def _ordered(amplitude: Array, log_kep: Array, kel: Array) -> tuple[Array, Array, Array]:
    """The same curves with the exchange rate above the elimination rate."""
    kep = np.exp(log_kep)
    flipped = kel > kep
    scale = np.where(flipped, kep / np.where(flipped, kel, 1.0), 1.0)
    return amplitude * scale, np.where(flipped, kel, kep), np.where(flipped, kep, kel)


def _levenberg_marquardt(signal: Array, times: Array, start: Array, settings: BrixSettings) -> tuple[Array, Array]:
    """Least squares of all columns at once within bounds; columns that have converged are left out of later steps.

    Returns the parameters of shape (3, n) and the remaining sums of squares of shape (n,).
    """
    lower = np.array([0.0, np.log(settings.kep_bounds[0]), settings.kel_bounds[0]])[:, np.newaxis]
    upper = np.array([np.inf, np.log(settings.kep_bounds[1]), settings.kel_bounds[1]])[:, np.newaxis]
    infusion = _infusion(settings)
    end, left = np.clip(start, lower, upper), np.zeros(start.shape[1])
    where = np.arange(start.shape[1])
    state = _State.at(end, signal, times, infusion, np.full(len(where), DAMPING[0]))
    for _ in range(settings.steps):
        if not len(where):
            break
        moved, promised = state.step(lower, upper)
        tried = _State.at(moved, state.signal, state.times, infusion, state.damping)
        better = tried.cost <= state.cost
        enough = CONVERGED * state.cost + EXACT * np.einsum("tv,tv->v", signal[:, where], signal[:, where])
        done = ((promised <= enough) & (state.damping <= DAMPING[0])) | (state.damping >= DAMPING[2])
        state = state.accept(tried, better)
        end[:, where], left[where] = state.parameters, state.cost
        where, state = where[~done], state.keep(~done)
    return end, left


@dataclass(frozen=True)
class _State:
    """Where the fits stand: parameters (3, n), residuals (frames, n), Jacobian (3, frames, n), cost and damping (n,)."""

    parameters: Array
    signal: Array
    times: Array
    residual: Array
    jacobian: Array
    cost: Array
    damping: Array

    @classmethod
    def at(cls, parameters: Array, signal: Array, times: Array, infusion: float, damping: Array) -> Self:
        amplitude, log_kep, kel = parameters
        kep = np.exp(log_kep)
        shape, by_kep, by_kel = _shape(times, kep, kel, infusion)
        residual = signal - amplitude * shape
        jacobian = np.stack([shape, amplitude * kep * by_kep, amplitude * by_kel])
        return cls(parameters, signal, times, residual, jacobian, np.einsum("tv,tv->v", residual, residual), damping)

    def step(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Where the damped step leads, and by how much it promises to lower the cost; a parameter does not leave its bounds."""
        gradient = np.einsum("ptv,tv->pv", self.jacobian, self.residual)
        held = ((self.parameters <= lower) & (gradient < 0)) | ((self.parameters >= upper) & (gradient > 0))
        free = np.where(held, 0.0, 1.0)
        gradient *= free
        step = _solve(self.jacobian * free[:, np.newaxis], gradient, 1.0 + self.damping)
        return np.clip(self.parameters + step, lower, upper), (gradient * step).sum(axis=0)

    def accept(self, tried: Self, better: Array) -> Self:
        """The tried state where it is better, with less damping; this one with more damping elsewhere."""
        damping = np.where(better, np.maximum(self.damping / 10, DAMPING[1]), self.damping * 10)
        return type(self)(
            np.where(better, tried.parameters, self.parameters),
            self.signal,
            self.times,
            np.where(better, tried.residual, self.residual),
            np.where(better, tried.jacobian, self.jacobian),
            np.where(better, tried.cost, self.cost),
            damping,
        )

    def keep(self, kept: Array) -> Self:
        """The columns that go on."""
        if kept.all():
            return self
        times = self.times if self.times.shape[1] == 1 else self.times[:, kept]
        return type(self)(
            self.parameters[:, kept],
            self.signal[:, kept],
            times,
            self.residual[:, kept],
            self.jacobian[:, :, kept],
            self.cost[kept],
            self.damping[kept],
        )


def _solve(jacobian: Array, gradient: Array, stretch: Array) -> Array:
    """Solve the three normal equations of each column, their diagonal stretched, by Cholesky factors without square roots."""
    a, b, c = jacobian
    aa, bb, cc = ((one * one).sum(axis=0) * stretch for one in (a, b, c))
    ab, ac, bc = ((one * other).sum(axis=0) for one, other in ((a, b), (a, c), (b, c)))
    aa = _pivot(aa)
    ba, ca = ab / aa, ac / aa
    bb = _pivot(bb - ba * ab)
    cb = (bc - ba * ac) / bb
    cc = _pivot(cc - ca * ac - cb * cb * bb)
    x = gradient[0]
    y = gradient[1] - ba * x
    z = (gradient[2] - ca * x - cb * y) / cc
    y = y / bb - cb * z
    return np.stack([x / aa - ba * y - ca * z, y, z])


def _pivot(value: Array) -> Array:
    """A parameter that is held, or that the curve does not depend on, has no pivot: its step is then its gradient, zero."""
    return np.where(value > 0, value, 1.0)


def _at_bound(rate: Array, bounds: tuple[float, float]) -> Array:
    width = 1e-6 * (bounds[1] - bounds[0])
    return (rate <= bounds[0] + width) | (rate >= bounds[1] - width)


def _arrival(valid: Array, times: Array, settings: BrixSettings) -> float:
    """When contrast arrives: as set, or the time at which the voxels are together fitted best (the earliest of equals).

    One time for all voxels: voxel by voxel it would trade places with the exchange rate. From the mean curve alone it comes out
    up to 0.08 min early, as a mean of different curves is none of the model, and the hypoxic fraction then 0.013 low.
    """
    if settings.arrival != "estimate":
        return float(settings.arrival)
    first = float(times[settings.baseline_frames - 1])
    if not len(valid):
        return first
    peak = int(valid[:, settings.baseline_frames :].mean(axis=0).argmax()) + settings.baseline_frames
    last = float(min(times[peak], times[-settings.minimum_frames - 1]))
    asked = valid[np.unique(np.linspace(0, len(valid) - 1, ARRIVAL_VOXELS).astype(int))].T
    low, high = first, last
    for _ in range(ARRIVAL_PASSES):
        candidates = np.linspace(low, high, ARRIVALS)
        best = float(candidates[int(_misfits(asked, times, candidates, settings).argmin())])
        spacing = candidates[1] - candidates[0]
        low, high = max(first, best - spacing), min(last, best + spacing)
    return best


def _since(times: Array, arrival: float, settings: BrixSettings) -> Array:
    since = np.maximum(times - arrival, 0.0)
    late = int((since > 0).sum())
    if late < settings.minimum_frames:
        raise InputError(
            f"Contrast arrives at {arrival:g} min, which leaves {late} frames after it, and a fit needs "
            f"{settings.minimum_frames}; set an earlier arrival (the series ends at {times[-1]:g} min) or let it be estimated."
        )
    return since


def _misfits(signal: Array, times: Array, candidates: Array, settings: BrixSettings) -> Array:
    """How badly voxels, the columns of the signal, are fitted for each time of arrival: minus twice the logarithm of the
    likelihood, each voxel with a noise of its own, so that one with next to no signal before contrast does not rule.
    """
    since = np.maximum(times[:, np.newaxis] - candidates, 0.0)
    starts = [_Dictionary.of(column, COARSE, settings).start(signal) for column in since.T]
    start = np.concatenate(starts, axis=1)
    energy = np.tile(np.square(signal).sum(axis=0), len(candidates))
    left, enhancing = energy.copy(), start[0] > 0
    repeated, each = np.tile(signal, len(candidates)), np.repeat(since, signal.shape[1], axis=1)
    short = settings.model_copy(update={"steps": ARRIVAL_STEPS})
    left[enhancing] = _levenberg_marquardt(repeated[:, enhancing], each[:, enhancing], start[:, enhancing], short)[1]
    likely = np.log((left + NOISE_FREE * energy)[energy > 0]).reshape(len(candidates), -1)
    return len(times) * likely.sum(axis=1)
