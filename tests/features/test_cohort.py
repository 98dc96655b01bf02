from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cohort import Cohort, CohortSettings, load_cohort, load_sequences
from features.errors import InputError
from features.signatures import find_signature
from features.table import FeatureTable
from tests.tables import small_table


def settings(**changes: Any) -> CohortSettings:
    """Of a table as small_table makes it, written to table.csv."""
    body = {
        "source": {"kind": "table", "path": "table.csv", "sample": "ID"},
        "endpoint": {"kind": "binary", "column": "Target", "positive": 1},
        "patient": "PatientID",
    }
    return CohortSettings.model_validate(body | changes)


def load(folder: Path, frame: pd.DataFrame, **changes: Any) -> Cohort:
    frame.to_csv(folder / "table.csv", index=False)
    return load_cohort(settings(**changes), folder)


def refusal(folder: Path, frame: pd.DataFrame, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        load(folder, frame, **changes)
    return str(error.value)


def with_positive(value: Any) -> dict[str, Any]:
    return {"endpoint": {"kind": "binary", "column": "Target", "positive": value}}


def tiny(**changes: Any) -> Cohort:
    """Three samples of two patients; the parts may be replaced."""
    index = pd.Index(["s1", "s2", "s3"])
    parts = {"values": [[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]], "columns": ["a", "b"], "y": [0, 1, 1], "who": ["p", "q", "q"]}
    parts |= changes
    frame = pd.DataFrame(parts["values"], index=index, columns=parts["columns"])
    return Cohort(FeatureTable(frame), pd.Series(parts["y"], index=index), pd.Series(parts["who"], index=index))


@given(st.permutations(range(8)), st.integers(1, 8))
def test_a_subset_keeps_features_labels_and_patients_of_a_sample_together(order: list[int], size: int) -> None:
    index = pd.Index([f"s{number}" for number in range(8)])
    whole = Cohort(
        FeatureTable(pd.DataFrame({"number": np.arange(8.0)}, index=index)),
        pd.Series(np.arange(8) % 2, index=index),
        pd.Series([f"p{number}" for number in range(8)], index=index),
    )
    part = whole.subset(index[order[:size]])
    assert list(part.samples) == [f"s{number}" for number in order[:size]]
    assert part.features["number"].tolist() == order[:size]
    assert part.y.tolist() == [number % 2 for number in order[:size]]
    assert part.patients.tolist() == [f"p{number}" for number in order[:size]]


def test_the_cohort_of_a_patient_has_all_the_patients_samples() -> None:
    assert list(tiny().of_patients(pd.Index(["q"])).samples) == ["s2", "s3"]


def test_a_patient_is_positive_if_any_sample_is() -> None:
    cohort = tiny(y=[0, 0, 1], who=["p", "q", "q"])
    assert cohort.patient_labels.to_dict() == {"p": 0, "q": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"values": [[1.0, 2.0], [3.0, np.nan], [5.0, 6.0000001]]},
        {"values": [[1.0, 2.0], [3.0, 0.0], [5.0, 6.0]]},
        {"columns": ["a", "c"]},
        {"y": [1, 1, 1]},
        {"who": ["q", "q", "q"]},
    ],
    ids=["value", "missing value", "name of a feature", "label", "patient"],
)
def test_the_data_hash_changes_with_any_one_thing(change: dict[str, Any]) -> None:
    assert tiny(**change).data_hash != tiny().data_hash


def test_the_data_hash_is_that_of_the_data_alone(tmp_path: Path) -> None:
    table = small_table()
    first = load(tmp_path, table)
    second = load(tmp_path, table.rename(columns={"Target": "Outcome"}), endpoint={"kind": "binary", "column": "Outcome"})
    assert first.data_hash == second.data_hash
    assert first.subset(first.samples).data_hash == first.data_hash
    assert first.subset(first.samples[::-1]).data_hash != first.data_hash


def test_everything_but_outcome_and_patient_is_a_feature(tmp_path: Path) -> None:
    cohort = load(tmp_path, small_table())
    assert list(cohort.features.columns) == ["volume", "entropy"]
    assert cohort.y.tolist() == small_table()["Target"].tolist()
    assert cohort.patients.tolist() == small_table()["PatientID"].tolist()
    assert cohort.notes == ()


