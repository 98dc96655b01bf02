"""Harmonisation: the numbers of the libraries that define it, nothing learnt from what is scored, and clear refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from neuroCombat import neuroCombat
from pydantic import ValidationError
from sklearn.utils.estimator_checks import parametrize_with_checks
from statsmodels.api import OLS, add_constant
from statsmodels.stats.multitest import multipletests
from statsmodels.tools.sm_exceptions import SingularMatrixWarning

from features.errors import InputError
from features.feature import Feature
from features.harmonise import AcquisitionRegression, CombatHarmoniser, RegressionHarmoniser, SiteAlignment

TEN = tuple(Feature(name=str(number)) for number in range(10))

TRUSTED = ["features.harmonise.AcquisitionRegression", "features.harmonise.SiteAlignment"]


@parametrize_with_checks([AcquisitionRegression(), SiteAlignment()])
def test_scikit_learn_finds_no_fault_with_it(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def halle_like(n: int = 132, p: int = 293, explained: int = 250, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, most of them driven by a protocol of two quantities, a code of three words and a constant."""
    rng = np.random.default_rng(seed)
    protocol = np.column_stack(
        [rng.normal(4000, 800, n), rng.choice([80.0, 100.0, 120.0], n), rng.integers(0, 3, n), np.full(n, 1.5)]
    )
    effect = np.zeros((3, p))
    effect[:, :explained] = rng.normal(0, [[1e-3], [0.02], [0.5]], (3, explained))
    return rng.normal(size=(n, p)) + protocol[:, :3] @ effect, protocol


def regression(X: np.ndarray, protocol: np.ndarray, **more: object) -> AcquisitionRegression:
    positions = tuple(range(X.shape[1], X.shape[1] + protocol.shape[1]))
    return AcquisitionRegression(positions, **more).fit(np.hstack([X, protocol]))  # type: ignore[arg-type]


def one_hot(codes: np.ndarray) -> np.ndarray:
    return np.column_stack([(codes == code).astype(float) for code in np.unique(codes)[1:]])


@pytest.mark.parametrize("seed", range(5))
def test_p_values_and_coefficients_are_those_of_statsmodels(seed: int) -> None:
    X, protocol = halle_like(60, 20, 12, seed)
    X[np.random.default_rng(seed).random(X.shape) < 0.05] = np.nan
    found = regression(X, protocol, categorical=(22,))
    design = np.column_stack([protocol[:, :2], one_hot(protocol[:, 2])])
    expected = [OLS(column, add_constant(design), missing="drop").fit() for column in X.T]
    np.testing.assert_allclose(found.p_values_, [one.f_pvalue for one in expected], rtol=0, atol=1e-10)  # statsmodels, issue 4
    for number in np.flatnonzero(found.gated_):
        np.testing.assert_allclose(found.coefficients_[:5, number], expected[number].params, rtol=1e-8)
    assert set(found.gated_) == {True, False}
    np.testing.assert_array_equal(found.coefficients_[5], 0.0)  # the field strength, which all samples share


def test_p_values_of_a_rank_deficient_protocol_are_those_of_statsmodels() -> None:
    X, protocol = halle_like(50, 15, 8)
    echo, code = protocol[:, 1], protocol[:, 2]
    deficient = np.column_stack([echo, 2 * echo + 1, np.where(code == 0, 7.0, 3.0), code])  # twice the same, and nested codes
    found = regression(X, deficient, categorical=(18,))
    design = add_constant(np.column_stack([deficient[:, :3], one_hot(code)]))
    with pytest.warns(SingularMatrixWarning):
        expected = [OLS(column, design).fit().f_pvalue for column in X.T]
    np.testing.assert_allclose(found.p_values_, expected, rtol=0, atol=1e-10)  # statsmodels, issue 4


def test_the_gate_is_that_of_benjamini_and_hochberg() -> None:
    X, protocol = halle_like(explained=100)
    found = regression(X, protocol, categorical=(295,))
    np.testing.assert_array_equal(found.gated_, multipletests(found.p_values_, 0.05, "fdr_bh")[0])
    strict = regression(X, protocol, categorical=(295,), false_discovery=1e-6)
    assert 0 < strict.gated_.sum() < found.gated_.sum() < 293


