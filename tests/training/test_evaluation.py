"""Estimates, their intervals, and what several lesions per patient must not do to them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from toy import binormal_predictions

from training.evaluation import EvaluationSettings, evaluate, patient_resamples, selection_stability

SETTINGS = EvaluationSettings(bootstrap=400)


def test_tripling_every_row_under_its_patient_changes_no_interval() -> None:
    once = binormal_predictions()
    tripled = pd.concat([once] * 3, ignore_index=True)
    plain, thrice = (evaluate(one, SETTINGS, np.random.default_rng(1)) for one in (once, tripled))
    for name, estimate in plain.estimates.items():
        other = thrice.estimates[name]
        np.testing.assert_allclose(
            [other.value, other.lower, other.upper], [estimate.value, estimate.lower, estimate.upper], atol=1e-12
        )
    assert plain.p_value == pytest.approx(thrice.p_value)


def test_tripling_under_new_patients_would_narrow_it() -> None:
    once = binormal_predictions()
    copies = [once.assign(patient=once["patient"] + suffix) for suffix in "abc"]
    widths = []
    for table in (once, pd.concat(copies, ignore_index=True)):
        estimate = evaluate(table, SETTINGS, np.random.default_rng(1)).estimates["roc_auc"]
        widths.append(estimate.upper - estimate.lower)
    assert widths[1] < 0.75 * widths[0]


def test_a_patient_is_drawn_with_all_its_rows() -> None:
    table = pd.concat([binormal_predictions(20)] * 2, ignore_index=True)
    weights, _ = patient_resamples(table, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(weights[:, :20], weights[:, 20:])
    np.testing.assert_array_equal(weights.sum(axis=1), 40)


def test_resamples_of_one_class_are_drawn_again_and_counted() -> None:
    table = binormal_predictions(8).assign(label=[1, 1, 0, 0, 0, 0, 0, 0])
    weights, redrawn = patient_resamples(table, 500, np.random.default_rng(0))
    assert redrawn > 20
    assert (weights[:, :2].sum(axis=1) > 0).all()


def test_rank_measures_are_means_over_folds_and_pooled_ones_are_named_so() -> None:
    table = binormal_predictions(80, folds=4)
    found = evaluate(table, SETTINGS, np.random.default_rng(0)).estimates
    per_fold = [roc_auc_score(part["label"], part["probability"]) for _, part in table.groupby("fold")]
    assert found["roc_auc"].value == pytest.approx(np.mean(per_fold), abs=1e-12)
    assert found["roc_auc_pooled"].value == pytest.approx(roc_auc_score(table["label"], table["probability"]), abs=1e-12)


def test_an_undefined_ratio_has_a_reason_instead_of_a_value() -> None:
    table = binormal_predictions().assign(called=False)
    ppv = evaluate(table, SETTINGS, np.random.default_rng(0)).estimates["ppv"]
    assert ppv.value is None
    assert ppv.reason == "no sample is called positive"


def test_the_mann_whitney_p_is_two_sided_unless_asked() -> None:
    two = evaluate(binormal_predictions(), SETTINGS, np.random.default_rng(0)).p_value
    one = evaluate(
        binormal_predictions(), EvaluationSettings(bootstrap=100, alternative="greater"), np.random.default_rng(0)
    ).p_value
    assert two == pytest.approx(2 * one, rel=0.02)


def test_stability_is_one_for_equal_selections_and_near_zero_for_random_ones() -> None:
    rng = np.random.default_rng(0)
    random = [tuple(map(str, rng.choice(200, 20, replace=False))) for _ in range(30)]
    assert selection_stability([("1", "2")] * 4, 50) == 1.0
    assert abs(selection_stability(random, 200)) < 0.03


@pytest.mark.parametrize("n", [40, 120])
def test_the_interval_of_the_auc_covers(n: int) -> None:
    # Binormal model: with means one standard deviation apart the AUC is Phi(1/sqrt 2) = 0.7602.
    settings = EvaluationSettings(bootstrap=300)
    covered = 0
    for seed in range(150):
        estimate = evaluate(binormal_predictions(n, seed=seed), settings, np.random.default_rng(seed)).estimates["roc_auc"]
        covered += estimate.lower <= 0.7602 <= estimate.upper
    assert covered / 150 >= 0.88  # nominal 0.95; the percentile interval is a little narrow at n=40
