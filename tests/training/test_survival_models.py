"""The search space for survival: every corner of it gives a model that fits, is quick, and tells the risk by the horizon."""

import itertools
import time

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from features.outcome import survival_outcome
from training.options import Choice, Limits, Option, Range
from training.survival_models import SURVIVAL_BASELINE, SURVIVAL_MODELS

EACH = pytest.mark.parametrize("option", SURVIVAL_MODELS, ids=lambda option: option.name)


def cohort(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten features that repeat each other with noise, the rest noise; two in three have the event."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    X[:, 1:10] = X[:, :1] + 0.01 * X[:, 1:10]
    return StandardScaler().fit_transform(X), survival_outcome(rng.exponential(np.exp(-X[:, 0])), rng.random(n) < 0.67)


def corners(option: Option, limits: Limits) -> list[dict[str, float | str]]:
    """Up to a dozen of the combinations of the ends of the ranges and the values of the choices."""
    ends = [
        [(one.name, value) for value in (one.options if isinstance(one, Choice) else sorted({one.low, one.high}))]
        for one in option.parameters(limits)
    ]
    every = [dict(corner) for corner in itertools.product(*ends)]
    return every[:: -(-len(every) // 12) | 1]  # an odd step: so that both ends of the last one come


@EACH
@pytest.mark.parametrize(("n", "p"), [(16, 30), (90, 20)])
def test_corners_of_the_space_fit_with_finite_risks(option: Option, n: int, p: int) -> None:
    X, y = cohort(n, p)
    for parameters in corners(option, Limits(n, p)):
        (model,) = option.build({**parameters, "horizon": 1.0}, 3)
        risk = model.fit(X, y).predict_proba(X)[:, 1]
        assert np.isfinite(risk).all()
        assert model.horizon_ == 1.0
        assert getattr(model, "random_state", 3) == 3


@EACH
def test_without_a_horizon_the_longest_time_of_an_event_is_taken(option: Option) -> None:
    X, y = cohort(60, 10)
    (model,) = option.build(
        {one.name: one.low if isinstance(one, Range) else one.options[0] for one in option.parameters(Limits(60, 10))}, 0
    )
    assert model.fit(X, y).horizon_ == y["time"][y["event"]].max()


@EACH
def test_the_middle_of_the_space_fits_100_features_in_well_below_a_second(option: Option) -> None:
    X, y = cohort(90, 100)
    middle = {
        one.name: one.options[0] if isinstance(one, Choice) else int((one.low + one.high) / 2) if one.whole
        else np.sqrt(one.low * one.high) if one.log else (one.low + one.high) / 2
        for one in option.parameters(Limits(90, 100))
    }  # fmt: skip
    (model,) = option.build(middle, 0)
    start = time.process_time()
    model.fit(X, y)
    assert time.process_time() - start < 1.0  # measured: 0.01 to 0.1 s


@EACH
def test_the_simplest_values_have_complexity_0(option: Option) -> None:
    for one in option.parameters(Limits(60, 10)):
        simplest = one.options[0] if isinstance(one, Choice) else one.low if one.simpler == "low" else one.high
        assert one.complexity(simplest) == 0


def test_the_baseline_is_a_point_of_the_simplest_model_and_still_orders_patients() -> None:
    name, parameters = SURVIVAL_BASELINE
    option = SURVIVAL_MODELS[0]
    (penalty,) = option.parameters(Limits(60, 10))
    assert name == option.name
    assert penalty.low <= parameters["penalty"] <= penalty.high
    X, y = cohort(90, 20)
    (model,) = option.build(parameters, 0)
    assert np.corrcoef(model.fit(X, y).decision_function(X), X[:, 0])[0, 1] > 0.9


def test_at_the_heaviest_lasso_noise_has_no_coefficient() -> None:
    option = next(one for one in SURVIVAL_MODELS if one.name == "elastic_net_cox")
    rng = np.random.default_rng(1)
    penalty, _ = option.parameters(Limits(80, 50))
    empty = 0
    for _ in range(20):
        X, y = rng.normal(size=(80, 50)), survival_outcome(rng.exponential(size=80), rng.random(80) < 0.7)
        (model,) = option.build({"penalty": penalty.high, "l1_ratio": 1.0}, 0)
        empty += not model.fit(StandardScaler().fit_transform(X), y).coef_.any()
    assert empty >= 18
