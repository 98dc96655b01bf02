"""The hypoxic fraction of simulated tumours against the truth, at growing noise."""

from __future__ import annotations

import numpy as np
import pytest

from features.imaging.brix import BrixSettings, brix_curve, fit_brix

THRESHOLD = 1.56
FRAMES_MIN = np.arange(14) * 0.5


def fractions(noise: float, *, arrives: float = 0.5, known: bool = True, seed: int = 0) -> tuple[float, float, float]:
    """True and measured hypoxic fraction, and the median relative error of the amplitude."""
    rng, n = np.random.default_rng(seed), 20_000
    amplitude = np.exp(rng.normal(np.log(2), 0.45, n))  # 29 % below the threshold, as science.md 3 has it
    kep, kel = np.exp(rng.normal(np.log(3), 0.5, n)), rng.uniform(0, 0.2, n)
    curves = brix_curve(FRAMES_MIN - arrives, amplitude[:, np.newaxis], kep[:, np.newaxis], kel[:, np.newaxis])
    settings = BrixSettings(arrival=arrives if known else "estimate")
    found = fit_brix(curves + noise * rng.normal(size=curves.shape), FRAMES_MIN, settings).a_brix
    return (amplitude < THRESHOLD).mean(), (found < THRESHOLD).mean(), float(np.median(np.abs(found / amplitude - 1)))


@pytest.mark.parametrize("arrives", [0.5, 0.6, 0.85])
@pytest.mark.parametrize(
    ("noise", "within", "error"),
    [
        (0.0, 0.0001, 1e-9),
        (0.03, 0.01, 0.013),  # the issue: within 0.01 at 0.03; science.md 3: median error 0.9 %
        (0.1, 0.015, 0.042),  # science.md 3: .2904 -> .2841, 2.8 %
    ],
)
def test_the_hypoxic_fraction_is_near_the_truth(noise: float, within: float, error: float, arrives: float) -> None:
    truth, found, median_error = fractions(noise, arrives=arrives)
    assert found == pytest.approx(truth, abs=within)
    assert median_error <= error


@pytest.mark.parametrize("arrives", [0.5, 0.6, 0.7, 0.85])
def test_estimating_the_time_of_arrival_costs_little(arrives: float) -> None:
    truth, found, _ = fractions(0.03, arrives=arrives, known=False)
    assert found == pytest.approx(truth, abs=0.003)  # from the mean curve alone it would be up to 0.013 low


def test_noise_hides_hypoxia() -> None:
    truth, found, _ = fractions(0.2)
    assert 0.02 < truth - found < 0.05  # science.md 3: .2904 -> .2633 at noise 0.2, so a noisy scan looks less hypoxic


@pytest.mark.slow
def test_the_hypoxic_fraction_is_near_the_truth_in_every_tumour() -> None:
    arrivals = np.random.default_rng(0).uniform(0.5, 1.0, 100)
    apart = [np.diff(fractions(0.03, arrives=float(at), known=False, seed=seed)[:2])[0] for seed, at in enumerate(arrivals)]
    assert np.abs(apart).max() < 0.01