def test_rows_without_an_outcome_are_left_out_and_counted(tmp_path: Path) -> None:
    table = small_table()
    table["Target"] = table["Target"].astype(float)
    table.loc[[3, 8], "Target"] = np.nan
    cohort = load(tmp_path, table)
    assert len(cohort.samples) == 38
    assert not {"s03", "s08"} & set(cohort.samples)
    assert cohort.y.tolist() == table["Target"].dropna().tolist()
    assert cohort.notes == ("2 of 40 samples have no outcome and were left out.",)


@pytest.mark.parametrize(
    ("negative_value", "positive_value", "positive"),
    [
        (0, 1, 1),
        (0, 1, "1"),
        (0, 1, True),
        (0.0, 1.0, 1),
        (False, True, True),
        (False, True, 1),
        ("no", "yes", "yes"),
        (1, 2, 2),
        (1, 0, 0),
    ],
)
@pytest.mark.parametrize("one_is_missing", [False, True])
def test_the_positive_label_may_be_written_in_several_ways(
    tmp_path: Path, negative_value: Any, positive_value: Any, positive: Any, one_is_missing: bool
) -> None:
    # A column of 0 and 1 in which one cell is empty is read as 0.0 and 1.0.
    table = small_table()
    table["Target"] = table["Target"].map({0: negative_value, 1: positive_value}).astype(object)
    table.loc[0, "Target"] = np.nan if one_is_missing else negative_value
    cohort = load(tmp_path, table, **with_positive(positive))
    assert cohort.labels["s01":].tolist() == small_table()["Target"].tolist()[1:]  # type: ignore[misc]


def test_three_classes_are_refused_and_shown(tmp_path: Path) -> None:
    message = refusal(tmp_path, small_table().assign(Target=np.arange(40) % 3))
    assert message.startswith("Column 'Target' has 3 different values ('0', '1', '2'); a binary endpoint needs two.")


@pytest.mark.parametrize("values", [1, 0, np.nan])
def test_one_class_is_refused(tmp_path: Path, values: float) -> None:
    assert refusal(tmp_path, small_table().assign(Target=values)).startswith("Only one class is left in 'Target'")


def test_a_positive_value_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    message = refusal(tmp_path, small_table(), **with_positive(2))
    assert "with positive: 2 it would be another value than those there ('0', '1')" in message


def test_yes_without_quotes_is_explained(tmp_path: Path) -> None:
    words = small_table().assign(Target=np.where(np.arange(40) % 2, "yes", "no"))
    assert "in quotes" in refusal(tmp_path, words, **with_positive(True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": {"kind": "binary", "column": "target"}}, "Column 'target' (cohort.endpoint.column) is not in the table"),
        ({"patient": "PatientId"}, "Column 'PatientId' (cohort.patient) is not in the table (did you mean 'PatientID'?)."),
        ({"drop": ["volum"]}, "Column 'volum' (cohort.drop) is not in the table (did you mean 'volume'?)."),
        ({"drop": ["volume", "entropy"]}, "No feature column is left in the table; check cohort.drop and the files."),
    ],
)
def test_a_column_that_is_not_there_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, small_table(), **changes).startswith(message)


def test_a_dropped_column_is_no_feature(tmp_path: Path) -> None:
    assert list(load(tmp_path, small_table(), drop=["volume"]).features.columns) == ["entropy"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drop": ["Target"]}, "column 'Target' is named under endpoint and under drop"),
        ({"drop": ["PatientID"]}, "column 'PatientID' is named under patient and under drop"),
        ({"patient": "Target"}, "column 'Target' is named as endpoint and as patient"),
    ],
)
def test_a_column_has_one_role(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**changes)


def test_the_sample_may_be_named_as_the_patient(tmp_path: Path) -> None:
    cohort = load(tmp_path, small_table().drop(columns="PatientID"), patient="ID")
    assert cohort.patients.tolist() == cohort.samples.tolist()
    assert list(cohort.features.columns) == ["volume", "entropy"]


def test_a_sample_without_a_patient_is_named(tmp_path: Path) -> None:
    table = small_table()
    table.loc[5, "PatientID"] = None
    assert refusal(tmp_path, table) == "Sample 's05' has no value in 'PatientID'; say whose it is."


