"""Nine metrics over 1000 bootstrap resamples at n=200: ours against a loop over scikit-learn's functions, same numbers.

Run: ``python benchmarks/metrics.py``. Both are timed in one process; what counts is the ratio.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from sklearn import metrics as sk

from training.metrics import METRICS, WeightedPredictions


def by_sklearn(y: np.ndarray, probability: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """The nine measures of one resample by scikit-learn's functions."""
    return {
        "roc_auc": sk.roc_auc_score(y, probability),
        "pr_auc": sk.average_precision_score(y, probability),
        "accuracy": sk.accuracy_score(y, called),
        "sensitivity": sk.recall_score(y, called, zero_division=np.nan),
        "specificity": sk.recall_score(y, called, pos_label=0, zero_division=np.nan),
        "f1": sk.f1_score(y, called, zero_division=np.nan),
        "npv": sk.precision_score(y, called, pos_label=0, zero_division=np.nan),
        "ppv": sk.precision_score(y, called, zero_division=np.nan),
        "brier": sk.brier_score_loss(y, probability),
    }


def example(n: int = 200, resamples: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities with ties, calls and resampled row numbers."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    probability = np.round(1 / (1 + np.exp(-(rng.normal(size=n) + y))), 2)
    return y, probability, probability >= 0.5, rng.integers(0, n, size=(resamples, n))


def main() -> None:
    warnings.simplefilter("ignore")
    y, probability, called, rows = example()
    start = time.perf_counter()
    loop = [by_sklearn(y[draw], probability[draw], called[draw].astype(int)) for draw in rows]
    plain = time.perf_counter() - start
    ours_times = []
    for _ in range(5):
        start = time.perf_counter()
        weights = np.array([np.bincount(draw, minlength=len(y)) for draw in rows]).astype(float)
        predictions = WeightedPredictions(y, probability, called, weights)
        ours = {metric.name: metric.function(predictions) for metric in METRICS}
        ours_times.append(time.perf_counter() - start)
    worst = max(np.nanmax(np.abs(ours[name] - np.array([one[name] for one in loop]))) for name in ours)
    took = float(np.median(ours_times))
    times = f"loop {plain:.2f} s, ours {took * 1000:.0f} ms, ratio {plain / took:.0f}"
    print(f"1000 resamples x 9 metrics, n=200: {times}; largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
