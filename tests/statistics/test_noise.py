"""Statistics at full size: minutes to an hour; `make test-slow`."""

import numpy as np
import pytest
from toy import binormal_predictions, toy_cohort, toy_study

from training.evaluation import EvaluationSettings, evaluate, validate_internally
from training.recipe import Recipe
from training.workers import Workers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("search", [{"kind": "tpot", "generations": 3, "population": 12}, {"kind": "optuna", "trials": 36}])
def test_pure_noise_has_an_internal_auc_near_one_half_over_ten_seeds(search: dict) -> None:
    recipe = Recipe.model_validate({"search": search})
    settings = toy_study(evaluation={"bootstrap": 200, "internal": {"folds": 5}}).evaluation
    with Workers(2) as workers:
        found = [
            validate_internally(
                recipe, toy_cohort(85, p=4032, signal=0, seed=seed), settings, np.random.default_rng(seed), workers
            )
            for seed in range(10)
        ]
    assert 0.40 <= np.mean([one.estimates["roc_auc"].value for one in found]) <= 0.60


@pytest.mark.parametrize(("n", "lesions"), [(40, 1), (120, 1), (60, 3)])
def test_intervals_of_the_auc_cover_at_nearly_their_level(n: int, lesions: int) -> None:
    settings = EvaluationSettings(bootstrap=1000)
    covered = 0
    for seed in range(1000):
        estimate = evaluate(binormal_predictions(n, lesions, seed), settings, np.random.default_rng(seed)).estimates["roc_auc"]
        covered += estimate.lower <= 0.7602 <= estimate.upper  # Phi(1 / sqrt 2)
    assert 0.91 <= covered / 1000 <= 0.98
