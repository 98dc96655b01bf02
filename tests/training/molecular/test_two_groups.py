"""What a comparison of gene expression asks of its values and groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.molecular.two_groups import check_two_groups, usable_genes


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([True] * 3 + [False] * 7, "these have 3"),
        ([True] * 10, "these have 10 .* and 0"),
        ([1] * 5 + [2] * 5, "of the group of interest .1. or of the other"),
        ([1.0] * 5 + [np.nan] * 5, "leave out those who are of neither"),
        ([True] * 4 + [False] * 5, "Each of the 10 patients"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(groups, message) -> None:
    with pytest.raises(InputError, match=message):
        check_two_groups(groups, 10)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"CA9": [1.0, 2, 3], "stage": ["I", "II", "I"]}, "expression of 'stage' is not a number"),
        ({"CA9": [1.0, 2, -np.inf]}, "'CA9' has infinite values"),
        ({"CA9": [1.0, np.nan, 3], "STC2": [2.0, 2, 2]}, "None of the 2 genes"),
    ],
)
def test_values_that_are_no_expression_are_refused(columns, message) -> None:
    with pytest.raises(InputError, match=message):
        usable_genes(pd.DataFrame(columns))


def test_a_gene_with_two_columns_is_refused() -> None:
    with pytest.raises(InputError, match="'CA9' has several columns"):
        usable_genes(pd.DataFrame([[1.0, 2], [2, 1]], columns=["CA9", "CA9"]))


def test_genes_that_are_left_out_are_counted() -> None:
    table = pd.DataFrame({"A": [1.0, 2], "B": [np.nan, 1], "C": [3, 3], "D": [4, 4]})
    kept, notes = usable_genes(table)
    assert list(kept) == ["A"]
    assert notes[1] == "2 genes with the same value in all patients were left out."
