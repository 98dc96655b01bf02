import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from features.errors import InputError
from features.partial_likelihood import PartialLikelihood
from training.composite.logrank import LogRankScorer
from training.composite.rules import COMPARED, Alone, BothHigh, CoxPredictor, Rule, SeparatingLine
from training.composite.splits import corner_parts, linear_parts, threshold_parts
from training.survival.curves import log_rank


def cohort(seed: int = 0, n: int = 90, effect: float = 0.8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hypoxic fraction and gene score, higher is worse in both, and follow-up."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 2))
    survival = rng.exponential(size=n) / np.exp(effect * values.sum(axis=1) / np.sqrt(2))
    censored = rng.exponential(size=n)
    return values * [0.1, 3] + [0.3, 0], np.minimum(survival, censored), survival <= censored


@pytest.mark.parametrize("rule", COMPARED, ids=lambda rule: rule.name)
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_what_a_rule_reports_is_what_its_score_does(rule: Rule, signs: tuple[int, int]) -> None:
    values, time, event = cohort()
    fitted = rule.fit(values * signs, time, event, signs)
    high = fitted.rule.transform(values * signs)[:, 0] >= 0
    assert fitted.patients == ((~high).sum(), high.sum())
    assert fitted.events == (event[~high].sum(), event[high].sum())
    assert fitted.statistic == pytest.approx(log_rank(time, event, high).z, abs=1e-9)
    assert fitted.rule.rule == rule.name
    assert fitted.rule.score_sd_ == pytest.approx(fitted.rule.transform(values * signs).std(ddof=1))


@pytest.mark.parametrize("rule", COMPARED, ids=lambda rule: rule.name)
def test_turning_a_biomarker_round_with_its_sign_changes_nothing(rule: Rule) -> None:
    values, time, event = cohort()
    plain, turned = rule.fit(values, time, event, (1, 1)), rule.fit(values * [-1, 1], time, event, (-1, 1))
    np.testing.assert_allclose(plain.rule.transform(values), turned.rule.transform(values * [-1, 1]), atol=1e-12)


@pytest.mark.parametrize("rule", COMPARED, ids=lambda rule: rule.name)
def test_units_change_nobodys_side(rule: Rule) -> None:
    values, time, event = cohort()
    scaled = values * [100, 0.02]
    plain, other = rule.fit(values, time, event), rule.fit(scaled, time, event)
    np.testing.assert_array_equal(plain.rule.transform(values) >= 0, other.rule.transform(scaled) >= 0)
    assert plain.splits_searched == other.splits_searched


def test_the_best_of_all_parts_is_chosen_and_their_number_is_told() -> None:
    values, time, event = cohort()
    scorer = LogRankScorer(time, event)
    x, y = values.T
    searched = {
        "separating_line": linear_parts(x, y, 10),
        "both_high": corner_parts(x, y, 10),
        "imaging_alone": threshold_parts(x, 10),
        "genes_alone": threshold_parts(y, 10),
    }
    for rule in COMPARED:
        if rule.name in searched:
            fitted = rule.fit(values, time, event)
            assert fitted.statistic == pytest.approx(scorer.z(searched[rule.name]).max())
            assert fitted.splits_searched == len(searched[rule.name])


def test_the_line_does_at_least_as_well_as_either_biomarker_on_the_patients_it_was_chosen_on() -> None:
    values, time, event = cohort(seed=3, effect=0)
    line, imaging, genes = (
        rule.fit(values, time, event).statistic for rule in (SeparatingLine(), Alone(which="imaging"), Alone(which="genes"))
    )
    assert line >= max(imaging, genes)


def test_the_minimum_is_the_larger_of_share_and_number_and_multiplies_exactly() -> None:
    assert SeparatingLine().minimum(118) == 12
    assert SeparatingLine().minimum(60) == 10
    assert SeparatingLine(minimum_share=0.3).minimum(30) == 10  # 9 by share, though 0.3 * 30 is a trifle below it
    assert SeparatingLine(minimum_share=0.1, minimum_patients=1).minimum(30) == 3
    values, time, event = cohort()
    assert min(SeparatingLine(minimum_patients=25).fit(values, time, event).patients) >= 25


def test_the_cox_rule_is_the_linear_predictor_of_a_cox_model() -> None:
    values, time, event = cohort()
    fitted = CoxPredictor().fit(values, time, event)
    np.testing.assert_allclose(fitted.rule.coefficients_, PartialLikelihood(values, time, event).maximum(), rtol=1e-8)


def test_given_cutoffs_are_not_searched_and_are_in_raw_units() -> None:
    values, time, event = cohort()
    both = BothHigh(cutoffs=(0.27, 0.0)).fit(values, time, event)
    assert both.splits_searched == 1
    np.testing.assert_array_equal(both.rule.transform(values)[:, 0] >= 0, (values[:, 0] >= 0.27) & (values[:, 1] >= 0))
    low = Alone(which="imaging", cutoff=-0.27).fit(values * [-1, 1], time, event, (-1, 1))
    np.testing.assert_array_equal(low.rule.transform(values * [-1, 1])[:, 0] >= 0, values[:, 0] >= 0.27)
    with pytest.raises(InputError, match="one side"):
        Alone(which="imaging", cutoff=27.0).fit(values, time, event)


def test_equal_statistics_are_decided_by_the_larger_smaller_side_then_its_events_then_the_angle() -> None:
    # Nobody but the first ten has an event, all at once, so that many parts have the same statistic.
    rng = np.random.default_rng(5)
    values = np.vstack([rng.normal(3, 0.3, size=(10, 2)), rng.normal(0, 0.3, size=(20, 2))])
    time, event = np.r_[np.ones(10), np.full(20, 2.0)], np.r_[np.ones(10, dtype=bool), np.zeros(20, dtype=bool)]
    fitted = SeparatingLine().fit(values, time, event)
    assert fitted.patients == (20, 10)
    again = SeparatingLine().fit(values[::-1], time[::-1], event[::-1])
    np.testing.assert_allclose(again.rule.coefficients_, fitted.rule.coefficients_)


def test_a_line_that_may_have_any_slope_finds_an_effect_against_the_expectation_and_says_so() -> None:
    values, time, event = cohort(effect=1.2)
    turned = values * [1, -1]
    free = SeparatingLine(monotone=False).fit(turned, time, event)
    assert free.statistic > SeparatingLine().fit(turned, time, event).statistic
    assert any("not monotone" in flag for flag in free.flags)
    assert not SeparatingLine(monotone=False).fit(values, time, event).flags


def test_a_rule_that_finds_nothing_in_the_expected_direction_says_so() -> None:
    values, time, event = cohort(effect=3)
    fitted = Alone(which="genes", cutoff=0.0).fit(values * [1, -1], time, event)
    assert fitted.statistic < 0
    assert any("than expected" in flag for flag in fitted.flags)


def test_a_side_with_few_events_is_flagged() -> None:
    values, time, event = cohort()
    event = event & (values[:, 0] > 0.2)
    fitted = Alone(which="imaging", cutoff=0.2).fit(values, time, event)
    assert any("less hypoxic have" in flag and "unstable" in flag for flag in fitted.flags)


def test_a_patient_with_one_biomarker_is_scored_by_the_cutoff_that_it_has_alone() -> None:
    values, time, event = cohort(n=150)
    values[::7, 1] = np.nan
    fitted = SeparatingLine().fit(values, time, event, missing="alone")
    assert sum(fitted.patients) == np.isfinite(values).all(axis=1).sum()
    alone = Alone(which="imaging").fit(np.column_stack([values[:, 0], np.arange(150)]), time, event)
    np.testing.assert_array_equal(
        fitted.rule.transform(values)[::7, 0] >= 0, alone.rule.transform(np.nan_to_num(values))[::7, 0] >= 0
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, t, e: (np.c_[np.full(90, 0.3), x[:, 1]], t, e), "biomarker of imaging is the same in all 90"),
        (lambda x, t, e: (x[:15], t[:15], np.ones(15)), "leaves 10 of 15 patients"),
        (lambda x, t, e: (x, t, np.zeros(90)), "had the event"),
        (lambda x, t, e: (x, t, np.arange(90) < 4), "4 events among 90"),
        (lambda x, t, e: (x, np.r_[-1, t[1:]], e), "zero or less"),
        (lambda x, t, e: (x, np.r_[0, t[1:]], e), "zero or less"),
        (lambda x, t, e: (np.where(np.arange(180).reshape(90, 2) == 7, np.nan, x), t, e), "1 of 90 patients lack a biomarker"),
        (lambda x, t, e: (x[:, :1], t, e), "two biomarkers"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_in_one_sentence(spoil, words: str) -> None:
    for rule in COMPARED:
        with pytest.raises(InputError, match=words) as caught:
            rule.fit(*spoil(*cohort()))
        assert str(caught.value).count(". ") == 0


def test_a_rule_is_read_from_a_study_by_its_kind() -> None:
    read = TypeAdapter(Rule).validate_python
    assert read({"kind": "separating_line", "minimum_share": 0.2}) == SeparatingLine(minimum_share=0.2)
    assert read({"kind": "alone", "which": "genes"}).name == "genes_alone"
    assert read({"kind": "both_high", "cutoffs": [0.27, 0]}).cutoffs == (0.27, 0.0)
    with pytest.raises(ValueError, match="minimum_size"):
        read({"kind": "cox", "minimum_size": 3})


@given(st.integers(0, 2**31))
def test_rows_in_another_order_give_the_same_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, time, event = cohort(seed=seed, n=40)
    values = values.round(1)
    event[:5] = True
    order = rng.permutation(40)
    one = SeparatingLine(minimum_patients=5).fit(values, time, event)
    other = SeparatingLine(minimum_patients=5).fit(values[order], time[order], event[order])
    np.testing.assert_allclose(one.rule.coefficients_, other.rule.coefficients_)
    assert one.rule.cutoff_ == pytest.approx(other.rule.cutoff_)


@given(st.integers(0, 2**31))
def test_patients_almost_on_a_line_are_parted_only_as_the_score_can_part_them(seed: int) -> None:
    # Sevenths have no exact decimals or binary images: lines through three patients are so up to rounding.
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 7, size=(40, 2)) / 7
    time, event = rng.exponential(size=40), rng.random(40) < 0.6
    event[:5] = True
    fitted = SeparatingLine(minimum_patients=5).fit(values, time, event)
    high = fitted.rule.transform(values)[:, 0] >= 0
    assert fitted.patients == ((~high).sum(), high.sum())
    assert fitted.statistic == pytest.approx(log_rank(time, event, high).z, abs=1e-9)
