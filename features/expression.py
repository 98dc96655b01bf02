"""Gene expression of samples, under current symbols, on the scale that it is said to have.

The files are read by features.expression_files, and names are told by features.genes. Here the scale is looked at, several probes
of a gene become one column, and a study's source puts the genes beside what is known of the patients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import PrivateAttr

from features.errors import InputError, did_you_mean
from features.expression_files import Axis, Format, Matrix, Reading, read_matrix, read_platform
from features.genes import GeneName, GeneNames, gene_table, resolve
from features.settings import Settings

Scale = Literal["log", "log2", "as_is"]
Probes = Literal["highest_mean", "mean"]

# GEO2R's rule, by which NCBI tells raw from log values, and one for what it misses: raw sequencing, most of which is small.
RAW_PERCENTILE, RAW_RANGE, RAW_LARGEST = 100.0, 50.0, 100.0


@dataclass(frozen=True, eq=False)
class MappingReport:
    """What became of the names of a file.

    Parameters
    ----------
    names : GeneNames
        What each name means, in the order of the file.
    genes : tuple of str
        Columns of the frame that are genes, under their current symbols.
    chosen : mapping of str to str
        Gene with several probes to the one that was taken; empty for the mean.
    several : mapping of str to tuple of str
        Gene with several probes to these, in the order of the file.
    """

    names: GeneNames
    genes: tuple[str, ...]
    chosen: Mapping[str, str] = field(default_factory=dict)
    several: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: pandas copies what a frame carries at every step, and this never changes."""
        return self

    def table(self) -> pd.DataFrame:
        """One row per name of the file: name, symbol, how, note, and whether its values were taken (`used`)."""
        table = self.names.report()
        probes = {(gene, probe) for gene, probe in self.chosen.items()}
        alone = ~table["symbol"].isin(list(self.chosen))
        taken = [pair in probes for pair in zip(table["symbol"], table["name"], strict=True)]
        return table.assign(used=(table["symbol"] != "") & (alone | np.array(taken, dtype=bool)))

    @property
    def words(self) -> str:
        """How many names became how many genes, as a sentence."""
        counts = self.names.counts
        told = ", ".join(f"{counts[key]} by {words}" for key, words in RECOGNISED.items() if key in counts)
        lost = ", ".join(f"{counts[key]} {words}" for key, words in NOT_RECOGNISED.items() if key in counts)
        return f"{len(self.names.names)} names stand for {len(self.genes)} genes ({told or 'none'}{'; ' if lost else ''}{lost})."


RECOGNISED = {
    "symbol": "symbol",
    "previous or alias": "previous symbol or alias",
    "ensembl": "Ensembl id",
    "entrez": "Entrez id beside the symbol",
    "probe": "probe",
    "as told": "the study's word",
}
NOT_RECOGNISED = {
    "unknown": "unknown, which are no features",
    "several": "probes of several genes, left out",
    "ambiguous": "ambiguous, left out",
    "mangled": "mangled by a spreadsheet, left out",
}


