"""Scoring, without any web."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from features.errors import InputError, SchemaMismatchError
from serving.predictor import MOST_FAULTS, MOST_HINTS, Predictor, RowsMismatchError
from tests.serving.registered import FEATURES, Registered, rows_like_training


def test_rows_and_table_get_the_pipelines_own_probabilities(predictor: Predictor, registered: Registered) -> None:
    rows = rows_like_training(20)
    expected = registered.probabilities(rows)
    assert [scored.probability for scored in predictor.predict(rows)] == pytest.approx(expected, abs=1e-9)
    table = predictor.predict_table(pd.DataFrame(rows)[list(reversed(FEATURES))].assign(age=50))
    assert table["probability"].tolist() == pytest.approx(expected, abs=1e-9)


def test_a_probability_at_the_threshold_is_positive(predictor: Predictor) -> None:
    row = rows_like_training(1)
    probability = predictor.predict(row)[0].probability
    for threshold, label in [(probability, "hypoxic"), (probability + 1e-12, "not hypoxic")]:
        bundle = replace(predictor.loaded.bundle, card=predictor.loaded.bundle.card.model_copy(update={"threshold": threshold}))
        scored = Predictor(replace(predictor.loaded, bundle=bundle)).predict(row)[0]
        assert (scored.label, scored.threshold) == (label, threshold)


def test_a_fault_names_its_row_its_feature_and_the_nearest_name(predictor: Predictor) -> None:
    good, bad = rows_like_training(2)
    bad["entropi"] = bad.pop("entropy")
    with pytest.raises(RowsMismatchError) as caught:
        predictor.predict([good, bad])
    faults = {(fault.row, fault.feature): fault.reason for fault in caught.value.found}
    assert faults == {(1, "entropy"): "is missing", (1, "entropi"): "is not a feature of this model (did you mean 'entropy'?)"}


def test_very_many_faults_are_cut_short_and_found_quickly(predictor: Predictor) -> None:
    with pytest.raises(RowsMismatchError) as caught:
        predictor.predict([{f"volume{number}": 1.0 for number in range(100_000)}])
    assert len(caught.value.found) == MOST_FAULTS
    assert sum("did you mean" in fault.reason for fault in caught.value.found) == MOST_HINTS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(predictor: Predictor, value: float) -> None:
    row = {**rows_like_training(1)[0], "CA9": value}
    with pytest.raises(SchemaMismatchError, match="'CA9' is not a finite number"):
        predictor.predict([row])
    with pytest.raises(SchemaMismatchError, match="'CA9' has a missing or non-finite value"):
        predictor.predict_table(pd.DataFrame([row]))


def test_a_number_that_overflows_in_the_pipeline_is_the_senders_fault(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    scale = bundle.pipeline["scale"].scale_ / 1e6  # below 1, so that the largest double overflows when it is divided by it
    shrunk = Predictor(replace(predictor.loaded, bundle=replace(bundle, pipeline=_with_scale(bundle.pipeline, scale))))
    with pytest.raises(InputError, match="too large"):
        shrunk.predict([dict.fromkeys(FEATURES, 1.7e308)])


def test_a_probability_that_is_no_number_is_never_given(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    pipeline = deepcopy(bundle.pipeline)
    pipeline["classify"].coef_ = np.array([[1e10, -1e10, 0.0, 0.0]])  # infinity minus infinity
    undecided = Predictor(replace(predictor.loaded, bundle=replace(bundle, pipeline=pipeline)))
    with pytest.raises(InputError, match="too large"):
        undecided.predict([{**dict.fromkeys(FEATURES, 0.0), "volume": 1e305, "entropy": 1e305}])


def test_an_error_of_the_pipeline_on_ordinary_numbers_is_not_blamed_on_the_sender(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    tiny = np.full(len(FEATURES), 1e-308)
    broken = Predictor(replace(predictor.loaded, bundle=replace(bundle, pipeline=_with_scale(bundle.pipeline, tiny))))
    with pytest.raises(ValueError, match="infinity"):
        broken.predict(rows_like_training(1))


def _with_scale(pipeline: Pipeline, scale: np.ndarray) -> Pipeline:
    changed = deepcopy(pipeline)
    changed["scale"].scale_ = scale
    return changed
