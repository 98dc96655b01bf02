"""Ensemble selection against the seven plain scikit-learn and LightGBM calls one after the other: time and result.

Run: ``python benchmarks/selection.py``. Both are timed in turn in one process; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import RFE, chi2
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from features.cohort import load_cohort
from training.config import load_study
from training.partition import hold_out
from training.recipe import complete
from training.selection import SelectionSettings, select


def plain_scores(X: np.ndarray, y: np.ndarray, seeds: list[int], tol: float = 1e-4) -> dict[str, np.ndarray]:
    """The seven calls as a user would write them."""
    z = StandardScaler().fit_transform(X)
    logistic = LogisticRegression(C=1.0, tol=tol, max_iter=10_000)
    rfe = RFE(logistic, n_features_to_select=min(100, X.shape[1]), step=0.1).fit(z, y)
    eliminated = np.zeros(X.shape[1])
    eliminated[rfe.support_] = np.abs(rfe.estimator_.coef_[0])
    return {
        "chi2": chi2(MinMaxScaler().fit_transform(X), y)[0],
        "correlation": np.abs([np.corrcoef(column, y)[0, 1] for column in X.T]),
        "random_forest": RandomForestClassifier(500, random_state=seeds[0], n_jobs=2).fit(X, y).feature_importances_,
        "linear_regression": np.abs(LinearRegression().fit(z, y).coef_),
        "logistic_regression": np.abs(logistic.fit(z, y).coef_[0]),
        "rfe": eliminated,
        "lightgbm": LGBMClassifier(importance_type="gain", random_state=seeds[1], n_jobs=2, verbose=-1)
        .fit(X, y)
        .feature_importances_,
    }


def plain_votes(scores: dict[str, np.ndarray], names: pd.Index, top: int = 100) -> pd.DataFrame:
    """Top-100 votes of the plain calls: zero never, ties by name."""
    votes = {}
    for kind, score in scores.items():
        order = np.lexsort((names.to_numpy(dtype=str), -np.nan_to_num(score)))[:top]
        chosen = np.zeros(len(names), dtype=bool)
        chosen[order] = np.nan_to_num(score)[order] > 0
        votes[kind] = chosen
    return pd.DataFrame(votes, index=names)


def seeds_of(seed: int) -> list[int]:
    """Random states that `select` draws for the forest and for LightGBM from this seed."""
    generators = np.random.default_rng(seed).spawn(7)
    return [int(generators[2].integers(2**31)), int(generators[6].integers(2**31))]


def noise_with_signal() -> tuple[pd.DataFrame, np.ndarray]:
    """85 x 4032 independent features, 30 of which differ between the classes."""
    rng = np.random.default_rng(85)
    y = (np.arange(85) < 42).astype(int)
    X = pd.DataFrame(rng.normal(size=(85, 4032)), columns=[f"f{i:05d}" for i in range(4032)])
    X.iloc[:, :30] += 0.8 * y[:, None]
    return X, y


def demo_training_part() -> tuple[pd.DataFrame, np.ndarray]:
    """Development patients of the demo: 93 tumours, about 15,487 genes (real, correlated)."""
    study = load_study(Path(__file__).parents[1] / "configs" / "demo.yaml")
    cohort = load_cohort(study.cohort, study.folder)
    training = cohort.subset(hold_out(cohort, study.partition.held_out, study.rng("held out")).train)
    return complete(training.features), training.y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for X, y in (noise_with_signal(), demo_training_part()):
        n, p = X.shape
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for seed in range(rounds):
            start = time.perf_counter()
            plain = plain_votes(plain_scores(X.to_numpy(), y, seeds_of(seed)), X.columns)
            times["plain"].append(time.perf_counter() - start)
            start = time.perf_counter()
            ours = select(SelectionSettings(), X, y, np.random.default_rng(seed), threads=2)
            times["ours"].append(time.perf_counter() - start)
        same = set(X.columns[plain.sum(axis=1) >= 4]) == set(ours.selected)
        differing = {kind: int((plain[kind] != ours.votes[kind]).sum()) for kind in plain}
        ratio = float(np.median(np.array(times["plain"]) / np.array(times["ours"])))
        print(
            f"{n} x {p}: plain {np.median(times['plain']):.2f} s, ours {np.median(times['ours']):.2f} s, ratio {ratio:.2f} "
            f"(median of {rounds}); same selection: {same} ({len(ours.selected)} features); differing votes {differing}"
        )


if __name__ == "__main__":
    main()
