from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from features.signatures import Signature, find_signature, median_vote_score, signatures

BUFFA = find_signature("buffa2010")
TOY = Signature(title="toy", doi="", rule="", genes=("A", "B", "C"), aliases={"B": ("B1", "B2")})


def shared_signatures(data: Path) -> dict[str, dict[str, list[str]]]:
    content: dict[str, dict[str, list[str]]] = json.loads((data / "hypoxia_signatures" / "signatures.json").read_text())
    return content


def test_buffa_has_its_51_genes_once_each(data: Path) -> None:
    assert len(BUFFA.genes) == 51
    assert set(BUFFA.genes) == set(shared_signatures(data)["BUFFA2010_51"]["genes"])


def test_every_old_symbol_of_the_shared_list_is_an_alias(data: Path) -> None:
    old_symbols = {old: new for old, new in shared_signatures(data)["_aliases"].items() if new in BUFFA.genes}
    assert len(old_symbols) >= 6
    assert {old: new for old, new in old_symbols.items() if old not in BUFFA.aliases[new]} == {}


@pytest.mark.parametrize("name", list(signatures()))
def test_an_alias_names_one_gene_only(name: str) -> None:
    signature = signatures()[name]
    every_name = [name for gene in signature.genes for name in signature.names_of(gene)]
    assert sorted({name for name in every_name if every_name.count(name) > 1}) == []
    assert set(signature.aliases) <= set(signature.genes)


def test_a_gene_is_found_under_an_alias_and_rather_under_its_symbol() -> None:
    assert TOY.found(["B2", "X", "A"]) == {"A": "A", "B": "B2"}
    assert TOY.found(["B2", "B1"]) == {"B": "B1"}
    assert TOY.found(["B2", "B1", "B"]) == {"B": "B"}


def test_all_columns_of_a_gene_are_the_signatures() -> None:
    assert TOY.columns(["B2", "X", "B", "C"]) == ("B2", "B", "C")


def test_the_score_on_real_breast_tumours_agrees_with_a_plain_loop(data: Path) -> None:
    table = pd.read_csv(data / "breast_expression_survset" / "gse1992.csv.gz").set_index("pid")
    score = median_vote_score(BUFFA, table)
    columns = [next(name for name in BUFFA.names_of(gene) if name in table) for gene in BUFFA.genes if gene in BUFFA.found(table)]
    medians = {column: median(table[column]) for column in columns}
    expected = [sum(1 if row[column] >= medians[column] else -1 for column in columns) for _, row in table.iterrows()]
    assert score.tolist() == expected
    assert score.index.equals(table.index)
    assert len(columns) == 47


def test_the_score_does_not_change_with_a_monotone_scale() -> None:
    expression = pd.DataFrame(np.random.default_rng(0).normal(size=(31, 3)), columns=list("ABC"))
    pd.testing.assert_series_equal(median_vote_score(TOY, np.exp(expression)), median_vote_score(TOY, expression))


def test_a_missing_value_votes_neither_way() -> None:
    expression = pd.DataFrame({"A": [1.0, 2.0, 3.0], "B": [1.0, 2.0, np.nan], "C": [1.0, 2.0, 3.0]})
    assert median_vote_score(TOY, expression).tolist() == [-3.0, 3.0, 2.0]


def test_a_sample_with_less_than_half_of_the_genes_has_no_score() -> None:
    expression = pd.DataFrame({"A": [1.0, 2.0, 3.0], "B": [1.0, 2.0, np.nan], "C": [1.0, 2.0, np.nan]})
    assert median_vote_score(TOY, expression).isna().tolist() == [False, False, True]


def test_a_table_with_less_than_half_of_the_genes_is_refused() -> None:
    with pytest.raises(InputError, match="Only 1 of the 3 genes of toy are in the table; at least half are needed"):
        median_vote_score(TOY, pd.DataFrame({"A": [1.0, 2.0]}))
