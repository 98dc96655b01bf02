import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from features.errors import InputError
from training.composite.honest import (
    Biomarkers,
    apparent,
    cross_validated,
    permutation_p,
    stability,
)
from training.composite.rules import COMPARED, Alone, BothHigh, CoxPredictor, SeparatingLine
from training.composite.splits import linear_parts
from training.survival.cox import hazard_ratio
from training.survival.curves import log_rank


def simulated(seed: int = 0, n: int = 100, effect: float = 0.8, **changes: object) -> Biomarkers:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 2))
    survival = rng.exponential(size=n) / np.exp(effect * values.sum(axis=1) / np.sqrt(2))
    censored = rng.exponential(size=n)
    given = {"values": values, "time": np.minimum(survival, censored), "event": survival <= censored, "patients": range(n)}
    return Biomarkers(**{**given, **changes})


def test_the_apparent_hazard_ratio_is_that_of_the_chosen_sides_and_is_called_biased() -> None:
    data = simulated()
    fitted = data.fit(SeparatingLine())
    found = apparent(fitted, data)
    high = fitted.rule.transform(data.whole)[:, 0] >= 0
    assert found.hazard_ratio.value == hazard_ratio(data.time, data.event, high).value
    assert found.naive_p == pytest.approx(log_rank(data.time, data.event, high).p_value)
    assert "selected" in found.label
    assert "biased" in found.label


def test_the_permutation_p_counts_the_searches_that_find_as_much() -> None:
    data = simulated(n=60, effect=0.3)
    found = permutation_p(SeparatingLine(), data, 99, np.random.default_rng(1))
    assert found.statistic == pytest.approx(data.fit(SeparatingLine()).statistic)
    # The same permutations, searched by fitting the rule to each.
    rng = np.random.default_rng(1)
    dealt = [rng.permutation(60) for _ in range(99)]
    null = [SeparatingLine().fit(data.whole, data.time[rows], data.event[rows]).statistic for rows in dealt[:20]]
    np.testing.assert_allclose(found.null[:20], null, atol=1e-9)
    assert found.p_value == (1 + (found.null >= found.statistic).sum()) / 100
    assert found.splits_searched == len(linear_parts(*data.whole.T, 10))
    assert found.floor == 0.01


