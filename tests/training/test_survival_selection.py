"""Selectors for survival against R and lifelines, and what every selector must do."""

import numpy as np
import pytest
from lifelines.datasets import load_lung
from lifelines.utils import concordance_index

from features.outcome import survival_outcome
from features.risk import cox_coefficients
from training.selection import TrainingMatrix
from training.survival_selection import SURVIVAL_METHODS, concordances, ridge_cox_coefficients, score_statistics

BY_KIND = pytest.mark.parametrize("selector", SURVIVAL_METHODS, ids=lambda selector: selector.kind)


def planted(n: int = 120, p: int = 150, seed: int = 0, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Noise in which feature 7 raises the hazard."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    time = 24 * rng.exponential(np.exp(-1.5 * X[:, 7]))
    return X, survival_outcome(np.ceil(time / 6) if tied else time, rng.random(n) < 0.7)


@BY_KIND
@pytest.mark.parametrize("tied", [False, True])
def test_a_planted_signal_ranks_first(selector, tied: bool) -> None:
    X, y = planted(tied=tied)
    assert np.argmax(selector.rank(TrainingMatrix(X, y), np.random.default_rng(1), 1)) == 7


@BY_KIND
def test_a_feature_that_lowers_the_hazard_ranks_as_high(selector) -> None:
    X, y = planted()
    X[:, 7] *= -1
    assert np.argmax(selector.rank(TrainingMatrix(X, y), np.random.default_rng(1), 1)) == 7


@BY_KIND
def test_equal_generators_and_any_number_of_threads_give_equal_scores(selector) -> None:
    X, y = planted()
    once, again = (selector.rank(TrainingMatrix(X, y), np.random.default_rng(5), threads) for threads in (1, 2))
    np.testing.assert_array_equal(once, again)


@BY_KIND
def test_there_is_one_score_per_feature_and_none_is_negative(selector) -> None:
    X, y = planted()
    scores = selector.rank(TrainingMatrix(X, y), np.random.default_rng(1), 1)
    assert scores.shape == (150,)
    assert (scores >= 0).all()


@pytest.mark.parametrize("selector", SURVIVAL_METHODS[:3], ids=lambda selector: selector.kind)
def test_the_order_of_rows_does_not_matter(selector) -> None:
    X, y = planted(tied=True)
    order = np.random.default_rng(2).permutation(len(y))
    scores = (selector.rank(TrainingMatrix(a, b), np.random.default_rng(1), 1) for a, b in ((X, y), (X[order], y[order])))
    np.testing.assert_allclose(*scores, rtol=1e-6, atol=1e-9)


def test_score_statistics_are_those_of_r_with_ties() -> None:
    lung = load_lung()
    y = survival_outcome(lung["time"].to_numpy(float), lung["status"].to_numpy())
    found = score_statistics(lung[["age", "sex"]].to_numpy(float), y)
    np.testing.assert_allclose(found**2, [4.1538753257826, 10.3251484957465], atol=1e-9)  # R survival 3.5.3, coxph()$score
    assert found[0] > 0 > found[1]  # older is worse, and women (2) do better


def test_concordances_are_those_of_r_and_lifelines_with_ties() -> None:
    lung = load_lung()
    y = survival_outcome(lung["time"].to_numpy(float), lung["status"].to_numpy())
    found = concordances(lung[["age", "sex"]].to_numpy(float), y)
    np.testing.assert_allclose(found, [0.550239832117518, 0.421355051463975], atol=1e-12)  # R survival 3.5.3, concordance()
    assert found[0] == pytest.approx(1 - concordance_index(lung["time"], lung["age"], lung["status"]), abs=1e-12)


def test_a_feature_that_does_not_vary_among_those_at_risk_says_nothing() -> None:
    y = survival_outcome(np.array([1.0, 2, 3, 4]), np.array([0, 1, 1, 1]))
    assert score_statistics(np.array([[5.0], [1], [1], [1]]), y) == [0.0]


def test_nothing_can_be_compared_where_the_only_event_is_last() -> None:
    y = survival_outcome(np.array([1.0, 2, 3]), np.array([0, 0, 1]))
    assert concordances(np.array([[1.0], [2], [3]]), y) == [0.5]


def test_ridge_in_the_space_of_the_samples_is_ridge_in_that_of_the_features() -> None:
    X, y = planted(n=40, p=90, tied=True)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(ridge_cox_coefficients(z, y, 0.1), cox_coefficients(z, y, 0.1), atol=1e-8)
