"""Hazard ratios: of groups that have no event, of covariates that cannot be used, of models beside others."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import brentq

from features.errors import InputError
from training.survival.cox import added_value, cox, hazard_ratio


@pytest.fixture
def followed() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"score": rng.normal(size=120), "age": rng.normal(60, 9, 120), "stage": rng.choice(list("ABC"), 120)})
    time = rng.exponential(20 / np.exp(0.8 * table["score"]))
    return table.assign(time=np.minimum(time, 40), event=(time <= 40).astype(int))


def test_a_cox_model_is_that_of_lifelines(followed) -> None:
    """Another implementation, on data without R's numbers; lifelines stops at five or six digits."""
    from lifelines import CoxPHFitter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lifelines' own use of pandas
        theirs = CoxPHFitter().fit(followed[["score", "age", "time", "event"]], "time", "event")
    ours = cox(followed[["score", "age"]], followed["time"], followed["event"])
    assert_allclose(ours.table["coefficient"], theirs.params_, atol=1e-5)
    assert_allclose(ours.table["se"], theirs.standard_errors_, atol=1e-5)
    assert ours.log_likelihood == pytest.approx(theirs.log_likelihood_, rel=1e-8)


def test_two_groups_alone_or_as_a_covariate_have_one_hazard_ratio(followed) -> None:
    high = followed["score"] > 0
    ratio = hazard_ratio(followed["time"], followed["event"], high)
    row = cox(pd.DataFrame({"high": high}), followed["time"], followed["event"]).table.loc["high"]
    assert_allclose([ratio.value, ratio.lower, ratio.upper], row[["hazard_ratio", "lower", "upper"]].to_numpy(), rtol=1e-9)


@given(st.integers(0, 10**6), st.booleans())
def test_changing_the_groups_over_inverts_the_hazard_ratio(seed, without_event) -> None:
    rng = np.random.default_rng(seed)
    time, group = rng.exponential(10, 30), np.arange(30) % 2 == 0
    event = (rng.random(30) < 0.6) & (group | (not without_event))
    event[:2] |= [True, not without_event]
    forth, back = hazard_ratio(time, event, group), hazard_ratio(time, event, ~group)
    if forth.value is None or back.value is None:
        assert forth.value == back.value
        return
    assert forth.value == pytest.approx(1 / back.value, rel=1e-5)
    assert forth.lower == pytest.approx(1 / back.upper, rel=1e-5)
    assert forth.p_value == pytest.approx(back.p_value, rel=1e-5, abs=1e-12)
    assert forth.method == back.method == ("firth" if without_event else forth.method)


def test_firths_estimate_from_one_event_is_the_one_worked_out_by_hand() -> None:
    """Of n0 and n1 at risk the one event is in the second group: the penalised likelihood p^1.5 (1 - p)^0.5 is highest at 3/4."""
    n0, n1 = 12, 10
    time, event, group = np.arange(1.0, 23), np.r_[1, np.zeros(21)], np.r_[np.ones(n1), np.zeros(n0)]
    ratio = hazard_ratio(time, event, group)

    def height(p: float) -> float:
        return 1.5 * np.log(p) + 0.5 * np.log(1 - p)

    ends = [
        brentq(lambda p: height(p) - height(0.75) + 3.841458820694124 / 2, *span) for span in ((1e-9, 0.75), (0.75, 1 - 1e-9))
    ]
    expected = [p / (1 - p) * n0 / n1 for p in (0.75, *ends)]
    assert_allclose([ratio.value, ratio.lower, ratio.upper], expected, rtol=1e-6)
    assert ratio.method == "firth"
    assert ratio.reason == "group 0.0 has no event, so that the plain ratio is zero or infinite"


def test_events_that_part_the_groups_are_shrunk_too() -> None:
    ratio = hazard_ratio(np.arange(1, 25), np.ones(24), np.arange(24) < 12)
    assert ratio.method == "firth"
    assert ratio.value is not None
    assert ratio.lower > 1
    assert ratio.reason.startswith("all events of one group come before those of the other")


@pytest.mark.parametrize("n", [4, 7, 100])
def test_a_ratio_that_cannot_be_estimated_says_so(n) -> None:
    ratio = hazard_ratio(np.arange(1, n + 1), np.arange(n) > 1, np.where(np.arange(n) < 2, "a", "b"))
    assert (ratio.value, ratio.lower, ratio.upper, ratio.p_value, ratio.method) == (None,) * 5
    assert str(ratio) == "not estimable: no event while both groups were at risk"


def test_fewer_than_ten_patients_in_a_group_are_flagged() -> None:
    rng = np.random.default_rng(3)
    time = rng.exponential(10, 40)
    assert hazard_ratio(time, np.ones(40), np.arange(40) < 10).reason is None
    nine = hazard_ratio(time, np.ones(40), np.arange(40) < 9)
    assert nine.reason == "group True has 9 patients, fewer than 10: the ratio is unstable"
    assert nine.value is not None


