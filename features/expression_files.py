"""Files of gene expression as they come: GEO series matrix and SOFT, refine.bio archives, tables.

Each reader gives a `Matrix`: values by sample and by the name that the file has for a gene or a probe, nothing renamed, nothing
rescaled. What the names mean and what the scale is, features.expression tells.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO, StringIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import numpy as np
import pandas as pd

from features.errors import InputError
from features.genes import resolve, share_of_genes

Format = Literal["auto", "series_matrix", "soft", "refinebio", "table"]
Axis = Literal["auto", "rows", "columns"]

HUMAN = "Homo sapiens"
BEGIN, END = "!series_matrix_table_begin", "!series_matrix_table_end"
# What GEO says of a sample beside its characteristics that a study may need.
GEO_FIELDS = {"title": "title", "source_name_ch1": "source_name", "platform_id": "platform_id"}
# Columns of a platform's table that name the gene, best first; as they are written in lower case, with spaces for underscores.
SYMBOL_COLUMNS = (
    "gene symbol", "symbol", "genesymbol", "ilmn gene", "gene sym", "hgnc symbol", "hugo symbol", "gene assignment", "ensembl",
    "ensembl id", "ensembl gene id", "ensg", "gene name", "gene", "orf",
)  # fmt: skip
# Columns that tables with genes in rows have beside the samples.
BESIDE_SAMPLES = {"entrez_gene_id", "entrezid", "entrez", "gene_id", "description", "chromosome", "chr", "start", "end", "length"}
UNREADABLE = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, csv.Error)


@dataclass(frozen=True)
class Matrix:
    """Expression values under the names of a file.

    Parameters
    ----------
    values : DataFrame of shape (n_samples, n_names), float
        Index: samples, unique. Columns: names of genes or probes; one may be there twice.
    clinical : DataFrame of shape (n_samples, n_columns)
        What the file says of the samples: words as they are there, of a table also numbers.
    annotation : mapping of str to str
        Probe to what its platform's table says of its gene.
    notes : tuple of str
        Sentences on how the file was read.
    mixed : bool
        Whether values may be of other things than genes, as in a table with a row per sample.
    """

    values: pd.DataFrame
    clinical: pd.DataFrame
    annotation: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mixed: bool = False


@dataclass(frozen=True)
class Reading:
    """How a table is to be read.

    Parameters
    ----------
    genes : {"auto", "rows", "columns"}
    sample : str or None
        With genes in columns: the column with the sample's name; without it the first.
    text : tuple of str
        Columns that are kept as written; they are no genes.
    not_genes : tuple of str
        Other columns that are no genes, whatever they are called.
    """

    genes: Axis = "auto"
    sample: str | None = None
    text: tuple[str, ...] = ()
    not_genes: tuple[str, ...] = ()


def read_matrix(path: Path, form: Format = "auto", reading: Reading | None = None) -> Matrix:
    """Read a file (or, of refine.bio, a folder) of expression.

    Parameters
    ----------
    path : Path
    form : {"auto", "series_matrix", "soft", "refinebio", "table"}
        `auto` tells by the first bytes, and takes a folder or a .zip for refine.bio's.
    reading : Reading, optional
        For a table only.

    Raises
    ------
    InputError
        It is not there, cut short, of another form, of another organism, or without values.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path (in a study it is relative to the study file).")
    try:
        chosen = _form(path) if form == "auto" else form
        readers: dict[str, Callable[[Path], Matrix]] = {
            "series_matrix": read_series_matrix,
            "soft": read_soft,
            "refinebio": read_refinebio,
            "table": lambda given: read_expression_table(given, reading or Reading()),
        }
        return _checked(readers[chosen](path), path)
    except UNREADABLE as cause:
        raise InputError(
            f"{path} cannot be read as expression ({type(cause).__name__}); check that the file is whole and what format it has."
        ) from cause


def _form(path: Path) -> Format:
    if path.is_dir() or path.suffix.lower() == ".zip":
        return "refinebio"
    if ".parquet" in (suffix.lower() for suffix in path.suffixes[-2:]):
        return "table"
    with _opened(path) as file:
        first = next((line for line in file if line.strip()), "")
    if first.startswith("^"):
        return "soft"
    return "series_matrix" if first.startswith("!") else "table"


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    opener: Any = gzip.open if zipped else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        yield file


