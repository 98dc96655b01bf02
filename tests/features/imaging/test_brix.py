from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.optimize import approx_fprime, curve_fit

from features.errors import InputError
from features.imaging import brix
from features.imaging.brix import BrixSettings, brix_curve, fit_brix

FRAMES_MIN = np.arange(14) * 0.5
BOLUS_AT = BrixSettings(arrival=0.5)


def tumour(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes and noisy curves of n voxels; contrast arrives after half a minute."""
    rng = np.random.default_rng(seed)
    amplitude, kep = np.exp(rng.normal(np.log(2), 0.45, n)), np.exp(rng.normal(np.log(3), 0.5, n))
    kel = rng.uniform(0, 0.2, n)
    curves = brix_curve(FRAMES_MIN - 0.5, amplitude[:, np.newaxis], kep[:, np.newaxis], kel[:, np.newaxis])
    return amplitude, curves + noise * rng.normal(size=curves.shape)


def test_the_bolus_has_its_reference_values() -> None:
    curve = brix_curve(np.array([0.5, 1, 2, 5]), 2, 3, 0.1)
    assert curve == pytest.approx([1.506412, 1.769070, 1.688797, 1.254890], abs=1e-6)  # science.md 3, to 1e-6
    assert brix_curve(np.array(0.5), 1.5, 2, 2) == pytest.approx(0.551819, abs=1e-6)  # science.md 3: kep = kel


def test_the_peak_is_where_and_as_high_as_its_formula_says() -> None:
    times = np.linspace(1.1, 1.25, 150_001)
    curve = brix_curve(times, 2, 3, 0.1)
    assert times[curve.argmax()] == pytest.approx(1.172827, abs=1e-6)  # science.md 3: ln(kep / kel) / (kep - kel)
    assert curve.max() == pytest.approx(1.778668, abs=1e-6)  # science.md 3: A (kel / kep)^(kel / (kep - kel))


def test_the_area_under_the_curve_is_amplitude_over_elimination() -> None:
    area = quad(lambda t: float(brix_curve(np.array(t), 2, 3, 0.4)), 0, np.inf)[0]
    assert area == pytest.approx(2 / 0.4, rel=1e-8)  # science.md 3: integral = A / kel


def test_without_elimination_the_curve_rises_to_its_amplitude() -> None:
    assert brix_curve(np.array([1e3]), 1.7, 3, 0) == pytest.approx([1.7], rel=1e-12)


def test_nothing_enhances_before_contrast_arrives() -> None:
    assert brix_curve(np.array([-3.0, -0.1, 0.0]), 2, 3, 0.1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("infusion_min", [0.0, 0.5])
def test_a_curve_is_smooth_where_both_rates_meet(infusion_min: float) -> None:
    times = np.linspace(0, 8, 33)
    apart = np.concatenate([10.0 ** np.arange(-12, 0, 0.5), [brix.SMALL * 0.999, brix.SMALL * 1.001]])
    at_limit = brix_curve(times, 1.5, 2, 2, infusion_min=infusion_min)
    for gap in np.concatenate([-apart, apart]):
        between = brix_curve(times, 1.5, 2, 2 + gap, infusion_min=infusion_min)
        slope = brix_curve(times, 1.5, 2, 2 + 1e-5, infusion_min=infusion_min) - at_limit
        assert np.abs(between - at_limit - slope * gap / 1e-5).max() < 1e-9 + gap**2  # second order: no jump at the limit


def test_flipped_rates_are_the_same_curve_at_another_amplitude() -> None:
    times = np.linspace(0, 8, 33)
    flipped = brix_curve(times, 2 * 3 / 0.1, 0.1, 3)
    assert flipped == pytest.approx(brix_curve(times, 2, 3, 0.1), abs=1e-13)  # science.md 3: 1e-15 of the amplitude of 60


def test_an_infusion_has_the_published_form() -> None:
    times, amplitude, kep, kel, length = np.linspace(0, 7, 57), 2, 3, 0.1, 0.7
    given_until = np.clip(times, 0, length)
    published = (amplitude / length) * (  # Brix 1991, as science.md 3 prints it
        kep / (kel * (kep - kel)) * np.exp(-kel * times) * (np.exp(kel * given_until) - 1)
        - np.exp(-kep * times) * (np.exp(kep * given_until) - 1) / (kep - kel)
    )
    assert brix_curve(times, amplitude, kep, kel, infusion_min=length) == pytest.approx(published, abs=1e-13)


def test_a_short_infusion_is_a_bolus() -> None:
    times = np.linspace(0.1, 7, 57)
    short = brix_curve(times, 2, 3, 0.1, infusion_min=1e-7)
    assert short == pytest.approx(brix_curve(times, 2, 3, 0.1), abs=1e-6)  # half its length times the slope of 6: 3e-7


@given(kep=st.floats(0.1, 20), kel=st.floats(0, 0.5), time=st.floats(0, 30), infusion_min=st.sampled_from([0.0, 0.1, 1.0]))
def test_derivatives_are_those_of_the_curve(kep: float, kel: float, time: float, infusion_min: float) -> None:
    def curve(rates: np.ndarray) -> float:
        return float(brix._shape(np.array([time]), rates[:1], rates[1:], infusion_min)[0][0])

    by_rates = brix._shape(np.array([time]), np.array([kep]), np.array([kel]), infusion_min)[1:]
    assert np.ravel(by_rates) == pytest.approx(approx_fprime(np.array([kep, kel]), curve, 1e-6), abs=2e-3, rel=1e-4)


@pytest.mark.parametrize("form", ["bolus", "infusion"])
def test_noise_free_curves_give_their_parameters_back(form: str) -> None:
    settings = BrixSettings(form=form, infusion_min=0.8, arrival=0.5)
    amplitude, kep, kel = np.array([0.3, 1.56, 4.0]), np.array([0.9, 3.0, 8.0]), np.array([0.05, 0.1, 0.3])
    length = 0.8 if form == "infusion" else 0.0
    curves = brix_curve(FRAMES_MIN - 0.5, amplitude[:, np.newaxis], kep[:, np.newaxis], kel[:, np.newaxis], infusion_min=length)
    fit = fit_brix(curves, FRAMES_MIN, settings)
    assert fit.a_brix == pytest.approx(amplitude, rel=1e-9)
    assert fit.kep == pytest.approx(kep, rel=1e-8)
    assert fit.kel == pytest.approx(kel, rel=1e-8)
    assert fit.r_squared == pytest.approx(1, abs=1e-12)
    assert not (fit.invalid | fit.at_bound | fit.poor_fit | fit.no_enhancement).any()


def test_all_voxels_at_once_give_what_curve_fit_gives_one_by_one() -> None:
    curves = tumour(150, noise=0.03)[1]
    fit = fit_brix(curves, FRAMES_MIN, BOLUS_AT)
    since = np.maximum(FRAMES_MIN - 0.5, 0)
    bounds = ([0, 0.1, 0], [np.inf, 20, 0.5])
    one_by_one = [
        curve_fit(brix_curve, since, one, p0=[one.max(), 2, 0.1], bounds=bounds, xtol=1e-12, ftol=1e-12)[0] for one in curves
    ]
    apart = np.abs(fit.a_brix / np.array(one_by_one)[:, 0] - 1)
    assert np.median(apart) < 1e-7  # the issue asks for 1e-5
    assert np.percentile(apart, 95) < 1e-5  # the brief aims at 1e-3


def test_the_exchange_rate_is_never_below_the_elimination_rate() -> None:
    slow = brix_curve(FRAMES_MIN - 0.5, 1.5, 0.2, 0.45)
    fit = fit_brix(np.stack([slow, *tumour(200, noise=0.3)[1]]), FRAMES_MIN, BOLUS_AT)
    there = ~fit.no_enhancement
    assert (fit.kep[there] >= fit.kel[there]).all()
    assert fit.a_brix[0] == pytest.approx(1.5 * 0.2 / 0.45, rel=1e-6)  # the same curve with the rates in order


def test_voxels_that_do_not_enhance_are_kept_with_no_amplitude() -> None:
    flat, falling = np.zeros(14), -0.1 * np.ones(14)
    falling[0] = 0
    fit = fit_brix(np.stack([flat, falling]), FRAMES_MIN, BOLUS_AT)
    assert fit.a_brix.tolist() == [0, 0]
    assert fit.r_squared.tolist() == [0, 0]
    assert fit.no_enhancement.all() and fit.poor_fit.all() and not fit.invalid.any()
    assert np.isnan(fit.kep).all() and np.isnan(fit.kel).all()


def test_a_voxel_without_numbers_is_invalid_and_changes_no_other() -> None:
    curves = tumour(20, noise=0.05)[1]
    broken = curves.copy()
    broken[3, 5], broken[7] = np.inf, np.nan
    fit, whole = fit_brix(broken, FRAMES_MIN, BOLUS_AT), fit_brix(curves, FRAMES_MIN, BOLUS_AT)
    assert np.flatnonzero(fit.invalid).tolist() == [3, 7]
    assert np.isnan(fit.a_brix[[3, 7]]).all()
    assert not (fit.no_enhancement | fit.poor_fit | fit.at_bound)[[3, 7]].any()
    rest = ~fit.invalid
    assert fit.a_brix[rest] == pytest.approx(whole.a_brix[rest], rel=1e-9)


def test_a_tumour_without_a_valid_voxel_has_no_fit_and_no_error() -> None:
    fit = fit_brix(np.full((3, 14), np.nan), FRAMES_MIN, BrixSettings())
    assert fit.invalid.all() and np.isnan(fit.a_brix).all()


def test_a_rate_that_ends_at_a_bound_is_flagged() -> None:
    too_fast = brix_curve(FRAMES_MIN - 0.5, 2, 60, 0.1)
    washes_out = brix_curve(FRAMES_MIN - 0.5, 2, 3, 1.2)
    usual = brix_curve(FRAMES_MIN - 0.5, 2, 3, 0.1)
    assert fit_brix(np.stack([too_fast, washes_out, usual]), FRAMES_MIN, BOLUS_AT).at_bound.tolist() == [True, True, False]


def test_noise_alone_is_a_poor_fit() -> None:
    noise = np.random.default_rng(1).normal(size=(200, 14))
    fit = fit_brix(noise, FRAMES_MIN, BOLUS_AT)
    assert fit.poor_fit.mean() > 0.8
    assert (fit.poor_fit == (fit.r_squared < 0.5)).all()


def test_chunks_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = tumour(100, noise=0.05)[1]
    whole = fit_brix(curves, FRAMES_MIN, BOLUS_AT)
    monkeypatch.setattr(brix, "CHUNK", 7)
    parts = fit_brix(curves, FRAMES_MIN, BOLUS_AT)
    assert parts.a_brix == pytest.approx(whole.a_brix, rel=1e-6)  # where a fit begins may differ by the order of a sum
    assert parts.r_squared == pytest.approx(whole.r_squared, abs=1e-9)


@pytest.mark.parametrize("arrival", [0.5, 0.73, 1.4])
def test_the_time_of_arrival_is_found(arrival: float) -> None:
    rng = np.random.default_rng(2)
    times = np.arange(40) * 0.2
    curves = brix_curve(times - arrival, 2, 2.5, 0.08) + 0.02 * rng.normal(size=(500, 40))
    fit = fit_brix(curves, times, BrixSettings(baseline_frames=2))
    assert fit.arrival_min == pytest.approx(arrival, abs=0.02)  # a tenth of the time between two frames
    assert np.median(fit.a_brix) == pytest.approx(2, rel=0.01)


def test_contrast_never_arrives_during_the_baseline() -> None:
    curves = brix_curve(FRAMES_MIN - 0.1, 2, 3, 0.1)[np.newaxis]
    assert fit_brix(curves, FRAMES_MIN, BrixSettings(baseline_frames=2)).arrival_min >= FRAMES_MIN[1]


def test_three_phases_are_too_few_and_the_reason_is_said() -> None:
    with pytest.raises(InputError, match=r"has 3 frames.*3 parameters and needs at least 6 frames.*percent enhancement"):
        fit_brix(np.zeros((4, 3)), np.array([0.0, 2.5, 7.5]), BrixSettings())


def test_times_that_do_not_increase_are_refused() -> None:
    with pytest.raises(InputError, match="do not increase"):
        fit_brix(np.zeros((4, 14)), np.zeros(14), BrixSettings())


def test_an_arrival_after_most_frames_is_refused() -> None:
    with pytest.raises(InputError, match="arrives at 5 min, which leaves 3 frames"):
        fit_brix(np.zeros((4, 14)), FRAMES_MIN, BrixSettings(arrival=5.0))


@pytest.mark.parametrize(
    "fault",
    [{"kep_bounds": (2, 1)}, {"kel_bounds": (-1, 1)}, {"kel_bounds": (0, 30)}, {"grid": (1, 40)}, {"minimum_frames": 3}],
)
def test_settings_that_cannot_be_are_refused(fault: dict) -> None:
    with pytest.raises(ValidationError):
        BrixSettings(**fault)
