"""What the search for a line finds where there is nothing, and where there is something."""

from dataclasses import dataclass

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from training.composite.honest import Biomarkers, apparent, cross_validated, permutation_p, stability
from training.composite.rules import SeparatingLine
from training.simulate import SimulationSettings, simulate_cohort
from training.survival.cox import hazard_ratio

LINE = SeparatingLine()
PAPER = {"n": 118, "events": 41}


def simulated(rng: np.random.Generator, effect: float, **size: float) -> Biomarkers:
    settings = SimulationSettings(imaging_effect=effect, gene_effect=effect, **(size or PAPER))
    table = simulate_cohort(settings, rng).table
    values = table[["hypoxic_fraction", "gene_score"]].to_numpy()
    return Biomarkers(values, table["pfs_months"].to_numpy(), table["progressed"].to_numpy(), table["patient"].to_list())


def p_values_of_nothing(cohorts: int, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Permutation and naive p values of null cohorts."""
    rng = np.random.default_rng(seed)
    found = [permutation_p(LINE, simulated(rng, effect=1), permutations, rng) for _ in range(cohorts)]
    return np.array([one.p_value for one in found]), np.array([one.naive_p for one in found])


@dataclass(frozen=True)
class Judged:
    """Geometric means of hazard ratios over cohorts."""

    apparent: float
    bootstrap: float
    cross_validated: float
    truth: float


def judged(cohorts: int, effect: float, repeats: int, resamples: int, seed: int) -> Judged:
    """The truth is the hazard ratio of each cohort's line in 20,000 other patients."""
    rng = np.random.default_rng(seed)
    everyone = simulated(rng, effect, n=20_000, events=20_000 * PAPER["events"] / PAPER["n"])
    rows = []
    with threadpool_limits(1):
        for _ in range(cohorts):
            data = simulated(rng, effect)
            fitted = data.fit(LINE)
            high = fitted.rule.transform(everyone.whole)[:, 0] >= 0
            rows.append(
                [
                    apparent(fitted, data).hazard_ratio.value,
                    stability(LINE, data, resamples, rng).corrected,
                    cross_validated({"line": LINE}, data, rng, repeats=repeats).rules["line"].geometric_mean,
                    hazard_ratio(everyone.time, everyone.event, high).value,
                ]
            )
    return Judged(*np.exp(np.log(rows).mean(axis=0)))


def test_the_permutation_p_keeps_its_promise_where_the_naive_one_does_not() -> None:
    honest, naive = p_values_of_nothing(cohorts=40, permutations=39, seed=0)
    assert np.mean(honest <= 0.05) <= 0.15  # 0.05 within 3 standard errors
    assert np.mean(naive <= 0.05) >= 0.25
    assert 0.35 <= np.mean(honest) <= 0.65


def test_the_cross_validated_hazard_ratio_is_nearer_the_truth_than_the_apparent_one() -> None:
    found = judged(cohorts=12, effect=1.5, repeats=1, resamples=5, seed=0)
    assert found.cross_validated == pytest.approx(found.truth, rel=0.4)
    assert found.apparent > 1.4 * found.truth


@pytest.mark.slow
def test_over_200_null_cohorts_the_permutation_p_is_calibrated_and_the_naive_one_is_not() -> None:
    honest, naive = p_values_of_nothing(cohorts=200, permutations=999, seed=1)
    assert 0.02 <= np.mean(honest <= 0.05) <= 0.09
    assert np.mean(naive <= 0.05) > 0.35


@pytest.mark.slow
def test_with_a_real_effect_only_the_cross_validated_hazard_ratio_is_within_15_percent_of_the_truth() -> None:
    found = judged(cohorts=80, effect=1.5, repeats=2, resamples=20, seed=0)
    assert found.cross_validated == pytest.approx(found.truth, rel=0.15)
    assert found.apparent > 1.5 * found.truth
    assert found.bootstrap > 1.1 * found.truth  # removes too little


@pytest.mark.slow
def test_without_an_effect_the_apparent_hazard_ratio_is_far_from_one_and_the_cross_validated_is_not() -> None:
    found = judged(cohorts=100, effect=1.0, repeats=1, resamples=20, seed=0)
    assert found.truth == pytest.approx(1, abs=0.1)
    assert found.cross_validated == pytest.approx(1, abs=0.2)  # four standard errors
    assert found.apparent > 2
    assert found.bootstrap > 1.2
