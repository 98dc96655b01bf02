"""Where a study's rows come from: the one list of sources.

To add one: a class with ``kind`` and ``read(folder)``, and its name in ``Source``.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import zlib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from features.errors import InputError, did_you_mean
from features.expression import ExpressionSource
from features.extracted import is_as_written, read_record
from features.imaging.source import ImageSource
from features.settings import Settings

Paths = str | tuple[str, ...]

# Pickles run code when they are opened, so only these, seen once and pinned, are. SurvSet 0.2.11.
SURVSET_DIGESTS = {"gse1992": "86601d8810ca2738c0d460f7ee371815ba3d7354c8264abfbb6a5153133ff1da"}


class TableSource(Settings):
    """One or more tables (CSV, TSV or Parquet, optionally gzipped) with a row per sample, joined on the sample's name.

    Parameters
    ----------
    path : str or list of str, optional
        Relative to the study file. May be left out when the study names sequences, each with a table of its own.
    sample : str
        Column with the sample's name; unique within a table.
    """

    kind: Literal["table"] = "table"
    path: Paths | None = None
    sample: str

    def read(self, folder: Path, more: Paths = (), text: tuple[str, ...] = ()) -> pd.DataFrame:
        """All columns of the samples that are in every file, indexed by sample, in the order of the first file.

        Parameters
        ----------
        more : path(s)
            Read before the source's own.
        text : tuple of str
            Columns kept as written, as the sample's name is.
        """
        paths = [*_as_tuple(more), *_as_tuple(self.path or ())]
        if not paths:
            raise InputError("cohort.source.path is missing; name the table to read, or name tables under cohort.sequences.")
        frame = self._indexed(folder / paths[0], text)
        for path in paths[1:]:
            frame = self.joined(frame, self._indexed(folder / path, text), path)
        return frame

    def _indexed(self, path: Path, text: tuple[str, ...]) -> pd.DataFrame:
        record = read_record(path)
        patient = (record.patient,) if record and record.patient else ()
        frame = read_table(path, text_columns=(self.sample, *text, *patient))
        if self.sample not in frame.columns:
            alone = "" if frame.shape[1] > 1 else " (it has one column; values are parted by commas in .csv and by tabs in .tsv)"
            raise InputError(
                f"Column {self.sample!r} (cohort.source.sample) is not in {path.name}"
                f"{did_you_mean(self.sample, list(frame.columns))}{alone}; name the column that identifies a row."
            )
        if frame[self.sample].isna().any():
            raise InputError(f"{path.name} has a row without a value in the sample column {self.sample!r}; name every row.")
        if frame[self.sample].duplicated().any():
            twice = frame.loc[frame[self.sample].duplicated(), self.sample].iloc[0]
            raise InputError(
                f"Sample {twice!r} is in {path.name} twice; give every row its own name in {self.sample!r} "
                "(several rows of one patient are joined by cohort.patient)."
            )
        indexed = frame.set_index(self.sample)
        if record:
            indexed.attrs["extraction"] = (record,)
            if not is_as_written(path, record):
                indexed.attrs["notes"] = (f"{path.name} was changed after its features were extracted.",)
        return indexed

    @staticmethod
    def joined(left: pd.DataFrame, right: pd.DataFrame, path: str) -> pd.DataFrame:
        """Samples that are in both tables, with the columns of both; `path` is what the right one is called."""
        right = _without_same_patients(left, right, path)
        shared = left.columns.intersection(right.columns)
        if len(shared):
            raise InputError(f"Column {shared[0]!r} of {path} is in an earlier table too; rename or drop it in one of them.")
        joined = left.join(right, how="inner")
        if joined.empty:
            raise InputError(f"No sample of the earlier tables is in {path}; check that both name samples in the same way.")
        lost = len(left) - len(joined)
        words = (f"{lost} of {len(left)} samples are not in {Path(path).name} and were left out.",) if lost else ()
        both = {key: (*left.attrs.get(key, ()), *right.attrs.get(key, ())) for key in ("notes", "extraction")}
        joined.attrs = {"notes": (*both["notes"], *words), "extraction": both["extraction"]}
        return joined


class SurvSetSource(Settings):
    """A dataset of the PyPI package SurvSet (GPL-3, an optional extra), whose pickles are opened only if their digest is known.

    Parameters
    ----------
    prefix : str
        Keep only columns that begin so, and take the prefix off.
    keep : list of str
        Columns that are kept beside these, as they are called (outcome, age, stage).
    """

    kind: Literal["survset"] = "survset"
    dataset: str
    prefix: str = ""
    keep: tuple[str, ...] = ()

    def read(self, folder: Path, more: Paths = (), text: tuple[str, ...] = ()) -> pd.DataFrame:
        """All columns with the prefix, indexed by SurvSet's patient identifier."""
        if self.dataset not in SURVSET_DIGESTS:
            raise InputError(
                f"SurvSet dataset {self.dataset!r} is not among those whose digest is pinned ({', '.join(SURVSET_DIGESTS)}); "
                "export it to CSV and use kind: table."
            )
        frame = pickle.loads(self._verified_bytes()).set_index("pid")  # noqa: S301 - digest verified above
        frame.index = frame.index.astype(str)
        absent = [name for name in self.keep if name not in frame.columns]
        if absent:
            raise InputError(
                f"Column {absent[0]!r} (cohort.source.keep) is not in {self.dataset}"
                f"{did_you_mean(absent[0], list(frame.columns))}."
            )
        kept = frame.loc[:, frame.columns.str.startswith(self.prefix) & ~frame.columns.isin(self.keep)]
        return frame[list(self.keep)].join(kept.rename(columns=lambda name: name.removeprefix(self.prefix)))

    def _verified_bytes(self) -> bytes:
        package = find_spec("SurvSet")
        if package is None or package.origin is None:
            raise InputError("The package SurvSet is not installed; run `make setup`, or pip install 'hypoxia-biomarkers[demo]'.")
        content = (Path(package.origin).parent / "resources" / "pickles" / f"{self.dataset}.pickle").read_bytes()
        if hashlib.sha256(content).hexdigest() != SURVSET_DIGESTS[self.dataset]:
            raise InputError(f"SurvSet's file for {self.dataset!r} is not the pinned one; install SurvSet==0.2.11.")
        return content


