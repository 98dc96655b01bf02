from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest

from features.errors import InputError
from features.sources import SurvSetSource, TableSource, read_table
from tests.tables import small_table


def as_csv(table: pd.DataFrame, separator: str = ",") -> bytes:
    return table.to_csv(index=False, sep=separator).encode()


def as_parquet(table: pd.DataFrame) -> bytes:
    content = BytesIO()
    table.to_parquet(content)
    return content.getvalue()


WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "t.csv": as_csv,
    "t.CSV": as_csv,
    "t.v1.2.csv": as_csv,
    "t.tsv": lambda table: as_csv(table, "\t"),
    "t.txt": lambda table: as_csv(table, "\t"),
    "t.parquet": as_parquet,
    "t.csv.gz": lambda table: gzip.compress(as_csv(table)),
    "t.csv.GZ": lambda table: gzip.compress(as_csv(table)),
    "t.tsv.gz": lambda table: gzip.compress(as_csv(table, "\t")),
    "t.parquet.gz": lambda table: gzip.compress(as_parquet(table)),
}


def read(folder: Path, *paths: str) -> pd.DataFrame:
    return TableSource(path=paths, sample="ID").read(folder)


def refusal(folder: Path, *paths: str) -> str:
    with pytest.raises(InputError) as error:
        read(folder, *paths)
    return str(error.value)


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_reads_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITERS[name](small_table()))
    pd.testing.assert_frame_equal(read(tmp_path, name), small_table().set_index("ID"))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_sample_called_007_stays_that(tmp_path: Path, name: str) -> None:
    table = small_table(3).assign(ID=["007", "7", "10"])
    (tmp_path / name).write_bytes(WRITERS[name](table))
    assert read(tmp_path, name).index.tolist() == ["007", "7", "10"]


def test_numbers_as_names_are_the_same_names_in_csv_and_parquet(tmp_path: Path) -> None:
    table = small_table(3).assign(ID=[1, 2, 3])
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(WRITERS[name](table))
        assert read(tmp_path, name).index.tolist() == ["1", "2", "3"]


def test_a_named_index_of_a_parquet_file_is_a_column(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(as_parquet(small_table().set_index("ID")))
    pd.testing.assert_frame_equal(read(tmp_path, "t.parquet"), small_table().set_index("ID"))


def test_row_numbers_of_a_filtered_parquet_file_are_no_feature(tmp_path: Path) -> None:
    table = small_table()
    (tmp_path / "t.parquet").write_bytes(as_parquet(table[table["volume"] > 0]))
    assert list(read(tmp_path, "t.parquet").columns) == ["Target", "PatientID", "volume", "entropy"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + as_csv(small_table()))
    pd.testing.assert_frame_equal(read(tmp_path, "t.csv"), small_table().set_index("ID"))


def test_several_files_are_joined_by_sample_whatever_their_order_of_rows(tmp_path: Path) -> None:
    table = small_table()
    (tmp_path / "clinic.csv").write_bytes(as_csv(table[["ID", "Target", "PatientID"]]))
    features = table[["ID", "volume", "entropy"]].sample(frac=1, random_state=1)
    (tmp_path / "features.tsv").write_bytes(as_csv(features, "\t"))
    pd.testing.assert_frame_equal(read(tmp_path, "clinic.csv", "features.tsv"), table.set_index("ID"))


def test_only_samples_of_all_files_are_kept_in_the_order_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ID,x\ns3,3\ns1,1\ns2,2\n")
    (tmp_path / "b.csv").write_text("ID,y\ns1,10\ns3,30\ns9,90\n")
    joined = read(tmp_path, "a.csv", "b.csv")
    assert joined.index.tolist() == ["s3", "s1"]
    assert joined["y"].tolist() == [30, 10]


def test_tables_of_a_sequence_are_joined_with_the_sources_own(tmp_path: Path) -> None:
    (tmp_path / "clinic.csv").write_text("ID,Target\ns1,0\ns2,1\n")
    (tmp_path / "adc.csv").write_text("ID,mean\ns1,1.5\n")
    frame = TableSource(path="clinic.csv", sample="ID").read(tmp_path, ("adc.csv",))
    assert frame.loc["s1"].to_dict() == {"mean": 1.5, "Target": 0}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("ID,x\ns1,1\n", "Column 'x' of b.csv is in an earlier table too"),
        ("ID,y\nother,1\n", "No sample of the earlier tables is in b.csv"),
    ],
)
def test_tables_that_do_not_join_are_refused(tmp_path: Path, second: str, words: str) -> None:
    (tmp_path / "a.csv").write_text("ID,x\ns1,1\n")
    (tmp_path / "b.csv").write_text(second)
    assert refusal(tmp_path, "a.csv", "b.csv").startswith(words)


