"""Which genes and pathways are mutated in which group of patients: from a mutation annotation file to Fisher's exact test."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from csv import QUOTE_NONE
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from scipy.special import gammaln
from scipy.stats import chi2_contingency, false_discovery_control

from features.errors import InputError, did_you_mean
from features.genes import resolve
from training.molecular.grouping import group_names, matched

GENE, BARCODE, CLASS = "Hugo_Symbol", "Tumor_Sample_Barcode", "Variant_Classification"
# Those that change the protein, by the convention of maftools (Mayakonda 2018, doi:10.1101/gr.239244.118).
CHANGING = (
    "Missense_Mutation",
    "Nonsense_Mutation",
    "Frame_Shift_Del",
    "Frame_Shift_Ins",
    "In_Frame_Del",
    "In_Frame_Ins",
    "Splice_Site",
    "Translation_Start_Site",
    "Nonstop_Mutation",
)
SILENT = (
    "Silent",
    "Splice_Region",
    "Intron",
    "5'UTR",
    "3'UTR",
    "5'Flank",
    "3'Flank",
    "IGR",
    "RNA",
    "lincRNA",
    "Targeted_Region",
    "De_novo_Start_InFrame",
    "De_novo_Start_OutOfFrame",
)
SEVERAL = "Several"
NO_GENE = ("", "Unknown", ".", "-")
# Of Fisher's test with several groups; above it the chi-square test, whose expected counts are then large.
MOST_TABLES = 1_000_000
# Two tables are as probable as each other where they differ by rounding: what R's fisher.test has.
ROUNDING = 1e-7


@dataclass(frozen=True)
class Mutations:
    """What is mutated in patients who were sequenced.

    Attributes
    ----------
    classes : DataFrame of shape (n_patients, n_genes), str
        Class of the variant, "Several" where the gene has variants of several classes, empty where it has none. Genes by
        falling number of mutated patients; every gene is mutated in somebody.
    notes : tuple of str
        What was left out, in sentences.
    """

    classes: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def mutated(self) -> pd.DataFrame:
        """Whether the gene of a patient is mutated."""
        return self.classes != ""


@dataclass(frozen=True)
class MutationFrequencies:
    """How often genes and pathways are mutated in each group.

    Attributes
    ----------
    genes, pathways : DataFrame
        Index: gene or pathway, by p value, then by falling number of mutated patients. Columns: ``mutated`` (patients),
        ``share``, then per group ``mutated GROUP`` and ``share GROUP``; ``odds_ratio`` (of the second group against the first; of
        two groups only; infinite where all or none of a group are mutated), ``test`` ("Fisher's exact", "chi-square", or empty
        where too few patients are mutated), ``p_value``, two-sided, ``q_value`` (Benjamini-Hochberg within the table; NaN where
        not tested) and ``associated``.
    """

    genes: pd.DataFrame
    pathways: pd.DataFrame


def read_maf(path: Path) -> pd.DataFrame:
    """Read the variants of a mutation annotation file (MAF).

    Parameters
    ----------
    path : Path
        Tab-separated, with lines that begin with # before the header; optionally gzipped.

    Returns
    -------
    DataFrame of shape (n_variants, 3)
        ``Hugo_Symbol``, ``Tumor_Sample_Barcode`` and ``Variant_Classification``. Genes are under their current symbols; names
        that mean none, or several, stay as they are.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column or a barcode, has no variants, or one of an unknown class.
    """
    table = _read(path)
    if (table[BARCODE] == "").any():
        raise InputError(f"{path.name} has a variant without {BARCODE}; say of each variant in which sample it was found.")
    strange = table.loc[~table[CLASS].isin([*CHANGING, *SILENT]), CLASS]
    if len(strange):
        hint = did_you_mean(strange.iloc[0], [*CHANGING, *SILENT]) or f" (known: {', '.join([*CHANGING, *SILENT])})"
        raise InputError(f"{path.name}: {CLASS} {strange.iloc[0]!r} is no class of a mutation annotation file{hint}; correct it.")
    return table.assign(**{GENE: table[GENE].map(current_symbols(table[GENE].unique().tolist()))})


def mutations_of(
    variants: pd.DataFrame, patients: Sequence[str], *, silent: bool = False, sequenced: Sequence[str] | None = None
) -> Mutations:
    """Which genes of which patients are mutated.

    Parameters
    ----------
    variants : DataFrame
        Of ``read_maf``. A sample is of the patient with the longest name that its barcode begins with (``TCGA-AB-1234-01A`` is
        of ``TCGA-AB-1234``).
    patients : sequence of str
        Those who are looked at; variants of others are left out.
    silent : bool
        Whether variants that leave the protein as it is (Silent, Intron, UTR, ...) count too.
    sequenced : sequence of str, optional
        Patients who were sequenced, of whom those without a variant have no mutation. Left out: those with a variant, of
        whatever class, since nothing tells who else was sequenced.

    Raises
    ------
    InputError
        No variant is of one of the patients.
    """
    found = matched(variants[BARCODE], patients)
    known = variants.assign(patient=found)[found.notna()]
    if known.empty:
        raise InputError(
            f"No variant is of one of the {len(patients)} patients; {BARCODE} must be a patient's name, or begin with it and a "
            "dash, as in TCGA-AB-1234-01A."
        )
    looked_at = set(known["patient"] if sequenced is None else sequenced)
    there = [one for one in patients if one in looked_at]
    counted = known[(silent | known[CLASS].isin(CHANGING)) & ~known[GENE].isin(NO_GENE) & known["patient"].isin(there)]
    strangers = variants.loc[found.isna(), BARCODE].nunique()
    notes = (
        f"Mutations: {len(there)} of {len(patients)} patients were sequenced"
        + (" (they have a variant in the file; sequenced names a table of all who were)." if sequenced is None else "."),
        f"Variants counted: {len(counted)} of {len(known)}{_others(silent) if len(counted) < len(known) else ''}.",
        *([f"Samples that are of none of the patients and were left out: {strangers}."] if strangers else []),
    )
    return Mutations(_classes(counted, there), notes)


def _others(silent: bool) -> str:
    return f"; the others {'' if silent else 'leave the protein as it is, or '}are of no gene or of no patient who was sequenced"


def mutation_frequencies(
    mutations: Mutations,
    groups: pd.Series,
    sets: Mapping[str, Sequence[str]],
    *,
    false_discovery: float = 0.05,
    fewest: int = 3,
) -> MutationFrequencies:
    """Ask of each gene and each pathway whether it is mutated more often in one group than in another.

    Parameters
    ----------
    groups : Series of str
        By patient; in the order of its categories if it has such. Patients who were not sequenced are left out.
    sets : mapping of str to sequence of str
        Pathways: a patient's is hit if any of its genes is mutated. One of which no gene is mutated in anybody is left out.
    false_discovery : float
        Rate within genes, and within pathways, below which one is ``associated``.
    fewest : int
        Genes and pathways that are mutated, or not mutated, in fewer patients are not tested: with so few no difference could
        be shown, and they would cost the others their power.

    References
    ----------
    Fisher's exact test of more than two groups: Freeman & Halton 1951, doi:10.1093/biomet/38.1-2.141.

    Examples
    --------
    >>> classes = pd.DataFrame({"TP53": ["Nonsense_Mutation"] * 4 + [""] * 4, "PTEN": [""] * 5 + ["Silent"] * 3})
    >>> groups = pd.Series(["cluster 2"] * 4 + ["cluster 1"] * 4)
    >>> found = mutation_frequencies(Mutations(classes), groups, {"both": ["TP53", "PTEN"]})
    >>> found.genes[["mutated cluster 1", "mutated cluster 2", "p_value", "q_value"]].round(4).to_numpy().tolist()
    [[0.0, 4.0, 0.0286, 0.0571], [3.0, 0.0, 0.1429, 0.1429]]
    """
    known = groups.reindex(mutations.classes.index).dropna()
    hit = mutations.mutated.loc[known.index]
    genes = set(hit.columns)
    within = {name: [gene for gene in dict.fromkeys(members) if gene in genes] for name, members in sets.items()}
    hit_sets = pd.DataFrame({name: hit[own].any(axis=1) for name, own in within.items() if own}, index=hit.index)
    return MutationFrequencies(*(_frequencies(one, known, false_discovery, fewest) for one in (hit, hit_sets)))


def fisher_p_values(mutated: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Two-sided p value of Fisher's exact test of equal shares in groups: of all tables as improbable as this or more.

    scipy's test of more than two groups draws tables at random; this one adds up all of them.

    Parameters
    ----------
    mutated : ndarray of shape (n_tests, n_groups), int
        Mutated patients of each group.
    sizes : sequence of int
        Patients of each group.

    Returns
    -------
    ndarray of shape (n_tests,)
        NaN where more than a million tables would have to be added up.

    Examples
    --------
    >>> fisher_p_values(np.array([[8, 1], [5, 5]]), (10, 6)).round(5)
    array([0.03497, 0.30694])
    """
    mutated = np.asarray(mutated, dtype=int)
    totals, p_values = mutated.sum(axis=1), np.full(len(mutated), np.nan)
    for total in np.unique(totals):
        own = totals == total
        reference = _log_probabilities(int(total), sizes)
        if reference is not None:
            observed = sum(_log_choose(size, count) for size, count in zip(sizes, mutated[own].T, strict=True))
            p_values[own] = _as_improbable(reference, np.asarray(observed))
    return p_values


