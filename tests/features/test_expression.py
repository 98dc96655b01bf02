from __future__ import annotations

import gzip
import json
import shutil
import socket
import sys
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from features.cli_genes import genes as genes_command
from features.errors import InputError
from features.expression import ExpressionSource, collapse, meaning, on_scale
from features.expression_files import platform_genes, read_platform
from features.genes import resolve

SIX = ("DDIT3", "ERO1A", "KCTD11", "P4HA2", "STC2", "UPK1A")
OLD_SIX = ("DDIT3", "ERO1L", "KCTD11", "P4HA2", "STC2", "UPK1A")


def logs(genes: tuple[str, ...] = SIX, samples: int = 5, seed: int = 1) -> pd.DataFrame:
    """Log2 values of samples s1, s2, ... in rows."""
    values = np.random.default_rng(seed).normal(8, 1.5, (samples, len(genes))).round(4)
    return pd.DataFrame(values, index=pd.Index([f"s{one + 1}" for one in range(samples)], name="sample"), columns=list(genes))


def read(folder: Path, path: str = "x.csv", **settings: object) -> pd.DataFrame:
    return ExpressionSource.model_validate({"path": path, **settings}).read(folder)


def refusal(folder: Path, path: str = "x.csv", **settings: object) -> str:
    with pytest.raises(InputError) as error:
        read(folder, path, **settings)
    return str(error.value)


def notes(frame: pd.DataFrame) -> str:
    return " ".join(frame.attrs["notes"])


def series_matrix(values: pd.DataFrame, characteristics: list[list[str]] = (), organism: str = "Homo sapiens") -> str:  # type: ignore[assignment]
    """A series matrix with probes in rows, as GEO writes it."""
    samples = [f"GSM{number + 1}" for number in range(len(values))]

    def line(name: str, cells: list[str]) -> str:
        return "\t".join([name, *(f'"{cell}"' for cell in cells)])

    head = [
        '!Series_title\t"Made for a test"',
        '!Series_platform_id\t"GPL10558"',
        line("!Sample_title", [f"patient {number + 1}" for number in range(len(values))]),
        line("!Sample_geo_accession", samples),
        line("!Sample_organism_ch1", [organism] * len(values)),
        *(line("!Sample_characteristics_ch1", cells) for cells in characteristics),
        line("!Sample_platform_id", ["GPL10558"] * len(values)),
        "!series_matrix_table_begin",
        line('"ID_REF"', samples),
    ]
    rows = ["\t".join([f'"{name}"', *map(str, values[name])]) for name in values.columns]
    return "\n".join([*head, *rows, "!series_matrix_table_end", ""])


# Tables ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt", "x.csv.gz", "x.parquet"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_genes_in_rows_and_in_columns_read_the_same(tmp_path: Path, name: str, axis: str) -> None:
    table = logs() if axis == "columns" else logs().T.rename_axis("gene")
    if name == "x.parquet":
        table.to_parquet(tmp_path / name)
    else:
        table.to_csv(tmp_path / name, sep="," if ".csv" in name else "\t")
    found = read(tmp_path, name)
    pd.testing.assert_frame_equal(found, logs(), check_names=False)
    assert f"genes in {axis}" in notes(found)


def test_a_table_without_a_name_in_its_corner_is_read(tmp_path: Path) -> None:
    rows = logs().T.to_csv(index_label=False)  # as R's write.table leaves the corner out
    (tmp_path / "x.csv").write_text(rows)
    pd.testing.assert_frame_equal(read(tmp_path), logs(), check_names=False)


def test_where_genes_are_cannot_be_told_of_a_table_whose_samples_are_called_like_genes(tmp_path: Path) -> None:
    table = logs().set_axis(["A2M", "TP53", "EGFR", "MYC", "KRAS"], axis=0)
    table.to_csv(tmp_path / "x.csv")
    assert "set genes: rows or genes: columns" in refusal(tmp_path)
    assert list(read(tmp_path, genes="columns").columns) == list(SIX)
    assert list(read(tmp_path, genes="rows").index) == list(SIX)


