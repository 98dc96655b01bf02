"""Stromal and immune scores: ESTIMATE's own sum over the ranked genes, the genes that are there, and a planted difference."""

from __future__ import annotations

import gseapy
import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.molecular.group_tests import compare_groups
from training.molecular.microenvironment import estimate_sets, has_microenvironment, stromal_and_immune

OTHERS = [f"OTHER{number}" for number in range(800)]
SETS = estimate_sets()
GENES = [*SETS["stromal"].genes, *SETS["immune"].genes, *OTHERS]


def expression(patients: int, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(8, 2, size=(patients, len(GENES)))
    return pd.DataFrame(values, columns=GENES, index=[f"p{number}" for number in range(patients)])


def estimate_as_its_authors_have_it(values: pd.Series, genes: tuple[str, ...]) -> float:
    """The sum of the running sum down the ranked genes, as in estimateScore.R of the R package estimate 1.0.13."""
    ranked = (10000 * values.rank() / len(values)).sort_values(ascending=False)
    inside = ranked.index.isin(genes)
    weights = np.where(inside, ranked**0.25, 0)
    return float((np.cumsum(weights / weights.sum()) - np.cumsum(~inside / (~inside).sum())).sum())


def test_scores_are_those_of_the_authors_definition() -> None:
    table = expression(6)
    found = stromal_and_immune(table).scores
    for name in ("stromal", "immune"):
        expected = [estimate_as_its_authors_have_it(row, SETS[name].genes) for _, row in table.iterrows()]
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found["estimate"], found["stromal"] + found["immune"])


def test_scores_are_those_of_gseapy() -> None:
    table = expression(4, seed=3)
    sets = {name: list(one.genes) for name, one in SETS.items()}
    options = {"outdir": None, "sample_norm_method": "rank", "min_size": 1, "max_size": 500, "threads": 1, "no_plot": True}
    found = gseapy.ssgsea(table.T, sets, correl_norm_type="rank", weight=0.25, **options).res2d
    theirs = (
        found.astype({"ES": float}).pivot_table(index="Name", columns="Term", values="ES").loc[table.index, ["stromal", "immune"]]
    )
    ours = stromal_and_immune(table).scores[["stromal", "immune"]]
    assert np.corrcoef(ours.to_numpy().ravel(), theirs.to_numpy().ravel())[0, 1] > 1 - 1e-9


def test_older_symbols_are_the_same_genes() -> None:
    table = expression(3)
    older = {"CCN4": "WISP1", "FYB1": "FYB"}
    pd.testing.assert_frame_equal(stromal_and_immune(table).scores, stromal_and_immune(table.rename(columns=older)).scores)


def test_a_planted_infiltration_is_found_and_nothing_in_noise() -> None:
    groups = pd.Series(["less"] * 15 + ["more"] * 15, index=[f"p{number}" for number in range(30)])
    found, noise = [], []
    for seed in range(10):
        table = expression(30, seed)
        noise.append(compare_groups(stromal_and_immune(table).scores, groups)["associated"].any())
        table.loc[groups == "more", list(SETS["immune"].genes)] += 1.0
        found.append(compare_groups(stromal_and_immune(table).scores, groups))
    assert all(one.loc["immune", "associated"] and one.loc["immune", "superiority"] > 0.9 for one in found)
    assert sum(noise) <= 2


def test_few_genes_are_said_and_fewer_than_half_are_refused() -> None:
    table = expression(4)
    some = stromal_and_immune(table.drop(columns=list(SETS["immune"].genes[:40])))
    assert any("Only 101 of the 141 genes of immune genes of ESTIMATE" in note for note in some.notes)
    with pytest.raises(InputError, match="Only 61 of the 141 genes"):
        stromal_and_immune(table.drop(columns=list(SETS["immune"].genes[:80])))
    assert not has_microenvironment(table.columns[80:])
    assert has_microenvironment(table.columns)


def test_a_gap_counts_as_the_genes_mean() -> None:
    table = expression(5)
    gap = table.mask((table.index == "p2")[:, None] & (table.columns == "CD14"))
    filled = gap.fillna(gap.mean())
    pd.testing.assert_frame_equal(stromal_and_immune(gap).scores, stromal_and_immune(filled).scores)