def test_nothing_is_significant_after_it() -> None:
    X, protocol = halle_like()
    before = regression(X, protocol, categorical=(295,))
    assert before.gated_.sum() >= 230  # of the 250 that the protocol drives, and some by chance
    left = before.transform(np.hstack([X, protocol]))
    after = regression(left, protocol, categorical=(295,))
    np.testing.assert_allclose(after.p_values_[before.gated_], 1.0, atol=1e-12)
    assert after.gated_.sum() == 0
    np.testing.assert_allclose(left.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(left.std(axis=0, ddof=1), 1, rtol=1e-12)


def test_features_that_the_protocol_does_not_explain_are_only_standardised() -> None:
    X, protocol = halle_like(explained=0)
    found = regression(X, protocol, categorical=(295,))
    assert not found.gated_.any()
    expected = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.transform(np.hstack([X, protocol])), expected, atol=1e-12)


def test_a_feature_that_the_protocol_explains_wholly_becomes_nothing_and_a_constant_one_stays_constant() -> None:
    X, protocol = halle_like(40, 4, 0)
    X[:, 1], X[:, 2] = 3 * protocol[:, 0] - 1, 7.1
    found = regression(X, protocol, categorical=(6,))
    assert found.p_values_[1] < 1e-100
    assert found.p_values_[2] == 1
    changed = np.vstack([np.hstack([X, protocol])] * 2)
    out = found.transform(changed)
    assert np.all(out[:, 1] == 0)
    assert np.ptp(out[:, 2]) == 0
    assert np.isfinite(out).all()


@given(seed=st.integers(0, 1000), site=st.booleans())
@settings(max_examples=30)
def test_a_held_out_samples_values_do_not_depend_on_the_other_held_out_samples(seed: int, site: bool) -> None:
    rng = np.random.default_rng(seed)
    fitted, rows = aligned_sites(40, 6, seed) if site else regression_on_rows(40, 6, seed)
    rows[rng.random(rows.shape[0]) < 0.2, 0] = np.nan
    alone = np.vstack([fitted.transform(row[None]) for row in rows])
    order = rng.permutation(len(rows))
    others = np.vstack([rows[order], 1e6 * rows[:3] * (np.arange(rows.shape[1]) < 6) + rows[:3]])
    np.testing.assert_array_equal(fitted.transform(others)[: len(rows)], alone[order])


def regression_on_rows(n: int, p: int, seed: int) -> tuple[AcquisitionRegression, np.ndarray]:
    X, protocol = halle_like(n, p, p - 2, seed)
    new, as_measured = halle_like(10, p, p - 2, seed + 1)
    as_measured[:, 2] = protocol[:10, 2]
    return regression(X, protocol, categorical=(p + 2,)), np.hstack([new, as_measured])


def test_missing_features_stay_missing_and_leave_the_other_features_alone() -> None:
    X, protocol = halle_like(60, 5, 3)
    gap = X.copy()
    gap[:10, 0] = np.nan
    found, full = (regression(one, protocol, categorical=(7,)) for one in (gap, X))
    out = found.transform(np.hstack([gap, protocol]))
    np.testing.assert_array_equal(np.isnan(out), np.isnan(gap))
    np.testing.assert_allclose(out[:, 1:], full.transform(np.hstack([X, protocol]))[:, 1:], atol=1e-12)
    np.testing.assert_allclose([np.nanmean(out[:, 0]), np.nanstd(out[:, 0], ddof=1)], [0, 1], atol=1e-12)


