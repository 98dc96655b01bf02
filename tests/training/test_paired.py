"""Two models on the same patients: agreement with R, coverage, and what must not be paired."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score
from toy import binormal_predictions

from features.errors import InputError
from training.metrics import METRICS
from training.paired import (
    LEAST_EVENTS,
    LEAST_PATIENTS,
    bootstrap_p_value,
    delong_interval,
    delong_test,
    flips,
    holm,
    is_clustered,
    paired_difference,
    paired_values,
    same_patients,
    why_not_estimable,
)

# A made-up example with ties, the same in R 4.2.2 with pROC 1.18.0:
#   i <- 0:39; y <- as.integer((i * 7) %% 40 < 18)
#   a <- round(sin(i * 1.3) + 0.9 * y, 1); b <- round(cos(i * 0.7) + 0.5 * y, 2)
NUMBER = np.arange(40)
Y = ((NUMBER * 7) % 40 < 18).astype(int)
A, B = np.round(np.sin(NUMBER * 1.3) + 0.9 * Y, 1), np.round(np.cos(NUMBER * 0.7) + 0.5 * Y, 2)


def rescored(predictions: pd.DataFrame, noise: float, seed: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """Another model on the same patients: the first one's logits with something added."""
    rng = np.random.default_rng(seed)
    logit = np.log(predictions["probability"] / (1 - predictions["probability"]))
    probability = 1 / (1 + np.exp(-(logit + noise * rng.normal(size=len(logit)) + shift * predictions["label"])))
    return predictions.assign(probability=probability, called=probability >= 0.5)


def test_the_interval_is_that_of_proc() -> None:
    # ci.auc(roc(y, a, direction = "<")); ci.auc(roc(y, b, direction = "<")); ci.auc(..., conf.level = 0.9)
    first, second, narrow = delong_interval(Y, A), delong_interval(Y, B), delong_interval(Y, A, level=0.9)
    assert (first.lower, first.upper) == pytest.approx((0.7486536, 0.9735686), abs=1e-7)
    assert (second.lower, second.upper) == pytest.approx((0.5517631, 0.8775298), abs=1e-7)
    assert (narrow.lower, narrow.upper) == pytest.approx((0.7667338, 0.9554884), abs=1e-7)
    assert first.value == pytest.approx(roc_auc_score(Y, A), abs=1e-12)


def test_the_test_is_that_of_proc() -> None:
    # roc.test(ra, rb, method = "delong", paired = TRUE): first minus second there, second minus first here
    found = delong_test(Y, A, B)
    assert found.z == pytest.approx(-1.43855125102, abs=1e-9)
    assert found.p_value == pytest.approx(0.15027770673, abs=1e-9)
    assert (found.lower, found.upper) == pytest.approx((-0.34601640513, 0.05308711221), abs=1e-9)


def test_a_perfect_ranking_has_the_interval_that_proc_gives_it() -> None:
    # ci.auc(roc(c(0, 0, 0, 1, 1, 1), 1:6)) is 1-1
    found = delong_interval(np.array([0, 0, 0, 1, 1, 1]), np.arange(6.0))
    assert (found.lower, found.value, found.upper) == (1, 1, 1)


def test_equal_rankings_do_not_differ() -> None:
    found = delong_test(Y, A, 3 * A - 7)
    assert (found.difference, found.p_value, found.z) == (0, 1, 0)


def test_without_two_samples_of_a_class_there_is_no_test_and_no_interval() -> None:
    one = np.array([1, 0, 0, 0])
    assert delong_interval(one, np.arange(4.0)).lower is None
    assert delong_interval(np.zeros(4), np.arange(4.0)).value is None
    with pytest.raises(InputError, match="two samples of each class"):
        delong_test(one, np.arange(4.0), np.arange(4.0))


def test_delongs_test_rejects_equal_models_at_its_level() -> None:
    rejected = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        y, shared = np.arange(60) % 2, rng.normal(size=60)
        scores = [shared + y + rng.normal(size=60) for _ in range(2)]
        rejected += delong_test(y, *scores).p_value < 0.05
    assert 0.025 <= rejected / 400 <= 0.085


def test_the_paired_interval_covers_the_true_difference() -> None:
    covered = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        y, shared = np.arange(80) % 2, rng.normal(size=80)
        scores = [shared + step * y + rng.normal(size=80) for step in (0.8, 1.6)]
        a, b = (
            pd.DataFrame({"sample": I80, "patient": I80, "label": y, "probability": norm.cdf(one), "called": one > 0})
            for one in scores
        )
        true = norm.cdf(1.6 / 2) - norm.cdf(0.8 / 2)  # each score has variance 2, so the AUC is Phi(step / 2)
        found = paired_difference(a, b, "roc_auc", rng, count=400)
        covered += found.lower <= true <= found.upper
    assert covered / 150 >= 0.89


I80 = [str(number) for number in range(80)]