GZIPPED = gzip.compress(as_csv(small_table()))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"ID,a,a\ns1,1,2\n", "t.csv names the column 'a' twice"),
        ("t.csv", b"ID,a\ns1,1\ns1,2\n", "Sample 's1' is in t.csv twice"),
        ("t.csv", b"ID,a\ns1,1\n,2\n", "t.csv has a row without a value in the sample column 'ID'"),
        ("t.parquet", as_parquet(small_table(2).assign(ID=["s1", None])), "has a row without a value in the sample column"),
        ("t.csv", b"id,a\ns1,1\n", "Column 'ID' (cohort.source.sample) is not in t.csv"),
        ("t.csv", as_csv(small_table(), ";"), "parts its columns by semicolons; save it with commas"),
        ("t.csv", as_csv(small_table(), "\t"), "it has one column; values are parted by commas"),
        ("t.csv", b"ID,a\ns1,1,\ns2,2,\n", "has more values in a row than names in the header line"),
        ("t.csv", b"ID,a\ns1,1\ns2,2,3\n", "cannot be read as csv (ParserError); check that the file is whole"),
        ("t.csv", b"", "cannot be read as csv (EmptyDataError)"),
        ("t.csv", b"ID,a\n", "holds no rows"),
        ("t.parquet", as_parquet(small_table().head(0)), "holds no rows"),
        ("t.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "cannot be read as csv (UnicodeDecodeError)"),
        ("t.csv", "ID,größe\ns1,1\n".encode("latin-1"), "cannot be read as csv (UnicodeDecodeError); save it as UTF-8"),
        ("t.csv", as_csv(small_table()).decode().encode("utf-16"), "save it as UTF-8"),
        ("t.parquet", b"PAR1 and nothing more PAR1", "cannot be read as parquet"),
        ("t.csv.gz", GZIPPED[: len(GZIPPED) // 2], "cannot be read as csv (EOFError); check that the file is whole"),
        ("t.csv.gz", GZIPPED[:40] + b"xxxx" + GZIPPED[44:], "cannot be read as csv"),
        ("t.csv.gz", as_csv(small_table()), "cannot be read as csv (BadGzipFile)"),
        ("t.parquet.gz", as_parquet(small_table()), "cannot be read as parquet (BadGzipFile)"),
        ("t.xlsx", b"anything", "is not a table that can be read; use .csv, .tsv or .parquet"),
        ("t.csv.bak", as_csv(small_table()), "is not a table that can be read"),
        ("t", as_csv(small_table()), "is not a table that can be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, name)
    assert words in message
    assert name in message
    assert "\n" not in message


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    message = refusal(tmp_path, "nowhere.csv")
    assert message.startswith(f"{tmp_path / 'nowhere.csv'} does not exist; check the path")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    assert str(tmp_path / "t.csv") in refusal(tmp_path, "t.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(as_csv(small_table()))
    (tmp_path / "t.csv").chmod(0)
    assert "PermissionError" in refusal(tmp_path, "t.csv")


def test_a_source_without_a_path_says_where_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cohort\.source\.path is missing"):
        TableSource(sample="ID").read(tmp_path)


def test_a_survset_dataset_that_is_not_pinned_is_never_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'gse9' is not among those whose digest is pinned \(gse1992\)"):
        SurvSetSource(dataset="gse9").read(tmp_path)


def test_a_survset_file_other_than_the_pinned_one_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickles = tmp_path / "SurvSet" / "resources" / "pickles"
    pickles.mkdir(parents=True)
    (tmp_path / "SurvSet" / "__init__.py").touch()
    evidence = tmp_path / "evidence"
    (pickles / "gse1992.pickle").write_bytes(b"cposix\nsystem\n(S'touch " + str(evidence).encode() + b"'\ntR.")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="is not the pinned one"):
        SurvSetSource(dataset="gse1992").read(tmp_path)
    assert not evidence.exists()


def test_quoted_names_with_commas_and_lines_are_kept_whole(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('ID,"a,b","c\nd"\ns1,1,2\n')
    assert list(read_table(tmp_path / "t.csv").columns) == ["ID", "a,b", "c\nd"]