def test_a_rule_whose_parts_come_from_the_outcome_is_refitted_in_every_permutation() -> None:
    data = simulated(n=60, effect=0.3)
    found = permutation_p(CoxPredictor(), data, 15, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    dealt = [rng.permutation(60) for _ in range(15)]
    null = [CoxPredictor().fit(data.whole, data.time[rows], data.event[rows]).statistic for rows in dealt]
    np.testing.assert_allclose(found.null, null, atol=1e-9)


def test_999_permutations_of_the_search_of_118_patients_take_less_than_20_seconds() -> None:
    data = simulated(n=118)
    start = time.perf_counter()
    permutation_p(SeparatingLine(), data, 999, np.random.default_rng(0))
    assert time.perf_counter() - start < 20


def test_results_depend_on_the_generator_alone() -> None:
    data = simulated(n=60)
    rules = {rule.name: rule for rule in COMPARED}

    def all_of_it() -> list[np.ndarray]:
        rng = np.random.default_rng(7)
        judged = cross_validated(rules, data, rng, folds=3, repeats=1)
        return [
            permutation_p(SeparatingLine(), data, 19, rng).null,
            *(one.scores for one in judged.rules.values()),
            stability(SeparatingLine(), data, 5, rng).theta,
        ]

    here = all_of_it()
    with threadpool_limits(2):
        there = all_of_it()
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nobody_is_scored_by_a_rule_that_saw_them() -> None:
    data = simulated()
    rule = SeparatingLine()
    found = cross_validated({"line": rule}, data, np.random.default_rng(0), folds=5, repeats=2)
    for repeat in range(2):
        for fold in range(5):
            out = found.folds[repeat] == fold
            fitted = data.fit(rule, np.flatnonzero(~out))
            expected = fitted.rule.transform(data.whole[out])[:, 0]
            np.testing.assert_array_equal(found.rules["line"].scores[repeat, out], expected)


def test_folds_share_the_events_and_are_the_same_for_all_rules() -> None:
    data = simulated()
    found = cross_validated({rule.name: rule for rule in COMPARED[2:]}, data, np.random.default_rng(0), folds=10, repeats=2)
    for fold_of in found.folds:
        assert np.ptp(np.bincount(fold_of)) <= 1
        assert np.ptp(np.bincount(fold_of[data.event], minlength=10)) <= 1
    assert list(found.rules) == ["both_high", "imaging_alone", "genes_alone"]


def test_cross_validated_summaries_are_those_of_the_repeats() -> None:
    data = simulated()
    found = cross_validated({"line": SeparatingLine()}, data, np.random.default_rng(0), folds=5, repeats=4).rules["line"]
    values = [hazard_ratio(data.time, data.event, high).value for high in found.high]
    np.testing.assert_allclose(found.values, values)
    assert found.median == pytest.approx(np.median(values))
    assert found.range == (min(values), max(values))
    assert found.geometric_mean == pytest.approx(np.prod(values) ** 0.25)
    assert found.values[found.typical] == sorted(values)[1]
    assert 0.5 < found.concordance < 0.9


def test_a_concordance_compares_only_patients_scored_by_the_same_rule() -> None:
    # Each fold's rule is another; a constant added to one fold's scores must not change the concordance.
    from training.composite.honest import _concordance

    data = simulated()
    score, fold_of = data.whole.sum(axis=1), np.arange(100) % 4
    plain = _concordance(data, score, fold_of)
    assert _concordance(data, score + 100 * fold_of, fold_of) == pytest.approx(plain)
    assert plain > 0.55


def test_biomarkers_that_depend_on_who_is_learnt_from_are_asked_for_with_those() -> None:
    plain = simulated().whole
    asked: list[np.ndarray] = []

    def against_their_medians(train: np.ndarray) -> np.ndarray:
        asked.append(train)
        return plain - np.median(plain[train], axis=0)

    data = simulated(values=against_their_medians)
    found = cross_validated({"genes": Alone(which="genes", cutoff=0.0)}, data, np.random.default_rng(0), folds=4, repeats=1)
    assert len(asked) == 4
    for fold, train in enumerate(asked):
        np.testing.assert_array_equal(train, np.flatnonzero(found.folds[0] != fold))
        out = found.folds[0] == fold
        np.testing.assert_allclose(found.rules["genes"].scores[0, out], plain[out, 1] - np.median(plain[train, 1]))


def test_a_fold_without_a_rule_is_told_and_its_patients_have_no_score() -> None:
    data = simulated(n=44)
    found = cross_validated({"wide": SeparatingLine(minimum_patients=21)}, data, np.random.default_rng(0), folds=4, repeats=1)
    wide = found.rules["wide"]
    assert len(wide.failures) == 4
    assert "minimum_patients" in wide.failures[0]
    assert not wide.scored.any()
    assert wide.median is None
    assert wide.range is None
    assert wide.hazard_ratios[0].reason


def test_stability_tells_angles_and_how_often_each_patient_is_called() -> None:
    data = simulated(effect=1.5)
    found = stability(SeparatingLine(), data, 60, np.random.default_rng(0))
    assert len(found.fits) == 60
    assert (found.degrees >= 0).all()
    assert (found.degrees <= 90).all()
    assert 20 < np.median(found.degrees) < 70  # both matter alike
    sum_of_both = data.whole.sum(axis=1)
    assert found.frequency[np.argmax(sum_of_both)] == 1
    assert found.frequency[np.argmin(sum_of_both)] == 0
    calls = [fitted.rule.transform(data.whole)[:, 0] >= 0 for fitted in found.fits]
    np.testing.assert_allclose(found.frequency, np.mean(calls, axis=0))
    line = found.fits[0].rule.line
    assert (found.theta[0], found.offset[0]) == (pytest.approx(line.theta), pytest.approx(line.offset))


def test_angles_in_standard_deviations_do_not_depend_on_units_or_signs() -> None:
    data = simulated(effect=1.5)
    scaled = simulated(effect=1.5, values=data.whole * [-100, 0.1], signs=(-1, 1))
    one, other = (stability(SeparatingLine(), each, 10, np.random.default_rng(0)) for each in (data, scaled))
    np.testing.assert_allclose(one.degrees, other.degrees, atol=1e-9)
    assert (other.theta >= 0).all()


def test_the_corner_rule_has_cutoffs_where_lines_have_angles() -> None:
    found = stability(BothHigh(), simulated(), 6, np.random.default_rng(0))
    assert found.cutoffs.shape == (6, 2)
    assert found.theta.shape == found.offset.shape == (0,)
    assert stability(Alone(which="genes"), simulated(), 3, np.random.default_rng(0)).degrees.tolist() == [90, 90, 90]


def test_the_bootstrap_takes_off_the_mean_optimism() -> None:
    data = simulated(effect=0)
    found = stability(SeparatingLine(), data, 40, np.random.default_rng(0))
    selected = apparent(data.fit(SeparatingLine()), data).hazard_ratio.value
    assert np.exp(found.apparent) == pytest.approx(selected)
    assert found.corrected == pytest.approx(np.exp(np.log(selected) - np.nanmean(found.optimism)))
    assert 1 < found.corrected < selected  # there is nothing to find, and it takes off too little


def test_several_rows_of_a_patient_and_more_folds_than_events_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="100 rows of 99 patients"):
        simulated(patients=[0, *range(99)])
    data = simulated(n=30)
    with pytest.raises(InputError, match="fewer than the 25 folds"):
        cross_validated({"genes": Alone(which="genes")}, data, np.random.default_rng(0), folds=25)
