from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from features.audit import audit, single_feature_auc
from features.cohort import Cohort
from features.table import FeatureTable

SAMPLES = 60


def clean_table() -> pd.DataFrame:
    values = np.random.default_rng(3).normal(size=(SAMPLES, 5))
    return pd.DataFrame(values, columns=list("abcde"), index=[f"s{row:02d}" for row in range(SAMPLES)])


def cohort_of(frame: pd.DataFrame, patients: list[str] | None = None, notes: tuple[str, ...] = ()) -> Cohort:
    labels = pd.Series(np.arange(len(frame)) % 2, index=frame.index)
    return Cohort(FeatureTable(frame.astype(float)), labels, pd.Series(patients or list(frame.index), index=frame.index), notes)


def test_a_clean_table_has_no_findings() -> None:
    found = audit(cohort_of(clean_table()))
    assert (found.samples, found.events, found.patients, found.features) == (SAMPLES, 30, SAMPLES, 5)
    assert found.warnings == ()
    assert not (found.constant_columns or found.duplicate_columns or found.columns_with_missing_values)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_column_that_is_the_outcome_with_noise_is_named(direction: int) -> None:
    frame = clean_table()
    noise = np.random.default_rng(0).normal(scale=0.1, size=SAMPLES)
    found = audit(cohort_of(frame.assign(leak=direction * (np.arange(SAMPLES) % 2 + noise))))
    assert list(found.outcome_like) == ["leak"]
    assert found.outcome_like["leak"] > 0.99
    assert "'leak'" in found.warnings[0]


def test_a_strong_feature_is_not_yet_the_outcome() -> None:
    strong = np.arange(SAMPLES) % 2 + np.random.default_rng(0).normal(scale=0.5, size=SAMPLES)
    cohort = cohort_of(clean_table().assign(strong=strong))
    assert 0.85 < single_feature_auc(cohort.features, cohort.y)["strong"] < 0.99
    assert audit(cohort).outcome_like == {}


def test_whole_numbers_that_never_repeat_look_like_an_identifier() -> None:
    numbers = np.random.default_rng(0).permutation(SAMPLES) + 1000
    frame = clean_table().assign(record=numbers, age=numbers // 2, fraction=numbers + 0.5)
    found = audit(cohort_of(frame))
    assert found.identifier_like == ("record",)
    assert "'record'" in found.warnings[0]


def test_constant_and_duplicate_columns_and_missing_values_are_named() -> None:
    frame = clean_table().assign(flat=7.0, empty=np.nan)
    frame.loc[["s01", "s02"], "b"] = np.nan
    frame.loc["s03", "flat"] = np.nan
    frame = frame.assign(copy=frame["b"], again=frame["b"])
    found = audit(cohort_of(frame))
    assert found.constant_columns == ("flat", "empty")
    assert found.duplicate_columns == {"copy": "b", "again": "b"}
    assert found.columns_with_missing_values == {"b": 2, "flat": 1, "empty": SAMPLES, "copy": 2, "again": 2}
    assert found.missing_values == SAMPLES + 7


def test_rows_that_are_copies_under_different_patients_are_reported() -> None:
    frame = clean_table()
    frame.loc["s07", "c"] = np.nan
    frame.loc["s40"] = frame.loc["s07"]
    found = audit(cohort_of(frame))
    assert found.duplicate_rows == (("s07", "s40"),)
    assert found.warnings[0].startswith("2 samples have the same features as another sample of a different patient")


def test_rows_that_are_copies_under_one_patient_are_not_reported() -> None:
    frame = pd.concat([clean_table().rename(index=lambda name, copy=copy: f"{name}-{copy}") for copy in range(3)])
    owners = [name.split("-")[0] for name in frame.index]
    found = audit(cohort_of(frame, owners))
    assert found.duplicate_rows == ()
    assert (found.patients, found.most_samples_per_patient) == (SAMPLES, 3)


def test_notes_of_reading_are_among_the_warnings() -> None:
    assert audit(cohort_of(clean_table(), notes=("3 samples were left out.",))).warnings == ("3 samples were left out.",)


def test_many_names_are_cut_and_counted() -> None:
    outcome = np.arange(SAMPLES) % 2
    frame = clean_table().assign(**{f"leak{number}": outcome * (number + 1.5) for number in range(8)})
    assert "'leak4' and 3 more tell the outcome" in audit(cohort_of(frame)).warnings[0]


def test_the_area_of_each_column_is_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    values = np.round(rng.normal(size=(80, 30)), 1)  # rounded: with ties
    values[rng.random(values.shape) < 0.2] = np.nan
    y = (rng.random(80) < 0.3).astype(int)
    areas = single_feature_auc(pd.DataFrame(values), y)
    for column, area in areas.items():
        known = ~np.isnan(values[:, column])
        assert area == pytest.approx(roc_auc_score(y[known], values[known, column]), abs=1e-12)


def test_the_area_of_a_column_that_one_class_has_no_value_of_is_undefined() -> None:
    frame = pd.DataFrame({"only_events": [np.nan, np.nan, 1.0, 2.0], "empty": np.nan, "known": [1.0, 2.0, 3.0, 4.0]})
    areas = single_feature_auc(frame, np.array([0, 0, 1, 1]))
    assert areas.isna().to_dict() == {"only_events": True, "empty": True, "known": False}


def test_a_column_that_few_samples_have_is_not_taken_for_the_outcome() -> None:
    rng = np.random.default_rng(0)
    labels = pd.Series(np.arange(40) % 2, index=[f"s{i}" for i in range(40)])
    frame = pd.DataFrame({"rare": np.nan, "noise": rng.normal(size=40)}, index=labels.index)
    frame.iloc[:4, 0] = [0.0, 1.0, 0.1, 1.1]  # parts the two known samples of either class
    patients = pd.Series(labels.index, index=labels.index)
    assert audit(Cohort(FeatureTable(frame), labels, patients)).outcome_like == {}


def test_copies_of_the_follow_up_and_of_the_event_are_noticed_also_where_the_horizon_cuts_them() -> None:
    rng, frame = np.random.default_rng(5), clean_table()
    time = pd.Series(rng.uniform(1, 100, size=SAMPLES), index=frame.index)
    event = pd.Series((rng.random(SAMPLES) < 0.6).astype(float), index=frame.index)
    frame["other_months"], frame["other_status"] = 1.05 * time + 0.5, event
    by_horizon = event.where(time <= 90, 0).astype(int)
    cohort = Cohort(
        FeatureTable(frame),
        by_horizon,
        pd.Series(list(frame.index), index=frame.index),
        times=time.clip(upper=90),
        horizon=90.0,
        time_unit="months",
    )
    found = audit(cohort)
    assert set(found.outcome_like) == {"other_months", "other_status"}
    assert any("rank correlation with the times" in warning for warning in found.warnings)
