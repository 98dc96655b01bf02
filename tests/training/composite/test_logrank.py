import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines.datasets import load_lung

from training.composite.logrank import LogRankScorer
from training.survival.curves import log_rank


def test_the_statistic_is_that_of_the_survival_package() -> None:
    lung = load_lung()
    scorer = LogRankScorer(lung["time"].to_numpy(float), lung["status"].to_numpy() == 1)
    z = scorer.z((lung["sex"].to_numpy() == 1)[None])
    # R survival 3.5.3: survdiff(Surv(time, status) ~ sex, lung)$chisq is 10.32674195; men (1) do worse.
    assert z[0] ** 2 == pytest.approx(10.32674195, abs=1e-7)
    assert z[0] > 0


@given(st.integers(0, 2**31))
def test_many_parts_at_once_give_what_one_test_at_a_time_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(8, 40))
    time, event = rng.integers(1, 12, n).astype(float), rng.random(n) < 0.6  # many ties
    event[0] = True
    parts = rng.random((20, n)) < rng.uniform(0.2, 0.8)
    parts = parts[parts.any(axis=1) & ~parts.all(axis=1)]
    z = LogRankScorer(time, event).z(parts)
    for one, part in zip(z, parts, strict=True):
        test = log_rank(time, event, part)
        assert one == pytest.approx(test.z if test.chi2 > 0 else 0.0, abs=1e-8)


def test_permuting_the_outcome_is_scoring_the_permuted_outcome() -> None:
    rng = np.random.default_rng(0)
    time, event, parts = rng.exponential(size=30), rng.random(30) < 0.5, rng.random((50, 30)) < 0.5
    rows = rng.permutation(30)
    dealt = LogRankScorer(time, event).permuted(rows).z(parts)
    np.testing.assert_allclose(dealt, LogRankScorer(time[rows], event[rows]).z(parts), atol=1e-12)


def test_a_part_without_an_other_side_and_one_that_outlives_all_events_say_nothing() -> None:
    time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, False, False])
    parts = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(LogRankScorer(time, event).z(parts), [0, 0])
    assert LogRankScorer(time, event).z(np.zeros((0, 4), dtype=bool)).shape == (0,)


def test_more_parts_than_fit_in_one_product_are_scored_alike() -> None:
    rng = np.random.default_rng(1)
    time, event, parts = rng.exponential(size=20), rng.random(20) < 0.5, rng.random((20000, 20)) < 0.5
    scorer = LogRankScorer(time, event)
    np.testing.assert_allclose(scorer.z(parts)[-3:], scorer.z(parts[-3:]), atol=1e-12)
