"""SHAP values in an answer: they add up, and a row's are the row's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.bundle import ModelBundle
from serving.explainer import SHOWN, Explainer, Explanation, ExplanationError
from serving.predictor import Predictor
from tests.serving.registered import FEATURES, rows_like_training, small_bundle


def matrix(rows: int) -> np.ndarray:
    return np.array([[row[name] for name in FEATURES] for row in rows_like_training(rows)])


def test_base_value_and_contributions_sum_to_the_score(predictor: Predictor) -> None:
    for row in matrix(6):
        explanation = predictor.explainer.explain(row)
        score = predictor.loaded.bundle.score(row[None, :])[0]
        assert explanation.base_value + explanation.values.sum() == pytest.approx(score, abs=1e-9)


def test_they_sum_to_the_score_for_features_of_the_size_of_1e_minus_9() -> None:
    """SHAP's own masker takes values that are that near for the same, and would say that nothing contributes."""
    small = small_bundle()
    pipeline = small.pipeline
    tiny = 1e-13 / 1e4

    class Shrunk(ModelBundle):
        def score(self, rows: np.ndarray) -> np.ndarray:
            return np.asarray(pipeline.predict_proba(rows / tiny)[:, 1])

    bundle = Shrunk(**{**vars(small), "background": small.background * tiny})
    row = matrix(1)[0]
    found = Explainer(bundle).explain(row * tiny).values
    assert np.abs(found).max() > 0.01
    assert found == pytest.approx(Explainer(small).explain(row).values, abs=1e-6)


def test_the_feature_that_the_model_does_not_use_contributes_nothing(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    used = small_bundle(seed=3)
    used.pipeline["classify"].coef_[0, 1] = 0.0
    explanation = Explainer(replace(bundle, pipeline=used.pipeline)).explain(matrix(1)[0])
    assert explanation.values[1] == pytest.approx(0.0, abs=1e-12)
    assert abs(explanation.values[0]) > 0.01


def test_a_row_has_the_same_values_whatever_was_explained_before_and_meanwhile(predictor: Predictor) -> None:
    rows = matrix(3)
    alone = predictor.explainer.explain(rows[2]).values
    found: list[np.ndarray] = []

    def explain_all() -> None:
        found.append(predictor.explainer.explain_all(rows)[2].values)

    threads = [threading.Thread(target=explain_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in found:
        np.testing.assert_array_equal(values, alone)


def test_numpys_global_generator_is_left_as_it_was(predictor: Predictor) -> None:
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    predictor.explainer.explain(matrix(1)[0])
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002


def test_a_missing_value_that_is_imputed_is_explained_too() -> None:
    row = matrix(1)[0]
    row[1] = np.nan
    bundle = small_bundle(missing="impute")
    explanation = Explainer(bundle).explain(row)
    assert explanation.base_value + explanation.values.sum() == pytest.approx(bundle.score(row[None, :])[0], abs=1e-9)


def test_values_that_do_not_add_up_are_not_shown(predictor: Predictor) -> None:
    class Fickle(ModelBundle):
        def score(self, rows: np.ndarray) -> np.ndarray:
            return super().score(rows) / (1 if len(rows) > 1 else 2)

    with pytest.raises(ExplanationError, match="cannot be trusted"):
        Explainer(Fickle(**vars(predictor.loaded.bundle))).explain(matrix(1)[0])


def test_making_ready_compiles_nothing_draws_nothing_and_writes_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from serving import explainer; explainer.load_shap(); import numba; "
        "assert 'matplotlib' not in sys.modules; assert not numba.config.DISABLE_JIT; import matplotlib"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[2], check=True)
    assert list(tmp_path.rglob("*.json")) == []


def test_ten_features_are_shown_largest_first_and_the_rest_summed() -> None:
    values = np.array([0.01, -0.2, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, -0.02])
    answer = Explanation(tuple(f"x{number}" for number in range(12)), 0.3, values).answer()
    assert [one["feature"] for one in answer["features"]] == ["x1", *(f"x{number}" for number in range(10, 1, -1))]
    assert len(answer["features"]) == SHOWN
    assert (answer["rest"], answer["rest_count"]) == (pytest.approx(-0.01), 2)
    assert answer["base_value"] + sum(one["shap"] for one in answer["features"]) + answer["rest"] == pytest.approx(
        0.3 + values.sum(), abs=1e-12
    )


def test_with_few_features_there_is_no_rest(predictor: Predictor) -> None:
    answer = predictor.explainer.explain(matrix(1)[0]).answer()
    assert (len(answer["features"]), answer["rest"], answer["rest_count"]) == (4, 0.0, 0)