class ExpressionSource(Settings):
    """Expression of genes by sample, from GEO, refine.bio or a table.

    Only columns that are genes are features; what else is known of the samples stands beside them, for the endpoint, the site
    and the patient to be named by.

    Parameters
    ----------
    path : str or list of str
        Relative to the study file: a series matrix or SOFT family file of GEO, a .zip or folder of refine.bio, or a table (CSV,
        TSV, Parquet; optionally gzipped). The samples of several files are put under each other, with the genes that all have.
    format : {"auto", "series_matrix", "soft", "refinebio", "table"}
    genes : {"auto", "rows", "columns"}
        Where a table has its genes; `auto` looks which axis bears names of genes.
    scale : {"log", "log2", "as_is"}
        `log`: the values are logarithms, log ratios or z scores, and what looks raw is refused. `log2`: take log2(x + 1).
        `as_is`: leave the values as they are, whatever they look like.
    probes : {"highest_mean", "mean"}
        What becomes of several probes (or columns) of one gene. `highest_mean` takes the probe with the highest mean; no
        outcome is looked at. In training these are means over development samples (``learning_from``), and the choice serves
        all resamples of them; `hypoxia check`, which holds nobody out, looks at all samples.
    chosen : dict of str to str
        Gene to the probe to take, before any rule.
    names : dict of str to str
        Name in the file to the current symbol that it means: settles ambiguous and mangled names.
    unclear : {"refuse", "leave_out"}
        What becomes of ambiguous and mangled names that `names` does not settle.
    platform : str, optional
        File that says of which gene each probe is (SOFT or annotation file of GEO, or a table).
    sample : str, optional
        Column with the sample's name in a table with genes in columns, and in the clinical table.
    named_by : str, optional
        What GEO or refine.bio say of a sample that is to be its name (``title``), in place of its accession.
    not_genes : list of str
        Columns of a table that are no genes though they are called like one (``AR``, or the ``T`` of a stage). In a table with
        genes in columns, short names that a gene only goes by informally (``OS``, ``sex``) are no genes unless `names` says so.
    clinical : str, optional
        Table with a row per sample, whose columns are put beside the genes.
    clinical_sample : str, optional
        Column of that table with the sample's name, where it is not called as in `sample`.
    """

    kind: Literal["expression"] = "expression"
    path: str | tuple[str, ...]
    format: Format = "auto"
    genes: Axis = "auto"
    scale: Scale = "log"
    probes: Probes = "highest_mean"
    chosen: dict[str, str] = {}
    names: dict[str, str] = {}
    unclear: Literal["refuse", "leave_out"] = "refuse"
    platform: str | None = None
    sample: str | None = None
    named_by: str | None = None
    not_genes: tuple[str, ...] = ()
    clinical: str | None = None
    clinical_sample: str | None = None

    _learnt_from: frozenset[str] | None = PrivateAttr(default=None)

    def learning_from(self, samples: Iterable[str]) -> Self:
        """The same source, whose probes are chosen by their means in these samples alone.

        Parameters
        ----------
        samples : iterable of str
            Names of samples that may be learnt from.
        """
        source = self.model_copy()
        source._learnt_from = frozenset(samples)
        return source

    def read(self, folder: Path, more: str | tuple[str, ...] = (), text: tuple[str, ...] = ()) -> pd.DataFrame:
        """Genes of all samples, and what is known of the samples, indexed by sample.

        Parameters
        ----------
        more : path(s)
            Read before the source's own.
        text : tuple of str
            Columns kept as written.

        Returns
        -------
        DataFrame of shape (n_samples, n_genes + n_unknown + n_clinical)
            Genes under their current symbols in the order of the file, then names that are of no known gene, then clinical
            columns. ``attrs["notes"]``: sentences; ``attrs["mapping"]``: the `MappingReport`, whose `genes` are the features.

        Raises
        ------
        InputError
            A file cannot be read, a name is ambiguous or mangled, or values look raw; the message says the way out.
        """
        paths = [*_as_tuple(more), *_as_tuple(self.path)]
        platform = read_platform(folder / self.platform) if self.platform else {}
        reading = Reading(self.genes, self.sample, text, self.not_genes)
        parts = [self._named(read_matrix(folder / path, self.format, reading), path, platform) for path in paths]
        values, report, notes = self._genes(parts)
        told = pd.concat([part.matrix.clinical for part in parts])
        frame = _beside(values, _numbers_or_words(told, text))
        frame.attrs = {"notes": notes}
        if self.clinical is not None:
            frame = self._with_clinical(frame, folder, text)
        frame.index.name = self.sample or "sample"
        frame.attrs["mapping"] = report
        return frame

    def _named(self, matrix: Matrix, path: str, platform: Mapping[str, str]) -> _Part:
        """One file with the meaning of its names, on the scale that is asked for."""
        renamed = matrix if self.named_by is None else _renamed(matrix, self.named_by, path)
        meant = meaning(list(matrix.values.columns), {**matrix.annotation, **platform}, self.names)
        meant = _but_for_clinical_words(meant) if matrix.mixed else meant
        if self.unclear == "refuse":
            meant.refuse(WAY_OUT)
        if all(one.symbol is None for one in meant.names):
            raise InputError(
                f"None of the {len(meant.names)} names in {Path(path).name} is that of one human gene (the first is "
                f"{meant.names[0].name!r}); if they are probes, name their platform's file under source.platform, else check "
                "source.genes: rows or columns."
            )
        parted, meant = _without_other_columns(renamed, meant, Path(path).name)
        values, words = on_scale(parted.values, self.scale, Path(path).name)
        return _Part(replace(parted, values=values, notes=(*parted.notes, words, *_few(meant, Path(path).name))), meant)

    def _genes(self, parts: Sequence[_Part]) -> tuple[pd.DataFrame, MappingReport, tuple[str, ...]]:
        """Genes of all files' samples: probes are chosen over all files where these name the same, else in each file."""
        notes = tuple(note for part in parts for note in part.matrix.notes)
        first = parts[0].matrix.values.columns
        if all(part.matrix.values.columns.equals(first) for part in parts):
            together = pd.concat([part.matrix.values for part in parts]) if len(parts) > 1 else parts[0].matrix.values
            collapsed = [self._collapsed(together, parts[0].meant)]
        else:
            collapsed = [self._collapsed(part.matrix.values, part.meant) for part in parts]
        values = collapsed[0][0] if len(collapsed) == 1 else pd.concat([frame for frame, _ in collapsed], join="inner")
        if values.index.duplicated().any():
            raise InputError(f"Sample {values.index[values.index.duplicated()][0]!r} is in two files; leave it out of one.")
        notes += tuple(sentence for _, report in collapsed for sentence in (report.words, *self._on_probes(report)))
        if len(collapsed) > 1:
            notes += (f"{values.shape[1]} of the names are in all {len(parts)} files; the others were left out.",)
        return values, _in_all([report for _, report in collapsed], values), notes

    def _collapsed(self, values: pd.DataFrame, meant: GeneNames) -> tuple[pd.DataFrame, MappingReport]:
        learnt = None if self._learnt_from is None else [name for name in values.index if name in self._learnt_from]
        return collapse(values, meant, self.probes, chosen=self.chosen, samples=learnt or None)

    def _on_probes(self, report: MappingReport) -> tuple[str, ...]:
        if not report.several:
            return ()
        if self.probes == "mean":
            return (f"Genes with several probes, of which the mean was taken: {len(report.several)}.",)
        whose = "all samples of the source" if self._learnt_from is None else "development samples alone"
        return (
            f"Genes with several probes, of which the one with the highest mean was taken: {len(report.several)}. The mean is "
            f"over {whose}; no outcome was looked at (source.chosen fixes the choice).",
        )

    def _with_clinical(self, frame: pd.DataFrame, folder: Path, text: tuple[str, ...]) -> pd.DataFrame:
        from features.sources import TableSource  # which has this source in its union

        column = self.clinical_sample or self.sample
        if column is None:
            raise InputError(f"source.sample is missing; name the column of {self.clinical} with the names of the samples.")
        table = TableSource(path=self.clinical, sample=column).read(folder, text=text)
        return TableSource.joined(frame, table, str(self.clinical))


