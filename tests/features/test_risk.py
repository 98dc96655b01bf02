"""Models of survival against R, lifelines and XGBoost, and what must hold of any of them."""

import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.datasets import load_lung
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.bundle import TRUSTED_TYPES
from features.outcome import survival_outcome
from features.partial_likelihood import PartialLikelihood
from features.risk import BoostedRisk, CoxRisk, cox_coefficients, log_time

MODELS = [
    CoxRisk(horizon=40, penalty=0.1),
    CoxRisk(horizon=40, penalty=0.1, l1_ratio=0.5),
    BoostedRisk("cox", horizon=40, subsample=0.7),
    BoostedRisk("aft", horizon=40, subsample=0.7, max_depth=3),
    BoostedRisk("aft", horizon=40, distribution="logistic"),
]
EACH = pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{type(model).__name__}-{getattr(model, 'objective', '')}")


def lung(*columns: str) -> tuple[np.ndarray, np.ndarray]:
    """R's lung data: those columns, and the outcome of the patients who have them."""
    frame = load_lung()[["time", "status", *columns]].dropna()
    return frame[list(columns)].to_numpy(float), survival_outcome(frame["time"].to_numpy(float), frame["status"].to_numpy())


def simulated(n: int = 90, p: int = 5, seed: int = 0, *, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The first feature raises the hazard; a third or so are censored."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    event, censored = 60 * rng.exponential(np.exp(-X[:, 0])), rng.uniform(10, 200, size=n)
    time = np.minimum(event, censored)
    return X, survival_outcome(np.ceil(time / 10) if tied else time, event <= censored)


def test_coxs_regression_is_that_of_r() -> None:
    X, y = lung("age", "sex")
    np.testing.assert_allclose(cox_coefficients(X, y), [0.0170453318454113, -0.5132185171083844], atol=1e-10)  # R survival 3.5.3
    np.testing.assert_allclose(CoxRisk().fit(X[:, :1], y).coef_, [0.0187201792045515], atol=1e-10)  # R survival 3.5.3


@pytest.mark.parametrize(
    ("l1_ratio", "expected"),
    [
        (0.5, [0.0814202976004660, -0.2135856199430163, -0.0383808889217787, -0.2361031368986714, -0.0411423269329287]),
        (1.0, [0.0548746454598617, -0.1835484751065320, -0.0219390997030119, -0.2047813721242703, 0.0]),
    ],
)
def test_the_elastic_net_is_that_of_glmnet(l1_ratio: float, expected: list[float]) -> None:
    X, y = lung("age", "sex", "ph.karno", "pat.karno", "wt.loss")
    y["time"] += 1e-4 * np.arange(1, len(y) + 1)  # without ties: glmnet has Breslow's only
    found = cox_coefficients(StandardScaler().fit_transform(X), y, penalty=0.05, l1_ratio=l1_ratio)
    np.testing.assert_allclose(found, expected, atol=2e-6)  # R glmnet 4.1.6, lambda 0.05


@pytest.mark.parametrize("penalty", [0.01, 0.1, 1.0])
def test_ridge_with_more_features_than_samples_and_ties_is_that_of_lifelines(penalty: float) -> None:
    X, y = simulated(n=50, p=60, tied=True)
    X /= X.std(axis=0, ddof=1)  # lifelines' penalty is on such features
    frame = pd.DataFrame(X).assign(time=y["time"], event=y["event"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more variables than samples: so it is meant
        theirs = CoxPHFitter(penalizer=penalty).fit(frame, "time", "event", fit_options={"precision": 1e-10})
    np.testing.assert_allclose(cox_coefficients(X, y, penalty), theirs.params_, atol=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1e-3, 0.05, 1.0]))
def test_no_step_from_the_estimate_leads_down(seed: int, l1_ratio: float, penalty: float) -> None:
    X, y = simulated(n=30, p=40, seed=seed, tied=True)
    X[:, 1] = X[:, 0]
    found = cox_coefficients(X, y, penalty, l1_ratio)
    score = PartialLikelihood(X, y["time"], y["event"]).at(found).score / len(y)
    gradient = penalty * (1 - l1_ratio) * found - score
    lasso = penalty * l1_ratio
    np.testing.assert_allclose(gradient[found != 0], -lasso * np.sign(found[found != 0]), atol=2e-5 if lasso else 1e-8)
    assert np.abs(gradient[found == 0]).max(initial=0.0) <= lasso + 2e-5


def test_a_feature_that_repeats_another_shares_its_coefficient() -> None:
    X, y = simulated(p=1)
    alone = cox_coefficients(X, y)
    np.testing.assert_allclose(cox_coefficients(np.hstack([X, X]), y), np.repeat(alone / 2, 2), atol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_unit_of_a_score_changes_no_risk(unit: float) -> None:
    X, y = simulated(p=1)
    np.testing.assert_allclose(CoxRisk(40).fit(X * unit, y).predict_proba(X * unit), CoxRisk(40).fit(X, y).predict_proba(X))


@pytest.mark.parametrize("direction", [1, -1])
def test_a_score_that_orders_every_event_gets_the_steepest_slope_and_finite_risks(direction: int) -> None:
    X, y = direction * np.arange(30.0)[:, None], survival_outcome(np.arange(30.0, 0, -1), np.ones(30))
    model = CoxRisk(horizon=10).fit(X, y)
    assert model.coef_[0] * X.std() == pytest.approx(10 * direction)
    assert np.isfinite(model.predict_proba(10 * X)).all()
    assert (np.diff(direction * model.decision_function(X)) * direction > 0).all()


def test_risk_by_the_horizon_is_what_happened_where_features_say_nothing() -> None:
    X, y = simulated(n=400)
    y["event"] = True
    for horizon in (20.0, 60.0, None):
        risk = CoxRisk(horizon, penalty=1e6).fit(X, y).predict_proba(X)[:, 1]
        happened = np.mean(y["time"] <= (horizon or y["time"].max()))
        np.testing.assert_allclose(risk, happened, atol=0.01)


def test_log_times_without_features_are_those_of_r() -> None:
    _, y = lung()
    assert log_time(y, "normal") == pytest.approx((5.66330496220637, 1.09763926976839), abs=1e-5)  # R survreg, lognormal
    assert log_time(y, "logistic") == pytest.approx((5.710980387552, 0.579455082551401), abs=1e-5)  # R survreg, loglogistic


def test_all_events_at_one_time_have_a_narrow_law_and_not_none() -> None:
    location, scale = log_time(survival_outcome(np.full(5, np.e), np.ones(5)), "normal")
    assert (location, scale) == pytest.approx((1.0, 0.01), abs=1e-4)


@pytest.mark.parametrize("objective", ["cox", "aft"])
@pytest.mark.parametrize("max_depth", [1, 4])
def test_the_copied_trees_say_what_xgboost_says(objective, max_depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = []
    train = xgboost.train
    monkeypatch.setattr(xgboost, "train", lambda *args: grown.append(train(*args)) or grown[-1])
    X, y = simulated(p=10)
    model = BoostedRisk(objective, n_estimators=150, max_depth=max_depth, learning_rate=0.2, horizon=40).fit(X, y)
    on_thresholds = np.random.default_rng(1).choice(model.threshold_, size=(300, 10)).astype(float)
    for asked in (X, 3 * np.random.default_rng(1).normal(size=(300, 10)), on_thresholds):
        margin = grown[0].predict(xgboost.DMatrix(asked.astype(np.float32)), output_margin=True)
        offset = model.offset_
        expected = margin - offset if objective == "cox" else -(margin + offset)
        np.testing.assert_allclose(model.decision_function(asked), expected, atol=1e-5)


def test_accelerated_failure_starts_from_the_law_of_all_samples() -> None:
    X, y = simulated()
    location, scale = log_time(y, "normal")
    model = BoostedRisk("aft", n_estimators=1, learning_rate=1e-6, horizon=np.exp(location)).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), 0.5, atol=1e-4)
    np.testing.assert_allclose(model.decision_function(X), -location, atol=1e-4)
    assert model.baseline_ == scale


@EACH
def test_a_higher_score_is_a_higher_risk_and_the_planted_feature_raises_it(model) -> None:
    X, y = simulated(n=200)
    fitted = clone(model).fit(X, y)
    score, risk = fitted.decision_function(X), fitted.predict_proba(X)
    np.testing.assert_array_equal(np.argsort(score, kind="stable"), np.argsort(risk[:, 1], kind="stable"))
    assert ((risk >= 0) & (risk <= 1)).all()
    np.testing.assert_allclose(risk.sum(axis=1), 1)
    assert np.corrcoef(score, X[:, 0])[0, 1] > 0.7
    np.testing.assert_array_equal(fitted.predict(X), risk[:, 1] >= 0.5)


@EACH
def test_the_same_samples_give_the_same_model(model) -> None:
    X, y = simulated()
    once, again = (clone(model).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(once, again)


@EACH
def test_a_saved_pipeline_loads_with_the_trusted_types_and_says_the_same(model) -> None:
    X, y = simulated()
    pipeline = make_pipeline(StandardScaler(), clone(model)).fit(X, y)
    saved = skops.io.dumps(pipeline)
    assert set(skops.io.get_untrusted_types(data=saved)) <= {"features.risk.CoxRisk", "features.risk.BoostedRisk"}
    loaded = skops.io.loads(saved, trusted=list(TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))


@EACH
def test_one_row_is_scored_as_it_is_among_others(model) -> None:
    X, y = simulated()
    fitted = clone(model).fit(X, y)
    alone = np.concatenate([fitted.decision_function(row[None]) for row in X])
    np.testing.assert_allclose(alone, fitted.decision_function(X), rtol=0, atol=1e-13)


@EACH
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X, y: (X, y["event"]), "must be one of survival"),
        (lambda X, y: (X, y[:-1]), "90 samples, but 89 outcomes"),
        (lambda X, y: (X, survival_outcome(y["time"] - y["time"].min(), y["event"])), "number above 0"),
        (lambda X, y: (X, survival_outcome(y["time"], np.zeros(90))), "No event happened; nothing"),
        (lambda X, y: (X, survival_outcome(y["time"] + 1000, y["event"])), "No event happened by the horizon of 40;"),
        (lambda X, y: (np.where(X > 2, np.nan, X), y), "NaN"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(model, spoil, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clone(model).fit(*spoil(*simulated()))


@EACH
def test_a_row_with_a_gap_or_of_another_width_is_refused(model) -> None:
    X, y = simulated()
    fitted = clone(model).fit(X, y)
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict_proba(np.full((1, 5), np.nan))
    with pytest.raises(ValueError, match="4 features"):
        fitted.predict_proba(X[:, :4])