def test_a_missing_parameter_is_refused_by_name_or_takes_the_training_median() -> None:
    X, protocol = halle_like(60, 5, 3)
    gap = protocol.copy()
    gap[0, 0], gap[1, 2] = np.nan, np.nan
    names = ("repetition time", "echo time", "phase direction", "field strength")
    strict = regression(X, protocol, categorical=(7,), names=names)
    with pytest.raises(
        InputError, match=r"'repetition time' is missing.* in 1 of 60 samples; fill it in, or set .*missing: median"
    ):
        strict.transform(np.hstack([X, gap]))
    with pytest.raises(InputError, match="'phase direction'"):
        strict.transform(np.hstack([X, np.where(np.arange(4) == 2, 9.0, protocol)]))
    lenient = regression(X, gap, categorical=(7,), missing="median")
    codes, counts = np.unique(gap[2:, 2], return_counts=True)
    filled = gap.copy()
    filled[0, 0], filled[1, 2] = np.nanmedian(gap[:, 0]), codes[np.argmax(counts)]
    np.testing.assert_allclose(
        lenient.coefficients_, regression(X, filled, categorical=(7,)).coefficients_, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(lenient.transform(np.hstack([X, gap])), lenient.transform(np.hstack([X, filled])), atol=1e-9)


def test_a_parameter_without_any_value_is_refused() -> None:
    X, protocol = halle_like(20, 3, 1)
    protocol[:, 1] = np.nan
    with pytest.raises(InputError, match="has no value among the training samples"):
        regression(X, protocol, missing="median")


def test_restricted_to_some_features_it_gives_the_same_numbers() -> None:
    X, protocol = halle_like(60, 8, 6)
    mixed = np.hstack([protocol[:, :2], X, protocol[:, 2:]])  # the protocol need not come last
    found = AcquisitionRegression((11, 0, 1, 10), (10,)).fit(mixed)
    small = found.restricted([5, 2])
    out = small.transform(np.hstack([X[:, [5, 2]], mixed[:, [11, 0, 1, 10]]]))
    np.testing.assert_array_equal(out, found.transform(mixed)[:, [5, 2]])
    assert list(small.get_feature_names_out()) == ["x0", "x1"]
    sites, rows = aligned_sites(60, 6, 0)
    few = sites.restricted([4, 0, 1])
    np.testing.assert_array_equal(few.transform(rows[:, [4, 0, 1, 6]]), sites.transform(rows)[:, [4, 0, 1]])


def test_a_column_is_not_both_feature_and_protocol_and_is_in_the_matrix() -> None:
    for positions in ((3, 3), (9,), (-1,)):
        with pytest.raises(ValueError, match="are not different columns"):
            AcquisitionRegression(positions).fit(np.random.default_rng(0).normal(size=(20, 5)))


def of_sites(n: int = 120, p: int = 40, sites: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features that sites shift and scale."""
    rng = np.random.default_rng(seed)
    site = np.arange(n) % sites
    shift, scale = rng.normal(0, 2, (sites, p)), rng.uniform(0.5, 2, (sites, p))
    return rng.normal(size=(n, p)) * scale[site] + shift[site], site.astype(float)


def aligned_sites(n: int, p: int, seed: int) -> tuple[SiteAlignment, np.ndarray]:
    X, site = of_sites(n, p, seed=seed)
    rows = np.column_stack([X, site])
    return SiteAlignment(site=p).fit(rows), rows[:10].copy()


# What R's sva 3.46.0 makes of it: ComBat(t(MEASURED), MEASURED_AT, par.prior=TRUE), ref.batch="1", and with two gaps.
MEASURED_AT = np.repeat([0.0, 1.0, 2.0], [4, 3, 5])
MEASURED = np.array(
    [
        [0.03, 2.36, 3.22, 2.49],
        [-0.30, 0.47, 2.57, 2.94],
        [0.75, -0.85, 3.57, 2.90],
        [0.68, 0.86, 1.62, 3.46],
        [4.65, -0.41, 0.69, 6.37],
        [1.26, -3.03, 1.79, 3.66],
        [-0.84, -1.63, 0.06, 2.61],
        [0.25, -1.98, 4.45, 1.88],
        [0.63, -1.81, 4.36, 1.85],
        [1.27, -1.48, 3.90, 1.59],
        [1.17, -1.88, 4.55, 1.36],
        [0.67, -2.42, 3.13, 2.06],
    ]
)
BY_SVA = [
    [0.369788779, 0.644854613, 3.195042018, 2.174509971],
    [-0.043235219, -0.909975911, 2.602829617, 2.733077360],
    [1.270932045, -1.995889292, 3.513925619, 2.683426925],
    [1.183320894, -0.589137866, 1.737288415, 3.378533009],
    [2.528961048, -0.311313573, 2.543824590, 4.077447933],
    [0.774325159, -1.778276804, 3.160463283, 2.681560219],
    [-0.312617427, -0.994403322, 2.190658794, 2.140718116],
    [-0.428506641, -1.167765447, 3.434567732, 3.043515863],
    [0.461125050, -0.782352323, 3.308006230, 2.971719294],
    [1.959452108, -0.034197435, 2.661136331, 2.349482364],
    [1.725338505, -0.941051844, 3.575191623, 1.799042002],
    [0.554770491, -2.165305297, 1.578332369, 3.474295276],
]
BY_SVA_TO_SITE_1 = [
    [1.122266057, 0.089153495, 1.423843587, 3.366907483],
    [0.595317035, -1.833924687, 0.751592789, 4.080940027],
    [2.271973013, -3.177026909, 1.785824786, 4.017470467],
    [2.160195948, -1.437099030, -0.230927609, 4.906044299],
    [4.65, -0.41, 0.69, 6.37],
    [1.26, -3.03, 1.79, 3.66],
    [-0.84, -1.63, 0.06, 2.61],
    [-0.113189313, -1.883129688, 1.472265028, 4.619928830],
    [1.124096087, -1.407413565, 1.332935110, 4.521043127],
    [3.207945183, -0.483964619, 0.620804417, 3.664033696],
    [2.882343762, -1.603296674, 1.627076048, 2.905909970],
    [1.254336656, -3.114394949, -0.571240438, 5.213243051],
]
BY_SVA_WITH_GAPS = [
    [0.110969796, 0.731266004, 3.191118664, 2.123679381],
    [np.nan, -0.899963250, 2.553628159, 2.724416366],
    [1.051910190, -2.039234475, 3.534382782, 2.671017523],
    [0.960429874, -0.563360388, 1.621911268, 3.418601326],
    [2.700842886, -0.274740861, 2.492527595, 4.159148114],
    [0.829537850, -1.830184363, 3.149049792, 2.683957619],
    [-0.329677659, -0.999031347, 2.116519427, 2.112389346],
    [-0.405253765, -1.174878957, 3.550911554, 3.046219567],
    [0.513840584, -0.780663108, np.nan, 2.972851641],
    [2.061788961, -0.015420577, 2.765169108, 2.336996288],
    [1.819922027, -0.942987281, 3.693773817, 1.774508860],
    [0.610587358, -2.195202331, 1.665129683, 3.486427119],
]


@pytest.mark.parametrize(
    ("expected", "reference"), [(BY_SVA, None), (BY_SVA_TO_SITE_1, 1), (BY_SVA_WITH_GAPS, None)], ids=["all", "to site", "gaps"]
)
def test_sites_are_aligned_as_by_sva(expected: list[list[float]], reference: int | None) -> None:
    rows = np.column_stack([np.where(np.isnan(expected), np.nan, MEASURED), MEASURED_AT])
    aligned = SiteAlignment(site=4, reference=reference).fit_transform(rows)
    np.testing.assert_allclose(aligned, expected, rtol=0, atol=1e-6)  # R 4.2.2, sva 3.46.0


@pytest.mark.parametrize("sites", [2, 3, 5])
def test_sites_of_training_and_later_samples_of_them_are_aligned_as_by_neurocombat(sites: int) -> None:
    X, site = of_sites(sites=sites, seed=sites)
    new, where = of_sites(50, sites=sites, seed=100)
    theirs = neuroCombat(X.T, pd.DataFrame({"site": site.astype(int)}), "site")
    ours = SiteAlignment(site=40).fit(np.column_stack([X, site]))
    np.testing.assert_allclose(ours.transform(np.column_stack([X, site])), theirs["data"].T, rtol=0, atol=1e-10)
    learnt, row = theirs["estimates"], where.astype(int)
    mean, spread = learnt["stand.mean"][:, 0], np.sqrt(learnt["var.pooled"][:, 0])
    z = ((new - mean) / spread - learnt["gamma.star"][row]) / np.sqrt(learnt["delta.star"][row])
    np.testing.assert_allclose(ours.transform(np.column_stack([new, where])), mean + spread * z, rtol=0, atol=1e-10)


def test_one_feature_alone_has_nothing_to_be_shrunk_towards() -> None:
    X, site = of_sites(90, 1)
    rows = np.column_stack([X, site])
    fitted = SiteAlignment(site=1).fit(rows)
    aligned = fitted.transform(rows)
    for code in range(3):
        np.testing.assert_allclose(aligned[site == code].mean(axis=0), fitted.grand_mean_, atol=1e-12)
        np.testing.assert_allclose(aligned[site == code].std(axis=0, ddof=1), fitted.pooled_sd_, rtol=1e-12)


def test_the_unit_of_a_feature_changes_nothing() -> None:
    X, site = of_sites()
    unit = np.logspace(-6, 6, 40)
    one, other = (SiteAlignment(site=40).fit_transform(np.column_stack([values, site])) for values in (X, X * unit + 3))
    np.testing.assert_allclose((other - 3) / unit, one, rtol=1e-6, atol=1e-6)
    assert np.ptp([one[site == code].mean(axis=0) for code in range(3)], axis=0).max() < 0.2  # shrunk, so not quite 0


def test_a_site_without_variation_in_a_feature_does_not_blow_it_up() -> None:
    X, site = of_sites(60, 4)
    X[:, 1], X[:, 2] = 5.0, 10 * site  # constant; and told by the site alone
    X[site == 0, 3] = np.nan
    fitted = SiteAlignment(site=4).fit(np.column_stack([X, site]))
    assert fitted.slopes_[0, 3] == 1
    new = X.copy()
    new[:, :3] += 0.01
    out = fitted.transform(np.column_stack([new, site]))
    np.testing.assert_allclose(out[:, 1], 5.01, atol=1e-9)
    np.testing.assert_allclose(out[:, 2], 10.01, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(new))


@pytest.mark.parametrize("value", [0.1, 1e5])
def test_a_feature_that_stands_still_at_one_site_is_shifted_there_and_aligned_elsewhere(value: float) -> None:
    X, site = of_sites(60, 8)
    X[site == 1, 0] = value
    X[np.flatnonzero(site == 1)[1:], 1] = np.nan  # one sample has it
    fitted = SiteAlignment(site=8).fit(np.column_stack([X, site]))
    np.testing.assert_array_equal(fitted.slopes_[1, :2], 1.0)
    np.testing.assert_allclose(value + fitted.shifts_[1, 0], fitted.grand_mean_[0], rtol=1e-12)
    without, others = np.delete(X, [0, 1], axis=1), [0, 2]
    alone = SiteAlignment(site=6).fit(np.column_stack([without, site]))
    spread = alone.pooled_sd_
    np.testing.assert_allclose(
        fitted.slopes_[others, 2:], alone.slopes_[others], rtol=0.05
    )  # the priors are of 8 features, not 6
    np.testing.assert_allclose(fitted.shifts_[others, 2:] / spread, alone.shifts_[others] / spread, atol=0.2)


def test_sites_that_do_not_differ_are_left_nearly_as_they_are() -> None:
    X = np.random.default_rng(0).normal(size=(30, 6))
    rows = np.column_stack([np.vstack([X, X]), np.repeat([0.0, 1.0], 30)])
    np.testing.assert_allclose(SiteAlignment(site=6).fit_transform(rows)[:30], SiteAlignment(site=6).fit_transform(rows)[30:])
    assert np.abs(SiteAlignment(site=6).fit_transform(rows)[:30] - X).max() < 0.1


def test_other_sites_are_brought_to_the_reference_site_which_stays_as_it_is() -> None:
    X, site = of_sites(300)
    rows = np.column_stack([X, site])
    fitted = SiteAlignment(site=40, unseen_site="reference", reference=1).fit(rows)
    out = fitted.transform(rows)
    np.testing.assert_array_equal(out[site == 1], X[site == 1])
    mean, spread = X[site == 1].mean(axis=0), X[site == 1].std(axis=0)
    assert np.abs((out[site == 2].mean(axis=0) - mean) / spread).max() < 0.15
    assert np.abs(out[site == 2].std(axis=0) / spread - 1).max() < 0.2
    elsewhere = np.column_stack([X[:5], [7.0, np.nan, 9, 9, 9]])
    np.testing.assert_array_equal(fitted.transform(elsewhere), X[:5])


def test_a_site_that_was_not_seen_is_refused_with_the_way_out() -> None:
    X, site = of_sites(60, 4)
    names = ("A", "B", "C", "D")
    seen = np.where(site == 1, 2.0, site)
    fitted = SiteAlignment(site=4, site_names=names).fit(np.column_stack([X, seen]))
    sentence = (
        r"^Site 'B' was not seen in training \(seen: A, C\)\. "
        r"Set unseen_site: reference to score it against the reference site\.$"
    )
    with pytest.raises(InputError, match=sentence):
        fitted.transform(np.column_stack([X, site]))
    with pytest.raises(
        InputError, match=r"Adapt the model to at least 20 unlabelled samples of it, or set unseen_site: reference"
    ):
        SiteAlignment(site=4, unseen_site="adapt").fit(np.column_stack([X, seen])).transform(np.column_stack([X, site]))


def test_a_site_seen_in_training_is_learnt_again_from_its_samples_alone() -> None:
    X, site = of_sites(150)
    rows = np.column_stack([X, site])
    fitted = SiteAlignment(site=40, site_names=("A", "B", "C"), reference=0).fit(rows)
    adapted = fitted.adapted(rows[site == 1], 3, "B again")
    np.testing.assert_allclose(adapted.slopes_[3], fitted.slopes_[1], rtol=1e-10)
    np.testing.assert_allclose(adapted.shifts_[3], fitted.shifts_[1], rtol=1e-9, atol=1e-10)
    again = np.column_stack([X[site == 1], np.full(50, 3.0)])
    np.testing.assert_allclose(adapted.transform(again), fitted.transform(rows[site == 1]), atol=1e-9)
    assert adapted.site_names == ("A", "B", "C", "B again")
    assert len(fitted.sites_) == 3


def test_adapting_brings_a_new_site_into_line_and_needs_enough_samples() -> None:
    X, site = of_sites(400, sites=4)
    known = site < 3
    fitted = SiteAlignment(site=40, unseen_site="adapt", minimum_cases=30).fit(np.column_stack([X, site])[known])
    half = np.flatnonzero(~known)[::2], np.flatnonzero(~known)[1::2]
    rows = np.column_stack([X, site])
    out = fitted.adapted(rows[half[0]], 3).transform(rows[half[1]])
    spread = fitted.pooled_sd_
    assert np.median(np.abs((out.mean(axis=0) - fitted.grand_mean_) / spread)) < 0.15  # 50 samples: 0.1 is one standard error
    assert np.median(np.abs((X[half[1]].mean(axis=0) - fitted.grand_mean_) / spread)) > 0.8
    with pytest.raises(InputError, match=r"Site '3' has 29 samples to adapt to, fewer than the 30"):
        fitted.adapted(rows[half[0]][:29], 3)
    with pytest.raises(InputError, match="is one of those that the model was trained on"):
        fitted.adapted(rows[half[0]], 2)


@pytest.mark.parametrize(
    ("site", "reference", "sentence"),
    [
        (np.zeros(20), None, "All training samples are from site 'A'"),
        (np.array([0.0] * 19 + [1]), None, "Site 'B' has one sample in a training part"),
        (np.array([0.0, 1] * 10), 2, "Site 'C' .* has no sample in a training part"),
        (np.array([0.0, 1] * 9 + [np.nan] * 2), None, "2 training samples have no site"),
    ],
)
def test_sites_that_cannot_be_aligned_are_refused(site: np.ndarray, reference: int | None, sentence: str) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(InputError, match=sentence):
        SiteAlignment(site=3, reference=reference, site_names=("A", "B", "C")).fit(np.column_stack([X, site]))


def test_both_survive_skops() -> None:
    X, protocol = halle_like(60, 8, 6)
    alignment, rows = aligned_sites(60, 6, 0)
    for fitted, matrix, extra in (
        (regression(X, protocol, categorical=(10,)), np.hstack([X, protocol]), 4),
        (alignment, rows, 1),
    ):
        stored = skops.io.dumps(fitted.restricted([0, 1, 2]))
        assert set(skops.io.get_untrusted_types(data=stored)) <= set(TRUSTED)
        loaded = skops.io.loads(stored, trusted=TRUSTED)
        few = np.hstack([matrix[:, :3], matrix[:, -extra:]])
        np.testing.assert_array_equal(loaded.transform(few), fitted.transform(matrix)[:, :3])


def test_settings_say_which_columns_they_need() -> None:
    index = [f"s{i}" for i in range(4)]
    protocol = pd.DataFrame({"TE": [80.0, 90, np.nan, 90], "direction": ["ROW", "COL", None, "ROW"]}, index=index)
    site = pd.Series(["B", "A", "B", "A"], index=index, name="hospital")
    echo, direction = RegressionHarmoniser(missing="median").inputs(protocol, None)
    assert (echo.levels, direction.levels, echo.missing, echo.family) == ((), ("COL", "ROW"), "impute", "acquisition")
    assert (echo.unseen, direction.unseen) == (None, "ROW")  # the commonest
    assert [one.unseen for one in RegressionHarmoniser().inputs(protocol, None)] == [None, None]
    estimator = RegressionHarmoniser(missing="median").estimator(TEN, (echo, direction))
    assert (estimator.protocol, estimator.categorical, estimator.names) == ((10, 11), (11,), ("TE", "direction"))
    (where,) = CombatHarmoniser(unseen_site="reference", reference="B").inputs(protocol, site)
    assert (where.name, where.levels, where.unseen) == ("hospital", ("A", "B"), "B")
    assert CombatHarmoniser(unseen_site="reference", reference="B").estimator(TEN, (where,)).reference == 1


def test_settings_that_fit_no_column_are_refused() -> None:
    none, site = pd.DataFrame(index=["a"]), pd.Series(["A"], index=["a"], name="site")
    with pytest.raises(InputError, match=r"name its columns under cohort\.acquisition"):
        RegressionHarmoniser().inputs(none, site)
    with pytest.raises(InputError, match=r"name their column under cohort\.site"):
        CombatHarmoniser().inputs(none, None)
    with pytest.raises(InputError, match=r"Site 'Z' .* is not among the training samples' \(A\)"):
        CombatHarmoniser(reference="Z").inputs(none, site)
    with pytest.raises(ValidationError, match="unseen_site: reference needs reference"):
        CombatHarmoniser(unseen_site="reference")


def test_a_parameter_of_a_sequence_concerns_the_features_of_that_sequence_alone() -> None:
    rng = np.random.default_rng(3)
    t2, adc, field = rng.normal(size=(3, 80))
    measured = np.array([2 * t2, 2 * adc, field]).T + rng.normal(size=(80, 3))
    X = np.column_stack([measured, t2, adc, field])
    features = [Feature(name="a", sequence="T2"), Feature(name="b", sequence="ADC"), Feature(name="c")]
    inputs = [Feature(name="t2", sequence="T2"), Feature(name="adc", sequence="ADC"), Feature(name="field")]
    found = RegressionHarmoniser().estimator(features, inputs).fit(X)
    own = [[0, 2], [1, 2], [0, 1, 2]]  # columns of the design that concern each
    for number, columns in enumerate(own):
        judged = OLS(X[:, number], add_constant(X[:, 3:][:, columns])).fit()
        assert found.p_values_[number] == pytest.approx(judged.f_pvalue, abs=1e-10)
        np.testing.assert_allclose(found.coefficients_[[0, *(1 + np.array(columns))], number], judged.params, atol=1e-10)
    assert found.coefficients_[2, 0] == found.coefficients_[1, 1] == 0
    other = X.copy()
    other[:, 4] += 5.0  # the ADC's echo time
    np.testing.assert_array_equal(found.transform(other)[:, 0], found.transform(X)[:, 0])
    np.testing.assert_array_equal(found.restricted([0]).transform(other[:, [0, 3, 4, 5]]), found.transform(other)[:, [0]])
