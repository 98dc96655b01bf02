"""Discrimination and calibration: what must hold on any data, and what has no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import InputError
from training.survival.curves import kaplan_meier
from training.survival.discrimination import (
    auc_at,
    brier_at,
    calibration_at,
    calibration_slope,
    harrell_c,
    integrated_brier,
    observed_over_expected,
    uno_c,
)


def simulated(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Follow-up, events, true risk by time 5, and the score behind it; exponential times, about a third censored."""
    score = rng.normal(size=n)
    hazard = 0.12 * np.exp(score)
    time, censored = rng.exponential(1 / hazard), rng.uniform(2, 14, n)
    return np.minimum(time, censored), time <= censored, 1 - np.exp(-5 * hazard), score


@given(st.integers(0, 10**6), st.integers(3, 30))
def test_only_the_order_of_risks_counts_and_reversing_it_mirrors_the_measures(seed, n) -> None:
    rng = np.random.default_rng(seed)
    time, event, risk = rng.integers(1, 8, n), rng.random(n) < 0.7, rng.integers(0, 4, n)
    event[0] = True
    for measure in (harrell_c, lambda *of: uno_c(*of, 5), lambda *of: auc_at(*of, 4)):
        found, moved, mirrored = (measure(time, event, one).value for one in (risk, np.exp(risk), -risk))
        assert found == moved
        if found is not None:
            assert 0 <= found <= 1
            assert mirrored == pytest.approx(1 - found)


def test_unos_c_does_not_move_with_the_censoring_as_harrells_does() -> None:
    """Of one cohort, once complete and once censored: late events show a weaker effect, and censoring hides them."""
    rng = np.random.default_rng(11)
    n = 3000
    score, time = rng.normal(size=n), np.empty(n)
    early = rng.exponential(1 / (0.5 * np.exp(1.5 * score)))
    time[:] = np.where(early < 1, early, 1 + rng.exponential(2.0, n))  # no effect after time 1
    censored = rng.exponential(1.2, n)
    seen, event = np.minimum(time, censored), time <= censored
    complete = float(harrell_c(np.minimum(time, 3), time <= 3, score))
    assert abs(float(uno_c(seen, event, score, 3)) - complete) < 0.015
    assert abs(float(harrell_c(seen, event & (seen <= 3), score)) - complete) > 0.04


def test_censoring_may_be_learnt_from_other_patients() -> None:
    rng = np.random.default_rng(12)
    time, event, risk, _ = simulated(80, rng)
    other_time, other_event, _, _ = simulated(300, rng)
    own, learnt = uno_c(time, event, risk, 5), uno_c(time, event, risk, 5, (other_time, other_event))
    assert uno_c(time, event, risk, 5, (time, event)) == own
    assert learnt.value != own.value
    assert learnt.value == pytest.approx(own.value, abs=0.05)


def test_an_event_beyond_the_follow_up_of_those_others_leaves_no_number() -> None:
    found = uno_c([1, 2, 6, 7], [1, 1, 1, 0], [4, 3, 2, 1], None, ([1.0, 2, 3], [0, 1, 0]))
    assert found.value is None
    assert found.reason == "an event comes after the last follow-up of those from whom censoring is learnt"
    assert np.isnan(float(found))


def test_the_true_risk_is_calibrated_and_sharper_than_the_mean() -> None:
    time, event, risk, _ = simulated(4000, np.random.default_rng(13))
    slope = calibration_slope(time, event, risk)
    assert slope.lower < 1 < slope.upper
    assert slope.value == pytest.approx(1, abs=0.06)
    assert float(observed_over_expected(time, event, risk, 5)) == pytest.approx(1, abs=0.05)
    table = calibration_at(time, event, risk, 5)
    assert table["n"].tolist() == [800] * 5
    assert ((table["lower"] < table["expected"]) & (table["expected"] < table["upper"])).sum() >= 4
    assert float(brier_at(time, event, risk, 5)) < float(brier_at(time, event, np.full(4000, risk.mean()), 5)) - 0.02


def test_risks_that_are_too_extreme_have_a_slope_below_one() -> None:
    time, event, risk, _ = simulated(3000, np.random.default_rng(14))
    extreme = 1 - np.exp(-np.exp(2 * np.log(-np.log(1 - risk))))
    assert calibration_slope(time, event, extreme).value == pytest.approx(0.5, abs=0.03)


