"""Measures under many weightings: equal to the plain ones, and to patients written out as often as they count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from features.partial_likelihood import PartialLikelihood
from training.survival.cox import hazard_ratio
from training.survival.discrimination import auc_at, brier_at, calibration_slope, harrell_c, uno_c
from training.survival.metrics import SURVIVAL_METRIC, SURVIVAL_METRICS, SurvivalPredictions, censoring_curves
from training.survival.slopes import cox_slopes

HORIZON = 5.0


def predictions_of(n: int, rng: np.random.Generator, *, tied: bool) -> SurvivalPredictions:
    risk = rng.uniform(0.02, 0.98, n)
    time = rng.exponential(8 * (1.3 - risk))
    time = np.ceil(time) if tied else time
    risk = np.round(risk, 1).clip(0.05, 0.95) if tied else risk
    return SurvivalPredictions(time, rng.random(n) < 0.6, risk, risk > 0.5, np.ones((1, n)), HORIZON)


def written_out(predictions: SurvivalPredictions, weights: np.ndarray) -> SurvivalPredictions:
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    p = predictions
    return SurvivalPredictions(p.time[rows], p.event[rows], p.risk[rows], p.called[rows], np.ones((1, len(rows))), p.horizon)


@pytest.mark.parametrize("metric", SURVIVAL_METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_weight_of_two_counts_as_two_patients(metric, tied) -> None:
    rng = np.random.default_rng(3)
    predictions = predictions_of(40, rng, tied=tied)
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=12).astype(float)
    together = metric.function(replace(predictions, weights=weights))
    alone = [metric.function(written_out(predictions, row))[0] for row in weights]
    assert_allclose(together, alone, rtol=1e-8)
    assert np.isfinite(together).all()
    assert np.ptp(together) > 0


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_weights_of_one_give_the_plain_measures(tied) -> None:
    p = predictions_of(60, np.random.default_rng(4), tied=tied)
    plain = {
        "c_index": float(harrell_c(p.time, p.event, p.risk)),
        "uno_c": float(uno_c(p.time, p.event, p.risk, HORIZON)),
        "auc_at_horizon": float(auc_at(p.time, p.event, p.risk, HORIZON)),
        "brier_at_horizon": float(brier_at(p.time, p.event, p.risk, HORIZON)),
        "hazard_ratio": hazard_ratio(p.time, p.event, p.called).value,
        "calibration_slope": calibration_slope(p.time, p.event, p.risk).value,
    }
    found = {metric.name: metric.function(p)[0] for metric in SURVIVAL_METRICS}
    assert found == pytest.approx(plain, rel=1e-8)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 14))
def test_the_slope_exists_exactly_where_the_likelihood_has_a_maximum(seed, n) -> None:
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 6, n).astype(float), rng.random(n) < 0.6
    x = rng.integers(0, 3, n).astype(float)
    slope = cox_slopes(time, event, x, np.ones((1, n)))[0]
    maximum = PartialLikelihood(x[:, None], time, event).maximum() if event.any() else None
    if maximum is None:
        assert np.isnan(slope)
    else:
        assert slope == pytest.approx(maximum[0], rel=1e-6, abs=1e-8)


def test_a_slope_is_found_where_one_value_lies_far_off() -> None:
    rng = np.random.default_rng(5)
    x = np.r_[rng.normal(size=49), 60.0]
    time, event = rng.exponential(1, 50), np.ones(50, dtype=bool)
    expected = PartialLikelihood(x[:, None], time, event).maximum()
    assert expected is not None
    assert cox_slopes(time, event, x, np.ones((1, 50)))[0] == pytest.approx(expected[0], rel=1e-6)


@given(
    event=arrays(bool, 12).filter(lambda one: 0 < one.sum() < 12),
    risk=arrays(float, 12, elements=st.sampled_from([0.1, 0.2, 0.4, 0.7])),
    seed=st.integers(0, 1000),
)
def test_without_early_censoring_the_auc_and_brier_score_are_those_of_classes(event, risk, seed) -> None:
    """Follow-up cut at the horizon: who is censored there has passed it."""
    early = np.random.default_rng(seed).uniform(0.1, HORIZON, 12)
    time = np.where(event, early, HORIZON)
    assert float(auc_at(time, event, risk, HORIZON)) == pytest.approx(roc_auc_score(event, risk))
    assert float(brier_at(time, event, risk, HORIZON)) == pytest.approx(np.mean((risk - event) ** 2))


def test_an_event_at_the_horizon_itself_has_come_by_it() -> None:
    time, event, risk = [1, 5, 5, 5], [1, 1, 0, 0], [0.4, 0.9, 0.2, 0.1]
    assert float(auc_at(time, event, risk, 5)) == 1
    assert float(brier_at(time, event, risk, 5)) == pytest.approx((0.6**2 + 0.1**2 + 0.2**2 + 0.1**2) / 4)


def test_events_come_before_censoring_at_the_same_time() -> None:
    curves = censoring_curves(np.array([2.0, 2, 2, 4]), np.array([True, False, True, False]), np.ones((1, 4)))
    # At time 2 two of four die; of the two who are left one is censored.
    assert curves.before(np.array([1.0, 2, 3, 4])).tolist() == [[1, 1, 0.5, 0.5]]


def test_blocks_of_pairs_give_what_all_pairs_give(monkeypatch) -> None:
    p = replace(predictions_of(50, np.random.default_rng(6), tied=True), weights=np.random.default_rng(7).poisson(1, (5, 50)))
    whole = {name: SURVIVAL_METRIC[name].function(p) for name in ("c_index", "uno_c", "auc_at_horizon")}
    monkeypatch.setattr("training.survival.metrics.ROWS_AT_ONCE", 7)
    for name, values in whole.items():
        assert_allclose(SURVIVAL_METRIC[name].function(p), values, rtol=1e-12)


@pytest.mark.parametrize("name", ["auc_at_horizon", "brier_at_horizon"])
@pytest.mark.parametrize("horizon", [None, 50.0], ids=["none", "beyond the last follow-up"])
def test_without_a_horizon_that_is_reached_there_is_no_number(name, horizon) -> None:
    p = replace(predictions_of(30, np.random.default_rng(8), tied=False), horizon=horizon)
    assert p.time.max() < 50
    assert np.isnan(SURVIVAL_METRIC[name].function(p)).all()


def test_a_resample_in_which_a_measure_is_undefined_leaves_the_others_be() -> None:
    time, event = np.array([1.0, 2, 3, 4, 9, 9]), np.array([True, True, False, True, False, False])
    risk = np.array([0.9, 0.5, 0.8, 0.7, 0.2, 0.6])
    weights = np.array([np.ones(6), [1, 1, 1, 1, 0, 0], [0, 0, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0]])
    found = {
        metric.name: np.isnan(metric.function(SurvivalPredictions(time, event, risk, risk > 0.55, weights, 5.0))).tolist()
        for metric in SURVIVAL_METRICS
    }
    assert found == {
        "c_index": [False, False, True, True],
        "uno_c": [False, False, True, True],
        "auc_at_horizon": [False, True, True, True],
        "brier_at_horizon": [False, True, False, True],
        "hazard_ratio": [False, False, True, True],
        "calibration_slope": [False, False, True, True],
    }


def test_an_event_that_was_not_drawn_has_no_say_though_nobody_drawn_was_followed_so_long() -> None:
    time, event = np.array([1.0, 2, 3, 4, 9]), np.array([True, False, True, False, True])
    p = SurvivalPredictions(time, event, np.array([0.9, 0.1, 0.6, 0.3, 0.5]), event, np.array([[1.0, 1, 1, 1, 0]]), 4.0)
    drawn = written_out(p, p.weights[0])
    for name in ("uno_c", "auc_at_horizon", "brier_at_horizon"):
        for horizon in (4.0, 9.0, None):
            found, expected = (SURVIVAL_METRIC[name].function(replace(one, horizon=horizon)) for one in (p, drawn))
            assert_allclose(found, expected)
    assert SURVIVAL_METRIC["uno_c"].function(replace(p, horizon=None))[0] == 1


def test_events_as_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="bool"):
        SurvivalPredictions(np.ones(2), np.array([1, 0]), np.ones(2), np.ones(2, dtype=bool), np.ones((1, 2)), None)


def test_a_perfect_risk_is_best_and_a_reversed_one_worst() -> None:
    p = predictions_of(40, np.random.default_rng(9), tied=False)
    for name in ("c_index", "uno_c", "auc_at_horizon"):
        assert SURVIVAL_METRIC[name].function(replace(p, risk=-p.time))[0] == 1
        assert SURVIVAL_METRIC[name].function(replace(p, risk=p.time))[0] == 0


def test_a_score_that_is_no_probability_has_no_brier_score_and_no_slope() -> None:
    p = predictions_of(40, np.random.default_rng(10), tied=False)
    for name in ("brier_at_horizon", "calibration_slope"):
        assert np.isnan(SURVIVAL_METRIC[name].function(replace(p, risk=p.risk * 3))).all()
