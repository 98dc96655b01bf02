"""The Brix fit of 20,000 voxels x 14 frames: all at once against a loop of scipy's curve_fit, same parameters.

Run: ``python benchmarks/brix.py``. Both are timed in one process; what counts is the ratio.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.optimize import curve_fit

from features.imaging.brix import BrixSettings, brix_curve, fit_brix

VOXELS, LOOPED, FRAMES, NOISE = 20_000, 1000, 14, 0.03
ARRIVAL_MIN = 0.5


def plain_curve(times: np.ndarray, amplitude: float, kep: float, kel: float) -> np.ndarray:
    """The bolus form as a textbook has it: what the loop is quickest with."""
    return amplitude * kep * (np.exp(-kep * times) - np.exp(-kel * times)) / (kel - kep)


def example(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Times in minutes and noisy curves of a tumour."""
    rng = np.random.default_rng(seed)
    amplitude, kep = np.exp(rng.normal(np.log(2), 0.45, VOXELS)), np.exp(rng.normal(np.log(3), 0.5, VOXELS))
    times = np.arange(FRAMES) * 0.5
    curves = brix_curve(times - ARRIVAL_MIN, amplitude[:, None], kep[:, None], rng.uniform(0, 0.2, VOXELS)[:, None])
    return times, curves + NOISE * rng.normal(size=curves.shape)


def one_by_one(since: np.ndarray, curves: np.ndarray, bounds: tuple[list[float], list[float]]) -> np.ndarray:
    """Parameters of shape (n_voxels, 3) by curve_fit, with our bounds and a start from the curve's own height."""
    start = [[max(float(curve.max()), 0.01), 2.0, 0.1] for curve in curves]
    return np.array(
        [curve_fit(plain_curve, since, curve, p0=p0, bounds=bounds)[0] for curve, p0 in zip(curves, start, strict=True)]
    )


def main() -> None:
    times, curves = example()
    settings = BrixSettings(arrival=ARRIVAL_MIN)
    bounds = ([0.0, settings.kep_bounds[0], settings.kel_bounds[0]], [np.inf, settings.kep_bounds[1], settings.kel_bounds[1]])
    start = time.perf_counter()
    loop = one_by_one(np.maximum(times - ARRIVAL_MIN, 0), curves[:LOOPED], bounds)
    plain = (time.perf_counter() - start) * VOXELS / LOOPED
    for name, arrival in (("arrival estimated", "estimate"), ("arrival known", ARRIVAL_MIN)):
        runs = []
        for _ in range(5):
            start = time.perf_counter()
            fit = fit_brix(curves, times, BrixSettings(arrival=arrival))
            runs.append(time.perf_counter() - start)
        took = float(np.median(runs))
        timed = f"loop {plain:.1f} s (from {LOOPED} voxels, arrival known), ours {took * 1000:.0f} ms, ratio {plain / took:.0f}"
        print(f"Brix, {VOXELS} voxels x {FRAMES} frames, {name}: {timed}")
    apart = np.abs(fit.a_brix[:LOOPED] / loop[:, 0] - 1)
    print(
        f"amplitudes differ by a median of {np.median(apart):.1e} (p95 {np.percentile(apart, 95):.1e}), relative, arrival known"
    )


if __name__ == "__main__":
    main()