@pytest.mark.parametrize("metric", [one.name for one in METRICS])
def test_the_difference_is_that_of_the_measures_and_of_none_with_itself(metric: str) -> None:
    a = binormal_predictions(80)
    b = rescored(a, 0.8)
    same = paired_difference(a, a, metric, np.random.default_rng(0), count=200)
    assert (same.lower, same.value, same.upper) == (0, 0, 0)
    forth, back = (paired_values(*pair, metric, np.random.default_rng(0), 200) for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(forth, -back, atol=1e-12)


def test_the_difference_of_auc_and_brier_are_scikit_learns() -> None:
    a = binormal_predictions(80)
    b = rescored(a, 0.8)
    for metric, function in (("roc_auc", roc_auc_score), ("brier", brier_score_loss)):
        found = paired_difference(a, b, metric, np.random.default_rng(0), count=100)
        expected = function(b["label"], b["probability"]) - function(a["label"], a["probability"])
        assert found.value == pytest.approx(expected, abs=1e-12)


def test_a_paired_interval_is_narrower_than_one_that_forgets_the_pairs() -> None:
    a = binormal_predictions(100)
    b = rescored(a, 0.3)
    paired = paired_difference(a, b, "roc_auc", np.random.default_rng(0))
    a_alone, b_alone = (
        paired_values(constant(one), one, "roc_auc", np.random.default_rng(seed)) for seed, one in ((1, a), (2, b))
    )
    lower, upper = np.quantile(b_alone[1:] - a_alone[1:], [0.025, 0.975])
    assert paired.upper - paired.lower < 0.5 * (upper - lower)


def constant(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.assign(probability=0.5)


def test_order_and_other_types_of_names_do_not_matter() -> None:
    a = binormal_predictions(40).assign(sample=range(40))
    b = rescored(a, 0.5)
    shuffled = b.sample(frac=1, random_state=0).assign(sample=lambda one: one["sample"].astype(str))
    assert list(same_patients([a, shuffled])) == [str(number) for number in range(40)]
    first, second = (paired_difference(a, one, "roc_auc", np.random.default_rng(0), count=100) for one in (b, shuffled))
    assert first == second


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (lambda one: one.iloc[:-3], "37 samples on both sides"),
        (lambda one: one.assign(label=1 - one["label"]), "40 of 40 samples of model 1 have another label"),
        (lambda one: one.assign(patient="p" + one["patient"]), "40 of 40 samples of model 1 belong to another patient"),
        (lambda one: pd.concat([one, one.head(2)]), "2 samples are predicted twice"),
    ],
)
def test_different_patients_are_refused_by_counts_and_never_by_name(spoilt: object, words: str) -> None:
    table = binormal_predictions(40)
    with pytest.raises(InputError, match=words) as refused:
        same_patients([table, table, spoilt(table)] if "model 1" not in words else [table, spoilt(table)])
    assert "--on TABLE" in str(refused.value) or "one row per sample" in str(refused.value)
    assert not any(f"'{name}'" in str(refused.value) or f" {name} " in str(refused.value) for name in table["sample"])


def test_holm_is_that_of_r() -> None:
    # p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


def test_who_changes_sides_is_told_with_whether_rightly() -> None:
    a = binormal_predictions(10).assign(called=False)
    b = a.assign(called=[True, True, *[False] * 8])
    found = flips(a, b)
    assert list(found["sample"]) == ["s0", "s1"]
    assert list(found["better"]) == list(a["label"].iloc[:2] == 1)
    assert flips(b, b).empty


def test_many_lesions_of_few_patients_are_as_uncertain_as_their_patients() -> None:
    once = binormal_predictions(40)
    lesions = pd.concat([once.assign(sample=once["sample"] + suffix) for suffix in "abc"], ignore_index=True)
    assert is_clustered(lesions)
    assert not is_clustered(once)
    few, many = (paired_difference(one, rescored_alike(one), "brier", np.random.default_rng(0)) for one in (once, lesions))
    assert (many.lower, many.upper) == pytest.approx((few.lower, few.upper))


def rescored_alike(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.assign(probability=predictions["probability"] ** 2)


def test_the_bootstrap_p_is_small_for_a_real_difference_and_one_for_none() -> None:
    a = binormal_predictions(80)
    better = rescored(a, 0.0, shift=2.0)
    assert bootstrap_p_value(paired_values(a, better, "roc_auc", np.random.default_rng(0))) < 0.01
    assert bootstrap_p_value(paired_values(a, a, "roc_auc", np.random.default_rng(0))) == 1


def test_the_bootstrap_p_rejects_equal_models_at_its_level() -> None:
    rejected = 0
    for seed in range(200):
        a = binormal_predictions(30, lesions=2, seed=seed)
        pair = (rescored(a, 0.7, seed=10_000 + seed), rescored(a, 0.7, seed=20_000 + seed))
        rejected += bootstrap_p_value(paired_values(*pair, "roc_auc", np.random.default_rng(seed), 400)) < 0.05
    assert rejected / 200 <= 0.09


@pytest.mark.parametrize(
    ("patients", "events", "estimable"),
    [(LEAST_PATIENTS, LEAST_EVENTS, True), (LEAST_PATIENTS - 1, LEAST_EVENTS, False), (40, LEAST_EVENTS - 1, False)],
)
def test_too_few_patients_or_events_are_not_estimable(patients: int, events: int, estimable: bool) -> None:
    label = np.arange(patients) < events
    table = pd.DataFrame({"patient": np.arange(patients), "label": label.astype(int)})
    assert (why_not_estimable(table) is None) == estimable
    lesions = pd.concat([table, table])  # several lesions make no more patients
    assert (why_not_estimable(lesions) is None) == estimable