WAY_OUT = (
    "Take the names from a file that no spreadsheet has saved, say what each means under source.names, or leave them out with "
    "source.unclear: leave_out."
)


@dataclass(frozen=True)
class _Part:
    """One file, and the meaning of the names of its columns."""

    matrix: Matrix
    meant: GeneNames


def meaning(
    names: Sequence[str], annotation: Mapping[str, str] | None = None, told: Mapping[str, str] | None = None
) -> GeneNames:
    """What the names of genes or of annotated probes mean.

    Parameters
    ----------
    names : sequence of str
    annotation : mapping of str to str, optional
        Probe to the names of its genes, parted by ``///``. A probe of several genes means none.
    told : mapping of str to str, optional
        Name, of a gene or in the annotation, to the symbol that it means.

    Examples
    --------
    >>> meaning(["ILMN_1", "ILMN_2", "p3"], {"ILMN_1": "ERO1L", "ILMN_2": "DDR1///MIR4640"}).symbols
    ['ERO1A', None, None]
    """
    annotated = annotation or {}
    labels = list(dict.fromkeys(label for name in names for label in annotated.get(name, name).split("///")))
    known = dict(zip(labels, resolve(labels, told=told).names, strict=True))
    if not annotated:
        return GeneNames(tuple(known[name] for name in names))
    return GeneNames(
        tuple(
            _of_probe(name, [known[label] for label in annotated[name].split("///")])
            if name in annotated
            else _without_annotation(known[name])
            for name in names
        )
    )