def test_older_names_become_current_symbols_and_the_report_says_so(tmp_path: Path) -> None:
    logs(OLD_SIX).to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    assert list(found.columns) == list(SIX)
    report = found.attrs["mapping"].table()
    assert report.loc[report["name"] == "ERO1L", ["symbol", "how", "used"]].to_numpy().tolist() == [
        ["ERO1A", "previous or alias", True]
    ]
    assert "6 names stand for 6 genes (5 by symbol, 1 by previous symbol or alias)" in notes(found)


def test_columns_that_are_no_genes_stand_beside_them_as_they_are(tmp_path: Path) -> None:
    table = logs().assign(time=[400.0, 900, 1200, 60, 30], event=[0, 1, 0, 1, 1], grade=["G1", "G2", "G2", "G3", "G1"])
    table.to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    assert found["time"].tolist() == [400, 900, 1200, 60, 30]  # neither looked at for the scale nor changed
    assert found["grade"].tolist() == ["G1", "G2", "G2", "G3", "G1"]
    assert found.attrs["mapping"].genes == SIX
    raw = read(tmp_path, scale="log2")
    assert raw["time"].tolist() == found["time"].tolist()
    assert raw["DDIT3"].tolist() == pytest.approx(np.log2(found["DDIT3"] + 1).tolist(), abs=1e-12)


def test_clinical_columns_that_genes_were_once_called_like_are_no_genes(tmp_path: Path) -> None:
    logs((*SIX, "NP", "HIG2")).assign(OS=[1.0, 2, 3, 4, 5], sex=[0, 1, 0, 1, 0], ER=[1, 1, 0, 0, 1]).to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    assert found.attrs["mapping"].genes == (*SIX, "PNP", "HILPDA")
    assert found["OS"].tolist() == [1, 2, 3, 4, 5]
    assert "no features: 3 ('OS' first)" in notes(found)
    assert "ESR1" in read(tmp_path, names={"ER": "ESR1"}).attrs["mapping"].genes


def test_a_clinical_column_that_is_called_like_a_gene_can_be_named(tmp_path: Path) -> None:
    logs().assign(AR=["positive"] * 5, T=[1.0, 2, 3, 4, 2]).to_csv(tmp_path / "x.csv")
    assert "'AR' of x.csv is named as a gene and holds text" in refusal(tmp_path)
    found = read(tmp_path, not_genes=["AR", "T"])
    assert found.attrs["mapping"].genes == SIX
    assert found["T"].tolist() == [1, 2, 3, 4, 2]


def test_a_clinical_table_is_joined_by_the_name_of_the_sample(tmp_path: Path) -> None:
    logs().T.to_csv(tmp_path / "x.csv")
    (tmp_path / "clinical.csv").write_text("id,months,progressed\ns2,12,1\ns1,30,0\n")
    found = read(tmp_path, clinical="clinical.csv", sample="id")
    assert found[["months", "progressed"]].to_dict("index") == {
        "s1": {"months": 30, "progressed": 0},
        "s2": {"months": 12, "progressed": 1},
    }
    assert "3 of 5 samples are not in clinical.csv" in notes(found)
    assert found.attrs["mapping"].genes == SIX
    assert "source.sample is missing" in refusal(tmp_path, clinical="clinical.csv")


