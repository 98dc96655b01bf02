"""Significance analysis of microarrays: samr's numbers, planted genes, and noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.molecular.sam import Sam, compare, deal_groups, estimate_s0, sam

COLUMNS = ["delta", "median_false", "false_90", "called", "median_fdr", "fdr_90", "cut_low", "cut_up"]

# samr 3.0 of Debian 12 (R 4.2.2), with the permutations of `reference` in the place of its own:
#   assignInNamespace("getperms", function(y, nperms) list(perms=perms, all.perms.flag=0, nperms.act=100), "samr")
#   o <- samr(list(x=t(x), y=1 + groups, logged2=TRUE), resp.type="Two class unpaired", nperms=100)
#   o$s0; o$pi0; o$tt[c(1, 2, 300, 600)]; o$evo[c(1, 2, 300, 600)]
#   samr.compute.delta.table(o, min.foldchange=0)[c(6, 11, 16, 21), ]
PLAIN = {
    "s0": 1.11163366854,
    "pi0": 0.993333333333,
    "d": [1.090628744494, 1.126900574889, -0.791188915774, -0.308039539941],
    "expected": [-1.104278597538569, -1.002685997173678, 0.000530320572416, 1.145862932625224],
    "deltas": [
        [0.00459712778069, 489.713333333, 502.726, 518, 0.945392535393, 0.970513513514, -0.0257355316102, 0.11207993810],
        [0.01838851112276, 389.386666667, 407.366, 425, 0.916203921569, 0.958508235294, -0.0257355316102, 0.271043557594],
        [0.0413741500262, 162.41, 181.78, 201, 0.808009950249, 0.904378109453, -0.3576997444826, 0.334094283965],
        [0.07355404449102, 59.6, 69.6326666667, 90, 0.662222222222, 0.773696296296, -0.6034005486129, 0.494799862966],
    ],
}
# The same with x = round(2 x): most genes share their spread with others.
TIED = {
    "s0": 2.25120493986,
    "pi0": 0.953333333333,
    "d": [1.103999943429, 1.009624262977, -0.709982502333, -0.346491568327],
    "expected": [-1.09149806079089, -0.99371806399049, 0.00159110584529, 1.13838759356508],
    "deltas": [
        [0.00456553881025, 472.3766666667, 483.4353333333, 518, 0.911924066924, 0.933272844273, -0.0239128740693, 0.109515004098],
        [0.01826215524098, 374.66, 390.8666666667, 423, 0.885721040189, 0.924034672971, -0.0239128740693, 0.271316405062],
        [0.0410898492923, 134.42, 151.7706666667, 180, 0.746777777778, 0.84317037037, -0.3667594476692, 0.378725755111],
        [0.07304862096394, 63.8733333333, 76.2666666667, 104, 0.614166666667, 0.733333333333, -0.5377318944284, 0.498081939943],
    ],
}
# The first with min.foldchange=1.5.
FAR_APART = [
    [0.00459712778069, 153.966666667, 170.952666667, 192, 0.801909722222, 0.890378472222, -0.313687309238, 0.301288868962],
    [0.01838851112276, 153.966666667, 170.952666667, 192, 0.801909722222, 0.890378472222, -0.313687309238, 0.301288868962],
    [0.0413741500262, 147.013333333, 161.913333333, 185, 0.794666666667, 0.875207207207, -0.357699744483, 0.335243282502],
    [0.07355404449102, 59.6, 69.6326666667, 90, 0.662222222222, 0.773696296296, -0.603400548613, 0.494799862966],
]


def reference(*, tied: bool = False, fold_change: float = 1.0) -> Sam:
    rng = np.random.default_rng(20)
    x, groups = rng.normal(size=(24, 600)) * np.linspace(0.5, 2, 600), np.arange(24) < 9
    x[groups, :30] += 1.5
    dealt = groups[rng.permuted(np.tile(np.arange(24), (100, 1)), axis=1)]
    values = pd.DataFrame(np.round(2 * x) if tied else x)
    return compare(values, groups, dealt, false_discovery=0.05, fold_change=fold_change, certainty=0.95)


def planted(seed: int, n_planted: int, *, n_genes: int = 600, shift: float = 1.5) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.arange(60) < 20)
    values = pd.DataFrame(rng.normal(size=(60, n_genes)) * rng.gamma(4, 0.25, size=n_genes)).add_prefix("g")
    values.loc[groups, [f"g{i}" for i in range(n_planted)]] += shift
    return values, groups


@pytest.mark.parametrize(("tied", "expected"), [(False, PLAIN), (True, TIED)])
def test_s0_d_and_the_expected_order_are_those_of_samr(tied, expected) -> None:
    found = reference(tied=tied)
    assert found.s0 == pytest.approx(expected["s0"], abs=1e-8)
    assert found.pi0 == pytest.approx(expected["pi0"], abs=1e-10)
    np.testing.assert_allclose(found.table["d"].loc[[0, 1, 299, 599]], expected["d"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.sort(found.table["expected"])[[0, 1, 299, 599]], expected["expected"], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("tied", "fold_change", "rows"), [(False, 1, PLAIN["deltas"]), (True, 1, TIED["deltas"]), (False, 1.5, FAR_APART)]
)
def test_the_delta_table_is_that_of_samr(tied, fold_change, rows) -> None:
    table = reference(tied=tied, fold_change=fold_change).delta_table
    np.testing.assert_allclose(table.loc[[5, 10, 15, 20], COLUMNS], rows, rtol=1e-9, atol=1e-10)


def test_below_500_genes_s0_is_the_fifth_percentile_of_the_errors_as_in_samr() -> None:
    s = np.random.default_rng(0).gamma(2, size=499)
    assert estimate_s0(np.ones(499), s) == np.quantile(s, 0.05)


def test_where_there_are_few_permutations_each_is_taken_once() -> None:
    dealt = deal_groups(np.arange(9) < 4, 126, np.random.default_rng(0))
    assert dealt.shape == (126, 9)
    assert len(np.unique(dealt, axis=0)) == 126
    assert (dealt.sum(axis=1) == 4).all()
    assert deal_groups(np.arange(9) < 4, 125, np.random.default_rng(0)).shape == (125, 9)


def test_exchanging_the_groups_turns_the_signs_and_calls_the_same_genes() -> None:
    values, groups = planted(0, 5)
    dealt = deal_groups(groups, 200, np.random.default_rng(1))
    limits = {"false_discovery": 0.05, "fold_change": 1.0, "certainty": 0.95}
    one, other = compare(values, groups, dealt, **limits), compare(values, ~groups, ~dealt, **limits)
    np.testing.assert_allclose(one.table["d"], -other.table["d"].loc[one.table.index], rtol=1e-9)
    np.testing.assert_allclose(one.table["p_value"], other.table["p_value"].loc[one.table.index])
    assert set(one.table.index[one.table["called"]]) == set(other.table.index[other.table["called"]])


def test_the_order_of_genes_does_not_matter() -> None:
    values, groups = planted(2, 5)
    one = sam(values, groups, np.random.default_rng(0), permutations=99)
    other = sam(values.iloc[:, ::-1], groups, np.random.default_rng(0), permutations=99)
    pd.testing.assert_frame_equal(one.table, other.table.loc[one.table.index])


def test_the_genes_called_are_those_beyond_the_cuts_of_the_chosen_delta() -> None:
    values, groups = planted(3, 10)
    found = sam(values, groups, np.random.default_rng(0), permutations=200)
    row = found.delta_table.set_index("delta").loc[found.delta]
    d = found.table["d"]
    assert found.table["called"].equals((d <= row["cut_low"]) | (d >= row["cut_up"]))
    assert found.table["called"].equals(found.table["q_value"] <= 0.05)
    assert row["called"] == found.table["called"].sum() > 0
    assert row["bound"] == 0


def test_planted_genes_are_found_and_nothing_else_in_18_of_20_seeds() -> None:
    exact = 0
    for seed in range(20):
        values, groups = planted(seed, 3, shift=5.0)
        called = sam(values, groups, np.random.default_rng(seed), permutations=200).table.query("called").index
        exact += set(called) == {"g0", "g1", "g2"}
    assert exact >= 18


def test_with_more_certainty_no_more_genes_are_called() -> None:
    values, groups = planted(4, 40)
    strict, loose = (sam(values, groups, np.random.default_rng(0), permutations=300, certainty=one).table for one in (0.99, 0.8))
    assert 0 < strict["called"].sum() <= loose["called"].sum()
    assert (strict["q_value"] >= loose["q_value"].loc[strict.index]).all()


@pytest.mark.slow
def test_a_false_gene_is_called_in_a_twentieth_of_noise_though_sams_median_calls_in_half() -> None:
    ours, median = 0, 0
    for seed in range(400):
        values, groups = planted(seed, 0, n_genes=500)
        table = sam(values, groups, np.random.default_rng(seed), permutations=200).table
        ours += table["called"].any()
        median += (table["median_q_value"] <= 0.05).any()
    assert ours / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert median / 400 > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("n_planted", [50, 150])
def test_more_than_a_twentieth_of_the_genes_called_is_false_in_no_more_than_a_twentieth_of_seeds(n_planted) -> None:
    over = 0
    for seed in range(200):
        values, groups = planted(seed, n_planted)
        called = set(sam(values, groups, np.random.default_rng(seed), permutations=200).table.query("called").index)
        over += len(called - {f"g{i}" for i in range(n_planted)}) > 0.05 * len(called)
    assert over / 200 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_p_values_of_noise_are_uniform() -> None:
    values, groups = planted(5, 0, n_genes=2000)
    p = sam(values, groups, np.random.default_rng(0), permutations=200).table["p_value"]
    for share in (0.05, 0.2, 0.5):
        assert (p <= share).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 2000))


def test_a_gene_that_differs_by_less_than_the_fold_change_is_not_called() -> None:
    values, groups = planted(0, 6, shift=3.0)
    values[["g0", "g1"]] /= 4  # as sure, and a quarter as far
    found = sam(values, groups, np.random.default_rng(0), permutations=200, fold_change=2.5).table
    assert set(found.index[found["called"]]) == {"g2", "g3", "g4", "g5"}
    assert found.loc["g0", "q_value"] == 1


def test_a_gene_without_any_spread_within_the_groups_is_called_and_does_not_win_by_dividing_by_zero() -> None:
    values, groups = planted(0, 2)
    values["g0"] = np.where(groups, 3.0, 1.0)
    found = sam(values, groups, np.random.default_rng(0), permutations=200)
    assert found.table.loc["g0", "d"] == pytest.approx(2 / found.s0)
    assert found.table.loc["g0", "called"]


def test_too_few_permutations_to_be_sure_are_told() -> None:
    values, groups = planted(0, 3, shift=4.0)
    found = sam(values, groups, np.random.default_rng(0), permutations=18)
    assert found.notes == ("18 permutations are too few to call a gene with a certainty of 95%: 19 or more can.",)
    assert not found.table["called"].any()
    assert np.isnan(found.delta)
    assert not sam(values, groups, np.random.default_rng(0), permutations=19).notes


def test_the_smallest_groups_can_still_call_a_gene() -> None:
    values, groups = planted(1, 2, shift=8.0)
    rows = np.r_[np.flatnonzero(groups)[:4], np.flatnonzero(~groups)[:4]]
    found = sam(values.iloc[rows], groups[rows], np.random.default_rng(0))
    assert found.permutations == 70
    assert set(found.table.index[found.table["called"]]) == {"g0", "g1"}


def test_no_permutation_is_refused() -> None:
    values, groups = planted(0, 0)
    with pytest.raises(InputError, match="1000 are usual"):
        sam(values, groups, np.random.default_rng(0), permutations=0)


def test_values_that_vary_between_the_groups_alone_are_refused() -> None:
    groups = np.arange(10) < 5
    with pytest.raises(InputError, match="No gene varies within the two groups"):
        sam(pd.DataFrame({"CA9": np.where(groups, 2.0, 1.0)}), groups, np.random.default_rng(0))


def test_a_group_of_three_is_refused() -> None:
    values, _ = planted(0, 0)
    with pytest.raises(InputError, match="these have 3"):
        sam(values, np.arange(60) < 3, np.random.default_rng(0))