def _without_annotation(one: GeneName) -> GeneName:
    """A control or what is of no gene, though it may be numbered like a date, or called p3 as a gene once was."""
    return one if one.how in ("probe", "ensembl", "as told") else GeneName(one.name, problem="unknown")


def _of_probe(probe: str, genes: Sequence[GeneName]) -> GeneName:
    symbols = tuple(dict.fromkeys(one.symbol for one in genes if one.symbol is not None))
    if len(symbols) == 1:
        return GeneName(probe, symbols[0], "probe")
    if symbols:
        return GeneName(probe, problem="several", candidates=symbols)
    return GeneName(probe, problem=genes[0].problem, candidates=genes[0].candidates)


def collapse(
    values: pd.DataFrame,
    meant: GeneNames,
    how: Probes,
    *,
    chosen: Mapping[str, str] | None = None,
    samples: Sequence[str] | None = None,
) -> tuple[pd.DataFrame, MappingReport]:
    """One column per gene, of several probes either the one with the highest mean or their mean.

    Parameters
    ----------
    values : DataFrame of shape (n_samples, n_names), float
        In logarithms. Missing values are left out of means.
    meant : GeneNames
        Of the columns, in their order.
    how : {"highest_mean", "mean"}
    chosen : mapping of str to str, optional
        Gene to the probe to take whatever the means are.
    samples : sequence of str, optional
        Training samples, over which the highest mean is looked for; all where it is not given. The choice looks at no outcome,
        but a choice in training samples alone is what a new sample would meet.

    Returns
    -------
    DataFrame of shape (n_samples, n_genes + n_unknown)
        Genes under their symbols, in the order in which they first come; then names that are of no known gene. Names of
        several genes, ambiguous and mangled names are left out.
    MappingReport

    Raises
    ------
    InputError
        A probe of `chosen` is not there, or is of another gene.

    References
    ----------
    Miller et al. 2011 (collapseRows: the probe with the highest mean), doi:10.1186/1471-2105-12-322.

    Examples
    --------
    >>> frame = pd.DataFrame({"ERO1L": [1.0, 2.0], "ERO1A": [5.0, 6.0], "DDIT3": [3.0, 4.0]})
    >>> collapse(frame, resolve(list(frame.columns)), "highest_mean")[0].to_dict("list")
    {'ERO1A': [5.0, 6.0], 'DDIT3': [3.0, 4.0]}
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(meant.names):
        if one.symbol is not None:
            places[one.symbol].append(place)
    pinned = _pinned(chosen or {}, places, meant)
    means = np.nan_to_num(values.loc[values.index if samples is None else list(samples)].mean(axis=0).to_numpy(), nan=-np.inf)
    best = {gene: pinned.get(gene, max(found, key=lambda place: means[place])) for gene, found in places.items()}
    unknown = {one.name: place for place, one in reversed(list(enumerate(meant.names))) if one.problem == "unknown"}
    kept = [*best.values(), *reversed(unknown.values())]
    frame = values.iloc[:, kept].set_axis([*best, *reversed(unknown)], axis=1)
    several = {gene: found for gene, found in places.items() if len(found) > 1}
    averaged = {gene: found for gene, found in several.items() if how == "mean" and gene not in pinned}
    for gene, found in averaged.items():
        frame[gene] = values.iloc[:, found].mean(axis=1)
    taken = {gene: meant.names[best[gene]].name for gene in several if gene not in averaged}
    together = {gene: tuple(meant.names[place].name for place in found) for gene, found in several.items()}
    return frame, MappingReport(meant, tuple(best), taken, together)


def _pinned(chosen: Mapping[str, str], places: Mapping[str, Sequence[int]], meant: GeneNames) -> dict[str, int]:
    """Gene to the place of the probe that is to be taken."""
    found = {}
    for gene, probe in chosen.items():
        if gene not in places:
            continue  # what is written for one platform does not concern another
        place = next((place for place in places[gene] if meant.names[place].name == probe), None)
        if sum(meant.names[one].name == probe for one in places[gene]) > 1:
            raise InputError(
                f"Probe {probe!r} (source.chosen) is in this file several times, with different values; name its rows apart, or "
                "take probes: mean."
            )
        if place is None:
            there = ", ".join(meant.names[place].name for place in places[gene])
            raise InputError(f"Probe {probe!r} (source.chosen) is none of {gene}'s in this file; these are: {there}.")
        found[gene] = place
    return found


def on_scale(values: pd.DataFrame, scale: Scale, name: str) -> tuple[pd.DataFrame, str]:
    """Values on the scale that is asked for, and what they look like, as a sentence.

    Values look raw by GEO2R's rule (the 99th percentile is above 100, or the range is above 50 while the lower quartile is
    above 0), or where none is negative and the largest is above 100. Negative values make log ratios or z scores of them.

    Parameters
    ----------
    values : DataFrame of shape (n_samples, n_names), float
    scale : {"log", "log2", "as_is"}
    name : str
        What the values are called in the sentence.

    Raises
    ------
    InputError
        With `log`: they look raw. With `log2`: some are negative.

    References
    ----------
    Barrett et al. 2013 (NCBI GEO), doi:10.1093/nar/gks1193; the rule is in the R script that GEO2R writes.

    Examples
    --------
    >>> on_scale(pd.DataFrame({"DDIT3": [0.0, 1023.0]}), "log2", "a.csv")[0]["DDIT3"].tolist()
    [0.0, 10.0]
    """
    look = _look_of(values.to_numpy())
    raw = look.startswith("raw")
    if scale == "log" and raw:
        raise InputError(
            f"The values of {name} look {look}; set source.scale: log2 to take log2(x + 1), or scale: as_is to leave them so."
        )
    if scale == "log2":
        if np.nanmin(values.to_numpy(), initial=0.0) < 0:
            raise InputError(f"{name} has negative values, of which log2(x + 1) cannot be taken; set source.scale: log or as_is.")
        already = "" if raw else "; note that they looked like logarithms already"
        logarithms = pd.DataFrame(np.log2(values.to_numpy() + 1), values.index, values.columns)
        return logarithms, f"{name}: log2(x + 1) was taken of values that looked {look}{already}."
    warning = "; they were left so as the study asks, and no score here is made for raw values" if raw else ""
    return values, f"{name}: the values look {look}{warning}."


def _look_of(values: np.ndarray) -> str:
    """What values look like, with the figures that say so."""
    present = values[np.isfinite(values)]
    if present.size == 0:
        return "empty"
    least, quarter, highest, largest = np.quantile(present, [0, 0.25, 0.99, 1])
    by_geo = highest > RAW_PERCENTILE or (largest - least > RAW_RANGE and quarter > 0)
    if by_geo or (least >= 0 and largest > RAW_LARGEST):
        return f"raw, not logarithmic (99th percentile {highest:.4g}, largest {largest:.4g})"
    if least < 0:
        return f"like log ratios or z scores (some negative, 99th percentile {highest:.4g})"
    return f"like logarithms (none negative, 99th percentile {highest:.4g}, largest {largest:.4g})"


def _renamed(matrix: Matrix, column: str, path: str) -> Matrix:
    """Samples called by what is known of them."""
    if column not in matrix.clinical.columns:
        raise InputError(
            f"Nothing is known of the samples of {Path(path).name} as {column!r} (source.named_by)"
            f"{did_you_mean(column, list(matrix.clinical.columns))}."
        )
    names = matrix.clinical[column]
    if names.isna().any() or names.duplicated().any():
        raise InputError(
            f"{column!r} (source.named_by) does not name each sample of {Path(path).name} differently; take another."
        )
    index = pd.Index(names.astype(str), name="sample")
    return replace(matrix, values=matrix.values.set_axis(index), clinical=matrix.clinical.set_axis(index))


def _few(meant: GeneNames, name: str) -> tuple[str, ...]:
    """A warning where most names are of no known gene: they may be probes, some of them called like a gene by chance."""
    known = sum(one.problem != "unknown" for one in meant.names)
    if 2 * known >= len(meant.names):
        return ()
    return (f"{name}: only {known} of {len(meant.names)} names are known; source.platform names the file that tells the others.",)


def _but_for_clinical_words(meant: GeneNames) -> GeneNames:
    """Names of a table with a row per sample, where sex, OS and race are no genes though genes were called so."""
    known = gene_table()

    def is_one(one: GeneName) -> bool:
        formal = one.name in known.symbols or one.name in known.previous or one.how in ("ensembl", "probe", "as told")
        return formal or len(one.name) > (3 if one.name in known.aliases else 4)

    return GeneNames(tuple(one if is_one(one) else GeneName(one.name, problem="unknown") for one in meant.names))


def _without_other_columns(matrix: Matrix, meant: GeneNames, name: str) -> tuple[Matrix, GeneNames]:
    """Of a table with a row per sample: columns of no known gene put to what is known of the samples, as they are."""
    other = np.array([one.problem == "unknown" for one in meant.names])
    if not (matrix.mixed and other.any()):
        return matrix, meant
    told = matrix.values.loc[:, other]
    if told.columns.duplicated().any():
        raise InputError(f"Column {told.columns[told.columns.duplicated()][0]!r} is there twice and no gene; remove one.")
    clinical = pd.concat([matrix.clinical, told], axis=1)
    genes = GeneNames(tuple(one for one in meant.names if one.problem != "unknown"))
    words = f"{name}: columns of no known gene, which are no features: {other.sum()} ({told.columns[0]!r} first)."
    return replace(matrix, values=matrix.values.loc[:, ~other], clinical=clinical, notes=(*matrix.notes, words)), genes


def _in_all(reports: Sequence[MappingReport], values: pd.DataFrame) -> MappingReport:
    if len(reports) == 1:
        return reports[0]
    genes = [gene for gene in reports[0].genes if gene in values.columns]
    names = GeneNames(tuple(one for report in reports for one in report.names.names))
    chosen = {gene: probe for report in reports for gene, probe in report.chosen.items() if gene in values.columns}
    several = {gene: probes for report in reports for gene, probes in report.several.items() if gene in values.columns}
    return MappingReport(names, tuple(genes), chosen, several)


def _beside(values: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """Genes and what is known of the samples; a name that both have is marked in the latter."""
    clinical = told.rename(columns={name: f"{name} (clinical)" for name in told.columns.intersection(values.columns)})
    return pd.concat([values, clinical.reindex(values.index)], axis=1).rename_axis("sample")


def _numbers_or_words(told: pd.DataFrame, text: Sequence[str]) -> pd.DataFrame:
    """Columns of words as numbers where every filled cell is one; empty cells are missing."""
    found = {}
    for name in told.columns:
        if told[name].dtype != object or name in text:
            found[name] = told[name]
            continue
        words = told[name].where(told[name].notna() & (told[name].astype(str).str.strip() != ""))
        numbers = pd.to_numeric(words, errors="coerce")
        found[name] = numbers.astype(float) if numbers.notna().equals(words.notna()) and words.notna().any() else words
    return pd.DataFrame(found, index=told.index)


def _as_tuple(paths: str | tuple[str, ...]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