def test_the_brier_score_of_censored_patients_is_that_of_the_complete_ones() -> None:
    rng = np.random.default_rng(15)
    n = 20000
    score = rng.normal(size=n)
    time, censored = rng.exponential(1 / (0.12 * np.exp(score))), rng.uniform(2, 14, n)
    risk = rng.uniform(0, 1, n)
    complete = np.mean(((time <= 5) - risk) ** 2)
    seen = brier_at(np.minimum(time, censored), time <= censored, risk, 5)
    assert float(seen) == pytest.approx(complete, abs=0.01)


def test_an_observed_risk_is_one_less_kaplan_meier() -> None:
    time, event, risk, _ = simulated(200, np.random.default_rng(16))
    table = calibration_at(time, event, risk, 5, groups=4)
    own = risk > np.quantile(risk, 0.75)
    point = kaplan_meier(time[own], event[own]).at(5)
    assert table[["observed", "lower", "upper"]].iloc[-1].tolist() == [1 - point.survival, 1 - point.upper, 1 - point.lower]


def test_one_risk_for_all_makes_one_group() -> None:
    table = calibration_at([1, 2, 3, 6, 6, 6], [1, 1, 0, 0, 0, 0], np.full(6, 0.3), 5)
    assert table["n"].tolist() == [6]
    assert table["expected"].iloc[0] == pytest.approx(0.3)


def test_a_group_that_nobody_was_followed_in_has_no_observed_risk() -> None:
    table = calibration_at([1, 2, 3, 6, 7, 8], [1, 0, 0, 1, 0, 0], [0.1, 0.1, 0.1, 0.9, 0.9, 0.9], 5, groups=2)
    assert table["observed"].isna().tolist() == [True, False]


@pytest.mark.parametrize("measure", [auc_at, brier_at, observed_over_expected])
def test_a_horizon_beyond_the_follow_up_gives_a_reason_and_no_number(measure) -> None:
    found = measure([1, 2, 3, 4], [1, 1, 0, 0], [0.4, 0.3, 0.2, 0.1], 4.5)
    assert found.value is None
    assert "nobody was followed up to" in found.reason


def test_a_horizon_before_the_first_event_gives_a_reason_and_no_auc() -> None:
    assert auc_at([2, 3, 4], [1, 1, 0], [3, 2, 1], 1).reason == "nobody had the event by 1"


def test_patients_of_whom_no_two_can_be_compared_have_no_concordance() -> None:
    assert harrell_c([5, 2, 3], [1, 0, 0], [1, 2, 3]).reason == "no two patients can be compared"


def test_an_average_over_time_lies_between_its_scores() -> None:
    time, event, _, score = simulated(150, np.random.default_rng(17))
    times = np.array([2.0, 4, 6])
    risks = 1 - np.exp(-0.12 * np.exp(score)[:, None] * times)
    parts = [float(brier_at(time, event, risk, at)) for risk, at in zip(risks.T, times, strict=True)]
    found = float(integrated_brier(time, event, risks, times))
    assert found == pytest.approx((parts[0] / 2 + parts[1] + parts[2] / 2) / 2)
    assert "nobody was followed up" in integrated_brier(time, event, risks, [2, 4, 50]).reason


@pytest.mark.parametrize("times", [[3.0], [3.0, 2.0]])
def test_an_average_over_no_time_is_refused(times) -> None:
    with pytest.raises(InputError, match="two ascending times or more"):
        integrated_brier([1, 2, 3], [1, 0, 1], np.full((3, len(times)), 0.5), times)


@pytest.mark.parametrize(("risk", "said"), [([0.1, 0.2, 1.4], "between 0 and 1"), ([0.1, np.nan, 0.2], "finite predicted risk")])
def test_a_risk_that_is_none_is_refused(risk, said) -> None:
    with pytest.raises(InputError, match=said):
        brier_at([1, 2, 3], [1, 0, 1], risk, 2)


def test_a_slope_that_has_no_maximum_is_missing_with_a_reason() -> None:
    found = calibration_slope([1, 2, 3, 4], [1, 1, 1, 1], [0.9, 0.8, 0.7, 0.6])
    assert (found.value, found.lower) == (None, None)
    assert "events part the groups" in str(found.reason)
