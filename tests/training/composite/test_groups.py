import numpy as np
import pytest

from training.composite.groups import GROUPS, four_groups


def test_the_groups_are_numbered_as_the_paper_numbers_them() -> None:
    sizes = [25, 18, 64, 11]
    imaging, genes = np.repeat([True, False, False, True], sizes), np.repeat([True, True, False, False], sizes)
    rng = np.random.default_rng(0)
    time, event = rng.exponential(size=118), rng.random(118) < 0.4
    found = four_groups(imaging, genes, time, event)
    np.testing.assert_array_equal(found.group, np.repeat([1, 2, 3, 4], sizes))
    assert found.table.agreement == pytest.approx(0.754, abs=5e-4)  # Fjeldbo et al. 2020: 75.4%
    outcomes = found.outcomes(time, event)
    assert list(outcomes) == list(GROUPS)
    assert [len(one) for one, _ in outcomes.values()] == sizes
    assert found.log_rank.df == 3


def test_a_group_without_patients_is_left_out_of_the_curves() -> None:
    time, event = np.arange(1.0, 5), np.ones(4, dtype=bool)
    found = four_groups(np.array([True, True, False, False]), np.array([True, True, False, False]), time, event)
    assert list(found.outcomes(time, event)) == ["hypoxic by both", "by neither"]
    assert found.log_rank.df == 1
    assert four_groups(np.ones(4, bool), np.ones(4, bool), time, event).log_rank is None
