from __future__ import annotations

import hashlib
import lzma
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import InputError
from features.genes import GeneName, gene_table, resolve, share_of_genes

# Old spellings in published hypoxia signatures and what HGNC calls them (README of hypoxia_signatures).
OLD = {
    "ERO1L": "ERO1A",
    "HIG2": "HILPDA",
    "C20orf20": "MRGBP",
    "NP": "PNP",
    "CTSL2": "CTSV",
    "UTP11L": "UTP11",
    "GLUT1": "SLC2A1",
    "CAIX": "CA9",
    "VEGF": "VEGFA",
}
# Illumina WG-6 v3 and HT-12 v4 (science.md section 4, checked in the manifests).
ILLUMINA = {
    "ILMN_1676984": "DDIT3",
    "ILMN_1744963": "ERO1A",
    "ILMN_1777513": "KCTD11",
    "ILMN_1795778": "P4HA2",
    "ILMN_2280135": "P4HA2",
    "ILMN_2381697": "P4HA2",
    "ILMN_1691884": "STC2",
    "ILMN_1655637": "UPK1A",
}
# Ensembl's gene ids of the six genes of Fjeldbo 2016.
ENSEMBL = {
    "ENSG00000175197": "DDIT3",
    "ENSG00000197930": "ERO1A",
    "ENSG00000213859": "KCTD11",
    "ENSG00000072682": "P4HA2",
    "ENSG00000113739": "STC2",
    "ENSG00000105668": "UPK1A",
}


def meaning(name: str) -> GeneName:
    return resolve([name]).names[0]


@pytest.mark.parametrize(("old", "current"), OLD.items())
def test_older_symbols_and_aliases_become_current(old: str, current: str) -> None:
    assert meaning(old) == GeneName(old, current, "previous or alias")


@pytest.mark.parametrize("symbol", ["ERO1A", "HILPDA", "AK3", "AK4", "MRGBP", "PNP", "CTSV", "UTP11", "NDRG1", "DRG1", "MARCHF1"])
def test_a_current_symbol_means_itself_whatever_else_it_once_meant(symbol: str) -> None:
    assert meaning(symbol) == GeneName(symbol, symbol, "symbol")


@pytest.mark.parametrize(("probe", "symbol"), ILLUMINA.items())
def test_the_illumina_probes_of_the_six_genes_are_known(probe: str, symbol: str) -> None:
    assert meaning(probe) == GeneName(probe, symbol, "probe")


@pytest.mark.parametrize(("gene", "symbol"), ENSEMBL.items())
@pytest.mark.parametrize("ending", ["", ".5", ".12", ".3_PAR_Y"])
def test_an_ensembl_id_means_its_gene_with_and_without_version(gene: str, symbol: str, ending: str) -> None:
    assert meaning(gene + ending) == GeneName(gene + ending, symbol, "ensembl")


@pytest.mark.parametrize(
    ("name", "one_of"),
    [
        ("1-Mar", "MARCHF1"),
        ("1-Mar", "MTARC1"),
        ("Mar-01", "MARCHF1"),
        ("01-mar", "MTARC1"),
        ("2-Sep", "SEPTIN2"),
        ("Sep-02", "SEPTIN2"),
        ("15-Sep", "SELENOF"),
        ("1-Dec", "DELEC1"),
        ("1-Dec", "BHLHE40"),
        ("4-Oct", "POU5F1"),
        ("2021-03-01", "MARCHF1"),
        ("2021-03-01 00:00:00", "MARCHF1"),
        ("3/1/2021", "MARCHF1"),
        ("01.03.2021", "MARCHF1"),
        ("44256", "MARCHF1"),  # 1 March 2021, as a spreadsheet counts
        ("X1.Mar", "MARCHF1"),  # as R writes it
    ],
)
def test_a_date_that_was_a_symbol_is_told_with_what_it_may_have_been(name: str, one_of: str) -> None:
    found = meaning(name)
    assert (found.symbol, found.problem) == (None, "mangled")
    assert one_of in found.candidates


def test_a_number_that_was_a_clone_is_mangled_without_candidates() -> None:
    assert meaning("2.31E+13") == GeneName("2.31E+13", problem="mangled")


def test_numbers_of_probes_are_no_dates() -> None:
    assert {one.problem for one in resolve(["1", "2", "44256"]).names} == {"unknown"}


@pytest.mark.parametrize(
    ("name", "candidates"), [("AK3L1", ("AK3", "AK4")), ("STRA13", ("BHLHE40", "CENPX")), ("QARS", ("EPRS1", "QARS1"))]
)
def test_a_name_that_has_meant_two_genes_is_not_guessed(name: str, candidates: tuple[str, ...]) -> None:
    assert meaning(name) == GeneName(name, problem="ambiguous", candidates=candidates)


