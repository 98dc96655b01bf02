"""Gene set enrichment: an independent score, planted sets, and noise."""

from __future__ import annotations

import logging

import gseapy
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import InputError
from training.molecular.enrichment import enrichment_of_sets, running_sum, signal_to_noise


def enrichment_score(metric: list[float], inside: list[bool]) -> float:
    """By the words of Subramanian et al. 2005: a walk down the list, gene by gene."""
    weight_of_set = sum(abs(value) for value, member in zip(metric, inside, strict=True) if member)
    others = inside.count(False)
    height, furthest = 0.0, 0.0
    for value, member in zip(metric, inside, strict=True):
        height += abs(value) / weight_of_set if member else -1 / others
        furthest = height if abs(height) > abs(furthest) else furthest
    return furthest


def world(seed: int, *, n: int = 24, n_genes: int = 300, shift: float = 0.0) -> tuple[pd.DataFrame, np.ndarray, dict]:
    rng = np.random.default_rng(seed)
    values = pd.DataFrame(rng.normal(8, 2, size=(n, n_genes))).add_prefix("g")
    groups = rng.permutation(np.arange(n) < n // 3)
    sets = {f"S{k}": tuple(rng.choice(values.columns, size=int(rng.integers(15, 60)), replace=False)) for k in range(8)}
    values.loc[groups, list(sets["S0"])] += shift
    return values, groups, sets


@pytest.mark.parametrize("seed", range(8))
def test_the_score_is_that_of_an_independent_implementation(seed) -> None:
    values, groups, sets = world(seed, n=12 + 5 * seed, n_genes=150 + 40 * seed, shift=seed / 2 - 2)
    found = enrichment_of_sets(values, groups, sets, np.random.default_rng(0), permutations=10)
    for name, genes in sets.items():
        expected = enrichment_score(found.ranking.tolist(), found.ranking.index.isin(genes).tolist())
        assert found.table.loc[name, "es"] == pytest.approx(expected, abs=1e-10)
        running = found.running_sum(name)
        assert running[np.argmax(np.abs(running))] == pytest.approx(expected, abs=1e-10)
        assert running[-1] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("centre", [0.0, 2.0, 12.0])
def test_the_ranking_is_that_of_gseapys_own_signal_to_noise(centre) -> None:
    rng = np.random.default_rng(3)
    values, groups = pd.DataFrame(rng.normal(centre, 1, size=(20, 200))).add_prefix("G"), np.arange(20) < 8
    values["G7"] = np.where(groups, 0.0, 5.0) + 0.001 * values["G8"]  # gseapy leaves out what does not vary at all
    named = ["yes" if member else "no" for member in groups]
    sets = {"S": [f"G{i}" for i in range(20)]}
    expected = gseapy.gsea(
        values.T, sets, named, permutation_type="gene_set", permutation_num=2, outdir=None, no_plot=True
    ).ranking
    found = signal_to_noise(values, groups)
    np.testing.assert_allclose(found, expected.loc[found.index], rtol=1e-7)  # gseapy 1.3.1, which adds a trifle to the spread


def test_a_set_that_is_higher_in_the_group_of_interest_has_a_positive_score() -> None:
    values, groups, sets = world(0, shift=2.0)
    found = enrichment_of_sets(values, groups, sets, np.random.default_rng(0), permutations=200)
    opposite = enrichment_of_sets(values, ~groups, sets, np.random.default_rng(0), permutations=200)
    assert found.table.index[0] == "S0"
    assert found.table.loc["S0", ["p_value", "q_value"]].tolist() == [0.005, 0.005]  # no lower than 1 / permutations
    assert found.table.loc["S0", "nes"] > 1.5
    assert opposite.table.loc["S0", "es"] == pytest.approx(-found.table.loc["S0", "es"], abs=1e-10)


def test_the_leading_edge_is_the_genes_up_to_the_peak() -> None:
    values, groups, sets = world(1, shift=2.0)
    for members in (groups, ~groups):
        found = enrichment_of_sets(values, members, sets, np.random.default_rng(0), permutations=20)
        running, hits = found.running_sum("S0"), found.hits("S0")
        peak = np.argmax(np.abs(running))
        edge = hits[hits <= peak] if running[peak] > 0 else hits[hits >= peak]
        assert set(found.table.loc["S0", "leading_edge"]) == set(found.ranking.index[edge])
        assert len(found.hits("S0")) == found.table.loc["S0", "size"] == len(sets["S0"])


def test_the_order_of_genes_and_patients_does_not_matter() -> None:
    values, groups, sets = world(2)
    order = np.random.default_rng(0).permutation(len(values))
    one = enrichment_of_sets(values, groups, sets, np.random.default_rng(4), permutations=50)
    other = enrichment_of_sets(values.iloc[order, ::-1], groups[order], sets, np.random.default_rng(4), permutations=50)
    dealt = ["group_p_value", "group_q_value"]  # random groups are dealt to patients in their order
    pd.testing.assert_frame_equal(one.table.drop(columns=dealt), other.table.drop(columns=dealt))


def test_names_with_semicolons_and_small_letters_stay_as_they_are() -> None:
    values, groups, sets = world(3, shift=2.0)
    rename = {gene: f"{gene};Abc" for gene in values}
    sets = {name: tuple(rename[gene] for gene in genes) for name, genes in sets.items()}
    found = enrichment_of_sets(values.rename(columns=rename), groups, sets, np.random.default_rng(0), permutations=20)
    assert set(found.table.loc["S0", "leading_edge"]) <= set(sets["S0"])


def test_nothing_is_written_or_said_and_logging_is_left_as_it_was(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    values, groups, sets = world(4)
    enrichment_of_sets(values.round(0), groups, sets, np.random.default_rng(0), permutations=20)  # with equal ratios
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_noise_is_enriched_in_few_seeds_and_a_planted_set_in_all() -> None:
    false, found = 0, 0
    for seed in range(20):
        values, groups, sets = world(seed, shift=1.5)
        table = enrichment_of_sets(values, groups, sets, np.random.default_rng(seed), permutations=200).table
        overlapping = [name for name in sets if len(set(sets[name]) & set(sets["S0"])) > 2]
        found += table.loc["S0", "q_value"] <= 0.05
        false += (table.drop(index=overlapping)["q_value"] <= 0.05).any()
    assert found == 20
    assert false <= 4


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=3, max_size=40))
def test_the_running_sum_ends_at_zero_and_stays_within_one(pairs) -> None:
    metric, inside = (np.array(part) for part in zip(*sorted(pairs, reverse=True), strict=True))
    if inside.all() or not np.abs(metric[inside]).sum() > 1e-3:
        return
    running = running_sum(metric, np.flatnonzero(inside))
    assert running[-1] == pytest.approx(0, abs=1e-9)
    assert np.abs(running).max() <= 1 + 1e-9


