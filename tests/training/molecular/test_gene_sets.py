"""Gene sets of GMT files, and the genes of a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import InputError
from training.molecular.gene_sets import among, read_gmt, within


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_sets_of_several_files_are_merged_and_genes_taken_once(tmp_path) -> None:
    one = written(tmp_path, "one.gmt", "\ufeffHYPOXIA\tfrom a paper\tCA9\tLDHA\tCA9\t\r\n\r\nMITOSIS\t\tPLK1\tAURKA\r\n")
    two = written(tmp_path, "two.gmt", "HYPOXIA\tagain\tLDHA\tCA9\n")
    assert read_gmt([one, two]) == {"HYPOXIA": ("CA9", "LDHA"), "MITOSIS": ("PLK1", "AURKA")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HYPOXIA\tnothing\n", "Line 1 of .* is no gene set with genes"),
        ("A\t\tCA9\n\tno name\tCA9\n", "Line 2 of"),
        ("gene,value\nCA9,3\n", "Line 1 of .* a set per line"),
        (b"\x1f\x8b\x08\x00\xff\xfe", "is not text"),
        ("\n\n", "No gene set was read"),
        ("HYPOXIA\t\tCA9\nHYPOXIA\t\tLDHA\n", "'HYPOXIA' of .* was read before with other genes"),
    ],
)
def test_what_is_no_gmt_file_is_refused(tmp_path, text, message) -> None:
    with pytest.raises(InputError, match=message):
        read_gmt([written(tmp_path, "sets.gmt", text)])


def test_a_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_gmt([tmp_path / "none.gmt"])


def test_older_names_of_sets_and_of_tables_meet() -> None:
    sets = {"OLD": ("ERO1L", "HIG2", "CA9"), "NEW": ("ERO1A", "HILPDA", "CA9")}
    for genes in (["ERO1A", "HILPDA", "CA9", "X"], ["ERO1L", "HIG2", "CA9", "X"]):
        assert within(sets, genes, smallest=3).sets == dict.fromkeys(sets, tuple(genes[:3]))


def test_a_current_symbol_stands_for_its_gene_before_an_older_one() -> None:
    assert within({"S": ("ERO1L", "ERO1A")}, ["ERO1A", "X"], smallest=1).sets["S"] == ("ERO1A",)
    assert within({"S": ("ERO1A",)}, ["ERO1L", "X"], smallest=1).sets["S"] == ("ERO1L",)


def test_sets_that_are_too_small_or_large_are_left_out_with_the_reason() -> None:
    genes = [f"G{i}" for i in range(10)]
    sets = {"small": ("G1",), "good": ("G1", "G2", "other"), "large": tuple(genes[:6]), "none": ("other",)}
    found = within(sets, genes, smallest=2, largest=5)
    assert dict(found.sets) == {"good": ("G1", "G2")}
    assert found.left_out["why"].to_dict() == {
        "small": "fewer than 2 genes in the table",
        "large": "more than 5 genes in the table",
        "none": "fewer than 2 genes in the table",
    }
    assert found.left_out.loc["none", ["listed", "found"]].tolist() == [1, 0]
    assert found.words == (
        "Gene sets tested in the expression: 1 of 4; 2 left out: fewer than 2 genes in the table (the first: small, 1 of 1); "
        "1 left out: more than 5 genes in the table (the first: large, 6 of 6)."
    )
    assert within({"good": ("G1", "G2")}, genes, smallest=2).words == "Gene sets tested in the expression: 1 of 1."


def test_a_set_of_all_genes_is_left_out() -> None:
    found = within({"all": ("A", "B"), "one": ("A",)}, ["A", "B"], smallest=1)
    assert found.left_out["why"].to_dict() == {"all": "it is all genes of the table"}


def test_a_table_that_has_no_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"None of the 1 gene sets has 15 to 500 genes .* \(the one with the most has 1\)"):
        within({"HYPOXIA": ("CA9", "LDHA")}, ["CA9", "X"])


def test_the_published_hypoxia_signatures_are_read(data) -> None:
    sets = read_gmt([data / "hypoxia_signatures" / "hypoxia_signatures.gmt"])
    assert sets["FJELDBO2020_6"] == ("DDIT3", "ERO1A", "KCTD11", "P4HA2", "STC2", "UPK1A")
    assert len(sets["HALLMARK_HYPOXIA_200"]) == 200


@pytest.mark.parametrize("genes", [("other",), ("CA9", "X")])
def test_a_set_with_none_or_all_of_the_ranked_genes_is_refused(genes) -> None:
    with pytest.raises(InputError, match="of the 2 genes that can be ranked"):
        among({"HYPOXIA": genes}, ["CA9", "X"])


def test_no_set_is_refused() -> None:
    with pytest.raises(InputError, match="No gene set"):
        among({}, ["CA9"])