def _as_improbable(reference: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Share of probability of tables that are as improbable as the observed ones, or more."""
    ordered = np.sort(reference)
    probability = np.exp(ordered - ordered[-1])
    sums = np.concatenate([[0.0], np.cumsum(probability)])
    return np.minimum(sums[np.searchsorted(ordered, observed + ROUNDING, side="right")] / sums[-1], 1.0)


def _log_probabilities(total: int, sizes: Sequence[int]) -> np.ndarray | None:
    """Logarithms, but for a constant, of the probabilities of all tables with these margins; None where they are too many."""
    left, logs = np.array([total]), np.zeros(1)
    for place, size in enumerate(sizes):
        counts = np.arange(min(size, total) + 1)
        if len(left) * len(counts) > MOST_TABLES:
            return None
        rest = left[:, None] - counts
        possible = (rest >= 0) & (rest <= sum(sizes[place + 1 :]))
        left, logs = rest[possible], (logs[:, None] + _log_choose(size, counts))[possible]
    return logs


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _frequencies(hit: pd.DataFrame, groups: pd.Series, false_discovery: float, fewest: int) -> pd.DataFrame:
    names = group_names(groups)
    sizes = [int((groups == name).sum()) for name in names]
    counts = np.array([hit[(groups == name).to_numpy()].sum().to_numpy(dtype=int) for name in names]).reshape(len(names), -1).T
    mutated = counts.sum(axis=1)
    tested = np.minimum(mutated, len(hit) - mutated) >= fewest
    table = pd.DataFrame({"mutated": mutated, "share": mutated / max(len(hit), 1)}, index=hit.columns.rename("name"))
    for name, size, own in zip(names, sizes, counts.T, strict=True):
        table[f"mutated {name}"], table[f"share {name}"] = own, own / max(size, 1)
    table["odds_ratio"] = _odds_ratios(counts, sizes) if len(names) == 2 else np.nan
    table["test"], table["p_value"] = _tested(counts, sizes, tested)
    table["q_value"] = np.nan
    if tested.any():
        table.loc[tested, "q_value"] = false_discovery_control(table.loc[tested, "p_value"])
    table["associated"] = table["q_value"] <= false_discovery
    return table.sort_values(["p_value", "mutated"], ascending=[True, False], kind="stable")


def _tested(counts: np.ndarray, sizes: Sequence[int], tested: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which test, and its p value, of each row that is to be tested."""
    test, p_values = np.full(len(counts), "", dtype=object), np.full(len(counts), np.nan)
    p_values[tested] = fisher_p_values(counts[tested], sizes)
    test[tested] = "Fisher's exact"
    for row in np.flatnonzero(tested & np.isnan(p_values)):
        test[row], p_values[row] = "chi-square", chi2_contingency([counts[row], np.array(sizes) - counts[row]]).pvalue
    return test, p_values


def _odds_ratios(counts: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    (first, second), (none_first, none_second) = counts.T, (np.array(sizes) - counts).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return (second * none_first) / (none_second * first)


def _classes(counted: pd.DataFrame, patients: Sequence[str]) -> pd.DataFrame:
    """Class by patient and gene, the most often mutated gene first."""
    each = counted[["patient", GENE, CLASS]].drop_duplicates()
    several = each.duplicated(["patient", GENE], keep=False)
    cells = each.assign(**{CLASS: each[CLASS].mask(several, SEVERAL)}).drop_duplicates()
    genes, order = pd.Index(cells[GENE].unique()), pd.Index(patients)
    table = np.full((len(order), len(genes)), "", dtype=object)
    table[order.get_indexer(pd.Index(cells["patient"])), genes.get_indexer(pd.Index(cells[GENE]))] = cells[CLASS]
    by_frequency = np.argsort(-(table != "").sum(axis=0), kind="stable")
    return pd.DataFrame(table[:, by_frequency], index=order, columns=genes[by_frequency])


def current_symbols(names: Sequence[str]) -> dict[str, str]:
    """Name of a gene to its current symbol, or to itself where it means none or several."""
    return {one.name: one.symbol or one.name for one in resolve(list(names)).names}


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path (in a study it is relative to the study file).")
    try:
        comments, header = _header(path)
        absent = [name for name in (GENE, BARCODE, CLASS) if name not in header]
        if absent:
            raise InputError(
                f"Column {absent[0]!r} is not in {path.name}{did_you_mean(absent[0], header)}; a mutation annotation file has it "
                "(values are parted by tabs)."
            )
        with _opened(path) as file:
            table = pd.read_csv(
                file, sep="\t", skiprows=comments, usecols=[GENE, BARCODE, CLASS], dtype=str, quoting=QUOTE_NONE, na_filter=False
            )
    except (OSError, ValueError, EOFError, zlib.error) as cause:
        raise InputError(
            f"{path} cannot be read as a mutation annotation file ({type(cause).__name__}); check that it is whole."
        ) from cause
    if table.empty:
        raise InputError(f"{path} holds no variants; export it again, with a row per variant.")
    return table.apply(lambda column: column.str.strip())


def _header(path: Path) -> tuple[int, list[str]]:
    """How many lines come before the header, and the names in it."""
    with _opened(path) as file:
        for number, line in enumerate(file):
            if not line.startswith("#"):
                return number, line.rstrip("\r\n").split("\t")
    return 0, []


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig")
