from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.errors import InputError, SchemaMismatchError, did_you_mean
from features.table import FeatureSchema, FeatureTable

SCHEMA = FeatureSchema.of(["volume", "entropy", "CA9"])
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=6, unique=True)


@st.composite
def schemas_with_wider_tables(draw: st.DrawFn) -> tuple[FeatureSchema, pd.DataFrame]:
    """A schema, and a table that holds its features in any order among others."""
    columns = draw(names)
    wanted = draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
    rows = draw(st.lists(st.tuples(*[finite] * len(columns)), min_size=1, max_size=4))
    return FeatureSchema.of(wanted), pd.DataFrame(rows, columns=columns)


@given(schemas_with_wider_tables())
def test_conforming_twice_is_conforming_once(case: tuple[FeatureSchema, pd.DataFrame]) -> None:
    schema, table = case
    once = schema.conform(table)
    pd.testing.assert_frame_equal(schema.conform(once), once)
    assert list(once.columns) == list(schema.names)


@given(schemas_with_wider_tables(), st.randoms())
def test_the_order_of_columns_never_matters(case: tuple[FeatureSchema, pd.DataFrame], random: Any) -> None:
    schema, table = case
    shuffled = random.sample(list(table.columns), table.shape[1])
    pd.testing.assert_frame_equal(schema.conform(table[shuffled]), schema.conform(table))


@given(schemas_with_wider_tables(), st.randoms())
def test_named_rows_in_any_order_of_keys_are_the_same_matrix_as_a_table(
    case: tuple[FeatureSchema, pd.DataFrame], random: Any
) -> None:
    schema, table = case
    keys = random.sample(list(schema.names), len(schema.names))
    rows = [{key: row[key] for key in keys} for row in table.to_dict(orient="records")]
    np.testing.assert_array_equal(schema.matrix(rows), schema.conform(table).to_numpy())


def test_every_missing_feature_is_named() -> None:
    with pytest.raises(SchemaMismatchError) as error:
        SCHEMA.conform(pd.DataFrame({"volume": [1.0]}))
    assert error.value.faults == [("entropy", "is missing"), ("CA9", "is missing")]


def test_a_feature_that_is_there_twice_is_refused_and_another_column_that_is_not() -> None:
    rows = pd.DataFrame([[1.0, 2.0, 3.0, 4.0, 5.0]], columns=["volume", "entropy", "CA9", "other", "other"])
    assert SCHEMA.conform(rows).iloc[0].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(SchemaMismatchError, match="'CA9' is there twice"):
        SCHEMA.conform(rows.rename(columns={"other": "CA9"}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "n/d", None])
def test_a_table_with_a_value_that_is_no_finite_number_is_refused(value: object) -> None:
    rows = pd.DataFrame({"volume": [1.0, 2.0], "entropy": [3.0, value], "CA9": [5.0, 6.0]})
    with pytest.raises(SchemaMismatchError) as error:
        SCHEMA.conform(rows)
    assert [name for name, _ in error.value.faults] == ["entropy"]


def test_a_row_with_an_unknown_feature_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SchemaMismatchError, match=r"'entropi' is not a feature of this model \(did you mean 'entropy'"):
        SCHEMA.matrix([{"volume": 1.0, "entropi": 2.0, "entropy": 2.0, "CA9": 3.0}])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_with_a_value_that_is_not_finite_is_refused(value: float) -> None:
    good = {"volume": 1.0, "entropy": 2.0, "CA9": 3.0}
    with pytest.raises(SchemaMismatchError) as error:
        SCHEMA.matrix([good, good | {"CA9": value}])
    assert error.value.faults == [("CA9", "is not a finite number")]


def test_a_mismatch_never_repeats_a_patients_values() -> None:
    with pytest.raises(SchemaMismatchError) as error:
        SCHEMA.conform(pd.DataFrame({"volume": [1234.5], "entropy": ["5678 mm"], "CA9": [np.inf]}))
    assert "1234" not in str(error.value)
    assert "5678" not in str(error.value)


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    with pytest.raises(SchemaMismatchError, match="and 4 more") as error:
        FeatureSchema.of([f"f{number}" for number in range(9)]).matrix([{}])
    assert len(error.value.faults) == 9


def test_names_of_a_schema_are_unique() -> None:
    with pytest.raises(ValidationError, match="unique"):
        FeatureSchema.of(["a", "b", "a"])


def test_a_table_with_one_sample_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'s1' is in the table twice"):
        FeatureTable(pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=["s1", "s2", "s1"]))


def test_a_schema_survives_being_written_as_text() -> None:
    assert FeatureSchema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA


def test_nothing_is_suggested_for_a_name_like_no_other() -> None:
    assert did_you_mean("zzz", ["Target", "ID"]) == ""
