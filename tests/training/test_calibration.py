"""Calibration against R, decision curves against their definition, and where nothing is defined."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from toy import binormal_predictions

from training.calibration import calibration, decision_curve, intercepts, reliability, slopes
from training.evaluation import patient_resamples

NUMBER = np.arange(40)
Y = ((NUMBER * 7) % 40 < 18).astype(int)
P = expit(np.round(np.sin(NUMBER * 1.3) + 0.9 * Y, 1))
ONES = np.ones((1, 40))


def made(probability: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"patient": np.arange(len(y)).astype(str), "label": y, "probability": probability})


def test_intercept_and_slope_are_those_of_r() -> None:
    # i <- 0:39; y <- as.integer((i * 7) %% 40 < 18); lp <- round(sin(i * 1.3) + 0.9 * y, 1)
    # coef(glm(y ~ offset(lp), binomial)); coef(glm(y ~ lp, binomial))
    assert intercepts(Y, P, ONES)[0] == pytest.approx(-0.6459030519, abs=1e-9)
    assert slopes(Y, P, ONES)[0] == pytest.approx(2.058519102, abs=1e-8)


def test_slopes_of_resamples_are_those_of_a_regression_fitted_to_each() -> None:
    table = binormal_predictions(60)
    y, p = table["label"].to_numpy(), table["probability"].to_numpy()
    weights, _ = patient_resamples(table, 50, np.random.default_rng(0))
    fitted = [
        LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], y, sample_weight=one).coef_[0, 0]
        for one in weights
    ]
    np.testing.assert_allclose(slopes(y, p, weights), fitted, rtol=1e-5)


def test_right_probabilities_have_intercept_zero_and_slope_one() -> None:
    rng = np.random.default_rng(0)
    p = expit(rng.normal(size=20_000) * 1.5)
    y = (rng.random(20_000) < p).astype(int)
    weights = np.ones((1, 20_000))
    assert intercepts(y, p, weights)[0] == pytest.approx(0, abs=0.05)
    assert slopes(y, p, weights)[0] == pytest.approx(1, abs=0.05)
    assert intercepts(y, expit(logit(p) + 1), weights)[0] == pytest.approx(-1, abs=0.05)
    assert slopes(y, expit(2 * logit(p)), weights)[0] == pytest.approx(0.5, abs=0.03)


def test_the_interval_of_the_slope_covers() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        p = expit(rng.normal(size=120) * 1.5)
        found = calibration(made(p, (rng.random(120) < p).astype(int)), rng, count=300)
        covered += found.slope.lower <= 1 <= found.slope.upper
    assert covered >= 88


@pytest.mark.parametrize(
    ("probability", "y"),
    [
        ([0.1, 0.2, 0.3, 0.8, 0.9, 0.95], [0, 0, 0, 1, 1, 1]),
        ([0.1, 0.3, 0.3, 0.3, 0.3, 0.9], [0, 0, 0, 1, 1, 1]),
        ([0.4] * 6, [0, 1] * 3),
    ],
)
def test_a_slope_that_would_be_infinite_is_undefined(probability: list[float], y: list[int]) -> None:
    found = calibration(made(np.array(probability), np.array(y)), np.random.default_rng(0), count=100)
    assert found.slope.value is None
    assert found.slope.reason
    assert found.intercept.value is not None


def test_a_model_that_is_certain_gives_finite_numbers() -> None:
    p = np.where(np.arange(40) % 5 == 0, 1 - Y, Y).astype(float)
    found = calibration(made(p, Y), np.random.default_rng(0), count=100)
    assert np.isfinite(found.slope.value)
    assert found.slope.value < 0.3


def test_one_class_has_no_calibration_in_the_large() -> None:
    found = calibration(made(P, np.zeros(40, dtype=int)), np.random.default_rng(0), count=100)
    assert found.intercept.value is None
    assert found.ratio.value == 0


def test_reliability_groups_hold_every_sample_once() -> None:
    table = binormal_predictions(97)
    groups = reliability(table)
    assert groups["n"].sum() == 97
    assert (groups["lower"] <= groups["observed"]).all()
    assert (groups["observed"] <= groups["upper"]).all()
    assert groups["expected"].is_monotonic_increasing
    assert len(reliability(table.assign(probability=0.3))) == 1


def test_bars_are_left_out_where_samples_are_not_independent() -> None:
    assert reliability(binormal_predictions(40, lesions=2))["lower"].isna().all()


def test_net_benefit_is_true_positives_less_false_ones_at_the_odds() -> None:
    table = made(P, Y)
    curve = decision_curve(table, np.array([0.3, 0.6])).set_index("threshold")
    for threshold in (0.3, 0.6):
        true, false = ((threshold <= P) & (Y == 1)).sum(), ((threshold <= P) & (Y == 0)).sum()
        assert curve.loc[threshold, "model"] == pytest.approx(true / 40 - false / 40 * threshold / (1 - threshold))
        assert curve.loc[threshold, "treat_all"] == pytest.approx(Y.mean() - (1 - Y.mean()) * threshold / (1 - threshold))
    assert (curve["treat_none"] == 0).all()
