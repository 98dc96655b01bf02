from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.contract import Contract, ContractSettings, contract_of

NAMES = list("abcdef")


def cohort(n: int, seed: int = 0) -> pd.DataFrame:
    """Correlated features on scales from a thousandth to a thousand."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, 6)) @ (np.eye(6) + 0.8 * np.eye(6, k=1))
    return pd.DataFrame(mixed * 10.0 ** np.arange(-3, 3), columns=NAMES)


def contract(n: int = 80) -> Contract:
    return contract_of(cohort(n), ContractSettings())


@pytest.mark.parametrize(("n", "p"), [(60, 4), (60, 30), (150, 60)])
def test_few_new_samples_of_the_same_population_are_flagged_however_many_features_there_are(n: int, p: int) -> None:
    shares = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        made = contract_of(pd.DataFrame(rng.normal(size=(n, p))).rename(columns=str), ContractSettings())
        novelty = made.judge(rng.normal(size=(400, p)))
        shares.append(novelty.flagged.mean())
        assert novelty.is_outside.mean() > shares[-1]  # the ranges alone would flag many
    assert np.mean(shares) < 0.06


def test_a_value_just_outside_its_range_is_named_but_does_not_flag_the_row() -> None:
    table = cohort(80)
    row = table.median().to_numpy()
    row[0] = table["a"].max() * 1.001
    novelty = contract().judge(row[None, :])
    assert novelty.outside_range(0) == [("a", "above")]
    assert not novelty.flagged.any()
    assert novelty.drivers(0) == []


def test_a_row_that_is_mostly_missing_is_flagged() -> None:
    row = cohort(80).median().to_numpy()
    row[:3] = np.nan
    assert not contract().judge(row[None, :]).flagged.any()
    row[3] = np.nan
    assert contract().judge(row[None, :]).flagged.all()


@pytest.mark.parametrize("n", [30, 80, 300])
def test_new_samples_of_the_same_population_are_rarely_beyond_the_limit(n: int) -> None:
    beyond = np.mean([
        (contract_of(cohort(n, seed), ContractSettings()).judge(cohort(500, 1000 + seed).to_numpy()).distance
         > contract_of(cohort(n, seed), ContractSettings()).distance.limit).mean()
        for seed in range(10)
    ])  # fmt: skip
    assert beyond < 0.05


def test_a_sample_that_breaks_how_features_move_together_is_flagged_though_each_value_is_within_range() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=200)
    table = pd.DataFrame({"a": first, "b": first + 0.05 * rng.normal(size=200), "c": rng.normal(size=200)})
    novelty = contract_of(table, ContractSettings()).judge(np.array([[1.5, -1.5, 0.0], [1.5, 1.5, 0.0]]))
    assert novelty.outside_range(0) == []
    assert novelty.flagged.tolist() == [True, False]
    assert set(novelty.drivers(0)) == {"a", "b"}
    assert novelty.drivers(1) == []


def test_a_value_out_of_range_is_named_with_its_side() -> None:
    row = cohort(80).median().to_numpy()
    row[0], row[3] = -1e6, 1e6
    novelty = contract().judge(row[None, :])
    assert novelty.outside_range(0) == [("a", "below"), ("d", "above")]
    assert novelty.flagged.tolist() == [True]
    assert novelty.drivers(0)[0] == "a"


def test_no_training_sample_is_out_of_range() -> None:
    novelty = contract().judge(cohort(80).to_numpy())
    assert not novelty.below.any()
    assert not novelty.above.any()


@given(matrix=arrays(float, (3, 6), elements=st.floats(-1e300, 1e300)))
def test_the_parts_sum_to_the_squared_distance_and_nothing_is_ever_no_number(matrix: np.ndarray) -> None:
    novelty = contract().judge(matrix)
    assert not np.isnan(novelty.distance).any()
    small = np.isfinite(novelty.contributions).all(axis=1) & (novelty.distance < 1e100)
    np.testing.assert_allclose(novelty.contributions[small].sum(axis=1), novelty.distance[small] ** 2, rtol=1e-6)


def test_a_missing_value_counts_as_the_median() -> None:
    row = cohort(80).median().to_numpy()
    missing = row.copy()
    missing[2] = np.nan
    both = contract().judge(np.vstack([row, missing]))
    assert both.distance[0] == pytest.approx(both.distance[1])
    assert not both.flagged.any()


def test_rows_judged_together_and_alone_get_the_same_answer() -> None:
    rows = cohort(20, seed=5).to_numpy()
    together = contract().judge(rows)
    alone = [contract().judge(row[None, :]).distance[0] for row in rows]
    np.testing.assert_allclose(together.distance, alone, rtol=1e-12)


def test_samples_of_one_patient_are_left_out_together() -> None:
    """Copies of a patient would vouch for each other, and bring the limit down."""
    table = cohort(40)
    copies = pd.concat([table] * 3, ignore_index=True)
    patients = pd.Series(np.tile(np.arange(40), 3))
    alone = contract_of(table, ContractSettings()).distance.limit
    assert contract_of(copies, ContractSettings(), patients).distance.limit > 0.9 * alone
    assert (
        contract_of(copies, ContractSettings()).distance.limit < contract_of(copies, ContractSettings(), patients).distance.limit
    )


def test_a_contract_survives_json_and_holds_no_row_of_a_patient() -> None:
    made = contract()
    assert Contract.model_validate_json(made.model_dump_json()) == made
    text = json.dumps(made.model_dump())
    rows = cohort(80).to_numpy()
    present = np.array([[repr(float(value)) in text for value in row] for row in rows])
    assert present.sum(axis=1).max() < len(NAMES)


def test_missing_values_and_constant_columns_are_no_obstacle() -> None:
    table = cohort(50)
    table.loc[:10, "a"] = np.nan
    table["f"] = 7.0
    made = contract_of(table, ContractSettings())
    assert made.ranges[0].missing == pytest.approx(11 / 50)
    assert np.isfinite(made.judge(cohort(5, 1).to_numpy()).distance).all()


def test_aliases_are_of_features_and_never_hide_one() -> None:
    made = contract_of(cohort(30), ContractSettings(), aliases={"CAIX": "a", "b": "a", "OTHER": "z"})
    assert made.aliases == {"CAIX": "a"}
