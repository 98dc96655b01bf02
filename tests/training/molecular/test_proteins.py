"""Ordinal protein scores by group: the table, the tests, and the patients of each level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.molecular.group_tests import compare_groups
from training.molecular.proteins import compare_proteins, read_proteins


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "proteins.csv"
    path.write_text(text)
    return path


def test_patients_are_named_as_written_and_empty_cells_are_missing(tmp_path: Path) -> None:
    found = read_proteins(write(tmp_path, "patient,HIF1A,CA9\n007,2,\n008,,3\n"), "patient")
    assert found.index.tolist() == ["007", "008"]
    assert np.isnan(found.loc["007", "CA9"])
    assert found.loc["008", "CA9"] == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient,HIF1A\np1,strong\n", "Protein 'HIF1A' of proteins.csv holds text"),
        ("ID,HIF1A\np1,2\n", "Column 'patient'"),
        ("patient,HIF1A\np1,2\np1,3\n", "Sample 'p1' is in proteins.csv twice"),
        ("patient,cohort\n", "holds no rows"),
        ("patient\np1\n", "no column beside 'patient'"),
    ],
)
def test_another_table_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]+$") as refused:
        read_proteins(write(tmp_path, text), "patient")
    assert words in str(refused.value)


def test_tied_scores_give_the_p_values_of_r() -> None:
    """R 4.2.2: wilcox.test(more, less, exact = FALSE)$p.value, and kruskal.test(list(less, more, other))$p.value."""
    less, more, other = [0, 1, 1, 2, 0, 1], [3, 2, 3, 1, 2, 3], [1, 2, 0, 1, 3, 2]
    groups = pd.Series(["1 less"] * 6 + ["2 more"] * 6)
    two = compare_groups(pd.DataFrame({"CA9": [*less, *more]}), groups)
    assert two.loc["CA9", "p_value"] == pytest.approx(0.0203307262958561, rel=1e-9)
    three = compare_groups(
        pd.DataFrame({"CA9": [*less, *more, *other]}), pd.concat([groups, pd.Series(["3"] * 6)], ignore_index=True)
    )
    assert three.loc["CA9", "p_value"] == pytest.approx(0.0438191130759463, rel=1e-9)


def test_patients_of_each_level_add_up() -> None:
    rng = np.random.default_rng(0)
    scores = pd.DataFrame({"HIF1A": rng.integers(0, 4, 40).astype(float), "index": rng.uniform(size=40)})
    groups = pd.Series(rng.choice(["a", "b"], 40))
    scores.loc[3, "HIF1A"] = np.nan
    levels = compare_proteins(scores, groups).levels
    assert set(levels["protein"]) == {"HIF1A"}
    assert levels[["a", "b"]].to_numpy().sum() == 39


def test_a_planted_protein_is_found_and_the_others_are_not() -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        groups = pd.Series(np.repeat(["low", "high"], 20))
        scores = pd.DataFrame(rng.integers(0, 4, size=(40, 10)).astype(float), columns=[f"P{i}" for i in range(10)])
        scores.loc[groups == "high", "P0"] = rng.integers(2, 4, 20)
        scores.loc[groups == "low", "P0"] = rng.integers(0, 3, 20)
        found.append(compare_groups(scores, groups).query("associated").index.tolist())
    assert sum(one == ["P0"] for one in found) >= 17


def test_a_protein_that_nobody_differs_in_is_not_tested() -> None:
    found = compare_groups(pd.DataFrame({"flat": [1.0] * 8, "gone": [np.nan] * 8}), pd.Series(["a", "b"] * 4))
    assert found["p_value"].isna().all()
    assert not found["associated"].any()
