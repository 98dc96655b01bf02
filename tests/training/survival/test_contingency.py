"""Agreement of two biomarkers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from features.errors import InputError
from training.survival.contingency import fourfold, spearman


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_kappa_is_that_of_scikit_learn_and_agreement_does_not_ask_who_is_first(pairs) -> None:
    imaging, genes = np.array(pairs).T
    table, swapped = fourfold(imaging, genes), fourfold(genes, imaging)
    assert table.both + table.genes_only + table.neither + table.imaging_only == len(pairs)
    assert (table.genes_only, table.agreement, table.kappa) == (swapped.imaging_only, swapped.agreement, swapped.kappa)
    assert (table.kappa is None) == (len({*imaging, *genes}) == 1)
    if table.kappa is not None:
        assert table.kappa == pytest.approx(cohen_kappa_score(imaging, genes))


def test_complete_agreement_has_an_infinite_odds_ratio() -> None:
    table = fourfold(np.arange(20) < 8, np.arange(20) < 8)
    assert (table.agreement, table.kappa, table.odds_ratio) == (1, 1, np.inf)


def test_a_biomarker_that_calls_all_alike_has_no_odds_ratio() -> None:
    table = fourfold(np.ones(10), np.arange(10) < 4)
    assert (table.odds_ratio, table.kappa, table.fisher_p) == (None, 0, 1)


def test_calls_of_different_patients_are_refused() -> None:
    with pytest.raises(InputError, match="one call of each biomarker per patient"):
        fourfold([True, False], [True])


def test_the_interval_of_a_rank_correlation_covers_the_truth() -> None:
    rng, rho, inside = np.random.default_rng(0), 0.6, 0
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a bivariate normal
    for _ in range(400):
        x = rng.normal(size=60)
        found = spearman(x, rho * x + np.sqrt(1 - rho**2) * rng.normal(size=60))
        inside += found.lower <= truth <= found.upper
    assert 0.925 < inside / 400 < 0.975


def test_a_constant_biomarker_has_no_correlation() -> None:
    with pytest.raises(InputError, match="same value in all 5 patients"):
        spearman(np.ones(5), np.arange(5))


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(InputError, match="both values of 4 patients or more"):
        spearman([1, 2, np.nan, 4], [1, 2, 3, 4])