def _checked(matrix: Matrix, path: Path) -> Matrix:
    samples = matrix.values.index
    if matrix.values.size == 0:
        raise InputError(f"{path.name} holds no expression values; check that it is the file with the values.")
    if samples.duplicated().any():
        raise InputError(f"Sample {samples[samples.duplicated()][0]!r} is in {path.name} twice; give every sample its own name.")
    if np.isinf(matrix.values.to_numpy()).any():
        raise InputError(f"{path.name} holds an infinite value; make it a number or leave it empty.")
    return matrix


# GEO: series matrix ------------------------------------------------------------------------------------------------------


def read_series_matrix(path: Path) -> Matrix:
    """A GEO series matrix file: probes in rows, and what is known of the samples in the lines above.

    The characteristics of the samples (``key: value``) become columns named by their keys, beside ``title``, ``source_name`` and
    ``platform_id``.
    """
    with _opened(path) as file:
        head, table = _head_and_table(file, path)
    fields = [(line[0].removeprefix("!Sample_"), line[1:]) for line in csv.reader(head, delimiter="\t") if _of_sample(line)]
    samples = next((values for name, values in fields if name == "geo_accession"), [])
    described = [[(name, values[place]) for name, values in fields if place < len(values)] for place in range(len(samples))]
    _refuse_other_organisms([value for name, values in fields if name == "organism_ch1" for value in values], path)
    frame = pd.read_csv(StringIO(table), sep="\t", index_col=0, dtype={0: str}, na_values=["null"], low_memory=False)
    if frame.empty:
        raise InputError(
            f"{path.name} holds no expression values: its table is empty, as GEO leaves it for sequencing. Take the values from "
            "the series' supplementary files, or from refine.bio."
        )
    values = _transposed(frame, path)
    return Matrix(values, _geo_clinical(samples, described).reindex(values.index))


def _of_sample(line: Sequence[str]) -> bool:
    return bool(line) and line[0].startswith("!Sample_")


def _head_and_table(file: IO[str], path: Path) -> tuple[list[str], str]:
    head = []
    for line in file:
        if line.startswith(BEGIN):
            break
        head.append(line)
    table = file.read()
    end = table.rfind(END)
    if end < 0:
        raise InputError(
            f"{path.name} is no whole series matrix: {END} is missing. Download it again (hypoxia fetch), or set the format."
        )
    return head, table[:end]


