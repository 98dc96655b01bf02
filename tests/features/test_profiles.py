"""The nearest medoid: what is kept of a clustering, and how a new patient is assigned."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import Pipeline

from features.bundle import TRUSTED_TYPES
from features.harmonise import AcquisitionRegression
from features.outcome import survival_outcome
from features.profiles import NearestMedoid, assign, risk_of


def three_clouds(rng: np.random.Generator, n: int = 30, p: int = 40) -> np.ndarray:
    """Patients around three points, in order."""
    return np.vstack([rng.normal(size=(n, p)) + shift for shift in (0.0, 3.0, -3.0)])


@pytest.fixture
def fitted() -> tuple[NearestMedoid, np.ndarray]:
    rng = np.random.default_rng(0)
    X, y = three_clouds(rng), rng.integers(0, 2, 90)
    return NearestMedoid(medoids=[4, 40, 70]).fit(X, y), X


def test_a_patient_is_assigned_alike_alone_and_in_any_batch(fitted: tuple[NearestMedoid, np.ndarray]) -> None:
    model, X = fitted
    together = model.assign(X)
    assert (together.cluster == np.repeat([0, 1, 2], 30)).all()
    for row in (0, 33, 88):
        alone = model.assign(X[[row]])
        assert (alone.distances == together.distances[[row]]).all()  # equal, not close
    backwards = model.assign(np.asfortranarray(X[::-1]))
    assert (backwards.distances[::-1] == together.distances).all()


def test_no_training_patient_is_unlike_any_cluster_and_a_far_one_is(fitted: tuple[NearestMedoid, np.ndarray]) -> None:
    model, X = fitted
    assert not model.assign(X).unlike.any()
    assert model.assign(np.full((1, 40), 10.0)).unlike.all()


def test_a_small_cluster_takes_the_limit_of_all(fitted: tuple[NearestMedoid, np.ndarray]) -> None:
    _, X = fitted
    lone = np.vstack([X[:30], np.full((1, 40), 9.0)])
    model = NearestMedoid(medoids=[4, 30]).fit(lone, np.zeros(31))
    assert model.sizes_.tolist() == [30, 1]
    assert model.limits_[1] == model.limits_[0] > 0


def test_contributions_of_the_features_add_up_to_the_margin(fitted: tuple[NearestMedoid, np.ndarray]) -> None:
    model, X = fitted
    found = model.assign(X)
    for row in range(0, 90, 7):
        assert found.contributions(row).sum() == pytest.approx(found.margin[row], rel=1e-12)
        deciding = found.deciding(row)
        assert [value for _, value in deciding] == sorted((value for _, value in deciding), reverse=True)
        assert all(value > 0 for _, value in deciding)
    assert (found.margin >= 0).all()
    assert (found.runner_up != found.cluster).all()


def test_of_equally_near_medoids_the_first_is_taken() -> None:
    model = NearestMedoid(medoids=[0, 1]).fit([[-1.0], [1.0]], [0, 1])
    assert model.assign([[0.0]]).cluster.tolist() == [0]
    assert model.assign([[0.0]]).margin.tolist() == [0.0]


def test_the_risk_is_the_share_of_events_or_one_minus_kaplan_and_meier() -> None:
    model = NearestMedoid(medoids=[0, 3]).fit([[0.0], [0.1], [0.2], [5.0], [5.1]], [0, 1, 0, 1, 1])
    assert model.risks_ == pytest.approx([1 / 3, 1.0])
    # R: survival::survfit(Surv(c(1, 2, 2, 3, 4, 6), c(1, 1, 0, 1, 0, 1)) ~ 1), survival at 3: 5/6 * 4/5 * 2/3
    outcome = survival_outcome(np.array([1.0, 2, 2, 3, 4, 6]), np.array([1, 1, 0, 1, 0, 1]))
    assert risk_of(outcome, 3) == pytest.approx(1 - 5 / 6 * 4 / 5 * 2 / 3)
    assert risk_of(outcome, None) == 1.0
    assert risk_of(outcome[:0], 3) == 0.0


def test_a_stored_pipeline_assigns_bit_by_bit_as_before(fitted: tuple[NearestMedoid, np.ndarray]) -> None:
    _, X = fitted
    scale = AcquisitionRegression().fit(X)
    model = NearestMedoid(medoids=[4, 40, 70], horizon=5.0).fit(scale.transform(X), np.zeros(90))
    pipeline = Pipeline([("standardise", scale), ("profiles", model)])
    loaded = skops.io.loads(skops.io.dumps(pipeline), trusted=list(TRUSTED_TYPES))
    assert (assign(loaded, X).distances == assign(pipeline, X).distances).all()
    assert (loaded.predict_proba(X) == pipeline.predict_proba(X)).all()
