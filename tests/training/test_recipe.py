"""The recipe as a whole: nothing leaks, noise comes out as noise, and it is the same again."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from toy import toy_cohort, toy_study

from training import recipe as recipe_module
from training.evaluation import validate_internally
from training.explanation import explain
from training.partition import hold_out
from training.recipe import complete, fit_recipe
from training.run import draw_held_out, run
from training.workers import Workers

HERE = Workers(isolated=False)


def test_the_model_finds_a_planted_signal_and_asks_for_the_chosen_features_only() -> None:
    cohort = toy_cohort(missing=0.05)
    fitted = fit_recipe(toy_study().recipe, cohort, np.random.default_rng(0), HERE)
    new = toy_cohort(seed=1)
    assert {f"f00{i}" for i in range(5)} <= set(fitted.schema.names)
    assert roc_auc_score(new.y, fitted.predict(new.features)) > 0.9
    assert fitted.pipeline.n_features_in_ == len(fitted.schema.names) < cohort.features.shape[1]


def test_the_model_does_not_depend_on_anyone_held_out() -> None:
    cohort = toy_cohort(80)
    split = hold_out(cohort, 0.25, np.random.default_rng(0))
    spoilt = cohort.features.copy()
    spoilt.loc[split.test] = 1e6
    fitted = [
        fit_recipe(toy_study().recipe, cohort.subset(split.train), np.random.default_rng(1), HERE),
        fit_recipe(
            toy_study().recipe,
            type(cohort)(type(cohort.table)(spoilt), cohort.labels, cohort.patients).subset(split.train),
            np.random.default_rng(1),
            HERE,
        ),
    ]
    assert fitted[0].schema == fitted[1].schema
    np.testing.assert_array_equal(*(one.predict(cohort.features.loc[split.train]) for one in fitted))


def test_no_patient_is_on_both_sides_of_an_inner_split(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = toy_cohort(30, lesions=3)
    seen = []
    original = recipe_module._inner_fold
    monkeypatch.setattr(recipe_module, "_inner_fold", lambda *args: seen.append(args[1]) or original(*args))
    validate_internally(toy_study().recipe, cohort, toy_study().evaluation, np.random.default_rng(0), HERE)
    assert len(seen) == 9  # three inner folds in each of three outer ones
    for split in seen:
        assert not set(cohort.patients[split.train]) & set(cohort.patients[split.test])


def test_selection_is_repeated_inside_every_inner_fold_unless_the_published_order_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: dict[str, list[int]] = {}
    original = recipe_module.select_on
    for scope in ("inner", "published"):
        sizes[scope] = []
        monkeypatch.setattr(
            recipe_module, "select_on", lambda s, X, *rest, to=sizes[scope]: to.append(len(X)) or original(s, X, *rest)
        )
        settings = toy_study(
            recipe={
                "selection": {"methods": ["correlation"], "votes": 1, "scope": scope},
                "search": {"kind": "optuna", "trials": 2, "folds": 3},
            }
        )
        fit_recipe(settings.recipe, toy_cohort(60), np.random.default_rng(0), HERE)
    assert sizes == {"inner": [60, 40, 40, 40], "published": [60]}


def test_choosing_features_before_the_folds_makes_noise_look_like_signal() -> None:
    inner_scores = {}
    for scope in ("inner", "published"):
        body = {
            "selection": {"methods": ["correlation", "chi2"], "top": 20, "votes": 2, "scope": scope},
            "search": {"kind": "optuna", "trials": 2, "folds": 5},
        }
        recipe = toy_study(recipe=body).recipe
        fits = [
            fit_recipe(recipe, toy_cohort(60, p=800, signal=0, seed=seed), np.random.default_rng(seed), HERE) for seed in range(4)
        ]
        inner_scores[scope] = np.mean([fitted.search.winner.mean for fitted in fits])
    assert inner_scores["published"] > 0.85
    assert inner_scores["inner"] < 0.65


def test_noise_comes_out_as_noise() -> None:
    study = toy_study()
    found = [
        validate_internally(
            study.recipe, toy_cohort(60, p=400, signal=0, seed=seed), study.evaluation, np.random.default_rng(seed), HERE
        )
        for seed in range(6)
    ]
    assert 0.40 <= np.mean([one.estimates["roc_auc"].value for one in found]) <= 0.60


def test_no_prediction_comes_from_a_model_that_knew_the_patient() -> None:
    cohort = toy_cohort(30, lesions=2)
    found = validate_internally(toy_study().recipe, cohort, toy_study().evaluation, np.random.default_rng(0), HERE)
    assert sorted(found.predictions["sample"]) == sorted(cohort.samples)
    assert found.predictions.groupby("patient")["fold"].nunique().max() == 1


@pytest.mark.parametrize(
    "search", [{"kind": "tpot", "generations": 2, "population": 5, "folds": 3}, {"kind": "optuna", "trials": 8, "folds": 3}]
)
def test_the_same_study_is_the_same_again_with_one_worker_or_two(search: dict) -> None:
    study = toy_study(recipe={"search": search, "selection": {"top": 10, "votes": 3}})
    cohort = toy_cohort(60, missing=0.02)
    held_out = draw_held_out(study, {"": cohort})
    results = []
    for count in (1, 2):
        with Workers(count) as workers:
            results.append(run(study, cohort, held_out, workers))
    one, two = results
    assert one.fitted.schema == two.fitted.schema
    assert one.fitted.search.winner.candidate == two.fitted.search.winner.candidate
    for first, second in ((one.held_out, two.held_out), (one.internal, two.internal)):
        pd.testing.assert_frame_equal(first.predictions, second.predictions, rtol=0, atol=1e-12)


def test_the_threshold_of_a_strongly_shrunk_model_parts_new_patients() -> None:
    # The baseline's probabilities span about 0.03; the folds' models differ in level by as much.
    baseline_only = {"search": {"kind": "optuna", "trials": 1, "folds": 5}, "selection": {"methods": ["correlation"], "votes": 1}}
    recipe = toy_study(recipe=baseline_only).recipe
    for seed in range(5):
        fitted = fit_recipe(recipe, toy_cohort(60, seed=seed, signal=1.0), np.random.default_rng(seed), HERE)
        new = toy_cohort(400, seed=seed + 100, signal=1.0)
        probability = fitted.predict(new.features)
        assert probability.max() - probability.min() < 0.15
        called = probability >= fitted.threshold
        assert called[new.y == 1].mean() > 0.6
        assert called[new.y == 0].mean() < 0.4


def test_shap_values_and_base_add_up_to_the_models_output() -> None:
    cohort = toy_cohort(80)
    split = hold_out(cohort, 0.25, np.random.default_rng(0))
    development, held_out = cohort.subset(split.train), cohort.subset(split.test)
    fitted = fit_recipe(toy_study().recipe, development, np.random.default_rng(0), HERE)
    explanation = explain(fitted, development, held_out, np.random.default_rng(0))
    np.testing.assert_allclose(
        explanation.base_value + explanation.values.sum(axis=1), fitted.predict(held_out.features), atol=1e-6
    )
    assert set(explanation.importance().index[:3]) <= {f"f00{i}" for i in range(5)}
    assert list(explanation.values.columns) == list(fitted.schema.names)


def test_missing_values_become_training_medians_and_columns_without_variation_go() -> None:
    features = pd.DataFrame({"a": [1.0, np.nan, 3.0], "flat": 2.0, "empty": np.nan, "flat_when_filled": [5.0, np.nan, 5.0]})
    pd.testing.assert_frame_equal(complete(features), pd.DataFrame({"a": [1.0, 2.0, 3.0]}))
