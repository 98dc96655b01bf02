"""Scores of gene sets in single patients."""

from __future__ import annotations

import gseapy
import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.molecular.single_sample import single_sample_scores


def test_scores_are_those_of_gseapys_ssgsea() -> None:
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(6, 80))).add_prefix("G").rename("P{}".format)
    sets = {"A": ("G3", "G9", "G40", "G77"), "B": tuple(f"G{i}" for i in range(20))}
    found = single_sample_scores(values, sets)
    expected = gseapy.ssgsea(values.T, {name: list(genes) for name, genes in sets.items()}, min_size=1, outdir=None, no_plot=True)
    expected = expected.res2d.pivot_table(index="Name", columns="Term", values="ES", aggfunc="first").astype(float)
    pd.testing.assert_frame_equal(found, expected.loc[found.index, found.columns], check_names=False, rtol=1e-9)  # gseapy 1.3.1


def test_a_score_is_of_the_patient_alone_and_of_ranks_alone() -> None:
    rng = np.random.default_rng(1)
    values = pd.DataFrame(rng.normal(size=(10, 50))).add_prefix("G")
    sets = {"A": ("G3", "G9"), "B": ("G1", "G2", "G4")}
    every = single_sample_scores(values, sets)
    pd.testing.assert_frame_equal(single_sample_scores(values.iloc[:4], sets), every.iloc[:4])
    pd.testing.assert_frame_equal(single_sample_scores(np.exp(values), sets), every)


def test_a_shifted_set_scores_higher() -> None:
    rng = np.random.default_rng(2)
    values = pd.DataFrame(rng.normal(size=(40, 200))).add_prefix("G")
    sets = {"A": tuple(f"G{i}" for i in range(20)), "B": tuple(f"G{i}" for i in range(50, 70))}
    values.loc[:19, list(sets["A"])] += 1
    scores = single_sample_scores(values, sets)
    assert scores.loc[:19, "A"].min() > scores.loc[20:, "A"].median()
    assert abs(scores.loc[:19, "B"].mean() - scores.loc[20:, "B"].mean()) < scores["B"].std()


def test_a_set_without_a_gene_is_refused() -> None:
    with pytest.raises(InputError, match="'A' has 0 of the 2 genes"):
        single_sample_scores(pd.DataFrame({"CA9": [1.0, 2], "X": [2.0, 1]}), {"A": ("LDHA",)})
