"""How clusters fare, against tests made one by one; and that permutations make every choice again."""

import time
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from features.errors import InputError
from training.profile import by_outcome as module
from training.profile.by_outcome import (
    ChoiceTest,
    Outcome,
    choice_permuted,
    number_by_outcome,
    ordered_by_events,
    refuse_combination,
)
from training.profile.clustering import Clusters
from training.profile.outcome import related
from training.survival.cox import cox, hazard_ratio
from training.survival.curves import kaplan_meier, log_rank, pairwise_log_rank


def clusters_of(labels: np.ndarray) -> Clusters:
    """Clusters with these labels; who is the medoid does not matter here."""
    return Clusters(np.unique(labels, return_index=True)[1], np.asarray(labels), 1.0)


def drawn(rng: np.random.Generator, n: int = 80, *, binary: bool = False) -> Outcome:
    """Outcomes of nobody in particular; times are whole months, so that many are tied."""
    event = rng.random(n) < 0.4
    return Outcome(None if binary else rng.integers(1, 30, n), event)


def candidates_of(rng: np.random.Generator, n: int = 80, largest: int = 5) -> dict[int, Clusters]:
    return {k: clusters_of(np.r_[np.arange(k), rng.integers(0, k, n - k)]) for k in range(1, largest + 1)}


def p_of(labels: np.ndarray, outcome: Outcome) -> float:
    """As the existing tests give it."""
    if outcome.time is not None:
        return log_rank(outcome.time, outcome.event, labels).p_value
    return float(chi2_contingency(pd.crosstab(labels, outcome.event), correction=False).pvalue)


def order_of(labels: np.ndarray, outcome: Outcome) -> list[int]:
    """Clusters in order, one by one."""

    def key(cluster: int) -> tuple[float, float, int]:
        own = labels == cluster
        median = 0.0 if outcome.time is None else kaplan_meier(outcome.time[own], outcome.event[own]).median.value
        return outcome.event[own].mean(), -median, -own.sum()

    return sorted(range(labels.max() + 1), key=key)


def dealt(outcome: Outcome, deal: np.ndarray) -> Outcome:
    """Patient ``deal[i]`` gets the outcome of patient ``i``."""
    back = np.argsort(deal)
    return Outcome(None if outcome.time is None else outcome.time[back], outcome.event[back])


def p_of_choice(candidates: dict[int, Clusters], combine: object, outcome: Outcome) -> float:
    """The whole choice in plain steps."""
    labels = min((one.labels for k, one in candidates.items() if k > 1), key=lambda own: p_of(own, outcome))
    if combine is None:
        return p_of(labels, outcome)
    place = np.argsort(order_of(labels, outcome))[labels] + 1
    if combine == "outcome":
        k = labels.max() + 1
        parts = [part for size in range(1, k) for part in combinations(range(1, k + 1), size)]
        return min(p_of(np.isin(place, part), outcome) for part in parts)
    return p_of(np.select([np.isin(place, group) for group in combine], range(len(combine))), outcome)


def permuted(candidates: dict[int, Clusters], outcome: Outcome, *, seed: int = 0, **changes: object) -> ChoiceTest:
    asked = {"clusters": 3, "by_outcome": True, "combine": None, "permutations": 99, "rng": np.random.default_rng(seed)}
    return choice_permuted(candidates, outcome=outcome, **{**asked, **changes})


# Order


def test_clusters_come_in_ascending_order_of_their_share_of_events() -> None:
    labels = np.repeat([0, 1, 2], [4, 5, 6])
    event = np.r_[[1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 0, 0, 0]]
    found = ordered_by_events(clusters_of(labels), Outcome(np.arange(1, 16), event))
    assert found.labels.tolist() == [2] * 4 + [0] * 5 + [1] * 6
    assert found.medoids.tolist() == [4, 9, 0]


def test_of_equal_shares_the_later_median_comes_first_and_one_that_is_never_reached_before_all() -> None:
    labels = np.repeat([0, 1, 2], 4)
    event = np.tile([1, 1, 0, 0], 3)
    times = np.r_[[1, 2, 3, 4], [5, 6, 7, 8], [1, 9, 9.5, 10]]  # medians 2.5 (level), 6.5 (level), ...
    assert ordered_by_events(clusters_of(labels), Outcome(times, event)).labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    late = np.r_[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 1, 2]]  # the last: all at risk have had it by 10
    assert ordered_by_events(clusters_of(labels), Outcome(late, event)).labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    never = np.array([1, 0, 0, 0] * 3)
    last_first = np.r_[[4, 1, 2, 3], [4, 1, 2, 3], [1, 2, 3, 4]]  # only the third never falls to one half
    assert ordered_by_events(clusters_of(labels), Outcome(last_first, never)).labels[8] == 0


