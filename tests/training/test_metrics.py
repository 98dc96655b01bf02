"""Nine measures against scikit-learn's, resample by resample, and against a published table."""

import numpy as np
import pytest
from sklearn import metrics as sk

from training.metrics import METRIC, METRICS, WeightedPredictions

SKLEARN = {
    "roc_auc": lambda y, p, c: sk.roc_auc_score(y, p),
    "pr_auc": lambda y, p, c: sk.average_precision_score(y, p),
    "accuracy": lambda y, p, c: sk.accuracy_score(y, c),
    "sensitivity": lambda y, p, c: sk.recall_score(y, c, zero_division=np.nan),
    "specificity": lambda y, p, c: sk.recall_score(y, c, pos_label=0, zero_division=np.nan),
    "f1": lambda y, p, c: sk.f1_score(y, c, zero_division=np.nan),
    "npv": lambda y, p, c: sk.precision_score(y, c, pos_label=0, zero_division=np.nan),
    "ppv": lambda y, p, c: sk.precision_score(y, c, zero_division=np.nan),
    "brier": lambda y, p, c: sk.brier_score_loss(y, p),
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("cut", [0.5, 0.95])
def test_every_resample_has_sklearns_number(metric, cut: float) -> None:
    rng = np.random.default_rng(3)
    y = (rng.random(60) < 0.4).astype(int)
    probability = np.round(rng.random(60) * 0.7 + 0.3 * y, 2)  # with ties
    called = probability >= cut
    draws = rng.integers(0, 60, size=(200, 60))
    weights = np.array([np.bincount(draw, minlength=60) for draw in draws]).astype(float)
    ours = metric.function(WeightedPredictions(y, probability, called, weights))
    theirs = [SKLEARN[metric.name](y[draw], probability[draw], called[draw].astype(int)) for draw in draws]
    np.testing.assert_allclose(ours, theirs, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_perfect_prediction_is_best_and_an_inverted_one_worse(metric) -> None:
    y = np.array([0, 0, 0, 1, 1])

    def value(probability: np.ndarray) -> float:
        predictions = WeightedPredictions(y, probability, probability >= 0.5, np.ones((1, 5)))
        return float(metric.function(predictions)[0])

    perfect, inverted = value(y.astype(float)), value(1.0 - y)
    assert perfect == (1.0 if metric.greater_is_better else 0.0)
    assert (perfect > inverted) == metric.greater_is_better


def test_the_published_table_comes_out_of_its_counts() -> None:
    # Bodalal 2023, Table 2, TE75: TP 12, FN 3, TN 6, FP 8, printed to three decimals.
    y = np.repeat([1, 1, 0, 0], [12, 3, 6, 8])
    called = np.repeat([True, False, False, True], [12, 3, 6, 8])
    predictions = WeightedPredictions(y, called.astype(float), called, np.ones((1, 29)))
    printed = {"accuracy": 0.621, "sensitivity": 0.800, "specificity": 0.429, "npv": 0.667, "ppv": 0.600, "f1": 0.686}
    assert {name: round(float(METRIC[name].function(predictions)[0]), 3) for name in printed} == printed


@pytest.mark.parametrize(
    ("name", "called", "y"), [("ppv", 0, [0, 1]), ("npv", 1, [0, 1]), ("sensitivity", 1, [0, 0]), ("f1", 0, [0, 0])]
)
def test_an_undefined_ratio_is_not_zero(name: str, called: int, y: list[int]) -> None:
    calls = np.full(2, bool(called))
    predictions = WeightedPredictions(np.array(y), np.array([0.2, 0.8]), calls, np.ones((1, 2)))
    assert np.isnan(METRIC[name].function(predictions)[0])
