"""Scoring, without any web."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from features.bundle import ModelBundle
from features.errors import InputError, SchemaMismatchError
from serving.predictor import MOST_FAULTS, MOST_HINTS, Predictor, RowsMismatchError, ScoreError
from tests.serving.registered import FEATURES, Registered, rows_like_training, small_bundle


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
    with pytest.raises(SchemaMismatchError, match="'CA9' has a value that is missing or is not a finite number"):
        predictor.predict_table(pd.DataFrame([row]))


def test_a_number_that_overflows_in_the_pipeline_is_the_senders_fault(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    scale = np.full(len(FEATURES), 1e-300)  # so that a large number overflows when it is divided by it
    shrunk = Predictor(replace(predictor.loaded, bundle=replace(bundle, pipeline=_with_scale(bundle.pipeline, scale))))
    with pytest.raises(InputError, match="too large"):
        shrunk.predict([dict.fromkeys(FEATURES, 1e99)])


def test_a_probability_that_is_no_number_is_never_given(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    pipeline = deepcopy(bundle.pipeline)
    pipeline["classify"].coef_ = np.array([[1e250, -1e250, 0.0, 0.0]])  # infinity minus infinity
    undecided = Predictor(replace(predictor.loaded, bundle=replace(bundle, pipeline=pipeline)))
    with pytest.raises(InputError, match="too large"):
        undecided.predict([{**dict.fromkeys(FEATURES, 0.0), "volume": 1e99, "entropy": 1e99}])


def test_an_error_of_the_pipeline_on_ordinary_numbers_is_not_blamed_on_the_sender(predictor: Predictor) -> None:
    bundle = predictor.loaded.bundle
    tiny = np.full(len(FEATURES), 1e-308)
    broken = Predictor(replace(predictor.loaded, bundle=replace(bundle, pipeline=_with_scale(bundle.pipeline, tiny))))
    with pytest.raises(ValueError, match="infinity"):
        broken.predict(rows_like_training(1))


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_what_is_no_probability_is_never_given_for_ordinary_numbers(predictor: Predictor, value: float) -> None:
    class Undecided(ModelBundle):
        def score(self, matrix: np.ndarray) -> np.ndarray:
            return np.full(len(matrix), value)

    bundle = Undecided(**vars(predictor.loaded.bundle))
    with pytest.raises(ScoreError):
        Predictor(replace(predictor.loaded, bundle=bundle)).predict(rows_like_training(2))


def test_a_large_value_in_one_row_fails_no_other(predictor: Predictor, registered: Registered) -> None:
    class Fragile(ModelBundle):
        def score(self, matrix: np.ndarray) -> np.ndarray:
            if np.abs(matrix).max() > 1e15:
                raise ValueError("Input contains infinity")
            return super().score(matrix)

    rows = rows_like_training(3)
    matrix = np.array([[row[name] for name in FEATURES] for row in rows])
    matrix[1, 0] = 1e20
    scores = Predictor(replace(predictor.loaded, bundle=Fragile(**vars(predictor.loaded.bundle)))).score(matrix)
    assert np.isnan(scores.probability).tolist() == [False, True, False]
    assert scores.probability[[0, 2]].tolist() == pytest.approx(registered.probabilities([rows[0], rows[2]]), abs=1e-9)


@given(st.data())
def test_the_order_of_keys_and_the_other_rows_do_not_matter(
    predictor: Predictor, registered: Registered, data: st.DataObject
) -> None:
    number = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(FEATURES, number)), min_size=1, max_size=8))
    shuffled = [dict(data.draw(st.permutations(list(row.items())))) for row in rows]
    together = [scored.probability for scored in predictor.predict(shuffled)]
    alone = [predictor.predict([row])[0].probability for row in rows]
    assert together == pytest.approx(registered.probabilities(rows), abs=1e-9)
    assert alone == pytest.approx(together, abs=1e-9)


def test_a_feature_may_be_sent_under_another_name_of_its_gene(predictor: Predictor) -> None:
    row = rows_like_training(1)[0]
    other = {("CAIX" if name == "CA9" else name): value for name, value in row.items()}
    assert predictor.predict([other]) == predictor.predict([row])


def test_a_feature_under_two_names_is_refused_under_the_second(predictor: Predictor) -> None:
    reading = predictor.read([{**rows_like_training(1)[0], "CAIX": 1.0}])
    assert [(fault.feature, fault.reason) for fault in reading.faults] == [
        ("CAIX", "is the same feature as 'CA9', which is sent too; send one of them")
    ]


def test_a_value_under_another_name_is_judged_under_that_name(predictor: Predictor) -> None:
    row = rows_like_training(1)[0]
    del row["CA9"]
    assert [(fault.path, fault.reason) for fault in predictor.read([{**row, "CAIX": True}]).faults] == [
        (("rows", 0, "features", "CAIX"), "is not a number")
    ]


def test_a_null_is_filled_as_in_training_where_the_model_imputes(imputing: Predictor, registered: Registered) -> None:
    row: dict[str, float | None] = dict(rows_like_training(1)[0])
    mean = imputing.loaded.bundle.pipeline["impute"].statistics_[FEATURES.index("entropy")]
    assert imputing.predict([{**row, "entropy": None}])[0].probability == pytest.approx(
        registered.probabilities([{**rows_like_training(1)[0], "entropy": mean}])[0], abs=1e-9
    )


def test_a_null_is_refused_where_the_model_does_not_impute(predictor: Predictor) -> None:
    row: dict[str, float | None] = dict(rows_like_training(1)[0])
    faults = predictor.read([{**row, "entropy": None}]).faults
    assert [(fault.feature, fault.reason) for fault in faults] == [("entropy", "is null, and this model takes no missing values")]


def test_a_feature_that_is_left_out_is_refused_whatever_the_policy(imputing: Predictor) -> None:
    row = rows_like_training(1)[0]
    del row["entropy"]
    assert [(fault.feature, fault.reason) for fault in imputing.read([row]).faults] == [("entropy", "is missing")]


def test_an_empty_cell_of_a_table_follows_the_same_policy(imputing: Predictor, predictor: Predictor) -> None:
    frame = pd.DataFrame(rows_like_training(3))
    frame.loc[1, "entropy"] = np.nan
    null = [{name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")]
    expected = [one.probability for one in imputing.predict(null)]
    assert imputing.predict_table(frame)["probability"].tolist() == pytest.approx(expected, abs=1e-9)
    with pytest.raises(SchemaMismatchError, match="'entropy' has a value that is missing"):
        predictor.predict_table(frame)


@pytest.mark.parametrize("value", ["high", np.inf])
def test_what_is_no_number_in_a_cell_is_never_imputed(imputing: Predictor, value: object) -> None:
    frame = pd.DataFrame(rows_like_training(3)).astype(object)
    frame.loc[1, "entropy"] = value
    with pytest.raises(SchemaMismatchError, match="'entropy' has a value that is not a finite number"):
        imputing.predict_table(frame)


def test_a_row_unlike_training_is_flagged_and_an_ordinary_one_is_not(predictor: Predictor) -> None:
    middle = dict.fromkeys(FEATURES, 0.0)
    scored = predictor.predict([middle, {**middle, "volume": 1e6}])
    assert [one.out_of_distribution for one in scored] == [False, True]
    table = predictor.predict_table(pd.DataFrame([middle, {**middle, "volume": 1e6}]))
    assert table["out_of_distribution"].tolist() == [False, True]


@pytest.fixture(scope="session")
def imputing(predictor: Predictor) -> Predictor:
    """The same model, which takes missing values."""
    return Predictor(replace(predictor.loaded, bundle=small_bundle(missing="impute")))


def _with_scale(pipeline: Pipeline, scale: np.ndarray) -> Pipeline:
    changed = deepcopy(pipeline)
    changed["scale"].scale_ = scale
    return changed