def _transposed(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Samples in rows, of a table with genes in rows."""
    text = [name for name, kind in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    if text:
        raise InputError(f"Sample {text[0]!r} of {path.name} holds text among its values; make it a number, or leave it empty.")
    values = frame.astype(float).T
    values.index = pd.Index(values.index.map(str), name="sample")
    values.columns = pd.Index(["" if name != name else str(name) for name in values.columns], dtype=object)
    return values.loc[:, values.columns != ""]


def _geo_clinical(samples: Sequence[str], described: Sequence[Sequence[tuple[str, str]]]) -> pd.DataFrame:
    """One row per sample: its characteristics by key, and the few fields that a study may need."""
    rows = []
    for fields in described:
        row = {GEO_FIELDS[name]: value for name, value in fields if name in GEO_FIELDS}
        for channel in ("ch1", "ch2"):
            told = [value for name, value in fields if name == f"characteristics_{channel}" and value.strip()]
            row = _with_characteristics(row, told, "" if channel == "ch1" else " (ch2)")
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(samples, name="sample"))


def _with_characteristics(row: dict[str, str], told: Sequence[str], ending: str) -> dict[str, str]:
    found = dict(row)
    for cell in told:
        key, parted, value = cell.partition(":")
        name = (key.strip() if parted else "characteristics") + ending
        text = (value if parted else cell).strip()
        found[name] = f"{found[name]}; {text}" if name in found else text
    return found


def _refuse_other_organisms(organisms: Sequence[str], path: Path) -> None:
    others = sorted({name for name in organisms if name and name.replace("_", " ").lower() != HUMAN.lower()})
    if others:
        raise InputError(f"{path.name} has samples of {others[0]}; the names and signatures of genes here are human.")


# GEO: SOFT ---------------------------------------------------------------------------------------------------------------


def read_soft(path: Path) -> Matrix:
    """A GEO SOFT family file: values of the samples, and the platform's table that says of which genes the probes are.

    References
    ----------
    GEOparse (the parser): https://github.com/guma44/GEOparse. The format: https://www.ncbi.nlm.nih.gov/geo/info/soft.html.
    """
    series = _parsed(path, "GSE")
    _refuse_other_organisms([name for one in series.gsms.values() for name in one.metadata.get("organism_ch1", [])], path)
    tables = {name: one.table for name, one in series.gsms.items() if {"ID_REF", "VALUE"} <= set(one.table.columns)}
    if not tables:
        raise InputError(
            f"{path.name} holds no expression values: none of its {len(series.gsms)} samples has a table with ID_REF and VALUE. "
            "Take the values from the series matrix, the supplementary files, or refine.bio."
        )
    columns = {name: _by_probe(table, name, path) for name, table in tables.items()}
    described = [[(key, value) for key, values in series.gsms[name].metadata.items() for value in values] for name in tables]
    annotation = {probe: gene for one in series.gpls.values() for probe, gene in platform_genes(one.table).items()}
    values = pd.DataFrame(columns).T
    values.index.name = "sample"
    return Matrix(values, _geo_clinical(list(tables), described), annotation)


def _by_probe(table: pd.DataFrame, sample: str, path: Path) -> pd.Series:
    values = table.set_index(table["ID_REF"].map(str))["VALUE"].replace("null", np.nan)
    if values.index.duplicated().any():
        twice = values.index[values.index.duplicated()][0]
        raise InputError(f"Sample {sample!r} of {path.name} has the probe {twice!r} twice; remove one.")
    try:
        return values.astype(float)
    except ValueError as cause:
        raise InputError(f"Sample {sample!r} of {path.name} holds text among its values; make it a number.") from cause


def _parsed(path: Path, kind: str) -> Any:
    """GEOparse's object of an offline file; it neither downloads nor writes."""
    try:
        import GEOparse
    except ModuleNotFoundError as cause:
        raise InputError(
            f"{path.name} is SOFT, which needs the package GEOparse; pip install 'hypoxia-biomarkers[training]'."
        ) from cause
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # columns of a platform that hold numbers and words
            return GEOparse.get_GEO(
                filepath=str(path), geotype=kind, silent=True, open_kwargs={"encoding": "utf-8", "errors": "replace"}
            )
    except UNREADABLE:
        raise
    except Exception as cause:  # GEOparse raises bare exceptions, and StopIteration at the end of a file that was cut short
        told = " ".join(str(cause).split()) or type(cause).__name__
        raise InputError(f"{path.name} cannot be read as SOFT ({told}); check that it is whole.") from cause


def read_platform(path: Path) -> dict[str, str]:
    """Probe to what a platform's table says of its gene.

    Parameters
    ----------
    path : Path
        GEO's SOFT or annotation file of the platform, or a table (CSV, TSV) with the probes in its first column.

    Raises
    ------
    InputError
        It cannot be read, or no column of it names genes.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path (in a study it is relative to the study file).")
    try:
        tables = _platform_tables(path)
    except UNREADABLE as cause:
        raise InputError(f"{path} cannot be read as a platform ({type(cause).__name__}); check that it is whole.") from cause
    found = {probe: gene for table in tables for probe, gene in platform_genes(table).items()}
    if not found:
        raise InputError(f"No column of {path.name} names genes; give a platform file with a column such as 'Gene Symbol'.")
    return found


def _platform_tables(path: Path) -> list[pd.DataFrame]:
    if _form(path) != "soft":
        return [pd.read_csv(path, sep=None, engine="python", dtype=str, comment="#")]
    with _opened(path) as file:
        entries = (line[1:].split("=")[0].strip().upper() for line in file if line.startswith("^"))
        first = next((entry for entry in entries if entry != "DATABASE"), "")
    if first == "SERIES":  # the family of a series; else of a platform, with the series and samples that use it
        return [one.table for one in _parsed(path, "GSE").gpls.values()]
    return [_parsed(path, "GPL").table]


def platform_genes(table: pd.DataFrame) -> dict[str, str]:
    """Probe to what the table of a platform says of its gene; empty where no column of it names genes.

    Examples
    --------
    >>> platform_genes(pd.DataFrame({"ID": ["ILMN_1"], "Species": ["Homo sapiens"], "ILMN_Gene": ["HIG2"]}))
    {'ILMN_1': 'HIG2'}
    """
    if table.shape[1] < 2:
        return {}
    named = {str(name).lower().replace("_", " ").strip(): name for name in table.columns[1:]}
    preferred = [named[name] for name in SYMBOL_COLUMNS if name in named and _known(table[named[name]]) >= 0.5]
    others = [name for name in table.columns[1:] if share_of_genes(_first_genes(table[name])) >= 0.5]
    column = next(iter([*preferred, *others]), None)
    if column is None:
        return {}
    cells = table[column].map(_genes_of_cell, na_action="ignore")
    found = dict(zip(table.iloc[:, 0].map(str), cells, strict=True))
    return {probe: cell for probe, cell in found.items() if isinstance(cell, str) and cell}


def _known(cells: pd.Series) -> float:
    """Share of the cells that name a gene, be it by an old name."""
    names = resolve(_first_genes(cells)).names
    return sum(one.problem != "unknown" for one in names) / len(names) if names else 0.0


def _first_genes(cells: pd.Series) -> list[str]:
    """The first name in each of the first thousand filled cells."""
    filled = cells.dropna().iloc[:1000].map(_genes_of_cell)
    return [cell.split("///")[0] for cell in filled if cell]


def _genes_of_cell(cell: object) -> str:
    """Names parted by ``///``, of a cell in any of GEO's ways: ``A /// B``, ``NM_1 // A // words /// NM_2 // B // words``.

    Examples
    --------
    >>> _genes_of_cell("NM_004083 // DDIT3 // DNA damage /// ENST01 // DDIT3 // words"), _genes_of_cell("DDR1 /// MIR4640")
    ('DDIT3', 'DDR1///MIR4640')
    """
    parts = [part.strip() for part in str(cell).split("///")]
    names = [part.split(" // ")[1].strip() if " // " in part else part for part in parts]
    return "///".join(dict.fromkeys(name for name in names if name not in ("", "---", "-")))


# refine.bio --------------------------------------------------------------------------------------------------------------


def read_refinebio(path: Path) -> Matrix:
    """A download of refine.bio, as its .zip or unpacked: <name>/<name>.tsv, its metadata, and what was done to it as a whole.

    The columns of the metadata come under refine.bio's names (``refinebio_age``, ...).

    References
    ----------
    Greene et al., refine.bio: https://www.refine.bio (a resource of harmonised transcriptomes).
    """
    contents = _members(path)
    tables = sorted(name for name in contents if _is_experiment(name))
    if not tables:
        raise InputError(
            f"{path.name} holds no refine.bio table (<accession>/<accession>.tsv with a first column 'Gene'); name the folder or "
            ".zip that refine.bio gave."
        )
    described = _described(contents)
    organisms = described.get("refinebio_organism", pd.Series(dtype=str)).dropna()
    _refuse_other_organisms(list(organisms), path)
    parts = []
    for name in tables:
        frame = pd.read_csv(contents[name](), sep="\t", index_col=0, dtype={0: str}, low_memory=False)
        parts.append(_transposed(frame, path))
    values = parts[0] if len(parts) == 1 else pd.concat(parts, join="inner")
    clinical = described.reindex(values.index)
    return Matrix(values, clinical, notes=_what_refinebio_did(contents))


def _members(path: Path) -> dict[str, Callable[[], BytesIO]]:
    """Name of each file, with / between folders, to what opens it."""
    if path.is_dir():
        inside = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
        return {name: (lambda file=file: BytesIO(file.read_bytes())) for name, file in inside.items()}  # type: ignore[misc]
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]

    def opened(name: str) -> BytesIO:
        with zipfile.ZipFile(path) as archive:
            return BytesIO(archive.read(name))

    return {name: (lambda name=name: opened(name)) for name in names}  # type: ignore[misc]


def _is_experiment(name: str) -> bool:
    place = PurePosixPath(name)
    return place.suffix == ".tsv" and (place.parent.name == place.stem or not place.stem.lower().startswith("metadata"))


def _described(contents: Mapping[str, Callable[[], BytesIO]]) -> pd.DataFrame:
    """What refine.bio says of the samples: of its tables, else of its JSON."""
    tables = [name for name in contents if PurePosixPath(name).name.startswith("metadata_") and name.endswith(".tsv")]
    if tables:
        found = pd.concat([pd.read_csv(contents[name](), sep="\t", dtype=str) for name in sorted(tables)])
    else:
        samples = _aggregated(contents).get("samples", {})
        found = pd.DataFrame([{key: one[key] for key in one if key != "refinebio_annotations"} for one in samples.values()])
    if "refinebio_accession_code" not in found.columns:
        return pd.DataFrame()
    found = found.drop_duplicates("refinebio_accession_code").set_index("refinebio_accession_code")
    return found.astype(object)


def _aggregated(contents: Mapping[str, Callable[[], BytesIO]]) -> dict[str, Any]:
    name = next((name for name in contents if PurePosixPath(name).name == "aggregated_metadata.json"), None)
    return {} if name is None else json.load(contents[name]())


def _what_refinebio_did(contents: Mapping[str, Callable[[], BytesIO]]) -> tuple[str, ...]:
    told = _aggregated(contents)
    notes = ()
    if told.get("quantile_normalized"):
        notes += ("refine.bio quantile-normalised the samples to its own reference.",)  # type: ignore[assignment]
    if (scaling := str(told.get("scale_by", "NONE"))) != "NONE":
        notes += (  # type: ignore[assignment]
            f"refine.bio scaled each gene over all samples of the download ({scaling}), held-out ones included; download it "
            "unscaled (scale_by: NONE).",
        )
    return notes


# Tables ------------------------------------------------------------------------------------------------------------------


def read_expression_table(path: Path, reading: Reading) -> Matrix:
    """A table (CSV, TSV or Parquet, optionally gzipped) with genes in rows or in columns.

    With genes in columns, columns of words, and those named as no genes, are what is known of the samples.
    """
    header, frame = _read_cells(path, reading)
    in_columns, note = _genes_in_columns(header, frame, reading, path)
    matrix = _columns_of_genes(header, frame, reading, path) if in_columns else _rows_of_genes(header, frame, path)
    return replace(matrix, notes=(note, *matrix.notes))


def _read_cells(path: Path, reading: Reading) -> tuple[list[str], pd.DataFrame]:
    """The header line, in which a name may be twice, and the cells under it; the first column as written."""
    kind = next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")
    if kind == ".parquet":
        content = path.read_bytes()
        frame = pd.read_parquet(BytesIO(gzip.decompress(content) if path.suffix.lower() == ".gz" else content))
        frame = frame.reset_index(drop=isinstance(frame.index, pd.RangeIndex))
        header = ["" if name == "index" else str(name) for name in frame.columns]
        frame.columns = pd.RangeIndex(len(header))
        return header, _as_text(frame, {0, *_places(header, reading.sample, *reading.text)})
    if kind not in {".csv", ".tsv", ".txt"}:
        raise InputError(f"{path} is not a table that can be read; use .csv, .tsv or .parquet, optionally with .gz.")
    with _opened(path) as file:
        first = file.readline().rstrip("\r\n")
        separator = "," if kind == ".csv" else "\t"
        header = next(csv.reader([first], delimiter=separator), [])
        body = file.read()
    if body.strip() == "":
        raise InputError(f"{path} holds no rows; export the table again, with a header line.")
    width = len(next(csv.reader([body[: body.find("\n") if "\n" in body else None]], delimiter=separator)))
    if width == len(header) + 1:  # R's write.table leaves the corner out
        header = ["", *header]
    if width != len(header):
        raise InputError(f"{path} has {width} values in its first row and {len(header)} names in its header; name every column.")
    as_text = dict.fromkeys({0, *_places(header, reading.sample, *reading.text)}, str)
    frame = pd.read_csv(StringIO(body), sep=separator, header=None, dtype=as_text, low_memory=False)
    return header, frame


def _as_text(frame: pd.DataFrame, places: set[int]) -> pd.DataFrame:
    for place in places:
        frame[place] = frame[place].map(str, na_action="ignore")
    return frame


def _places(header: Sequence[str], *names: str | None) -> list[int]:
    return [place for place, name in enumerate(header) if name in names and name]


def _genes_in_columns(header: Sequence[str], frame: pd.DataFrame, reading: Reading, path: Path) -> tuple[bool, str]:
    """Whether the columns are genes, and how that was told."""
    if reading.genes != "auto":
        return reading.genes == "columns", f"{path.name}: genes in {reading.genes}, as the study says."
    if reading.sample is not None and reading.sample in header:
        return True, f"{path.name}: genes in columns, since column {reading.sample!r} names the samples."
    across = share_of_genes([name for name in header[1:] if name not in (*reading.text, *reading.not_genes)])
    down = share_of_genes(list(frame[0].dropna()))
    if (across >= 0.5) == (down >= 0.5):
        raise InputError(
            f"Whether {path.name} has its genes in rows or in columns cannot be told ({down:.0%} of the names in rows and "
            f"{across:.0%} of those in columns are names of genes); set genes: rows or genes: columns."
        )
    where, share = ("columns", across) if across >= 0.5 else ("rows", down)
    return where == "columns", f"{path.name}: genes in {where} ({share:.0%} of the names there are names of genes)."


def _rows_of_genes(header: Sequence[str], frame: pd.DataFrame, path: Path) -> Matrix:
    beside = [place for place in range(1, len(header)) if header[place].lower() in BESIDE_SAMPLES or _is_words(frame[place])]
    samples = [place for place in range(1, len(header)) if place not in beside]
    if not samples:
        raise InputError(f"{path.name} has no column of numbers beside its genes; check the file, or set genes: columns.")
    values = frame.set_index(0)[samples].set_axis([header[place] for place in samples], axis=1)
    left_out = [header[place] for place in beside]
    notes = (f"{path.name}: left out {', '.join(map(repr, left_out[:5]))}, which are no samples.",) if left_out else ()
    transposed = _transposed(values, path)
    return Matrix(transposed, pd.DataFrame(index=transposed.index), notes=notes)


def _is_words(cells: pd.Series) -> bool:
    """Whether a column holds words and no number: a few words among numbers are a fault, and not this."""
    if pd.api.types.is_numeric_dtype(cells):
        return False
    return bool(pd.to_numeric(cells, errors="coerce").isna().all())


def _columns_of_genes(header: Sequence[str], frame: pd.DataFrame, reading: Reading, path: Path) -> Matrix:
    place = _places(header, reading.sample)[0] if reading.sample in header else 0
    if frame[place].isna().any():
        raise InputError(f"{path.name} has a row without the name of its sample in {header[place]!r}; name every row.")
    index = pd.Index(frame[place].map(str), name="sample", dtype=object)
    others = [one for one in range(len(header)) if one != place]
    told = {*reading.text, *reading.not_genes}
    clinical = [one for one in others if header[one] in told or not _numeric(frame[one])]
    _refuse_genes_of_words([header[one] for one in clinical if header[one] not in told], path)
    genes = [one for one in others if one not in set(clinical)]
    names = [header[one] for one in clinical]
    if len(set(names)) < len(names):
        raise InputError(f"{path.name} names a column twice that is no gene; rename or remove one.")
    values = frame[genes].astype(float).set_axis(pd.Index([header[one] for one in genes], dtype=object), axis=1)
    return Matrix(values.set_axis(index), frame[clinical].set_axis(names, axis=1).set_axis(index), mixed=True)


def _numeric(cells: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells))


def _refuse_genes_of_words(names: Sequence[str], path: Path) -> None:
    found = [one.name for one in resolve(names).names if one.name == one.symbol or one.how in ("ensembl", "probe")]
    if found:
        raise InputError(
            f"Column {found[0]!r} of {path.name} is named as a gene and holds text; make it numbers, or name it under not_genes."
        )
