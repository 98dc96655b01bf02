"""Whose a sample is, in which order groups come, and which groups are too small."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import InputError
from training.molecular.grouping import contrasts, group_names, in_order, is_normal, matched, refuse_small_groups


@pytest.mark.parametrize(
    ("sample", "patient"),
    [
        ("TCGA-AB-0001-01A-11D-A12B-09", "TCGA-AB-0001"),
        ("TCGA-AB-0001", "TCGA-AB-0001"),
        ("TCGA-AB-0002-01A-11D", "TCGA-AB-0002-01"),
        ("TCGA-AB-0002-02A", "TCGA-AB-0002"),
        ("TCGA-AB-00011-01A", None),
        ("P1.tumour", "P1"),
        ("P12", None),
        ("p1", None),
    ],
)
def test_a_sample_is_of_the_patient_with_the_longest_name_that_it_begins_with(sample: str, patient: str | None) -> None:
    patients = ["TCGA-AB-0001", "TCGA-AB-0002", "TCGA-AB-0002-01", "P1"]
    found = matched(pd.Series([sample]), patients).iloc[0]
    assert (None if pd.isna(found) else found) == patient


@given(st.lists(st.text("AB12-_.", min_size=1, max_size=6), min_size=1, max_size=8, unique=True))
def test_a_patients_own_name_is_always_the_patients(names: list[str]) -> None:
    assert matched(pd.Series(names), names).tolist() == names


def test_samples_of_normal_tissue_are_told_by_their_barcode() -> None:
    names = pd.Series(["TCGA-AB-0001-01A", "TCGA-AB-0001-11A", "TCGA-AB-0001", "P-11"])
    assert is_normal(names).tolist() == [False, True, False, False]


def test_of_two_groups_the_second_is_compared_with_the_first() -> None:
    ordered = pd.Series(pd.Categorical(["hypoxic", "not hypoxic"], ["not hypoxic", "hypoxic"]))
    assert [one.name for one in contrasts(ordered)] == ["hypoxic against not hypoxic"]
    assert contrasts(ordered)[0].members(ordered).tolist() == [True, False]


@pytest.mark.parametrize(
    ("lesser", "greater"),
    [
        ("not hypoxic", "hypoxic"),
        ("Normoxic", "Hypoxic"),
        ("No", "Yes"),
        ("0", "1"),
        ("low", "high"),
        ("HPV negative", "HPV positive"),
        ("HPV-", "HPV+"),
        ("wild type", "mutated"),
        ("TP53_WT", "TP53_mut"),
        ("without metastasis", "metastasis"),
        ("non-hypoxic", "hypoxic"),
        ("less hypoxic", "more hypoxic"),
        ("control", "treated"),
        ("know", "yesterday"),
    ],
)
def test_of_opposites_the_positive_is_the_second_and_of_others_the_later_word(lesser: str, greater: str) -> None:
    assert in_order([lesser, greater]) == in_order([greater, lesser]) == [lesser, greater]
    assert contrasts(pd.Series([greater, lesser]))[0].group == greater


def test_of_three_groups_none_is_the_opposite() -> None:
    assert in_order(["low", "high", "middle"]) == ["high", "low", "middle"]


def test_groups_without_patients_are_no_groups() -> None:
    assert group_names(pd.Series(pd.Categorical(["b", "b"], ["a", "b"]))) == ["b"]


def test_a_group_of_three_is_refused_and_one_of_four_is_not() -> None:
    groups = pd.Series(["cluster 1"] * 4 + ["cluster 2"] * 3)
    with pytest.raises(InputError, match="The group 'cluster 2' has 3 patients with expression, and 4 are the fewest"):
        refuse_small_groups(groups, "expression", ["cluster 1", "cluster 2"])
    refuse_small_groups(pd.Series(["a"] * 4 + ["b"] * 4), "expression", ["a", "b"])


def test_a_group_without_anybody_who_has_the_data_is_refused() -> None:
    with pytest.raises(InputError, match="The group 'b' has 0 patients with proteins"):
        refuse_small_groups(pd.Series(["a"] * 9), "proteins", ["a", "b"])


def test_one_group_is_refused() -> None:
    with pytest.raises(InputError, match="All patients are of one group \\(a\\)"):
        refuse_small_groups(pd.Series(["a"] * 9), "proteins", ["a"])