Source = Annotated[TableSource | ImageSource | ExpressionSource | SurvSetSource, Field(discriminator="kind")]


def read_table(path: Path, text_columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file, gzipped or not.

    Parameters
    ----------
    text_columns : tuple of str
        Columns kept as written (``007`` stays ``007``).

    Raises
    ------
    InputError
        The file is absent, empty, of another kind, unreadable, or names a column twice.
    """
    kind = next((suffix for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "").lower()
    if kind not in {".csv", ".tsv", ".txt", ".parquet"}:
        raise InputError(f"{path} is not a table that can be read; use .csv, .tsv or .parquet, optionally with .gz.")
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path (in a study it is relative to the study file).")
    try:
        frame = _read_parquet(path, text_columns) if kind == ".parquet" else _read_text(path, kind, text_columns)
    except (OSError, ValueError, EOFError, zlib.error) as cause:
        way_out = "save it as UTF-8" if isinstance(cause, UnicodeDecodeError) else "check that the file is whole"
        raise InputError(f"{path} cannot be read as {kind[1:]} ({type(cause).__name__}); {way_out}.") from cause
    if frame.empty:
        raise InputError(f"{path} holds no rows; export the table again, with a header line and a row per sample.")
    return frame


def _read_parquet(path: Path, text_columns: tuple[str, ...]) -> pd.DataFrame:
    content = path.read_bytes()
    frame = pd.read_parquet(BytesIO(gzip.decompress(content) if path.suffix.lower() == ".gz" else content))
    frame = frame.reset_index(drop=not any(frame.index.names))  # an index without a name is a row number
    names = [name for name in text_columns if name in frame.columns]
    return frame.assign(**{name: frame[name].astype(object).map(str, na_action="ignore") for name in names})


def _read_text(path: Path, kind: str, text_columns: tuple[str, ...]) -> pd.DataFrame:
    separator = "," if kind == ".csv" else "\t"
    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, encoding="utf-8-sig").iloc[0]
    if len(header) == 1 and ";" in str(header.iloc[0]):
        raise InputError(f"{path.name} parts its columns by semicolons; save it with commas, and decimal points (not commas).")
    if header.isna().any():
        place = int(header.isna().argmax()) + 1
        raise InputError(f"{path.name}: column {place} has no name; name it (with pandas: to_csv(..., index_label='ID')).")
    if header.duplicated().any():
        raise InputError(f"{path} names the column {header[header.duplicated()].iloc[0]!r} twice; rename or remove one.")
    frame = pd.read_csv(path, sep=separator, dtype=dict.fromkeys(text_columns, str), encoding="utf-8-sig", low_memory=False)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas has then moved every name one column to the right
        raise InputError(f"{path} has more values in a row than names in the header line; name every column, or none too many.")
    return frame


def _without_same_patients(left: pd.DataFrame, right: pd.DataFrame, path: str) -> pd.DataFrame:
    """A table without its column of patients, where another has said the same already: each extracted table has one."""
    records = (*left.attrs.get("extraction", ()), *right.attrs.get("extraction", ()))
    names = [record.patient for record in records if record.patient in left.columns and record.patient in right.columns]
    if not names:
        return right
    both = left.index.intersection(right.index)
    differs = left.loc[both, names[0]].astype(str) != right.loc[both, names[0]].astype(str)
    if differs.any():
        raise InputError(
            f"Sample {both[differs.to_numpy()][0]!r} is of another patient in {path} than in an earlier table; correct one."
        )
    return right.drop(columns=names[0])


def _as_tuple(paths: Paths) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
