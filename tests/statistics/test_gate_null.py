"""How often the gate promotes a model that is no better, and how often one that is: reduced here, at full size when slow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.training.rivals import pair, predicted, rival
from training.gate import Looks, Verdict, judge
from training.gate_policy import GatePolicy

QUICK = GatePolicy(bootstrap=500)

# Patients, events, lesions per patient, area of both models, correlation of their scores.
NULL_PAIRS = [
    (30, 10, 1, 0.5, 0.3),
    (40, 10, 1, 0.7, 0.5),
    (40, 20, 1, 0.85, 0.0),
    (100, 20, 1, 0.85, 0.5),
    (200, 60, 1, 0.9, 0.8),
    (30, 10, 3, 0.85, 0.5),
    (40, 20, 3, 0.7, 0.2),
    (100, 30, 4, 0.8, 0.5),
]


def verdict_on(old: pd.DataFrame | None, new: pd.DataFrame, policy: GatePolicy, looks: Looks | None = None) -> Verdict:
    champion = None if old is None else rival(old, "1")
    return judge(rival(new, "2"), champion, policy, alias="champion", looks=looks or Looks())


def outcome(verdict: Verdict, name: str) -> str:
    return next(check.outcome for check in verdict.checks if check.name == name)


def promoted(setting: tuple[int, int, int, float, float], aucs: tuple[float, float], count: int, policy: GatePolicy) -> float:
    """Share of pairs in which superiority was found."""
    n, events, lesions, _, shared = setting
    passed = 0
    for seed in range(count):
        old, new = pair(np.random.default_rng(seed), n, events, aucs, shared, lesions)
        passed += outcome(verdict_on(old, new, policy), "superiority") == "passed"
    return passed / count


@pytest.mark.parametrize("setting", [NULL_PAIRS[1], NULL_PAIRS[5]])
def test_a_model_that_is_no_better_is_seldom_promoted(setting: tuple[int, int, int, float, float]) -> None:
    assert promoted(setting, (setting[3], setting[3]), 200, QUICK) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("setting", NULL_PAIRS)
def test_a_model_that_is_no_better_is_promoted_at_most_one_time_in_twenty(setting: tuple[int, int, int, float, float]) -> None:
    assert promoted(setting, (setting[3], setting[3]), 1000, QUICK) <= 0.05


def test_a_worse_model_is_promoted_hardly_ever() -> None:
    assert promoted(NULL_PAIRS[1], (0.8, 0.65), 100, QUICK) <= 0.01


def test_a_truly_better_model_is_accepted_at_moderate_n() -> None:
    accepted = []
    for seed in range(40):
        old, new = pair(np.random.default_rng(seed), 120, 60, (0.65, 0.85), shared=0.3)
        accepted.append(verdict_on(old, new, QUICK).outcome == "passed")
    assert np.mean(accepted) >= 0.8


def test_a_first_version_of_noise_is_seldom_promoted() -> None:
    noise = [pair(np.random.default_rng(seed), 40, 20, (0.5, 0.5))[0] for seed in range(200)]
    assert np.mean([outcome(verdict_on(None, one, QUICK), "floor") == "passed" for one in noise]) <= 0.05


@pytest.mark.slow
def test_six_challengers_that_are_no_better_one_after_the_other_are_promoted_at_most_one_time_in_twenty() -> None:
    """Each is compared with the same champion on the same patients: the levels of the looks must add up."""
    any_promoted = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        label = (np.arange(80) < 40).astype(int)
        common, *own = rng.normal(size=(8, 80))
        champion, *challengers = (predicted(label, np.sqrt(0.5) * (common + one), 0.75) for one in own)
        for look, challenger in enumerate(challengers):
            if outcome(verdict_on(champion, challenger, QUICK, Looks(earlier=look)), "superiority") == "passed":
                any_promoted += 1
                break
    assert any_promoted / 400 <= 0.05


@pytest.mark.slow
def test_the_best_of_twenty_that_are_no_better_passes_too_often_unless_every_study_counts_as_a_look() -> None:
    found = {"gate": 0, "runs": 0}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        label = (np.arange(80) < 40).astype(int)
        champion, *others = (predicted(label, noise, 0.75) for noise in rng.normal(size=(21, 80)))
        best = max(others, key=lambda one: roc_auc_score(one["label"], one["probability"]))
        for count in found:
            policy = GatePolicy.model_validate({"bootstrap": 500, "count": count})
            found[count] += outcome(verdict_on(champion, best, policy, Looks(runs=21)), "superiority") == "passed"
    assert found["gate"] / 150 > 0.05
    assert found["runs"] / 150 <= 0.05
