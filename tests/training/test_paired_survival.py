"""Paired differences of models of times to an event."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import InputError
from tests.training.rivals import pair as two_classes
from tests.training.rivals import survival_pair
from training.evaluation import all_measures
from training.paired import flips, measured, paired_difference, paired_values, same_patients
from training.survival.metrics import SURVIVAL_METRIC

HORIZON = 60.0


def rivals(seed: int = 0, **about: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    return survival_pair(np.random.default_rng(seed), **about)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(SURVIVAL_METRIC))
def test_a_measure_is_that_of_the_evaluation_over_folds_and_repeats(name: str) -> None:
    table = rivals(n=150)[0]
    rng = np.random.default_rng(0)
    repeats = pd.concat([table.assign(repeat=number, fold=rng.permutation(150) % 3) for number in range(2)])
    weights = rng.multinomial(150, np.full(150, 1 / 150), size=4).astype(float)
    weights = np.tile(weights, 2)
    expected = all_measures(repeats, weights, HORIZON)
    for metric in (name, f"{name}_pooled"):
        if metric in expected:
            assert measured(repeats, metric, weights, HORIZON) == pytest.approx(expected[metric], abs=1e-12, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), metric=st.sampled_from(["c_index", "uno_c", "auc_at_horizon", "brier_at_horizon"]))
def test_a_difference_turns_its_sign_with_the_models_and_is_zero_from_itself(seed: int, metric: str) -> None:
    a, b = rivals(seed, n=80, told=(0.3, 0.7))
    forth, back = (
        paired_values(*pair, metric, np.random.default_rng(0), 50, HORIZON) for pair in ((a, b), (b.sample(frac=1), a))
    )  # fmt: skip
    assert forth[0] == pytest.approx(-back[0], abs=1e-12)
    assert not paired_values(a, a, metric, np.random.default_rng(0), 50, HORIZON).any()


@pytest.mark.parametrize(("cohorts", "least"), [(30, 0.8), pytest.param(400, 0.92, marks=pytest.mark.slow)])
def test_the_interval_of_the_difference_covers_the_truth(cohorts: int, least: float) -> None:
    large, once = rivals(seed=10**6, n=5000, told=(0.4, 0.7)), np.ones((1, 5000))
    truth = float(np.subtract(*(measured(one, "c_index", once, HORIZON)[0] for one in reversed(large))))
    found = [
        paired_difference(*rivals(seed, n=120, told=(0.4, 0.7)), "c_index", np.random.default_rng(0), 300, horizon=HORIZON)
        for seed in range(cohorts)
    ]
    assert np.mean([one.lower <= truth <= one.upper for one in found]) >= least  # nominal 0.95; chance of less below 1 in 1000


def test_other_follow_up_of_the_same_patients_is_another_truth() -> None:
    a, b = rivals()
    moved = b.assign(time=b["time"].where(b.index != 3, 1.5))
    with pytest.raises(InputError, match="1 of 200 samples of model 1 have another follow-up for model 2"):
        same_patients([a, moved])
    assert len(same_patients([a, b.assign(time=b["time"] * (1 + 1e-12))])) == 200  # a round trip through a file


def test_classes_and_times_to_an_event_have_no_measure_in_common() -> None:
    classes, _ = two_classes(np.random.default_rng(0), n=200)
    with pytest.raises(InputError, match="no measure in common"):
        same_patients([classes, rivals()[0]])


def test_nobody_knows_which_call_is_right_of_who_was_lost_to_follow_up() -> None:
    a, b = rivals(n=100)
    changed = flips(a, b.assign(called=~a["called"]), HORIZON).set_index("sample")
    known = a.set_index("sample").loc[changed.index]
    lost = (known["label"] == 0) & (known["time"] < HORIZON)
    assert lost.any()
    assert changed.loc[lost, "better"].isna().all()
    right = changed.loc[~lost, "called_b"] == (known.loc[~lost, "label"] == 1)
    assert (changed.loc[~lost, "better"].astype(bool) == right).all()
