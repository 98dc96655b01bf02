"""Who is learnt from and who is held out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cohort import Cohort
from features.errors import InputError, LeakError
from features.table import FeatureTable
from training.partition import Split, folds, hold_out, refuse_too_few_patients


def cohort_of(lesions: list[int], labels: list[int]) -> Cohort:
    """A cohort in which patient i has lesions[i] rows, all labelled labels[i]."""
    patients = [f"p{i}" for i, count in enumerate(lesions) for _ in range(count)]
    names = pd.Index([f"s{i}" for i in range(len(patients))])
    values = pd.DataFrame({"a": np.arange(len(patients), dtype=float)}, index=names)
    y = pd.Series([labels[int(p[1:])] for p in patients], index=names)
    return Cohort(FeatureTable(values), y, pd.Series(patients, index=names))


COHORTS = st.integers(12, 40).flatmap(
    lambda n: st.builds(
        cohort_of,
        st.lists(st.integers(1, 4), min_size=n, max_size=n),
        st.permutations([i % 2 for i in range(n)]),
    )
)


@given(COHORTS, st.integers(0, 2**31), st.sampled_from([0.2, 0.25, 0.4]))
def test_no_patient_is_on_both_sides_of_the_hold_out(cohort: Cohort, seed: int, share: float) -> None:
    split = hold_out(cohort, share, np.random.default_rng(seed))
    assert not set(cohort.patients[split.train]) & set(cohort.patients[split.test])
    assert sorted([*split.train, *split.test]) == sorted(cohort.samples)
    assert cohort.labels[split.test].nunique() == 2


@given(COHORTS, st.integers(0, 2**31), st.integers(2, 5))
def test_every_sample_is_tested_once_and_no_patient_is_on_both_sides_of_a_fold(cohort: Cohort, seed: int, k: int) -> None:
    splits = list(folds(cohort, k, np.random.default_rng(seed)))
    for split in splits:
        assert not set(cohort.patients[split.train]) & set(cohort.patients[split.test])
        assert cohort.labels[split.train].nunique() == 2
    assert sorted(name for split in splits for name in split.test) == sorted(cohort.samples)


def test_folds_are_stratified_by_the_patients_label() -> None:
    cohort = cohort_of([1] * 50, [1] * 10 + [0] * 40)
    assert [int(cohort.labels[split.test].sum()) for split in folds(cohort, 5, np.random.default_rng(0))] == [2] * 5


def test_a_split_with_a_patient_on_both_sides_stops_the_run() -> None:
    cohort = cohort_of([2, 1], [1, 0])
    with pytest.raises(LeakError, match="1 patients are on both sides"):
        Split(cohort.samples[:1], cohort.samples[1:]).refuse_overlap(cohort)


def test_fewer_patients_than_folds_is_said_before_anything_is_learnt() -> None:
    cohort = cohort_of([1] * 20, [1] * 6 + [0] * 14)
    held_out = cohort.patient_labels.index[[0, 1, 10, 11]]
    with pytest.raises(InputError, match=r"smaller class has 6 patients, 4 of them to learn from, 3 inside.*Use fewer folds"):
        refuse_too_few_patients(cohort, held_out, 5, 5)
    refuse_too_few_patients(cohort, held_out, 2, 2)


def test_held_out_patients_of_one_class_are_refused() -> None:
    cohort = cohort_of([1] * 20, [1] * 6 + [0] * 14)
    with pytest.raises(InputError, match="nothing to judge on"):
        refuse_too_few_patients(cohort, cohort.patient_labels.index[6:10], 2, 2)


def test_a_cohort_in_which_every_patient_has_a_positive_lesion_is_refused() -> None:
    cohort = cohort_of([2] * 20, [1] * 20)
    labels = cohort.labels.copy()
    labels.iloc[::2] = 0
    mixed = Cohort(cohort.table, labels, cohort.patients)
    with pytest.raises(InputError, match="smaller class has 0 patients"):
        hold_out(mixed, 0.25, np.random.default_rng(0))


@given(COHORTS, st.sampled_from([2, 3, 5]), st.sampled_from([None, 2, 3]))
def test_a_cohort_that_is_not_refused_can_be_split_all_the_way_down(cohort: Cohort, inner: int, outer: int | None) -> None:
    split = hold_out(cohort, 0.25, np.random.default_rng(1))
    try:
        refuse_too_few_patients(cohort, pd.Index(cohort.patients[split.test].unique()), outer, inner)
    except InputError:
        return
    development = cohort.subset(split.train)
    parts = (
        list(folds(development, outer, np.random.default_rng(2))) if outer else [Split(development.samples, development.samples)]
    )
    for part in parts:
        assert len(list(folds(development.subset(part.train), inner, np.random.default_rng(3)))) == inner