def test_what_was_hgncs_symbol_of_one_gene_is_that_gene_though_another_has_it_as_alias() -> None:
    table = gene_table()
    both = [name for name, of in table.previous.items() if len(of) == 1 and table.aliases.get(name, of) != of]
    informal = next(name for name in both if name not in table.symbols)
    assert meaning(informal).symbol == table.previous[informal][0]


@pytest.mark.parametrize(
    ("name", "symbol"), [("ddit3", "DDIT3"), ("C1ORF112", "FIRRM"), ("HLA.DRB1", "HLA-DRB1"), ("HLA_A", "HLA-A")]
)
def test_upper_case_and_the_dots_of_r_do_not_matter(name: str, symbol: str) -> None:
    assert meaning(name).symbol == symbol


def test_the_names_of_the_first_tcga_tables_are_read_by_their_entrez_id() -> None:
    assert [one.symbol for one in resolve(["DDIT3|1649", "?|1649"]).names] == ["DDIT3", "DDIT3"]


def test_in_strict_mode_what_cannot_be_told_is_refused_with_candidates_and_what_is_unknown_is_not() -> None:
    assert resolve(["DDIT3", "AC004556.3"], strict=True).counts == {"symbol": 1, "unknown": 1}
    with pytest.raises(InputError, match=r"'1-Mar' \(a date .* MARCHF1 or MTARC1.*'AK3L1' \(has meant AK3 or AK4\)"):
        resolve(["DDIT3", "1-Mar", "AK3L1"], strict=True)


def test_the_user_can_tell_what_a_name_means() -> None:
    found = resolve(["AK3L1", "1-Mar"], told={"AK3L1": "AK4", "1-Mar": "MARCHF1"}, strict=True)
    assert found.symbols == ["AK4", "MARCHF1"]
    with pytest.raises(InputError, match="'AK3L1', which is no current HGNC symbol"):
        resolve(["X"], told={"X": "AK3L1"})


def test_the_report_has_a_row_for_every_name() -> None:
    report = resolve(["HIG2", "1-Dec", "LOC0"]).report()
    assert report.columns.tolist() == ["name", "symbol", "how", "note"]
    assert report["how"].tolist() == ["previous or alias", "mangled", "unknown"]
    assert report["symbol"].tolist() == ["HILPDA", "", ""]


def test_five_of_many_names_are_shown_when_they_are_refused() -> None:
    names = [f"{day}-Sep" for day in range(1, 13)]
    with pytest.raises(InputError, match="and 7 more"):
        resolve(names, strict=True)


@given(st.sampled_from(sorted(gene_table().symbols)))
def test_every_current_symbol_means_itself(symbol: str) -> None:
    assert meaning(symbol).symbol == symbol


@given(st.text(max_size=20))
def test_any_text_means_a_gene_or_has_a_problem(name: str) -> None:
    found = meaning(name)
    assert (found.symbol is None) == (found.problem is not None)
    assert found.symbol is None or found.symbol in gene_table().symbols


def test_samples_are_not_taken_for_genes() -> None:
    assert share_of_genes([f"TCGA-BA-{number}" for number in range(100)]) == 0
    assert share_of_genes([f"GSM{number}" for number in range(300000, 300100)]) == 0


def test_the_table_is_the_one_that_its_description_names() -> None:
    data = files("features").joinpath("data")
    digest = hashlib.sha256(lzma.decompress(data.joinpath("genes.tsv.xz").read_bytes())).hexdigest()
    assert digest in data.joinpath("genes.md").read_text(encoding="utf-8")


def test_nearly_every_name_of_an_array_of_2007_is_understood(data: Path) -> None:
    columns = pd.read_csv(data / "breast_expression_survset" / "gse1992.csv.gz", nrows=1).columns[9:]
    counts = resolve(list(columns)).counts
    assert counts["symbol"] + counts["previous or alias"] >= 0.999 * len(columns)
    assert resolve(["ERO1L"]).symbols == ["ERO1A"]
    assert "ERO1L" in columns


def test_the_published_signatures_are_understood_but_for_their_typing_errors(data: Path) -> None:
    lines = (data / "hypoxia_signatures" / "hypoxia_signatures.gmt").read_text(encoding="utf-8").splitlines()
    genes = sorted({name for line in lines for name in line.split("\t")[2:]})
    left = {one.name for one in resolve(genes).names if one.symbol is None}
    assert left == {"AK3L1", "SMILE", "LOC149464", "LOC56901", "PKMe", "MPRS17", "PFKB3"}
