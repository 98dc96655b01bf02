from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from features.genes import resolve
from features.signatures import Signature, coverage, find_signature, median_vote_score, signatures

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


SHARED = {
    "fjeldbo2016": "FJELDBO2016_6",
    "toustrup2011": "TOUSTRUP2011_15",
    "eustace2013": "EUSTACE2013_26",
    "ragnum2015": "RAGNUM2015_32",
    "hallmark_hypoxia": "HALLMARK_HYPOXIA_200",
}
PRINTED = {
    "buffa2010_15": "BUFFA2010_15",
    "winter2007": "WINTER2007_99",
    "eustace2013": "EUSTACE2013_26",
    "ragnum2015": "RAGNUM2015_32",
}
# Printed under a name that now means another gene, or two; what stands for them is that of MSigDB's WINTER_HYPOXIA_UP.
REINTERPRETED = {"AK3": "AK4", "LRP2BP": "ANKRD37", "SIP1": "GEMIN2", "SMILE": "TMTC3", "TUBB2": "TUBB4B"}


@pytest.mark.parametrize(("name", "shared"), SHARED.items())
def test_a_signature_has_the_genes_of_the_shared_list(name: str, shared: str, data: Path) -> None:
    genes = find_signature(name).genes
    assert len(genes) == int(shared.rsplit("_", 1)[1])
    assert set(genes) == set(shared_signatures(data)[shared]["genes"])


@pytest.mark.parametrize(("name", "printed"), PRINTED.items())
def test_a_list_as_it_was_printed_is_found_name_by_name(name: str, printed: str, data: Path) -> None:
    lines = (data / "hypoxia_signatures" / "hypoxia_signatures.gmt").read_text(encoding="utf-8").splitlines()
    names = next(line.split("\t")[2:] for line in lines if line.startswith(printed))
    signature = find_signature(name)
    assert len(names) == len(signature.genes)
    of_name = {other: gene for gene in signature.genes for other in signature.names_of(gene)} | REINTERPRETED
    assert {of_name.get(one) for one in names} == set(signature.genes)


def test_most_of_winters_genes_are_those_that_msigdb_made_of_it(data: Path) -> None:
    winter = find_signature("winter2007")
    of_name = {other: gene for gene in winter.genes for other in winter.names_of(gene)}
    made = {of_name.get(one, one) for one in shared_signatures(data)["WINTER2007_UP_92"]["genes"]}
    assert made - set(winter.genes) == {"RHOC"}
    assert len(made & set(winter.genes)) == 91


@pytest.mark.parametrize("name", list(signatures()))
def test_a_name_of_a_signatures_gene_is_in_no_table_of_genes_another_gene(name: str) -> None:
    names = [(gene, other) for gene in signatures()[name].genes for other in signatures()[name].names_of(gene)]
    meant = zip(names, resolve([other for _, other in names]).names, strict=True)
    wrong = {(gene, other): found.symbol for (gene, other), found in meant if found.symbol not in (None, gene)}
    assert wrong == {}


@pytest.mark.parametrize("name", list(signatures()))
def test_an_ambiguous_name_is_never_scored(name: str) -> None:
    signature = signatures()[name]
    scored = {other for gene in signature.genes for other in signature.names_of(gene)}
    assert scored & set(signature.ambiguous) == set()


def test_a_name_that_stands_for_two_genes_is_scored_for_neither() -> None:
    assert BUFFA.found(["MCT1", "AK3", "DRG1"]) == {}
    assert BUFFA.columns(["MCT1", "AK3", "XYZ"]) == ("MCT1", "AK3")


@pytest.mark.parametrize("name", list(signatures()))
def test_a_signature_says_where_it_is_from_and_how_it_is_scored(name: str) -> None:
    signature = signatures()[name]
    assert signature.doi.startswith("10.")
    assert signature.source
    assert signature.rule
    assert len(set(signature.genes)) == len(signature.genes)


def test_the_signature_from_memory_says_so() -> None:
    assert "verify it against the paper" in find_signature("toustrup2011").rule


def test_coverage_says_what_is_missing_under_80_percent_and_refuses_under_half() -> None:
    ten = Signature(title="ten", doi="", rule="", genes=tuple("ABCDEFGHIJ"))
    assert coverage(ten, "ABCDEFGH").warning is None
    held = coverage(ten, "ABCDEFG")
    assert (held.share, held.missing, held.genes) == (0.7, ("H", "I", "J"), 10)
    assert held.warning == "Only 7 of the 10 genes of ten are in the table (not: H, I, J)."
    assert coverage(ten, "ABCDE").columns == tuple("ABCDE")
    with pytest.raises(InputError, match="Only 4 of the 10 genes of ten are in the table; at least half are needed"):
        coverage(ten, "ABCD")


def test_a_gene_that_holds_text_is_refused() -> None:
    with pytest.raises(InputError, match="Gene 'B' holds text; make it a number"):
        median_vote_score(TOY, pd.DataFrame({"A": [1.0, 2.0], "B": ["low", "high"]}))