def test_a_standard_deviation_is_a_fifth_of_the_mean_at_least() -> None:
    groups = np.array([False] * 2 + [True] * 2)
    ranking = signal_to_noise(
        pd.DataFrame({"floor": [10.0, 10, 20, 20], "zero": [0.0, 0, 1, -1], "wide": [0.0, 8, 20, 28]}), groups
    )
    assert ranking["floor"] == pytest.approx(10 / (2 + 4))
    assert ranking["zero"] == 0
    assert ranking["wide"] == pytest.approx(20 / (2 * np.sqrt(32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": np.arange(24) < 3}, "these have 3"),
        ({"groups": np.ones(24)}, "and 0"),
        ({"sets": {"S": ("nobody",)}}, "'S' has 0 of the 300 genes"),
        ({"sets": {}}, "No gene set"),
        ({"permutations": 0}, "1000 are usual"),
        ({"values": pd.DataFrame({"g0": list("ab" * 12)})}, "not a number"),
    ],
)
def test_what_cannot_be_tested_is_refused(change, message) -> None:
    values, groups, sets = world(0)
    asked = {"values": values, "groups": groups, "sets": sets, "permutations": 10, **change}
    with pytest.raises(InputError, match=message):
        enrichment_of_sets(rng=np.random.default_rng(0), **asked)
