import numpy as np
import pytest
from lifelines.datasets import load_lung

from features.errors import InputError
from training.composite.logrank import LogRankScorer
from training.cutpoints import lausen92, lausen94, log_rank_scores, maximally_selected


def made(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A biomarker and follow-up without ties, by formulas that any language computes alike."""
    i = np.arange(1, n + 1)
    if n == 60:
        return (i * 37) % 101, (i * 53) % 127 + i / 1000, (i * 29) % 7 > 2
    return np.sin(i * 1.7), np.exp(np.cos(i * 2.3) + 0.7 * np.sin(i * 1.7)) * 20 + i / 1e4, np.cos(i * 3.1) > -0.3


def lung() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Age in R's lung data; of tied times only the first patient."""
    table = load_lung().drop_duplicates("time")
    return table["age"].to_numpy(), table["time"].to_numpy(), table["status"].to_numpy()


# maxstat.test(Surv(t, e) ~ x, smethod = "LogRank", pmethod = "Lau92" and "Lau94"), R maxstat 0.7.25:
# data, shares, statistic M, cutpoint, p of 1992, p of 1994, cutpoints; to 1e-9. R does not stop the latter p at 1.
REFERENCE = [
    (made(60), (0.1, 0.9), 1.346000399355, 10, 0.90652979539, 1.99824991674, 49),
    (made(60), (0.25, 0.75), 0.625858920333, 67, 1, 2.63795035959, 31),
    (made(118), (0.1, 0.9), 4.980038098887, 0.755640225739, 3.58139035031e-05, 2.58685992939e-05, 96),
    ((np.round(made(60)[0] / 10), *made(60)[1:]), (0.1, 0.9), 0.592130119499, 2, 1, 1.78163570248, 8),
    (lung(), (0.1, 0.9), 2.034240927400, 71, 0.440664483608, 0.419858015951, 25),
]


@pytest.mark.parametrize(("data", "shares", "statistic", "cutpoint", "p92", "p94", "cutpoints"), REFERENCE)
def test_statistic_cutpoint_and_p_values_are_those_of_maxstat(data, shares, statistic, cutpoint, p92, p94, cutpoints) -> None:
    found = maximally_selected(*data, 0, np.random.default_rng(0), min_share=shares[0], max_share=shares[1])
    assert found.statistic == pytest.approx(statistic, abs=1e-9)
    assert found.cutpoint == pytest.approx(cutpoint, abs=1e-9)
    assert found.p_lausen92 == pytest.approx(p92, rel=1e-9)
    assert found.p_lausen94 == pytest.approx(min(p94, 1), rel=1e-9)
    assert found.n_cutpoints == cutpoints
    assert found.p_permutation is None


def test_the_approximations_are_those_of_the_papers_examples() -> None:
    assert lausen92(3, 0.1, 0.9) == pytest.approx(0.05784388, abs=1e-8)  # R maxstat: pLausen92(3, .1, .9)
    assert lausen94(3, 100, np.arange(10, 91)) == pytest.approx(0.0666010, abs=1e-7)  # pLausen94(3, 100, .1, .9, 10:90)
    assert lausen92(0.5) == 1


def test_scores_are_those_of_nelson_and_aalen_at_tied_times_too() -> None:
    time, event = np.array([1.0, 1, 2, 2, 3]), np.array([1, 0, 1, 1, 0], dtype=bool)
    hazard = np.array([1 / 5, 1 / 5, 1 / 5 + 2 / 3, 1 / 5 + 2 / 3, 1 / 5 + 2 / 3])
    np.testing.assert_allclose(log_rank_scores(time, event), event - hazard)


def test_the_upper_group_is_at_or_above_the_cutoff_and_worse_where_it_is_said_to_be() -> None:
    x, time, event = made(118)
    for turned in (x, -x):
        found = maximally_selected(turned, time, event, 0, np.random.default_rng(0))
        upper = turned >= found.cutoff
        np.testing.assert_array_equal(upper, turned > found.cutpoint)
        assert (LogRankScorer(time, event).z(upper[None])[0] > 0) == found.higher_is_worse


# maxstat.test(..., pmethod = "condMC", B = 200000), R maxstat 0.7.25.
@pytest.mark.parametrize(("data", "p_value"), [(lung(), 0.2854), (made(60), 0.8231)])
def test_the_permutation_p_is_that_of_maxstat(data, p_value: float) -> None:
    found = maximally_selected(*data, 10_000, np.random.default_rng(0)).p_permutation
    assert found == pytest.approx(p_value, abs=0.018)  # four standard errors


def test_permutation_p_values_of_noise_are_uniform_and_naive_ones_are_not() -> None:
    rng = np.random.default_rng(5)
    found = [maximally_selected(rng.normal(size=60), rng.exponential(size=60), rng.random(60) < 0.5, 99, rng) for _ in range(300)]
    share = np.mean([one.p_permutation <= 0.05 for one in found])
    assert 0.02 <= share <= 0.085  # 0.05 within 3 standard errors
    assert np.mean([one.naive_p <= 0.05 for one in found]) > 0.3


@pytest.mark.parametrize(
    ("x", "words"),
    [(np.ones(60), "No cutpoint"), (np.r_[np.nan, np.arange(59.0)], "leave out"), (np.arange(59.0), "for each of 60")],
)
def test_a_biomarker_without_cutpoints_is_refused_in_one_sentence(x: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        maximally_selected(x, *made(60)[1:], 0, np.random.default_rng(0))