def test_annotation_columns_beside_the_samples_are_left_out(tmp_path: Path) -> None:
    table = logs().T.rename_axis("Hugo_Symbol")
    table.insert(0, "Entrez_Gene_Id", [1649, 30001, 147040, 8974, 8614, 11045])
    table.insert(1, "Description", ["some words"] * 6)
    table.to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    assert list(found.index) == ["s1", "s2", "s3", "s4", "s5"]
    assert "'Entrez_Gene_Id', 'Description', which are no samples" in notes(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gene,s1,s2\nDDIT3,1,a\nSTC2,2,3\n", "'s2' of x.csv holds text"),
        ("gene,s1,s1\nDDIT3,1,2\nSTC2,2,3\n", "'s1' is in x.csv twice"),
        ("gene,s1,s2\n", "holds no rows"),
        ("gene,s1,s2\nDDIT3,1,inf\nSTC2,2,3\n", "infinite"),
        ("gene,s1,s2\nDDIT3,1,2,3,4\n", "5 values in its first row and 3 names"),
        ("gene,s1,s2\nfoo,1,2\nbar,2,3\n", "cannot be told (0% of the names in rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert words in refusal(tmp_path)


def test_a_file_that_is_absent_or_broken_is_refused_in_a_sentence(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(logs().to_csv().encode())[:-20])
    assert "check that the file is whole" in refusal(tmp_path, "x.csv.gz")
    (tmp_path / "x.zip").write_bytes(b"PK no archive")
    assert "check that the file is whole" in refusal(tmp_path, "x.zip")


# Names that must not be guessed ------------------------------------------------------------------------------------------


def test_a_name_that_a_spreadsheet_mangled_is_refused_with_candidates_and_with_ways_out(tmp_path: Path) -> None:
    logs((*SIX, "1-Mar")).to_csv(tmp_path / "x.csv")
    words = refusal(tmp_path)
    assert "'1-Mar'" in words
    assert "MARCHF1 or MTARC1" in words
    assert list(read(tmp_path, unclear="leave_out").columns) == list(SIX)
    assert list(read(tmp_path, names={"1-Mar": "MARCHF1"}).columns) == [*SIX, "MARCHF1"]


def test_an_ambiguous_name_is_refused_until_the_study_tells_it(tmp_path: Path, data: Path) -> None:
    folder = data / "breast_expression_survset"
    assert "'AK3L1' (has meant AK3 or AK4)" in refusal(folder, "gse3143.csv.gz", sample="pid")
    found = read(folder, "gse3143.csv.gz", sample="pid", names={"AK3L1": "AK4"})
    assert "AK4" in found.attrs["mapping"].genes
    assert found.shape[0] == 158


def test_ensembl_ids_with_a_version_are_genes(tmp_path: Path) -> None:
    logs(("ENSG00000175197.5", "ENSG00000197930.13")).to_csv(tmp_path / "x.csv")
    assert list(read(tmp_path).columns) == ["DDIT3", "ERO1A"]


def test_an_array_of_numbered_probes_needs_its_platform(tmp_path: Path) -> None:
    logs(("1", "2", "44256")).T.to_csv(tmp_path / "x.csv")
    assert "source.platform" in refusal(tmp_path, genes="rows")
    (tmp_path / "platform.csv").write_text("ID,Gene Symbol\n1,ERO1L\n2,DDR1 /// MIR4640\n44256,\n")
    found = read(tmp_path, genes="rows", platform="platform.csv")
    assert found.attrs["mapping"].genes == ("ERO1A",)
    assert found.attrs["mapping"].names.counts == {"probe": 1, "several": 1, "unknown": 1}


# Scale -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["intensities", "counts", "few large"])
def test_values_that_look_raw_are_refused_with_the_two_ways_out(tmp_path: Path, kind: str) -> None:
    values = logs(samples=40)
    raw = {"intensities": 2**values, "counts": (2**values).round(), "few large": (2 ** (values - 8) / 10)}[kind]
    if kind == "few large":
        raw.iloc[0, 0] = 5000.0
    raw.to_csv(tmp_path / "x.csv")
    words = refusal(tmp_path)
    assert "look raw" in words
    assert "scale: log2" in words
    assert "scale: as_is" in words
    left = read(tmp_path, scale="as_is")
    assert left["DDIT3"].tolist() == pytest.approx(raw["DDIT3"].tolist(), rel=1e-12)
    assert "left so as the study asks" in notes(left)
    taken = read(tmp_path, scale="log2")
    assert taken["DDIT3"].tolist() == pytest.approx(np.log2(raw["DDIT3"] + 1).tolist(), rel=1e-12)


@pytest.mark.parametrize(("shift", "words"), [(0.0, "look like logarithms"), (-8.0, "log ratios or z scores")])
def test_values_that_look_like_logarithms_are_left_as_they_are(tmp_path: Path, shift: float, words: str) -> None:
    values = logs(samples=40) + shift
    values.to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    assert words in notes(found)
    np.testing.assert_allclose(found.to_numpy(), values.to_numpy(), rtol=1e-12)


def test_log_ratios_with_a_wild_value_are_not_taken_for_raw(tmp_path: Path) -> None:
    values = logs(samples=40) - 8
    values.iloc[3, 2] = 88.0  # as GSE1992 has upstream
    values.to_csv(tmp_path / "x.csv")
    assert "log ratios" in notes(read(tmp_path))


def test_the_logarithm_of_negative_values_is_refused(tmp_path: Path) -> None:
    (logs() - 8).to_csv(tmp_path / "x.csv")
    assert "negative values" in refusal(tmp_path, scale="log2")


@given(st.floats(0.5, 3), st.floats(4, 9), st.integers(0, 1000))
def test_intensities_look_raw_and_their_logarithms_do_not(spread: float, centre: float, seed: int) -> None:
    values = pd.DataFrame(np.random.default_rng(seed).normal(centre, spread, (20, 200)).clip(0.0, 20.0))
    assert on_scale(values, "log", "x")[0] is values
    with pytest.raises(InputError, match="look raw"):
        on_scale(2 ** (values + 3), "log", "x")


# Several probes of a gene ------------------------------------------------------------------------------------------------


def test_of_several_probes_the_one_with_the_highest_mean_is_taken_or_the_mean(tmp_path: Path) -> None:
    names = ("ILMN_1795778", "ILMN_2280135", "ILMN_2381697", "ILMN_1676984")  # three of P4HA2, one of DDIT3
    values = logs(names)
    values["ILMN_2280135"] += 3
    values.to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    assert list(found.columns) == ["P4HA2", "DDIT3"]
    assert found["P4HA2"].tolist() == pytest.approx(values["ILMN_2280135"].tolist(), abs=1e-12)
    assert found.attrs["mapping"].chosen == {"P4HA2": "ILMN_2280135"}
    assert "highest mean was taken: 1" in notes(found)
    assert found.attrs["mapping"].table()["used"].tolist() == [False, True, False, True]
    averaged = read(tmp_path, probes="mean")
    assert averaged["P4HA2"].tolist() == pytest.approx(values.iloc[:, :3].mean(axis=1).tolist(), abs=1e-12)
    pinned = read(tmp_path, chosen={"P4HA2": "ILMN_1795778", "STC2": "ILMN_1691884"})
    assert pinned["P4HA2"].tolist() == pytest.approx(values["ILMN_1795778"].tolist(), abs=1e-12)
    assert "is none of P4HA2's" in refusal(tmp_path, chosen={"P4HA2": "ILMN_1676984"})


def test_a_row_that_cannot_be_told_from_another_of_its_name_is_not_chosen_by_it(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,STC2,STC2,ERO1A\ns1,7,9,5\ns2,8,10,6\n")
    assert read(tmp_path)["STC2"].tolist() == [9, 10]
    assert "'STC2' (source.chosen) is in this file several times" in refusal(tmp_path, chosen={"STC2": "STC2"})


def test_a_column_that_is_there_twice_and_an_alias_are_probes_of_one_gene(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,DDIT3,DDIT3,ERO1L,ERO1A\ns1,1,3,5,2\ns2,2,4,6,1\n")
    found = read(tmp_path)
    assert found.to_dict("list") == {"DDIT3": [3, 4], "ERO1A": [5, 6]}
    assert found.attrs["mapping"].several == {"DDIT3": ("DDIT3", "DDIT3"), "ERO1A": ("ERO1L", "ERO1A")}


def test_the_highest_mean_can_be_looked_for_in_training_samples_only() -> None:
    values = pd.DataFrame({"ERO1L": [9.0, 1.0, 1.0], "ERO1A": [2.0, 5.0, 5.0]}, index=["train", "test1", "test2"])
    meant = resolve(list(values.columns))
    assert collapse(values, meant, "highest_mean")[1].chosen == {"ERO1A": "ERO1A"}
    assert collapse(values, meant, "highest_mean", samples=["train"])[1].chosen == {"ERO1A": "ERO1L"}


def test_a_probe_without_any_value_is_never_taken() -> None:
    values = pd.DataFrame({"ERO1L": [np.nan, np.nan], "ERO1A": [-2.0, -5.0]})
    assert collapse(values, resolve(["ERO1L", "ERO1A"]), "highest_mean")[1].chosen == {"ERO1A": "ERO1A"}


@given(st.permutations(range(6)))
def test_the_order_of_columns_does_not_change_a_gene(order: list[int]) -> None:
    values = logs(("ERO1L", "ERO1A", "HIG2", "HILPDA", "DDIT3", "STC2"))
    shuffled = values.iloc[:, order]
    first = collapse(values, resolve(list(values.columns)), "highest_mean")[0]
    second = collapse(shuffled, resolve(list(shuffled.columns)), "highest_mean")[0]
    pd.testing.assert_frame_equal(first, second[first.columns])


# GEO ---------------------------------------------------------------------------------------------------------------------


def test_a_series_matrix_gives_genes_and_characteristics(tmp_path: Path) -> None:
    values = logs(("ILMN_1676984", "ILMN_1744963", "ILMN_9999999"), samples=3)
    told = [["age: 41", "age: 52", "age: "], ["figo stage: 2B", "hpv: 16", "figo stage: 3B"], ["pelvic", "pelvic", "para-aortic"]]
    with gzip.open(tmp_path / "GSE1_series_matrix.txt.gz", "wt") as file:
        file.write(series_matrix(values, told))
    found = read(tmp_path, "GSE1_series_matrix.txt.gz")
    assert list(found.index) == ["GSM1", "GSM2", "GSM3"]
    assert found["DDIT3"].tolist() == pytest.approx(values["ILMN_1676984"].tolist(), abs=1e-12)
    assert found["age"].tolist()[:2] == [41, 52]
    assert np.isnan(found["age"].tolist()[2])
    assert found["figo stage"].tolist()[::2] == ["2B", "3B"]
    assert found["hpv"].tolist()[1] == 16
    assert found["characteristics"].tolist() == ["pelvic", "pelvic", "para-aortic"]
    assert found["platform_id"].tolist() == ["GPL10558"] * 3
    assert found.attrs["mapping"].genes == ("DDIT3", "ERO1A")  # the probe of no known gene is kept, and is no feature
    assert "ILMN_9999999" in found.columns
    by_title = read(tmp_path, "GSE1_series_matrix.txt.gz", named_by="title")
    assert list(by_title.index) == ["patient 1", "patient 2", "patient 3"]
    assert "(source.named_by) does not name each" in refusal(tmp_path, "GSE1_series_matrix.txt.gz", named_by="platform_id")


def test_columns_kept_as_written_are_words(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(series_matrix(logs(samples=2), [["id: 007", "id: 008"]]))
    found = ExpressionSource(path="m.txt").read(tmp_path, text=("id",))
    assert found["id"].tolist() == ["007", "008"]


def test_a_series_matrix_without_values_is_refused_in_a_sentence(data: Path) -> None:
    words = refusal(data / "format_samples", "GSE103584_series_matrix.txt")
    assert words.startswith("GSE103584_series_matrix.txt holds no expression values: its table is empty")
    assert words.count(". ") == 1


def test_a_series_matrix_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(series_matrix(logs())[:-60])
    assert "no whole series matrix" in refusal(tmp_path, "m.txt")


def test_samples_of_mice_are_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "m.txt").write_text(series_matrix(logs(), organism="Mus musculus"))
    assert "Mus musculus" in refusal(tmp_path, "m.txt")
    assert "Mus musculus" in refusal(data / "format_samples", "soft_ex_family.txt")


SOFT = """^DATABASE = GeoMiame
!Database_name = Gene Expression Omnibus (GEO)
^SERIES = GSE1
!Series_title = Made for a test
^PLATFORM = GPL1
!Platform_title = a platform
#ID = probe
#Species = species
#ILMN_Gene = gene
!platform_table_begin
ID\tSpecies\tILMN_Gene
p1\tHomo sapiens\tERO1L
p2\tHomo sapiens\tHIG2
p3\tHomo sapiens\t
!platform_table_end
^SAMPLE = GSM1
!Sample_title = one
!Sample_organism_ch1 = Homo sapiens
!Sample_characteristics_ch1 = age: 41
#ID_REF = probe
#VALUE = log2 intensity
!sample_table_begin
ID_REF\tVALUE
p1\t7.5
p2\t8.25
p3\tnull
!sample_table_end
^SAMPLE = GSM2
!Sample_title = two
!Sample_organism_ch1 = Homo sapiens
!Sample_characteristics_ch1 = age: 50
#ID_REF = probe
#VALUE = log2 intensity
!sample_table_begin
ID_REF\tVALUE
p1\t6.5
p2\t9.25
p3\t5
!sample_table_end
"""


def no_network(*_: object) -> None:
    raise AssertionError("a reader of files asked for the network")


def test_a_soft_family_maps_its_probes_by_its_own_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "GSE1_family.soft").write_text(SOFT)
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.chdir(tmp_path)
    found = read(tmp_path, "GSE1_family.soft")
    assert found[["ERO1A", "HILPDA", "age"]].to_dict("list") == {"ERO1A": [7.5, 6.5], "HILPDA": [8.25, 9.25], "age": [41, 50]}
    assert found.attrs["mapping"].genes == ("ERO1A", "HILPDA")
    assert [file.name for file in tmp_path.iterdir()] == ["GSE1_family.soft"]


def test_the_platform_of_a_series_matrix_is_read_from_soft_or_annotation(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(series_matrix(logs(("p1", "p2"))))
    (tmp_path / "family.soft").write_text(SOFT)
    annotation = (
        "^Annotation = GPL1\n!Annotation_platform = GPL1\n#ID = probe\n#Gene title = title\n#Gene symbol = symbol\n"
        "!platform_table_begin\nID\tGene title\tGene symbol\np1\twords\tERO1A\n!platform_table_end\n"
    )
    (tmp_path / "GPL1.annot").write_text(annotation)
    assert read(tmp_path, "m.txt", platform="family.soft").attrs["mapping"].genes == ("ERO1A", "HILPDA")
    assert read(tmp_path, "m.txt", platform="GPL1.annot").attrs["mapping"].genes == ("ERO1A",)


def test_without_the_parser_of_soft_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "GSE1_family.soft").write_text(SOFT)
    monkeypatch.setitem(sys.modules, "GEOparse", None)
    assert "needs the package GEOparse" in refusal(tmp_path, "GSE1_family.soft")


@pytest.mark.parametrize("name", ["GSE105845_family.soft", "GPL20814_family.soft"])
def test_a_soft_file_without_values_is_refused_in_a_sentence(data: Path, name: str) -> None:
    assert f"{name} holds no expression values" in refusal(data / "format_samples", name)


def test_a_sample_of_numbered_probes_is_not_taken_for_entrez_ids(data: Path) -> None:
    assert "None of the 2 names in GSM32878.txt" in refusal(data / "format_samples", "GSM32878.txt")


def test_a_platform_without_names_of_genes_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match=r"No column of GPL20814_family\.soft names genes"):
        read_platform(data / "format_samples" / "GPL20814_family.soft")


def test_the_genes_of_affymetrix_st_arrays_are_found_in_their_assignments() -> None:
    cells = [
        "NM_004083 // DDIT3 // DNA damage // 12q13 // 1649",
        "---",
        "NM_014584 // ERO1A // words /// ENST01 // ERO1A // words",
    ]
    table = pd.DataFrame({"ID": [7965001, 7965002, 7965003], "gene_assignment": cells})
    assert platform_genes(table) == {"7965001": "DDIT3", "7965003": "ERO1A"}


# refine.bio --------------------------------------------------------------------------------------------------------------


def archive(folder: Path, data: Path, samples: list[str], **told: object) -> Path:
    """A refine.bio download as its own folder, with real metadata and made values."""
    place = folder / "download"
    (place / "SRP158491").mkdir(parents=True)
    shutil.copy(data / "format_samples" / "refinebio_metadata_SRP158491.tsv", place / "SRP158491" / "metadata_SRP158491.tsv")
    aggregated = json.loads((data / "format_samples" / "refinebio_aggregated_metadata_SRP158491.json").read_text())
    (place / "aggregated_metadata.json").write_text(json.dumps({**aggregated, **told}))
    values = logs(("ENSG00000175197", "ENSG00000197930"), samples=len(samples)).set_axis(samples).T.rename_axis("Gene")
    values.to_csv(place / "SRP158491" / "SRP158491.tsv", sep="\t")
    return place


def test_a_refinebio_download_reads_the_same_as_folder_and_as_zip(tmp_path: Path, data: Path) -> None:
    place = archive(tmp_path, data, ["SRR7725764", "SRR7725765"])
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as zipped:
        for file in place.rglob("*.*"):
            zipped.write(file, file.relative_to(place))
    found = read(tmp_path, "download")
    pd.testing.assert_frame_equal(found, read(tmp_path, "download.zip"))
    assert found.attrs["mapping"].genes == ("DDIT3", "ERO1A")
    assert found["refinebio_age"].tolist() == [53, 53]
    assert found["refinebio_sex"].tolist() == ["male", "male"]
    assert "quantile-normalised" in notes(found)


def test_without_its_tables_refinebios_json_tells_of_the_samples(tmp_path: Path, data: Path) -> None:
    place = archive(tmp_path, data, ["SRR7725764", "SRR7725765"])
    (place / "SRP158491" / "metadata_SRP158491.tsv").unlink()
    assert read(tmp_path, "download")["refinebio_disease"].tolist() == ["healthy", "healthy"]


def test_that_refinebio_scaled_over_all_samples_is_said(tmp_path: Path, data: Path) -> None:
    archive(tmp_path, data, ["SRR7725764", "SRR7725765"], scale_by="STANDARD")
    assert "held-out ones included" in notes(read(tmp_path, "download"))


def test_a_folder_that_is_no_refinebio_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    assert "holds no refine.bio table" in refusal(tmp_path, "download")


# Several files -----------------------------------------------------------------------------------------------------------


def test_most_names_being_unknown_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(series_matrix(logs(("DDIT3", "chip1", "chip2"))))
    assert "only 1 of 3 names are known" in notes(read(tmp_path, "m.txt"))


def test_samples_of_several_files_are_put_under_each_other(tmp_path: Path) -> None:
    logs().iloc[:2].to_csv(tmp_path / "a.csv")
    logs().iloc[2:].to_csv(tmp_path / "b.csv")
    found = ExpressionSource(path=("a.csv", "b.csv")).read(tmp_path)
    pd.testing.assert_frame_equal(found, logs())
    logs(OLD_SIX[:3]).iloc[2:].to_csv(tmp_path / "b.csv")
    fewer = ExpressionSource(path=("a.csv", "b.csv")).read(tmp_path)
    assert fewer.attrs["mapping"].genes == SIX[:3]
    assert "3 of the names are in all 2 files" in notes(fewer)
    logs().iloc[1:].to_csv(tmp_path / "b.csv")
    with pytest.raises(InputError, match="'s2' is in two files"):
        ExpressionSource(path=("a.csv", "b.csv")).read(tmp_path)


# What a frame carries ----------------------------------------------------------------------------------------------------


def test_the_report_survives_what_pandas_does_to_a_frame(tmp_path: Path) -> None:
    logs(OLD_SIX).to_csv(tmp_path / "x.csv")
    found = read(tmp_path)
    kept = found.loc[["s1", "s2"]].drop(columns="STC2")
    assert kept.attrs["mapping"] is found.attrs["mapping"]
    assert deepcopy(found.attrs)["mapping"] is found.attrs["mapping"]


def test_names_of_real_tables_are_mapped_to_their_genes(data: Path) -> None:
    found = read(data / "tcga_hnsc_expression_hypoxia_pfs", "expression_rnaseq_z.csv.gz")
    assert found.shape == (416, 1557)
    assert found.index[0] == "TCGA-4P-AA8J"
    breast = read(data / "breast_expression_survset", "gse1992.csv.gz", sample="pid")
    assert set(breast.attrs["mapping"].genes) >= {"DDIT3", "ERO1A", "P4HA2", "STC2", "UPK1A"}
    assert {"event", "time"} <= set(breast.columns) - set(breast.attrs["mapping"].genes)


def test_a_probe_is_told_by_its_platform_before_its_name() -> None:
    assert meaning(["DDIT3", "control"], {"DDIT3": "STC2"}).symbols == ["STC2", None]


# The command -------------------------------------------------------------------------------------------------------------


def test_the_command_lists_what_a_study_would_refuse(tmp_path: Path) -> None:
    logs((*OLD_SIX, "1-Dec", "AK3L1")).T.to_csv(tmp_path / "x.csv")
    arguments = [str(tmp_path / "x.csv"), "--output", str(tmp_path / "names.csv"), "--json"]
    result = CliRunner().invoke(genes_command, arguments, catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["unclear"] == {"1-Dec": ["BHLHE40", "DELEC1"], "AK3L1": ["AK3", "AK4"]}
    assert told["counts"] == {"symbol": 5, "previous or alias": 1, "mangled": 1, "ambiguous": 1}
    assert "AK3L1: has meant AK3 or AK4" in result.stderr
    written = pd.read_csv(tmp_path / "names.csv", index_col="name")
    assert written.loc["ERO1L", "symbol"] == "ERO1A"
    assert not written.loc["1-Dec", "used"]
