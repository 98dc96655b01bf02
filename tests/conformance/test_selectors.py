"""What every selector must do, and what the vote makes of them."""

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import RFE, chi2
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from features.errors import InputError
from training.selection import PUBLISHED_METHODS, SelectionSettings, TrainingMatrix, select

BY_KIND = pytest.mark.parametrize("selector", PUBLISHED_METHODS, ids=lambda selector: selector.kind)


def planted(n: int = 80, p: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise in which feature 7 differs between the classes by two standard deviations."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1], n // 2))
    X = rng.normal(size=(n, p))
    X[:, 7] += 2 * y
    return X, y


@BY_KIND
@pytest.mark.parametrize("p", [40, 200])
def test_a_planted_signal_ranks_first(selector, p: int) -> None:
    X, y = planted(p=p)
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
    assert scores.shape == (200,)
    assert (scores >= 0).all()


@pytest.mark.parametrize(
    "selector", [one for one in PUBLISHED_METHODS if one.kind not in {"random_forest", "lightgbm"}], ids=lambda s: s.kind
)
def test_the_order_of_rows_does_not_matter(selector) -> None:
    X, y = planted()
    order = np.random.default_rng(2).permutation(len(y))
    scores = (selector.rank(TrainingMatrix(a, b), np.random.default_rng(1), 1) for a, b in ((X, y), (X[order], y[order])))
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("n", "p", "seed"), [(60, 400, 0), (60, 400, 1), (85, 150, 2), (150, 60, 3)])
def test_the_vote_equals_the_seven_plain_calls(n: int, p: int, seed: int) -> None:
    X, y = planted(n - n % 2, p, seed)
    names = pd.Index([f"f{i:04d}" for i in range(p)])
    ours = select(SelectionSettings(), pd.DataFrame(X, columns=names), y, np.random.default_rng(seed))
    forest_rng, lightgbm_rng = (np.random.default_rng(seed).spawn(7)[i] for i in (2, 6))
    z = StandardScaler().fit_transform(X)
    logistic = LogisticRegression(C=1.0)
    rfe = RFE(logistic, n_features_to_select=min(100, p), step=0.1).fit(z, y)
    plain = {
        "chi2": chi2(MinMaxScaler().fit_transform(X), y)[0],
        "correlation": [abs(np.corrcoef(column, y)[0, 1]) for column in X.T],
        "random_forest": RandomForestClassifier(500, random_state=int(forest_rng.integers(2**31))).fit(X, y).feature_importances_,
        "linear_regression": np.abs(LinearRegression().fit(z, y).coef_),
        "logistic_regression": np.abs(logistic.fit(z, y).coef_[0]),
        "rfe": np.where(rfe.support_, 1.0, 0.0),
        "lightgbm": LGBMClassifier(importance_type="gain", random_state=int(lightgbm_rng.integers(2**31)), verbose=-1)
        .fit(X, y)
        .feature_importances_,
    }
    for kind, scores in plain.items():
        order = np.lexsort((names, -np.asarray(scores)))[:100]
        expected = {names[i] for i in order if np.asarray(scores)[i] > 0}
        assert set(names[ours.votes[kind]]) == expected, kind


def test_a_feature_that_a_method_finds_useless_gets_no_vote_from_it() -> None:
    X, y = planted(n=85 - 1, p=600)
    votes = select(SelectionSettings(), pd.DataFrame(X).rename(columns=str), y, np.random.default_rng(0)).votes
    assert votes["lightgbm"].sum() < 100 == votes["chi2"].sum()


def test_ties_go_to_the_name_that_sorts_first() -> None:
    y = np.repeat([0, 1], 20)
    column = y + np.random.default_rng(0).normal(size=40)
    X = pd.DataFrame({"b": column, "c": column, "a": column})
    chosen = select(
        SelectionSettings(methods=["correlation", "linear_regression"], top=2, votes=2), X, y, np.random.default_rng(0)
    )
    assert chosen.selected == ("b", "a")


def test_too_few_votes_fall_back_to_the_most_there_are_and_say_so() -> None:
    X, y = planted()
    frame = pd.DataFrame(X).rename(columns=str)
    frame["7"] = np.random.default_rng(9).normal(size=len(y))
    chosen = select(SelectionSettings(top=1, votes=7), frame, y, np.random.default_rng(0))
    assert chosen.fell_back
    assert chosen.votes_used == chosen.votes.sum(axis=1).max() < 7
    assert set(chosen.selected) == set(chosen.votes.index[chosen.votes.sum(axis=1) == chosen.votes_used])


def test_features_of_no_use_to_any_method_are_refused() -> None:
    X = pd.DataFrame({"a": np.tile([0.0, 1.0], 20)})
    y = np.repeat([0, 1], 20)
    with pytest.raises(InputError, match="No selection method found any use"):
        select(SelectionSettings(methods=["correlation"], votes=1), X - X.mean(), y, np.random.default_rng(0))
