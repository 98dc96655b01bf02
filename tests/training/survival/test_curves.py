"""Kaplan-Meier, Aalen-Johansen and log-rank: what must hold on any data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from features.errors import InputError
from training.survival.cox import cox
from training.survival.curves import cumulative_incidence, kaplan_meier, log_rank, pairwise_log_rank


@st.composite
def follow_up(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 25))
    time = np.array(draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)), dtype=float)
    return time, np.array(draw(st.lists(st.sampled_from([0, 1, 2]), min_size=n, max_size=n)))


@given(follow_up(), st.sampled_from(["log-log", "log", "plain"]))
def test_a_curve_falls_within_its_interval(followed, transform) -> None:
    time, state = followed
    curve = kaplan_meier(time, state == 1, transform=transform)
    assert (np.diff(curve.survival) <= 0).all()
    known = ~np.isnan(curve.lower)
    assert (curve.lower[known] <= curve.survival[known] + 1e-12).all()
    assert (curve.survival[known] <= curve.upper[known] + 1e-12).all()
    assert (curve.events + curve.censored).sum() == len(time) == curve.at_risk[0]


@given(follow_up())
def test_without_censoring_the_curve_is_the_share_still_without_the_event(followed) -> None:
    time, _ = followed
    curve = kaplan_meier(time, np.ones(len(time)))
    assert_allclose(curve.survival, [(time > t).mean() for t in curve.times], atol=1e-12)


@given(follow_up())
def test_incidences_of_both_events_and_the_share_without_either_make_one(followed) -> None:
    time, state = followed
    own, other = (cumulative_incidence(time, swapped) for swapped in (state, np.array([0, 2, 1])[state]))
    assert_allclose(own.survival + other.survival + kaplan_meier(time, state > 0).survival, 1, atol=1e-12)


@given(follow_up())
def test_without_a_competing_event_the_incidence_is_one_less_kaplan_meier(followed) -> None:
    time, state = followed
    curve = cumulative_incidence(time, state == 1)
    assert_allclose(curve.survival, 1 - kaplan_meier(time, state == 1).survival, atol=1e-12)
    known = curve.survival < 1
    assert (curve.lower[known] <= curve.survival[known] + 1e-12).all()
    assert (curve.survival[known] <= curve.upper[known] + 1e-12).all()
    assert np.isnan(curve.lower[~known]).all()


def test_a_curve_is_unknown_after_the_last_follow_up_unless_nobody_is_left() -> None:
    censored = kaplan_meier([1, 2, 3], [1, 1, 0])
    assert censored.at(3).survival == pytest.approx(1 / 3)
    assert np.isnan(censored.at(3.1).survival)
    assert kaplan_meier([1, 2, 3], [1, 1, 1]).at(3.1).survival == 0
    assert censored.at(0.5).survival == censored.at(0.5).lower == 1


def test_a_median_on_a_level_stretch_is_its_middle_as_in_r() -> None:
    assert kaplan_meier([1, 2, 3, 4, 5, 6], np.ones(6)).median.value == 3.5  # quantile(survfit(...), 0.5)
    never = kaplan_meier([1, 2, 3, 4], [1, 0, 0, 0]).median
    assert (never.value, never.upper) == (np.inf, np.inf)


@given(st.integers(0, 10**6), st.integers(6, 40))
def test_without_ties_the_log_rank_test_is_coxs_score_test(seed, n) -> None:
    rng = np.random.default_rng(seed)
    time, event, group = rng.permutation(n) + 1.0, rng.random(n) < 0.7, np.r_[0, 1, rng.integers(0, 2, n - 2)]
    try:
        fit = cox(pd.DataFrame({"group": group}), time, event)
    except InputError:  # no finite estimate to compare with
        return
    assert log_rank(time, event, group).chi2 == pytest.approx(fit.score.chi2, rel=1e-8)


def test_the_sign_of_z_says_which_group_does_worse() -> None:
    time, event = np.arange(1, 13), np.ones(12)
    early = time <= 6
    assert log_rank(time, event, early).z > 2
    assert log_rank(time, event, ~early).z < -2


def test_observed_and_expected_events_have_one_total() -> None:
    rng = np.random.default_rng(0)
    test = log_rank(rng.integers(1, 9, 60), rng.random(60) < 0.6, rng.choice(["a", "b", "c"], 60))
    assert test.observed.sum() == pytest.approx(test.expected.sum())
    assert (test.df, test.z) == (2, None)
    assert test.groups.tolist() == ["a", "b", "c"]


def test_groups_that_never_are_at_risk_together_cannot_differ() -> None:
    test = log_rank([1, 2, 3, 4], [0, 0, 1, 1], ["a", "a", "b", "b"])
    assert (test.chi2, test.df, test.p_value) == (0, 0, 1)


def test_pairs_are_corrected_for_their_number() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(["a", "b", "c"], 30)
    time = rng.exponential(np.where(group == "c", 1, 6))
    pairs = pairwise_log_rank(time, np.ones(90), group)
    assert pairs[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    ordered = pairs.sort_values("p_value")
    assert ordered["p_holm"].iloc[0] == pytest.approx(3 * ordered["p_value"].iloc[0])
    assert (pairs["p_holm"] >= pairs["p_value"]).all()
    two = log_rank(time[group != "b"], np.ones(60), group[group != "b"])
    assert pairs["chi2"].iloc[1] == pytest.approx(two.chi2)


def test_two_groups_without_an_event_have_no_test_among_themselves() -> None:
    pairs = pairwise_log_rank([1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 1], ["a", "a", "b", "b", "c", "c"])
    assert np.isnan(pairs["p_value"].iloc[0])
    assert np.isnan(pairs["p_holm"].iloc[0])
    assert pairs["p_value"].notna().sum() == 2


@pytest.mark.parametrize(
    ("time", "event", "group", "said"),
    [
        ([1, 2, 3], [0, 0, 0], [0, 1, 1], "None of the 3 patients had the event"),
        ([1, 0, -3], [1, 1, 1], [0, 1, 1], "2 of 3 patients have a follow-up time of zero or less"),
        ([1, np.nan, 3], [1, 1, 1], [0, 1, 1], "1 of 3 patients have no follow-up time"),
        ([1, 2, 3], [1, 2, 1], [0, 1, 1], "must be 1 (happened) or 0 (censored)"),
        ([1, 2, 3], [1, np.nan, 1], [0, 1, 1], "must be 1 (happened) or 0 (censored)"),
        ([1, 2, 3], [1, 1, 1], [1, 1, 1], "All 3 patients are in one group (1)"),
        ([1, 2, 3], [1, 1, 1], [1, 0, None], "must be in one group"),
        ([1, 2], [1, 1, 1], [1, 0, 1], "one time and one event per patient"),
        ([], [], [], "one time and one event per patient"),
    ],
)
def test_an_outcome_that_cannot_be_used_is_refused_in_one_sentence(time, event, group, said) -> None:
    with pytest.raises(InputError) as refused:
        log_rank(time, event, group)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_state_that_is_none_of_three_is_refused() -> None:
    with pytest.raises(InputError, match=r"must be 0 \(censored\), 1 \(the event\) or 2"):
        cumulative_incidence([1, 2], [1, 3])
