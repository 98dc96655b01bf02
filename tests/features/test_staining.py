from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.errors import InputError
from features.staining import StainingEndpoint, lesion_index, staining_index

TABLE = pd.DataFrame(
    {
        "intensity": [0, 1, 3, 2, np.nan],
        "proportion": [0, 2, 3, 2, np.nan],
        "intensity_2": [1, 3, np.nan, 0, np.nan],
        "proportion_2": [2, 1, np.nan, 1, np.nan],
        "entropy": [0.1, 0.2, 0.3, 0.4, 0.5],
    },
    index=pd.Index(["a", "b", "c", "d", "e"], name="ID"),
)
ONE = StainingEndpoint(intensity="intensity", proportion="proportion")
TWO = StainingEndpoint(intensity=("intensity", "intensity_2"), proportion=("proportion", "proportion_2"))


@given(st.integers(1, 3), st.integers(1, 3))
def test_the_index_is_intensity_times_proportion(intensity: int, proportion: int) -> None:
    assert staining_index(pd.Series([intensity]), pd.Series([proportion])).tolist() == [intensity * proportion]


def test_without_staining_the_index_is_zero_whatever_the_proportion() -> None:
    assert staining_index(pd.Series([0, 0, 0]), pd.Series([0, 3, np.nan])).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("intensity", "proportion", "said"),
    [
        (4, 1, "Sample 's1' has 4 in 'i'; intensity is one of 0, 1, 2, 3"),
        (1.5, 1, "has 1.5 in 'i'"),
        ("strong", 1, "has 'strong' in 'i'"),
        (1, 5, "Sample 's1' has 5 in 'p'; proportion is one of 0, 1, 2, 3"),
        (2, 0, "intensity 2 in 'i' but proportion 0 in 'p'"),
        (2, None, "no value in 'p' though its other score is there"),
        (None, 2, "no value in 'i' though its other score is there"),
    ],
)
def test_a_score_outside_of_its_scale_is_named(intensity: object, proportion: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        staining_index(pd.Series([intensity], index=["s1"], name="i"), pd.Series([proportion], index=["s1"], name="p"))


def test_scores_written_as_text_are_read() -> None:
    assert staining_index(pd.Series(["3", "2"]), pd.Series(["2", "2"])).tolist() == [6, 4]


def test_a_lesion_has_the_highest_index_of_its_slides() -> None:
    slides = pd.DataFrame(
        {
            "lesion": ["x", "y", "x", "z", "y"],
            "intensity": [1, 2, 3, np.nan, np.nan],
            "proportion": [1, 1, 2, np.nan, np.nan],
        }
    )
    index = lesion_index(slides, "lesion", "intensity", "proportion")
    assert index.drop("z").to_dict() == {"x": 6, "y": 2}
    assert np.isnan(index["z"])


def test_a_slide_without_a_lesion_is_refused() -> None:
    slides = pd.DataFrame({"lesion": ["x", None], "intensity": [1, 1], "proportion": [1, 1]})
    with pytest.raises(InputError, match="Row 1 has no value in 'lesion'"):
        lesion_index(slides, "lesion", "intensity", "proportion")


def test_high_begins_at_the_cutoff() -> None:
    labelling = ONE.label(TABLE)
    assert labelling.labels.drop("e").to_dict() == {"a": 0, "b": 0, "c": 1, "d": 1}  # indices 0, 2, 9, 4
    assert np.isnan(labelling.labels["e"])
    at_nine = StainingEndpoint(intensity="intensity", proportion="proportion", cutoff=9).label(TABLE).labels
    assert at_nine.dropna().tolist() == [0, 0, 1, 0]


def test_the_highest_of_several_slides_counts() -> None:
    assert TWO.label(TABLE).labels.drop("e").to_dict() == {"a": 0, "b": 1, "c": 1, "d": 1}  # 2, 3, 9, 4


def test_columns_of_scores_are_never_features() -> None:
    assert TWO.label(TABLE).used == ("intensity", "intensity_2", "proportion", "proportion_2")


def test_an_absent_column_is_named_with_the_nearest() -> None:
    endpoint = StainingEndpoint(intensity="intensty", proportion="proportion")
    with pytest.raises(InputError, match=r"'intensty' of staining scores is not in the table \(did you mean 'intensity'\?\)"):
        endpoint.label(TABLE)


def test_a_cutoff_that_parts_nobody_is_refused() -> None:
    with pytest.raises(InputError, match=r"cutoff: 9 the staining indices there \(0, 2, 4\)"):
        StainingEndpoint(intensity="intensity", proportion="proportion", cutoff=9).label(TABLE.drop("c"))


@pytest.mark.parametrize(
    "fault",
    [
        {"intensity": ("intensity", "intensity_2"), "proportion": "proportion"},
        {"intensity": (), "proportion": ()},
        {"intensity": "intensity", "proportion": "intensity"},
        {"intensity": "intensity", "proportion": "proportion", "cutoff": 0},
        {"intensity": "intensity", "proportion": "proportion", "cutoff": 10},
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(fault: dict) -> None:
    with pytest.raises(ValidationError):
        StainingEndpoint(**fault)


def test_an_endpoint_is_read_from_yaml_values() -> None:
    content = {"kind": "staining", "intensity": ["i1", "i2"], "proportion": ["p1", "p2"], "cutoff": 4}
    endpoint = StainingEndpoint.model_validate(content)
    assert endpoint.columns == ("i1", "i2", "p1", "p2")
    assert StainingEndpoint.model_validate(endpoint.model_dump()) == endpoint
