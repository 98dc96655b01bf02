"""Whether differences of expression are fold changes: what real tables of log ratios and of z scores are taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.molecular.study import MolecularSettings
from training.molecular.units import looks_like_z_scores, units_of


def settings(**changes: object) -> MolecularSettings:
    return MolecularSettings.model_validate({"expression": {"path": "none.csv"}, **changes})


def test_z_scores_of_tcga_are_told(data: Path) -> None:
    table = pd.read_csv(data / "tcga_hnsc_expression_hypoxia_pfs" / "expression_rnaseq_z.csv.gz", index_col=0)
    assert looks_like_z_scores(table)
    assert units_of(settings(), table)[0] == "other"


@pytest.mark.parametrize("name", ["gse1992", "gse3143", "gse4335"])
def test_log_ratios_and_logarithms_of_microarrays_are_no_z_scores(name: str, data: Path) -> None:
    table = pd.read_csv(data / "breast_expression_survset" / f"{name}.csv.gz", index_col="pid")
    known = table.drop(columns=[one for one in table if one.startswith(("event", "time", "fac_", "num_"))])
    assert not looks_like_z_scores(known)
    assert units_of(settings(fold_change=1.5), known) == ("log2", ())


def test_genes_centred_on_zero_that_vary_differently_are_log_ratios() -> None:
    rng = np.random.default_rng(0)
    centred = pd.DataFrame(rng.normal(size=(60, 500)) * rng.lognormal(-0.4, 0.5, 500))
    assert not looks_like_z_scores(centred)
    assert looks_like_z_scores(centred / centred.std())


def test_raw_values_have_no_fold_change() -> None:
    raw = pd.DataFrame(np.random.default_rng(0).lognormal(6, 2, size=(20, 50)))
    units, (note,) = units_of(settings(), raw)
    assert units == "other"
    assert "since the expression looks raw" in note
    with pytest.raises(InputError, match="but the expression looks raw"):
        units_of(settings(fold_change=2), raw)


def test_what_a_study_says_is_not_doubted() -> None:
    raw = pd.DataFrame([[1e4, 2e5], [3e4, 1e5]])
    assert units_of(settings(units="log2", fold_change=2), raw) == ("log2", ())
    assert units_of(settings(units="other"), raw / 1e5) == ("other", ())


def test_genes_that_are_the_same_in_all_say_nothing() -> None:
    assert not looks_like_z_scores(pd.DataFrame({"a": [0.0, 0.0], "b": [np.nan, np.nan]}))