def test_three_groups_have_no_one_hazard_ratio() -> None:
    with pytest.raises(InputError, match="2 groups can be compared here, and there are 3"):
        hazard_ratio([1, 2, 3], [1, 1, 1], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("covariates", "said"),
    [
        ({"x": [1.0] * 8}, "Covariate 'x' has one value in all 8 patients"),
        ({"x": [1.0, 2, 3, 1, 2, 3, 1, 2], "y": [2.0, 4, 6, 2, 4, 6, 2, 4]}, "Covariate 'y' follows from those before it"),
        ({"x": [8.0, 7, 6, 5, 4, 3, 2, 1]}, "no finite coefficients: 'x' parts"),
        ({"x": [np.nan] * 8}, "Not one of the 8 patients"),
        ({}, "needs a covariate"),
    ],
)
def test_a_covariate_that_cannot_be_used_is_named(covariates, said) -> None:
    with pytest.raises(InputError) as refused:
        cox(pd.DataFrame(covariates, index=range(8)), np.arange(1, 9), np.ones(8))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_rows_and_times_of_different_number_are_refused() -> None:
    with pytest.raises(InputError, match="8 rows of covariates and 7 times"):
        cox(pd.DataFrame({"x": np.arange(8.0)}), np.arange(1, 8), np.ones(7))


def test_patients_without_a_covariate_are_left_out_and_counted(followed) -> None:
    gaps = followed.assign(age=followed["age"].mask(followed.index < 3), stage=followed["stage"].mask(followed.index == 119))
    fit = cox(gaps[["score", "age", "stage"]], gaps["time"], gaps["event"])
    whole = followed.iloc[3:119]
    assert fit.n == 116
    assert fit.notes == ("4 of 120 patients have a missing covariate and are left out",)
    assert_allclose(fit.table, cox(whole[["score", "age", "stage"]], whole["time"], whole["event"]).table)


def test_columns_of_any_kind_are_read(followed) -> None:
    kinds = followed.assign(
        count=pd.array([None, *range(119)], dtype="Int64"),
        yes=(followed["age"] > 60).astype("boolean"),
        flag=np.where(followed["age"] > 62, True, False).astype(object),
        infinite=followed["score"].where(followed.index != 7, np.inf),
    )
    fit = cox(kinds[["count", "yes", "flag", "infinite"]], kinds["time"], kinds["event"])
    assert fit.n == 118
    assert fit.table.index.tolist() == ["count", "yes", "flag=True", "infinite"]


def test_few_events_for_many_covariates_are_noted(followed) -> None:
    few = followed.iloc[:25]
    fit = cox(few[["score", "age", "stage"]], few["time"], few["event"])
    assert fit.notes == (f"{fit.events} events for 4 coefficients, fewer than 10 each: they are unstable",)


def test_the_first_level_of_a_category_is_the_reference(followed) -> None:
    ordered = pd.Categorical(followed["stage"], ["C", "B", "A", "never"])
    fit = cox(followed.assign(stage=ordered)[["stage"]], followed["time"], followed["event"])
    assert fit.table.index.tolist() == ["stage=B", "stage=A"]
    assert fit.design.terms == {"stage": ("stage=B", "stage=A")}


def test_shifting_and_scaling_a_covariate_changes_no_more_than_its_unit(followed) -> None:
    fit = cox(followed[["score"]], followed["time"], followed["event"])
    far = cox(followed[["score"]] * 1000 + 1e6, followed["time"], followed["event"])
    assert far.table.loc["score", "coefficient"] * 1000 == pytest.approx(fit.table.loc["score", "coefficient"], rel=1e-6)
    assert far.log_likelihood == pytest.approx(fit.log_likelihood, rel=1e-9)


def test_a_model_without_known_covariates_is_compared_with_none(followed) -> None:
    found = added_value(None, followed[["score"]], followed["time"], followed["event"])
    fit = cox(followed[["score"]], followed["time"], followed["event"])
    assert (found.chi2, found.c_index_base, found.c_index_both) == (fit.likelihood_ratio.chi2, 0.5, float(fit.concordance))


def test_what_is_added_is_judged_in_patients_who_have_all(followed) -> None:
    more = followed[["score"]].where(followed[["score"]].index.to_numpy()[:, None] >= 20)
    found = added_value(followed[["age", "stage"]], more, followed["time"], followed["event"])
    whole = followed.iloc[20:]
    expected = added_value(whole[["age", "stage"]], whole[["score"]], whole["time"], whole["event"])
    assert found == expected
    assert (found.n, found.df) == (100, 1)
    assert found.p_value < 1e-4


def test_a_covariate_cannot_be_added_to_itself(followed) -> None:
    with pytest.raises(InputError, match="Covariate 'age' is both"):
        added_value(followed[["age"]], followed[["age"]], followed["time"], followed["event"])
