"""Comparison at full size: minutes; `make test-slow`."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from toy import binormal_predictions

from training.compare import Resampling, best_of
from training.paired import bootstrap_p_value, delong_test, paired_values

pytestmark = pytest.mark.slow


def sequences(seed: int, steps: list[float], patients: int, shared: float) -> dict[str, pd.DataFrame]:
    """Sequences of given worth (distance between the classes) on the same patients, of whom each lacks a few."""
    rng = np.random.default_rng(seed)
    table, common = binormal_predictions(patients), rng.normal(size=patients)
    made = {}
    for number, step in enumerate(steps):
        score = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=patients) + step * table["label"]
        dropped = rng.choice(patients, rng.integers(0, patients // 6), replace=False)
        made[str(number)] = table.assign(probability=norm.cdf(score)).drop(index=dropped)
    return made


@pytest.mark.parametrize("shared", [0.0, 0.5])
@pytest.mark.parametrize(
    ("steps", "patients"), [([0.0] * 9, 36), ([0.0] * 9, 120), ([0.0] * 3, 60), ([0, 0.25, 0.5, 0.75, 1.0], 60)]
)
def test_the_best_of_several_sequences_is_covered(steps: list[float], patients: int, shared: float) -> None:
    covered = 0
    for seed in range(600):
        found = best_of(sequences(seed, steps, patients, shared), Resampling(count=1000, seed=seed))
        true = norm.cdf(steps[int(found.sequence)] / np.sqrt(2))
        covered += found.corrected.lower <= true <= found.corrected.upper
    assert covered / 600 >= 0.93


@pytest.mark.parametrize("patients", [40, 120])
def test_equal_models_are_told_apart_at_the_level_of_the_test(patients: int) -> None:
    by_delong, by_bootstrap = 0, 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        table, common = binormal_predictions(patients), rng.normal(size=patients)
        a, b = (table.assign(probability=norm.cdf((common + table["label"] + rng.normal(size=patients)) / 2)) for _ in range(2))
        y = table["label"].to_numpy()
        by_delong += delong_test(y, a["probability"].to_numpy(), b["probability"].to_numpy()).p_value < 0.05
        by_bootstrap += bootstrap_p_value(paired_values(a, b, "roc_auc", rng, 1000)) < 0.05
    assert 0.03 <= by_delong / 1000 <= 0.075
    assert 0.02 <= by_bootstrap / 1000 <= 0.085
