"""Platforms are brought together gene by gene, from stored reference samples, and an unknown one is refused."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from features.errors import InputError
from features.feature import Feature
from features.platforms import Harmoniser, PlatformCentring, PlatformHarmoniser
from features.signature_scores import SignatureScore

PLATFORMS = ("WG-6", "HT-12", "RT-qPCR")


@parametrize_with_checks([PlatformCentring(), PlatformCentring(scale=True)])
def test_scikit_learn_finds_no_fault_with_it(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def on_two_platforms(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six genes and the platform's code; the genes as they are; the class. The second platform has its own origin and unit."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) // 2 % 2).astype(int)
    platform = (np.arange(n) % 2).astype(float)
    genes = rng.normal(8, 1, (n, 6)) + y[:, None]
    measured = np.where(platform[:, None] == 1, genes * rng.uniform(0.4, 2, 6) + rng.normal(0, 4, 6), genes)
    return np.column_stack([measured, platform]), genes, y


@pytest.mark.parametrize("scale", [False, True])
def test_every_platform_gets_the_same_mean_and_with_scaling_the_same_spread(scale: bool) -> None:
    X, _, _ = on_two_platforms()
    out = PlatformCentring(site=6, scale=scale).fit_transform(X)
    first, second = out[X[:, 6] == 0], out[X[:, 6] == 1]
    np.testing.assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=1e-12)
    alike = np.isclose(first.std(axis=0, ddof=1), second.std(axis=0, ddof=1), rtol=1e-10)
    assert alike.all() if scale else not alike.any()


def test_a_gene_learns_nothing_from_another() -> None:
    X, _, _ = on_two_platforms()
    out = PlatformCentring(site=6).fit_transform(X)
    np.testing.assert_allclose(PlatformCentring(site=1).fit_transform(X[:, [2, 6]])[:, 0], out[:, 2], rtol=1e-14)


@given(seed=st.integers(0, 300))
@settings(max_examples=20)
def test_a_sample_alone_is_re_centred_as_it_is_among_others(seed: int) -> None:
    X, _, _ = on_two_platforms(seed=seed)
    X[np.random.default_rng(seed).random(X.shape[0]) < 0.1, 0] = np.nan
    fitted = PlatformCentring(site=6, scale=True).fit(X)
    np.testing.assert_array_equal(fitted.transform(X), np.vstack([fitted.transform(row[None]) for row in X]))


def test_a_single_sample_of_an_unknown_platform_is_refused_in_a_sentence() -> None:
    X, _, _ = on_two_platforms()
    fitted = PlatformCentring(site=6, site_names=PLATFORMS).fit(X)
    new = X[:1].copy()
    new[0, 6] = 2
    with pytest.raises(InputError, match=r"Adapt the model to at least 30 reference samples measured on it\.$"):
        PlatformCentring(site=6, unseen_site="adapt", minimum_cases=30).fit(X).transform(new)
    with pytest.raises(
        InputError, match=r"Platform 'RT-qPCR' has no stored reference \(there is one of: WG-6, HT-12\), and a single"
    ):
        fitted.transform(new)
    new[0, 6] = np.nan
    with pytest.raises(InputError, match="A sample without a platform has no stored reference"):
        fitted.transform(new)


def test_a_new_platform_is_added_from_reference_samples_of_it_alone() -> None:
    X, genes, _ = on_two_platforms()
    fitted = PlatformCentring(site=6, minimum_cases=20, site_names=PLATFORMS[:2], scale=True).fit(X)
    new = np.column_stack([genes * 3 - 11, np.full(len(genes), np.nan)])
    with pytest.raises(InputError, match="has 19 samples to adapt to, fewer than the 20"):
        fitted.adapted(new[:19], 2, "RT-qPCR")
    adapted = fitted.adapted(new, 2, "RT-qPCR")
    new[:, 6] = 2
    out = adapted.transform(new)
    np.testing.assert_allclose(out.mean(axis=0), fitted.grand_mean_, atol=1e-9)
    np.testing.assert_allclose(out.std(axis=0, ddof=1), fitted.pooled_sd_, rtol=1e-9)
    np.testing.assert_array_equal(adapted.transform(X), fitted.transform(X))


def test_a_gene_that_does_not_vary_on_a_platform_is_shifted_only() -> None:
    X, _, _ = on_two_platforms()
    X[X[:, 6] == 1, 0] = 3.3
    out = PlatformCentring(site=6, scale=True).fit_transform(X)
    assert np.isfinite(out).all()
    assert np.ptp(out[X[:, 6] == 1, 0]) == 0


def test_a_classifier_of_one_platform_tells_the_classes_on_another_by_its_reference() -> None:
    X, genes, y = on_two_platforms(200)
    aligned = make_pipeline(PlatformCentring(site=6, scale=True), SignatureScore("diagonal_lda")).fit(X, y)
    shifted = np.column_stack([0.5 * genes + 9, np.full(len(genes), 2.0)])
    as_it_is = aligned[1:].transform(shifted[:, :6])[:, 0] > 0
    assert as_it_is.all()  # all called more hypoxic, since the platform reads higher
    steps = [("platform", aligned[0].adapted(shifted[:100], 2, "RT-qPCR")), ("score", aligned[1])]
    called = Pipeline(steps).transform(shifted[100:])[:, 0] > 0
    assert called[y[100:] == 1].mean() > 0.8
    assert called[y[100:] == 0].mean() < 0.2


def test_it_survives_being_stored() -> None:
    X, _, _ = on_two_platforms()
    fitted = PlatformCentring(site=6, scale=True, site_names=PLATFORMS).fit(X)
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=["features.platforms.PlatformCentring"])
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    assert loaded.words == "re-centring and re-scaling of each gene over 2 platforms"
    np.testing.assert_array_equal(loaded.restricted([4, 1]).transform(X[:, [4, 1, 6]]), fitted.transform(X)[:, [4, 1]])


def test_a_study_can_ask_for_it() -> None:
    parsed = TypeAdapter(Harmoniser).validate_python({"kind": "platform", "scale": True})
    assert isinstance(parsed, PlatformHarmoniser)
    genes = tuple(Feature(name=name) for name in "AB")
    made = parsed.estimator(genes, (Feature(name="platform", levels=PLATFORMS),))
    assert made.get_params() == PlatformCentring(2, "adapt", None, 20, PLATFORMS, True).get_params()