def test_of_equal_shares_and_medians_the_larger_comes_first_and_then_the_one_that_came_first() -> None:
    labels = np.repeat([0, 1, 2], [2, 4, 2])
    event = np.array([1, 0, 1, 1, 0, 0, 1, 0])
    found = ordered_by_events(clusters_of(labels), Outcome(None, event))
    assert found.labels.tolist() == [1, 1, 0, 0, 0, 0, 2, 2]


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_shares_medians_and_sizes_taken_one_by_one(seed: int, binary: bool) -> None:
    rng = np.random.default_rng(seed)
    outcome, labels = drawn(rng, 24, binary=binary), np.r_[np.arange(5), rng.integers(0, 5, 19)]
    expected = clusters_of(labels).ordered(order_of(labels, outcome))
    np.testing.assert_array_equal(ordered_by_events(clusters_of(labels), outcome).labels, expected.labels)


# The choice and its permutations


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_naive_p_is_that_of_the_existing_tests_ties_or_not(seed: int, binary: bool) -> None:
    rng = np.random.default_rng(seed)
    outcome, candidates = drawn(rng, 40, binary=binary), candidates_of(rng, 40, 6)
    for number in range(2, 7):
        found = permuted(candidates, outcome, clusters=number, by_outcome=False, permutations=1)
        assert found.naive_p == pytest.approx(p_of(candidates[number].labels, outcome), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("combine", [None, "outcome", ((1, 2), (3,)), ((3, 1), (2,))])
def test_every_permutation_makes_the_whole_choice_again(combine: object, binary: bool) -> None:
    rng = np.random.default_rng(3)
    outcome, candidates = drawn(rng, binary=binary), candidates_of(rng)
    by_outcome = combine in (None, "outcome")
    found = permuted(candidates, outcome, by_outcome=by_outcome, combine=combine)
    considered = candidates if by_outcome else {3: candidates[3]}
    assert found.naive_p == pytest.approx(p_of_choice(considered, combine, outcome), abs=1e-9)
    deals = np.random.default_rng(0).permuted(np.tile(np.arange(80), (99, 1)), axis=1)
    null = [p_of_choice(considered, combine, dealt(outcome, deal)) for deal in deals[:25]]
    np.testing.assert_allclose(found.null[:25], null, atol=1e-9)
    assert found.p_value == (1 + (found.null <= found.naive_p + 1e-12).sum()) / 100
    assert found.floor == 0.01


def test_permutations_that_do_not_fit_in_memory_together_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    outcome, candidates = drawn(rng), candidates_of(rng)
    at_once = permuted(candidates, outcome, combine="outcome")
    monkeypatch.setattr(module, "CELLS", 80 * 5 * 7)
    np.testing.assert_allclose(permuted(candidates, outcome, combine="outcome").null, at_once.null, rtol=1e-12)


def test_the_number_that_the_outcome_chooses_has_the_smallest_p() -> None:
    rng = np.random.default_rng(5)
    outcome, candidates = drawn(rng), candidates_of(rng)
    p_values = {k: p_of(one.labels, outcome) for k, one in candidates.items() if k > 1}
    assert number_by_outcome(candidates, outcome) == min(p_values, key=p_values.get)
    assert permuted(candidates, outcome).clusters == min(p_values, key=p_values.get)


def test_a_cluster_that_nobody_was_followed_in_at_an_event_takes_no_degree_of_freedom() -> None:
    labels = np.repeat([0, 1, 2], [5, 10, 10])
    rng = np.random.default_rng(6)
    outcome = Outcome(np.r_[np.full(5, 0.5), rng.integers(1, 20, 20)], np.r_[np.zeros(5), np.ones(20)])
    found = permuted({3: clusters_of(labels)}, outcome, by_outcome=False)
    assert found.naive_p == pytest.approx(p_of(labels, outcome), abs=1e-9)
    assert found.naive_p == pytest.approx(log_rank(outcome.time[5:], outcome.event[5:], labels[5:]).p_value, abs=1e-9)


def test_only_what_looked_at_the_outcome_is_exploratory() -> None:
    rng = np.random.default_rng(7)
    outcome, candidates = drawn(rng), candidates_of(rng)
    plain = permuted(candidates, outcome, by_outcome=False)
    assert not plain.exploratory
    assert plain.words.startswith("The log-rank p is ")
    assert not permuted(candidates, outcome, by_outcome=False, combine=((1,), (2,), (3,))).exploratory
    assert not permuted(candidates, outcome, clusters=2, by_outcome=False, combine="outcome").exploratory
    chosen = permuted(candidates, outcome, combine="outcome")
    assert chosen.reasons == ("their number was chosen by outcome", "the clusters to join were chosen by outcome")
    assert chosen.words.startswith("Exploratory, since their number was chosen by outcome and the clusters to join were")
    named = permuted(candidates, outcome, by_outcome=False, combine=((1, 2), (3,)))
    assert named.reasons == ("clusters were joined by numbers that follow from their outcome",)


def test_without_a_choice_the_permutation_p_is_near_that_of_the_log_rank_test() -> None:
    rng = np.random.default_rng(8)
    found = permuted(candidates_of(rng, 200), drawn(rng, 200), by_outcome=False, permutations=1999)
    assert found.p_value == pytest.approx(found.naive_p, abs=0.04)  # three standard errors, and large samples


def test_under_the_null_the_permutation_p_is_uniform_and_the_naive_one_is_not() -> None:
    rng = np.random.default_rng(9)
    found = [
        permuted(candidates_of(rng, 60), drawn(rng, 60), combine="outcome", permutations=39, seed=seed) for seed in range(120)
    ]
    honest, naive = np.array([one.p_value for one in found]), np.array([one.naive_p for one in found])
    assert np.mean(honest <= 0.05) <= 0.11  # 0.05 within three standard errors
    assert np.mean(honest <= 0.5) == pytest.approx(0.5, abs=0.14)
    assert np.mean(naive <= 0.05) > 0.25


def test_results_depend_on_the_generator_alone() -> None:
    rng = np.random.default_rng(10)
    outcome, candidates = drawn(rng), candidates_of(rng)
    np.testing.assert_array_equal(permuted(candidates, outcome).null, permuted(candidates, outcome).null)


def test_999_permutations_of_the_choice_among_six_numbers_take_less_than_3_seconds() -> None:
    rng = np.random.default_rng(11)
    outcome, candidates = drawn(rng, 132), candidates_of(rng, 132, 6)
    start = time.perf_counter()
    permuted(candidates, outcome, combine="outcome", permutations=999)
    assert time.perf_counter() - start < 3


# What is said of the clusters


def planted(seed: int = 12, n: int = 150) -> tuple[Clusters, Outcome, pd.DataFrame]:
    """Three clusters; the third has three times the hazard of the others. Stage and age tell nothing; five have no age."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    survival, followed = 60 * rng.exponential(size=n) / np.where(labels == 2, 3, 1), rng.uniform(20, 90, n)
    outcome = Outcome(np.minimum(survival, followed), survival <= followed)
    clinical = pd.DataFrame({"stage": rng.choice(["I", "II"], n), "age": rng.normal(60, 9, n)}, index=[f"p{i}" for i in range(n)])
    clinical.iloc[:5, 1] = np.nan
    return ordered_by_events(clusters_of(labels), outcome), outcome, clinical


def test_each_cluster_has_its_curve_and_all_are_tested_together_and_in_pairs() -> None:
    clusters, outcome, _ = planted()
    found = related(clusters, outcome).clusters
    own = clusters.labels == 1
    curve = kaplan_meier(outcome.time[own], outcome.event[own])
    np.testing.assert_array_equal(found.curves["cluster 2"].survival, curve.survival)
    assert found.table.loc["cluster 2"].tolist()[:4] == [
        own.sum(),
        outcome.event[own].sum(),
        outcome.event[own].mean(),
        curve.median.value,
    ]
    assert found.overall.p_value == log_rank(outcome.time, outcome.event, clusters.labels).p_value
    pairs = pairwise_log_rank(outcome.time, outcome.event, clusters.labels)
    np.testing.assert_array_equal(found.pairwise["p_holm"], pairs["p_holm"])
    assert found.pairwise[["first", "second"]].iloc[2].tolist() == ["cluster 2", "cluster 3"]
    np.testing.assert_array_equal(found.outcomes(outcome)["cluster 2"][0], outcome.time[own])


def test_two_joined_groups_have_the_hazard_ratio_of_the_second_alone_and_adjusted() -> None:
    clusters, outcome, clinical = planted()
    found = related(clusters, outcome, ((1, 2), (3,)), clinical)
    high = clusters.labels == 2
    assert found.groups == ((1, 2), (3,))
    assert found.compared.names == ("clusters 1 and 2", "cluster 3")
    assert found.compared.overall.p_value == log_rank(outcome.time, outcome.event, high).p_value
    assert found.hazards.ratio == hazard_ratio(outcome.time, outcome.event, high)
    assert found.hazards.ratio.lower < 3 < found.hazards.ratio.upper
    expected = cox(clinical.assign(high=high), outcome.time, outcome.event)
    assert found.hazards.adjusted.table.loc["clusters=3", "hazard_ratio"] == pytest.approx(
        expected.table.loc["high", "hazard_ratio"]
    )
    assert (found.hazards.adjusted.n, found.hazards.alone.n) == (145, 150)
    assert "5 of 150 patients have a missing covariate" in found.hazards.adjusted.notes[0]
    assert set(found.hazards.proportional.table.index) == {"clusters", "stage", "age", "GLOBAL"}


def test_the_first_group_that_is_named_is_the_reference() -> None:
    clusters, outcome, _ = planted()
    there, back = related(clusters, outcome, ((1, 2), (3,))), related(clusters, outcome, ((3,), (2, 1)))
    assert back.compared.names == ("cluster 3", "clusters 2 and 1")
    assert back.hazards.ratio.value == pytest.approx(1 / there.hazards.ratio.value)


def test_more_groups_than_two_are_compared_with_the_first_by_cox_regression() -> None:
    clusters, outcome, clinical = planted()
    found = related(clusters, outcome, None, clinical[[]])
    assert found.combined is None
    assert found.hazards.ratio is None
    assert found.hazards.adjusted is None
    assert found.hazards.alone.table.index.tolist() == ["clusters=2", "clusters=3"]
    assert found.hazards.alone.table.loc["clusters=3", "hazard_ratio"] > 1.5


def test_the_outcome_joins_to_the_two_groups_that_differ_most() -> None:
    clusters, outcome, _ = planted()
    found = related(clusters, outcome, "outcome")
    p_values = {part: p_of(np.isin(clusters.labels + 1, part), outcome) for part in [(1,), (2,), (3,)]}
    assert min(p_values, key=p_values.get) == (3,)
    assert found.groups == ((1, 2), (3,))
    assert found.groups == permuted({3: clusters}, outcome, combine="outcome").groups


def test_a_group_without_an_event_gets_firths_ratio_and_words_where_cox_regression_has_none() -> None:
    labels = np.repeat([0, 1], [30, 30])
    rng = np.random.default_rng(13)
    outcome = Outcome(rng.uniform(1, 60, 60), np.r_[np.zeros(30), rng.random(30) < 0.6])
    found = related(clusters_of(labels), outcome, None, pd.DataFrame({"age": rng.normal(60, 9, 60)}))
    assert found.hazards.ratio.method == "firth"
    assert found.hazards.ratio.reason.startswith("cluster 1 has no event")
    assert found.hazards.alone is None
    assert found.hazards.adjusted is None
    assert any(note.startswith("Cox regression of the groups with age: ") for note in found.notes)
    assert "cluster 1 has no event" in found.notes


def test_small_clusters_are_shown_and_warned_about() -> None:
    labels = np.repeat([0, 1, 2], [40, 36, 4])
    found = related(clusters_of(labels), drawn(np.random.default_rng(14)), ((1, 2), (3,)))
    assert found.clusters.table.loc["cluster 3", "patients"] == 4
    assert "cluster 3 has 4 patients, fewer than 10: what is said of it is unstable" in found.notes
    assert found.hazards.ratio.reason.endswith("cluster 3 has 4 patients, fewer than 10: the ratio is unstable")


def test_events_at_one_time_say_nothing_of_proportional_hazards() -> None:
    labels, rng = np.repeat([0, 1], 20), np.random.default_rng(15)
    event = rng.random(40) < 0.5
    found = related(clusters_of(labels), Outcome(np.where(event, 12.0, 24.0), event))
    assert found.hazards.alone is not None
    assert found.hazards.proportional is None
    assert any(note.startswith("Proportional hazards: Events came") for note in found.notes)


def test_a_binary_endpoint_is_tested_by_chi_square_or_where_few_are_expected_by_fishers_test() -> None:
    labels = np.repeat([0, 1, 2], [60, 40, 8])
    event = np.r_[np.arange(60) < 12, np.arange(40) < 20, np.arange(8) < 6]
    found = related(clusters_of(labels), Outcome(None, event)).clusters
    assert found.overall.test == "chi-square"
    assert found.overall.statistic == pytest.approx(15.47729323, abs=1e-8)  # R 4.2: chisq.test(cbind(c(12, 20, 6), c(48, 20, 2)))
    assert found.pairwise["p_value"].iloc[1] == pytest.approx(
        0.0032975955, abs=1e-10
    )  # R: fisher.test(cbind(c(12, 6), c(48, 2)))
    assert found.pairwise["test"].tolist() == ["chi-square", "Fisher's exact", "Fisher's exact"]
    assert found.curves == {}
    assert related(clusters_of(labels), Outcome(None, event)).hazards is None
    assert found.table["median"].isna().all()
    assert any("trust the permutation p" in note for note in found.notes)


def test_fishers_tea_is_what_it_was() -> None:
    event = np.array([1, 1, 1, 0, 1, 0, 0, 0])
    found = related(clusters_of(np.repeat([0, 1], 4)), Outcome(None, event)).clusters
    assert found.overall.p_value == pytest.approx(0.4857142857, abs=1e-9)  # R's help of fisher.test, two-sided


def test_a_pair_without_an_event_has_no_p() -> None:
    labels = np.repeat([0, 1, 2], 10)
    event = np.r_[np.zeros(20), np.ones(6), np.zeros(4)]
    for found in (Outcome(None, event), Outcome(np.arange(1, 31), event)):
        pairs = related(clusters_of(labels), found).clusters.pairwise
        assert np.isnan(pairs["p_value"].iloc[0])
        assert pairs["p_holm"].notna().tolist() == [False, True, True]


# Sentences


@pytest.mark.parametrize(
    ("combine", "largest", "words"),
    [
        (((1, 2), (2, 3)), 3, "combine names cluster 2 twice; name each cluster once."),
        (((1, 2), (4,)), 3, "combine names cluster 4, and clusters are numbered from 1 to 3; name one of them."),
        (((0, 1), (2,)), 2, "combine names cluster 0, and clusters are numbered from 1 to 2; name one of them."),
        (((1, 2, 3),), 3, "combine must name two groups of clusters or more, none of them empty (it is [[1, 2, 3]])."),
        (((1, 2), ()), 3, "combine must name two groups of clusters or more, none of them empty (it is [[1, 2], []])."),
        ("outcome", 13, "combine: outcome tries all mergings of up to 12 clusters, and there may be 13; ask for fewer clusters"),
    ],
)
def test_what_cannot_be_joined_is_refused(combine: object, largest: int, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        refuse_combination(combine, largest)
    assert str(refusal.value).startswith(words)


def test_a_cluster_in_no_group_one_cluster_and_names_of_a_number_to_be_chosen_are_refused() -> None:
    rng = np.random.default_rng(16)
    outcome, candidates = drawn(rng), candidates_of(rng)
    left_out = r"combine \(\[\[1\], \[3\]\]\) leaves out cluster 2; put it into one of the groups\."
    with pytest.raises(InputError, match=left_out):
        related(candidates[3], outcome, ((1,), (3,)))
    with pytest.raises(InputError, match=left_out):
        permuted(candidates, outcome, by_outcome=False, combine=((1,), (3,)))
    for alone in (lambda: related(candidates[1], outcome), lambda: number_by_outcome({1: candidates[1]}, outcome)):
        with pytest.raises(InputError, match="There is one cluster, so that there is nothing to compare"):
            alone()
    with pytest.raises(InputError, match="combine names clusters while the outcome chooses their number"):
        permuted(candidates, outcome, combine=((1, 2), (3,)))


def test_a_clinical_column_of_the_groups_name_is_refused() -> None:
    clusters, outcome, clinical = planted()
    with pytest.raises(InputError, match="A clinical column is called 'clusters'"):
        related(clusters, outcome, None, clinical.rename(columns={"age": "clusters"}))


@pytest.mark.parametrize("event", [[0, 0, 0], [1, 1, 1], [1, 2, 1], [0, 1, np.nan]])
def test_a_binary_endpoint_needs_both_classes(event: list[float]) -> None:
    with pytest.raises(InputError, match="A binary endpoint must be 1"):
        Outcome(None, np.array(event))


def test_times_are_checked_as_everywhere() -> None:
    with pytest.raises(InputError, match="follow-up time of zero or less"):
        Outcome(np.array([0, 1]), np.array([1, 0]))
