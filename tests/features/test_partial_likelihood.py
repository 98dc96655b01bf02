"""Cox's partial likelihood: against R, against written-out sums, and where it has a maximum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.datasets import load_lung
from numpy.testing import assert_allclose
from scipy.optimize import approx_fprime, linprog
from scipy.special import logsumexp

from features.partial_likelihood import PartialLikelihood, RiskSets


def lung() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = load_lung()
    return frame[["age", "sex"]].to_numpy(float), frame["time"].to_numpy(float), frame["status"].to_numpy() == 1


def test_the_likelihood_is_that_of_r() -> None:
    likelihood = PartialLikelihood(*lung())
    beta = likelihood.maximum()
    assert_allclose(beta, [0.0170453318454113, -0.5132185171083844], atol=1e-10)  # R survival 3.5.3
    here = likelihood.at(beta)
    assert here.log_likelihood == pytest.approx(-742.84824578377, abs=1e-9)  # R survival 3.5.3
    assert_allclose(here.score, 0, atol=1e-8)


def test_breslows_baseline_hazard_is_that_of_r() -> None:
    X, time, event = lung()
    of_breslow = np.array([0.0170128891984432, -0.5125647915187186])  # R survival 3.5.3, coxph(ties="breslow")
    found = RiskSets.of(time, event).cumulative_hazard((X - X.mean(axis=0)) @ of_breslow, time <= 365)
    assert found == pytest.approx(0.879824022598981, abs=1e-10)  # R survival 3.5.3, basehaz(centered=TRUE) at 365 days


def written_out(linear: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Efron's likelihood, event by event, in logarithms throughout."""
    value = 0.0
    for moment in np.unique(time[event]):
        tied, at_risk = linear[event & (time == moment)], linear[time >= moment]
        others = linear[(time > moment) | ((time == moment) & ~event)]
        for gone in range(len(tied)):
            remaining = tied + np.log1p(-gone / len(tied))
            value -= logsumexp(np.concatenate([others, remaining])) if gone else logsumexp(at_risk)
        value += tied.sum()
    return value


@given(st.integers(0, 10**6), st.sampled_from([3.0, 80.0, 1000.0]))
def test_the_likelihood_is_efrons_however_far_hazards_spread(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    X, time, event = rng.normal(size=(25, 2)), rng.integers(1, 7, 25).astype(float), rng.random(25) < 0.7
    beta = rng.normal(size=2)
    beta *= spread / np.ptp(X @ beta)
    found = PartialLikelihood(X, time, event).at(beta).log_likelihood
    assert found == pytest.approx(written_out(X @ beta, time, event), rel=1e-10, abs=1e-10)


@given(st.integers(0, 10**6))
def test_the_derivatives_are_those_of_the_likelihood_with_ties_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    likelihood = PartialLikelihood(rng.normal(size=(20, 2)), rng.integers(1, 6, 20).astype(float), rng.random(20) < 0.7)
    beta = rng.normal(size=2)
    here = likelihood.at(beta)
    assert_allclose(approx_fprime(beta, lambda b: likelihood.at(b).log_likelihood), here.score, rtol=1e-4, atol=2e-5)
    assert_allclose(approx_fprime(beta, lambda b: likelihood.at(b).score), -here.information, rtol=1e-4, atol=2e-5)


@given(st.integers(0, 10**6), st.sampled_from([1.0, 10.0]))
def test_moments_at_each_event_sum_to_the_score_and_the_information(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    likelihood = PartialLikelihood(rng.normal(size=(30, 3)), rng.integers(1, 6, 30).astype(float), rng.random(30) < 0.7)
    beta = spread * rng.normal(size=3)
    here, moments = likelihood.at(beta), likelihood.moments(beta)
    assert_allclose((likelihood.X[likelihood.risk_sets.event] - moments.mean).sum(axis=0), here.score, atol=1e-10)
    assert_allclose(moments.variance.sum(axis=0), here.information, atol=1e-10)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@given(st.integers(0, 10**6), st.integers(5, 16))
@settings(max_examples=60)
def test_a_likelihood_has_a_maximum_unless_some_direction_always_is_highest_in_whom_the_event_strikes(unit, seed, n) -> None:
    """Bryson & Johnson 1981: such a direction is a linear programme."""
    rng = np.random.default_rng(seed)
    X, time, event = rng.integers(0, 4, (n, 2)).astype(float), rng.integers(1, 6, n).astype(float), rng.random(n) < 0.6
    event[0] = True
    ahead = np.vstack([X[i] - X[time >= time[i]] for i in np.flatnonzero(event)])
    likelihood = PartialLikelihood(X * [1, unit], time, event)
    if np.linalg.matrix_rank(ahead) < 2:
        assert likelihood.maximum() is None
        return
    monotone = linprog(-ahead.sum(axis=0), A_ub=-ahead, b_ub=np.zeros(len(ahead)), bounds=[(-1, 1)] * 2)
    beta = likelihood.maximum()
    assert (beta is None) == (-monotone.fun > 1e-7)
    if beta is not None:
        assert_allclose(likelihood.at(beta).score / [1, unit], 0, atol=1e-6)


def test_a_likelihood_that_creeps_up_along_a_small_difference_has_no_maximum() -> None:
    """By the linear programme; the two who are alike but for 0.007 keep some curvature until hazards spread beyond numbers."""
    X = [[0.74, -0.415], [0.118, 1.002], [-0.52, 0.863], [0.066, -1.477], [0.741, -0.408], [0.624, 1.876], [-1.699, 0.036]]
    time, event = np.array([6.0, 6, 2, 8, 2, 4, 3]), np.array([1, 0, 0, 1, 1, 1, 0]) == 1
    assert PartialLikelihood(np.array(X), time, event).maximum() is None


def test_who_leaves_before_the_first_event_changes_nothing_however_far_off() -> None:
    rng = np.random.default_rng(5)
    X, time, event = np.r_[rng.normal(size=49), 3000.0][:, None], np.r_[1 + rng.exponential(1, 49), 0.5], np.arange(50) < 49
    expected = PartialLikelihood(X[:-1], time[:-1], event[:-1]).maximum()
    assert_allclose(PartialLikelihood(X, time, event).maximum(), expected, rtol=1e-8)


def test_a_feature_that_varies_only_in_who_was_never_at_risk_tells_nothing() -> None:
    X, time = np.array([[5.1, 0.3], [1.1, 0.1], [1.1, 0.4], [1.1, 0.2], [1.1, 0.9]]), np.arange(1.0, 6)
    likelihood = PartialLikelihood(X, time, np.array([False, True, True, True, False]))
    assert likelihood.maximum() is None
    assert PartialLikelihood(X[:, 1:], time, np.array([False, True, True, True, False])).maximum() is not None
