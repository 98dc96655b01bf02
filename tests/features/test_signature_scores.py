"""Scores of single samples: the published rules, other people's numbers, and nothing of the other samples that are scored."""

from __future__ import annotations

from typing import Any

import gseapy
import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from features.errors import InputError
from features.outcome import survival_outcome
from features.signature_scores import SUPERVISED, SignatureScore, enrichment
from features.signatures import Signature, median_vote_score

UNSUPERVISED = ("votes", "mean_z", "ssgsea")
ALL = (*UNSUPERVISED, *SUPERVISED)
LINEAR = ("mean_z", *SUPERVISED)


@parametrize_with_checks(
    [SignatureScore("votes"), SignatureScore("mean_z"), SignatureScore("ssgsea", genes=(0,)), SignatureScore("mean_z", (0,))]
)
def test_scikit_learn_finds_no_fault_with_it(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def two_classes(n: int = 42, p: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Genes of different units, higher in the second third of the samples."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 3 == 0).astype(int)
    return (rng.normal(size=(n, p)) + rng.uniform(0, 1.5, p) * y[:, None]) * rng.uniform(0.5, 3, p) + rng.uniform(5, 12, p), y


def score_of(method: str, p: int = 6, **more: Any) -> SignatureScore:
    """For ssgsea half of the columns are the signature's."""
    return SignatureScore(method, genes=tuple(range(p // 2)) if method == "ssgsea" else (), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ALL)
def test_a_sample_alone_gets_the_score_that_it_gets_among_others(method: str) -> None:
    X, y = two_classes(60, 37)
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    fitted = score_of(method, 37).fit(X[:40], y[:40])
    alone = np.vstack([fitted.transform(row[None]) for row in X])
    np.testing.assert_array_equal(fitted.transform(X), alone)
    np.testing.assert_array_equal(fitted.transform(np.asfortranarray(X)), alone)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("method", ALL)
def test_a_score_survives_being_stored_and_holds_no_training_sample(method: str) -> None:
    X, y = two_classes()
    fitted = score_of(method).fit(X, y)
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=["features.signature_scores.SignatureScore"])
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    held = [value for value in vars(fitted).values() if isinstance(value, np.ndarray)]
    assert held
    assert all(value.ndim == 1 and len(value) <= X.shape[1] for value in held)


@pytest.mark.parametrize("method", ALL)
def test_it_can_be_cloned_with_its_settings(method: str) -> None:
    settings = score_of(method, shrinkage=0.3, penalty=2.0, signs="up")
    assert clone(settings).get_params() == settings.get_params()


@pytest.mark.parametrize("method", ALL)
def test_a_sample_in_which_every_gene_rises_scores_higher(method: str) -> None:
    X, y = two_classes()
    fitted = score_of(method, signs="up").fit(X, y)
    low, high = np.percentile(X, [5, 95], axis=0)
    if method == "ssgsea":
        low[3:], high[3:] = 8.0, 8.0
        low[:3], high[:3] = 7.0, 9.0
    assert fitted.transform(high[None])[0, 0] > fitted.cutoff_ > fitted.transform(low[None])[0, 0]


def test_votes_are_those_of_the_cohort_that_they_were_learnt_from() -> None:
    X, _ = two_classes(41, 9)
    X[np.random.default_rng(2).random(X.shape) < 0.1] = np.nan
    genes = tuple("ABCDEFGHI")
    cohort = median_vote_score(Signature(title="toy", doi="", rule="", genes=genes), pd.DataFrame(X, columns=list(genes)))
    fitted = SignatureScore("votes").fit(X)
    np.testing.assert_array_equal(fitted.transform(X)[:, 0], cohort.to_numpy())
    assert fitted.cutoff_ == cohort.median()


def test_a_missing_value_votes_neither_way_and_else_counts_as_the_training_mean() -> None:
    X, y = two_classes()
    new = X[:1].copy()
    new[0, 2] = np.nan
    votes = SignatureScore("votes").fit(X)
    rest = np.where(X[0] >= votes.median_, 1, -1)
    assert votes.transform(new)[0, 0] == rest.sum() - rest[2]
    for method in LINEAR:
        fitted = SignatureScore(method).fit(X, y)  # type: ignore[arg-type]
        filled = np.where(np.isnan(new), X.mean(axis=0), new)
        np.testing.assert_allclose(fitted.transform(new), fitted.transform(filled), rtol=1e-12)


def test_coverage_of_a_sample_is_the_share_of_genes_that_it_has() -> None:
    X, _ = two_classes()
    fitted = SignatureScore("mean_z", genes=(0, 1, 2, 3)).fit(X)
    X[0, [0, 3, 5]] = np.nan
    np.testing.assert_array_equal(fitted.coverage(X[:2]), [0.5, 1.0])


def test_a_gene_without_any_training_value_and_one_that_does_not_vary_have_no_say() -> None:
    X, y = two_classes()
    X[:, 1], X[:, 4] = np.nan, 0.1
    changed = X.copy()
    changed[:, 1] = changed[:, 4] = 50.0
    for method in LINEAR:
        fitted = SignatureScore(method).fit(X, y)  # type: ignore[arg-type]
        np.testing.assert_array_equal(fitted.transform(changed), fitted.transform(X))
    np.testing.assert_array_equal(SignatureScore("votes").fit(X).transform(changed), SignatureScore("votes").fit(X).transform(X))


def test_mean_z_is_the_mean_of_z_scores() -> None:
    X, _ = two_classes()
    z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    np.testing.assert_allclose(SignatureScore("mean_z").fit_transform(X)[:, 0], z.mean(axis=1), atol=1e-12)


def discriminant_by_hand(X: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Science's formula, gene by gene."""
    total = np.zeros(len(new))
    for gene, values in zip(X.T, new.T, strict=True):
        less, more = gene[y == 0], gene[y == 1]
        pooled = (((less - less.mean()) ** 2).sum() + ((more - more.mean()) ** 2).sum()) / (len(gene) - 2)
        total += (values - (more.mean() + less.mean()) / 2) * (more.mean() - less.mean()) / pooled
    return total


@pytest.mark.parametrize("seed", range(5))
def test_diagonal_discriminant_analysis_is_half_the_difference_of_distances_to_two_centroids(seed: int) -> None:
    X, y = two_classes(seed=seed)
    score = SignatureScore("diagonal_lda").fit(X, y).transform(X)[:, 0]
    np.testing.assert_allclose(score, discriminant_by_hand(X, y, X), rtol=1e-9, atol=1e-9)
    pooled = sum((X[y == k] - X[y == k].mean(axis=0)).T ** 2 @ np.ones((y == k).sum()) for k in (0, 1)) / (len(X) - 2)
    less, more = (((X - X[y == k].mean(axis=0)) ** 2 / pooled).sum(axis=1) for k in (0, 1))
    np.testing.assert_allclose(score, (less - more) / 2, rtol=1e-9, atol=1e-9)


def test_with_one_gene_it_is_linear_discriminant_analysis_at_equal_priors() -> None:
    X, y = two_classes(p=1)
    score = SignatureScore("diagonal_lda").fit(X, y).transform(X)[:, 0]
    rival = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.5, 0.5]).fit(X, y).decision_function(X)
    # scikit-learn divides the variance within classes by 1/2 of each class's own n, at these priors; the sign is the same.
    np.testing.assert_array_equal(score > 0, rival > 0)
    assert np.corrcoef(score, rival)[0, 1] == pytest.approx(1, abs=1e-12)


@given(seed=st.integers(0, 500), shrinkage=st.floats(0, 1), signs=st.sampled_from(["free", "up"]))
@settings(max_examples=40)
def test_the_mean_scores_of_the_two_classes_are_opposite_so_that_the_cutoff_is_0(seed: int, shrinkage: float, signs: str) -> None:
    X, y = two_classes(30, 5, seed)
    for method in ("diagonal_lda", "centroid"):
        fitted = SignatureScore(method, shrinkage=shrinkage, signs=signs).fit(X, y)  # type: ignore[arg-type]
        score = fitted.transform(X)[:, 0]
        assert score[y == 1].mean() + score[y == 0].mean() == pytest.approx(0, abs=1e-9)
        assert score[y == 1].mean() >= 0
        assert fitted.cutoff_ == 0


@given(
    seed=st.integers(0, 500),
    scale=st.lists(st.floats(0.01, 100), min_size=5, max_size=5),
    shift=st.lists(st.floats(-50, 50), min_size=5, max_size=5),
    method=st.sampled_from(LINEAR),
    shrinkage=st.floats(0, 1),
)
@settings(max_examples=60)
def test_the_score_does_not_change_with_the_unit_of_a_gene(
    seed: int, scale: list[float], shift: list[float], method: str, shrinkage: float
) -> None:
    X, y = two_classes(30, 5, seed)
    other = X * np.array(scale) + np.array(shift)
    one, two = (SignatureScore(method, shrinkage=shrinkage).fit(given, y).transform(given) for given in (X, other))  # type: ignore[arg-type]
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_a_gene_that_falls_has_no_weight_where_only_rises_count() -> None:
    X, y = two_classes()
    X[:, 3] = -X[:, 3]
    for method in SUPERVISED:
        free, up = (SignatureScore(method, signs=signs).fit(X, y).weights_ for signs in ("free", "up"))  # type: ignore[arg-type]
        assert free[3] < 0
        assert up[3] == 0
        assert (up >= 0).all()
        assert (up > 0).sum() >= 3


def test_shrinking_wholly_gives_every_gene_the_same_share_of_variance() -> None:
    X, y = two_classes()
    z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    rise = z[y == 1].mean(axis=0) - z[y == 0].mean(axis=0)
    weights = SignatureScore("diagonal_lda", shrinkage=1.0).fit(z, y).weights_
    np.testing.assert_allclose(weights / rise, (weights / rise)[0], rtol=1e-12)


def test_ridge_logistic_regression_is_scikit_learns_at_equal_priors() -> None:
    X, y = two_classes()
    z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    rival = LogisticRegression(C=1 / 0.7, tol=1e-10, max_iter=10_000).fit(z, y)
    expected = rival.decision_function(z) - np.log(y.sum() / (len(y) - y.sum()))
    np.testing.assert_allclose(SignatureScore("ridge_logistic", penalty=0.7).fit(X, y).transform(X)[:, 0], expected, atol=1e-5)


def test_ridge_logistic_regression_stays_where_it_is_when_one_class_is_seen_twice_as_often() -> None:
    X, y = two_classes(300, 3)
    more = np.concatenate([np.arange(300), np.flatnonzero(y == 0), np.flatnonzero(y == 0)])
    one = SignatureScore("ridge_logistic", penalty=1e-6).fit(X, y).transform(X)[:, 0]
    two = SignatureScore("ridge_logistic", penalty=1e-6).fit(X[more], y[more]).transform(X)[:, 0]
    assert np.mean((one > 0) == (two > 0)) > 0.97


def test_centroids_are_those_of_z_scores_and_may_be_given() -> None:
    X, y = two_classes()
    z = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)
    less, more = z[y == 0].mean(axis=0), z[y == 1].mean(axis=0)
    expected = ((z - less) ** 2).sum(axis=1) - ((z - more) ** 2).sum(axis=1)
    np.testing.assert_allclose(SignatureScore("centroid").fit(X, y).transform(X)[:, 0], expected, atol=1e-9)
    given = SignatureScore("centroid", centroids=(tuple(less), tuple(more))).fit(X)
    np.testing.assert_allclose(given.transform(X)[:, 0], expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_enrichment_is_gseapys_to_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(7, 300)) ** 3
    genes = rng.choice(300, 20, replace=False)
    names = [f"G{number}" for number in range(300)]
    table = pd.DataFrame(X.T, index=names, columns=[f"s{number}" for number in range(7)])
    found = gseapy.ssgsea(
        data=table, gene_sets={"set": [names[one] for one in genes]}, outdir=None, sample_norm_method="rank",
        correl_norm_type="rank", weight=0.25, min_size=1, max_size=1000, threads=1,
    ).res2d.set_index("Name").loc[table.columns]  # fmt: skip
    expected = found["ES"].to_numpy(dtype=float)
    np.testing.assert_allclose(enrichment(X, genes), expected, rtol=1e-9)  # gseapy 1.3.1
    fitted = SignatureScore("ssgsea", genes=tuple(genes.tolist())).fit(X)
    np.testing.assert_allclose(fitted.transform(X)[:, 0], found["NES"].to_numpy(dtype=float), rtol=1e-9)  # gseapy 1.3.1


@given(seed=st.integers(0, 500))
@settings(max_examples=30)
def test_enrichment_looks_at_ranks_alone_and_not_at_the_order_of_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 12, size=(3, 20)).astype(float)  # many ties
    order = rng.permutation(20)
    expected = enrichment(X, np.arange(5))
    np.testing.assert_allclose(enrichment(np.exp(X), np.arange(5)), expected, rtol=1e-12)
    np.testing.assert_allclose(enrichment(X[:, order], np.argsort(order)[:5]), expected, rtol=1e-12, atol=1e-12)


def test_votes_do_not_change_with_a_monotone_scale() -> None:
    X, _ = two_classes(41)
    np.testing.assert_array_equal(SignatureScore("votes").fit_transform(np.exp(X)), SignatureScore("votes").fit_transform(X))


@pytest.mark.parametrize("method", UNSUPERVISED)
def test_the_methods_without_classes_do_not_look_at_the_outcome(method: str) -> None:
    X, y = two_classes()
    survival = survival_outcome(np.arange(1.0, len(y) + 1), y)
    np.testing.assert_array_equal(score_of(method).fit(X, survival).transform(X), score_of(method).fit(X, 1 - y).transform(X))


@pytest.mark.parametrize("method", SUPERVISED)
def test_a_method_that_needs_classes_refuses_survival_one_class_and_three(method: str) -> None:
    X, y = two_classes()
    survival = survival_outcome(np.arange(1.0, len(y) + 1), y)
    with pytest.raises(InputError, match=rf"{method} is fitted from an imaging label .*this endpoint is survival; use votes"):
        score_of(method).fit(X, survival)
    for labels in (np.zeros(len(y)), np.arange(len(y)) % 3, (np.arange(len(y)) == 0).astype(int)):
        with pytest.raises(InputError, match="is fitted from two classes with two samples or more each"):
            score_of(method).fit(X, labels)
    with pytest.raises(ValueError, match="requires y to be passed"):
        score_of(method).fit(X)


def test_genes_that_are_not_among_the_columns_are_refused() -> None:
    X, _ = two_classes()
    for genes in ((0, 6), (1, 1)):
        with pytest.raises(ValueError, match="are not different columns of a matrix with 6 columns"):
            SignatureScore("votes", genes=genes).fit(X)
    with pytest.raises(ValueError, match="ssgsea ranks a signature's genes among others"):
        SignatureScore("ssgsea").fit(X)
    with pytest.raises(ValueError, match="Two centroids of 6 genes are needed"):
        SignatureScore("centroid", centroids=((0.0,), (1.0,))).fit(X)


def test_genes_that_vary_only_between_the_classes_are_refused_in_a_sentence() -> None:
    y = np.arange(10) % 2
    with pytest.raises(InputError, match="No gene of the signature varies within the two classes"):
        SignatureScore("diagonal_lda").fit(np.column_stack([y, 0.1 + 0.2 * y]), y)


def test_a_gene_that_varies_only_between_the_classes_has_no_weight_until_its_variance_is_shrunk_to_that_of_others() -> None:
    X, y = two_classes()
    X[:, 2] = 0.1 + 0.2 * y
    assert SignatureScore("diagonal_lda").fit(X, y).weights_[2] == 0
    assert SignatureScore("diagonal_lda", shrinkage=0.5).fit(X, y).weights_[2] > 0


def test_known_centroids_are_for_the_method_of_centroids_alone() -> None:
    X, y = two_classes()
    centroids = (tuple(np.zeros(6)), tuple(np.ones(6)))
    one, two = (SignatureScore("diagonal_lda", centroids=given).fit(X, y) for given in (None, centroids))
    np.testing.assert_array_equal(one.weights_, two.weights_)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method='gsva' is none of votes, mean_z"):
        SignatureScore("gsva").fit(np.ones((3, 2)))  # type: ignore[arg-type]
