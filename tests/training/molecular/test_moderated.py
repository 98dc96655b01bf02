"""Moderated t statistics: limma's numbers, planted genes, and noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import polygamma
from scipy.stats import ttest_ind

from features.errors import InputError
from training.molecular.moderated import _inverse_trigamma, fit_prior, moderated_t


def test_t_p_and_the_prior_are_those_of_limma() -> None:
    rng = np.random.default_rng(21)
    values = pd.DataFrame(rng.normal(size=(12, 50)) * rng.gamma(2, 0.5, size=50))
    groups = np.arange(12) < 5
    values.loc[groups, 0] += 3
    found = moderated_t(values, groups)
    # limma 3.54 (Debian 12): f <- eBayes(lmFit(t(x), cbind(1, groups))); f$df.prior; f$s2.prior; f$t[, 2]; f$p.value[, 2]
    assert found.prior_freedom == pytest.approx(1.53910843103018391, rel=1e-8)
    assert found.prior_variance == pytest.approx(0.23204227345833245, rel=1e-8)
    t = [16.784604250799486, -0.31709254406808335, -0.3395881398489028]
    p = [1.8287807897799139e-09, 0.7568369672903357, 0.7402674146978575]
    np.testing.assert_allclose(found.table.loc[[0, 1, 49], ["t", "p_value"]], np.transpose([t, p]), rtol=1e-8)


def test_variances_that_differ_by_chance_alone_become_one() -> None:
    rng = np.random.default_rng(5)
    values, groups = pd.DataFrame(rng.normal(size=(10, 20)).round(6)), np.arange(10) < 5
    same = pd.concat([values, -values.iloc[:, :1].set_axis([99], axis=1)], axis=1)
    variance = np.ones(30)
    assert fit_prior(variance, 8) == (1.0, np.inf)
    assert moderated_t(same, groups).table.loc[99, "t"] == pytest.approx(-moderated_t(same, groups).table.loc[0, "t"])


def test_a_single_gene_has_the_ordinary_t() -> None:
    values, groups = pd.DataFrame({"CA9": np.random.default_rng(0).normal(size=12)}), np.arange(12) < 5
    found, expected = moderated_t(values, groups), ttest_ind(values["CA9"][groups], values["CA9"][~groups])
    assert found.table.loc["CA9", ["t", "p_value"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])


def test_the_prior_of_simulated_variances_is_found() -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 * 6 / rng.chisquare(6, size=20_000)  # scaled inverse chi-square: prior variance 0.5, 6 degrees of freedom
    variance, freedom = fit_prior(truth * rng.chisquare(10, size=20_000) / 10, 10)
    assert variance == pytest.approx(0.5, rel=0.03)
    assert freedom == pytest.approx(6, rel=0.1)


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_the_inverse_of_the_trigamma_function_is_its_inverse(x) -> None:
    assert polygamma(1, _inverse_trigamma(x)) == pytest.approx(x, rel=1e-3 if x > 1e7 else 1e-6)


def test_p_values_of_noise_are_uniform() -> None:
    rng = np.random.default_rng(1)
    values = pd.DataFrame(rng.normal(size=(16, 4000)) * rng.gamma(3, size=4000))
    p = moderated_t(values, np.arange(16) < 6).table["p_value"]
    for share in (0.01, 0.05, 0.5):
        assert (p <= share).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000))


def test_planted_genes_are_called_if_they_are_far_enough_apart() -> None:
    rng = np.random.default_rng(2)
    values, groups = pd.DataFrame(rng.normal(0, 0.25, size=(40, 300))).add_prefix("g"), np.arange(40) < 15
    values.loc[groups, ["g0", "g1"]] += [3.0, 0.8]
    assert {"g0", "g1"} <= set(moderated_t(values, groups).table.query("called").index)
    assert set(moderated_t(values, groups, fold_change=2.0).table.query("called").index) == {"g0"}


def test_genes_most_of_which_do_not_vary_within_the_groups_are_refused() -> None:
    groups = np.arange(10) < 5
    values = pd.DataFrame({"CA9": np.where(groups, 2.0, 1.0), "STC2": np.where(groups, 0.0, 1.0), "X": np.arange(10.0)})
    with pytest.raises(InputError, match="Half of the genes or more do not vary"):
        moderated_t(values, groups)


def test_a_group_of_three_is_refused() -> None:
    with pytest.raises(InputError, match="these have 3"):
        moderated_t(pd.DataFrame({"CA9": np.arange(10.0)}), np.arange(10) < 3)