def test_a_sample_without_an_outcome_needs_no_patient(tmp_path: Path) -> None:
    table = small_table().astype({"Target": float})
    table.loc[5, ["Target", "PatientID"]] = [np.nan, None]
    assert len(load(tmp_path, table).samples) == 39


def test_patient_007_is_not_patient_7(tmp_path: Path) -> None:
    cohort = load(tmp_path, small_table(4).assign(PatientID=["007", "7", "1", "1"]))
    assert cohort.patients.tolist() == ["007", "7", "1", "1"]


def test_a_patient_has_one_name_in_all_sequences(tmp_path: Path) -> None:
    # In one table all names are numbers, in the other one is not: read as numbers they would be other patients.
    small_table(4).assign(PatientID=["001", "002", "003", "004"]).to_csv(tmp_path / "adc.csv", index=False)
    small_table(4).assign(PatientID=["001", "002", "003", "x04"]).to_csv(tmp_path / "b200.csv", index=False)
    source = {"kind": "table", "sample": "ID"}
    cohorts = load_sequences(settings(source=source, sequences={"adc": "adc.csv", "b200": "b200.csv"}), tmp_path)
    assert set(cohorts["adc"].patients) & set(cohorts["b200"].patients) == {"001", "002", "003"}


def test_text_in_a_feature_is_shown(tmp_path: Path) -> None:
    table = small_table().astype({"volume": object})
    table.loc[30, "volume"] = "n/d"
    assert refusal(tmp_path, table).startswith("Feature 'volume' holds text, for example 'n/d'; make it a number")


def test_several_features_with_text_are_counted(tmp_path: Path) -> None:
    assert "(as 1 more columns)" in refusal(tmp_path, small_table().assign(volume="x", entropy="y"))


@pytest.mark.parametrize("value", ["inf", "-inf", "Infinity"])
def test_an_infinite_value_is_refused(tmp_path: Path, value: str) -> None:
    table = small_table().astype({"entropy": object})
    table.loc[2, "entropy"] = value
    assert refusal(tmp_path, table).startswith("Feature 'entropy' holds an infinite value")


def test_a_missing_value_stays_missing(tmp_path: Path) -> None:
    table = small_table()
    table.loc[2, "entropy"] = np.nan
    cohort = load(tmp_path, table)
    assert cohort.features.isna().sum().to_dict() == {"volume": 0, "entropy": 1}


def expression(genes: tuple[str, ...]) -> pd.DataFrame:
    values = np.random.default_rng(1).normal(size=(20, len(genes)))
    return pd.DataFrame(values, columns=list(genes)).assign(ID=[f"s{row:02d}" for row in range(20)])


BY_SIGNATURE = {"endpoint": {"kind": "signature", "signature": "buffa2010"}, "patient": None}
BUFFA = find_signature("buffa2010").genes


def test_no_gene_of_the_signature_is_a_feature_under_any_name(tmp_path: Path) -> None:
    table = expression((*BUFFA, "HIG2", "NP", "ESR1"))  # HIG2 and NP are older names of HILPDA and PNP
    assert list(load(tmp_path, table, **BY_SIGNATURE).features.columns) == ["ESR1"]


def test_a_sample_without_expression_has_no_label(tmp_path: Path) -> None:
    table = expression((*BUFFA, "ESR1"))
    table.loc[4, list(BUFFA)] = np.nan
    cohort = load(tmp_path, table, **BY_SIGNATURE)
    assert "s04" not in cohort.samples
    assert cohort.notes == ("1 of 20 samples have no outcome and were left out.",)


def test_expression_that_parts_no_samples_is_refused(tmp_path: Path) -> None:
    table = expression((*BUFFA, "ESR1"))
    table[list(BUFFA)] = 1.0
    assert "does not part the samples" in refusal(tmp_path, table, **BY_SIGNATURE)


def test_text_in_a_gene_of_the_signature_is_refused(tmp_path: Path) -> None:
    table = expression((*BUFFA, "ESR1")).astype({"CA9": object})
    table.loc[4, "CA9"] = "n/d"
    assert refusal(tmp_path, table, **BY_SIGNATURE).startswith("Gene 'CA9' holds text")


def test_an_unknown_signature_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    endpoint = {"kind": "signature", "signature": "bufa2010"}
    assert "(did you mean 'buffa2010'?)" in refusal(tmp_path, small_table(), endpoint=endpoint)
