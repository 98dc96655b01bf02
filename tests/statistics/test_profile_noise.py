"""What clusters say of the outcome where the features are noise, and where they are not."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from training.profile.by_outcome import ChoiceTest, Combine, Outcome, choice_permuted, number_by_outcome
from training.profile.clustering import Clustering, squared_distances

PATIENTS, FEATURES, LARGEST = 100, 30, 6


@dataclass(frozen=True)
class Cohort:
    z: np.ndarray  # (n_patients, n_features)
    labels: np.ndarray  # the planted cluster
    outcome: Outcome


def simulated(rng: np.random.Generator, *, hazard_ratio: float = 1, apart: float = 0) -> Cohort:
    """Three groups of patients whose features are this many standard deviations apart, the third with this hazard ratio.

    About 35 in 100 patients have the event.
    """
    labels = rng.integers(0, 3, PATIENTS)
    z = rng.normal(size=(PATIENTS, FEATURES)) + apart * rng.normal(size=(3, FEATURES))[labels]
    survival = rng.exponential(size=PATIENTS) / np.where(labels == 2, hazard_ratio, 1)
    followed = rng.uniform(0.05, 0.95, PATIENTS)
    z = (z - z.mean(axis=0)) / z.std(axis=0, ddof=1)
    return Cohort(z, labels, Outcome(np.minimum(survival, followed), survival <= followed))


def choice_in(
    cohort: Cohort, rng: np.random.Generator, permutations: int, *, by_outcome: bool = True, combine: Combine = "outcome"
) -> ChoiceTest:
    """Cluster into 2 to 6, let the outcome choose the number and the clusters to join (unless told), and test that."""
    distances = squared_distances(cohort.z)
    candidates = {k: Clustering().cluster(distances, k, rng) for k in range(2, LARGEST + 1)}
    chosen = number_by_outcome(candidates, cohort.outcome) if by_outcome else 3
    return choice_permuted(
        candidates,
        chosen,
        cohort.outcome,
        by_outcome=by_outcome,
        combine=combine,
        permutations=permutations,
        rng=rng,
    )


def found_in_noise(seeds: int, permutations: int, **how: object) -> tuple[int, int]:
    """In how many cohorts of noise the permutation p, and the naive one, is 0.05 or less."""
    honest = naive = 0
    with threadpool_limits(1):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            test = choice_in(simulated(rng), rng, permutations, **how)
            honest, naive = honest + (test.p_value <= 0.05), naive + (test.naive_p <= 0.05)
    return honest, naive


def test_in_noise_the_permuted_choice_finds_nothing_where_the_naive_one_does(
    record_property: Callable[[str, object], None],
) -> None:
    honest, naive = found_in_noise(40, 99)
    record_property("of 40 cohorts of noise", f"permutation p <= 0.05 in {honest}, naive p in {naive}")
    assert honest <= 6, f"and the naive p in {naive}"  # 2 are expected; 6 is three standard errors above
    assert naive >= 12, f"and the permutation p in {honest}"


def test_a_planted_effect_is_found_though_the_choice_is_paid_for() -> None:
    rng = np.random.default_rng(0)
    cohort = simulated(rng, hazard_ratio=5, apart=1)
    test = choice_in(cohort, rng, 199)
    assert test.p_value == test.floor == 0.005
    assert test.exploratory
    three = Clustering().cluster(squared_distances(cohort.z), 3, rng)
    assert adjusted_rand_score(cohort.labels, three.labels) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "naive_at_least"),
    [
        ({"by_outcome": True, "combine": "outcome"}, 30),
        ({"by_outcome": True, "combine": None}, 10),
        ({"by_outcome": False, "combine": "outcome"}, 10),
        ({"by_outcome": False, "combine": ((1, 2), (3,))}, 8),
        ({"by_outcome": False, "combine": None}, 0),
    ],
    ids=["number and groups", "number", "groups", "named groups", "nothing"],
)
def test_over_100_seeds_of_noise_no_choice_is_significant_in_more_than_8(
    how: dict, naive_at_least: int, record_property: Callable[[str, object], None]
) -> None:
    honest, naive = found_in_noise(100, 999, **how)
    record_property("of 100 cohorts of noise", f"permutation p <= 0.05 in {honest}, naive p in {naive}")
    assert honest <= 8, f"and the naive p in {naive}"
    assert naive >= naive_at_least, f"and the permutation p in {honest}"


@pytest.mark.slow
def test_a_planted_effect_is_found_in_most_cohorts() -> None:
    found = []
    with threadpool_limits(1):
        for seed in range(50):
            rng = np.random.default_rng(seed)
            found.append(choice_in(simulated(rng, hazard_ratio=4, apart=1), rng, 199).p_value <= 0.05)
    assert np.mean(found) >= 0.8
