"""Names of human genes: what a name in an expression table means, and what must not be guessed.

The table of names is HGNC's (data/genes.md says of which day). A name that is a current symbol means that gene, whatever
else it once meant; a name that has meant several genes, and one that a spreadsheet made into a date or a number, means none.
"""

from __future__ import annotations

import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Literal

import pandas as pd

from features.errors import InputError

How = Literal["symbol", "previous or alias", "ensembl", "entrez", "probe", "as told"]
Problem = Literal["ambiguous", "mangled", "unknown", "several"]

# Probes of Illumina HumanWG-6 v3 (GPL6884) and HumanHT-12 v4 (GPL10558), the same on both, of the six genes of Fjeldbo 2016.
PROBES = {
    "ILMN_1676984": "DDIT3",
    "ILMN_1744963": "ERO1A",
    "ILMN_1777513": "KCTD11",
    "ILMN_1795778": "P4HA2",
    "ILMN_2280135": "P4HA2",
    "ILMN_2381697": "P4HA2",
    "ILMN_1691884": "STC2",
    "ILMN_1655637": "UPK1A",
}

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
MONTH = (
    r"(JAN(?:UARY)?|FEB(?:RUARY)?|MAR(?:CH?)?|APR(?:IL)?|MAY|JUNE?|JULY?|AUG(?:UST)?"
    r"|SEP(?:T(?:EMBER)?)?|OCT(?:OBER)?|NOV(?:EMBER)?|DEC(?:EMBER)?)"
)
LIKE_A_DATE = re.compile(MONTH + r"-?0?(\d{1,2})", re.IGNORECASE)  # MARCH1, MARC1, SEPT2, SEP15, DEC1, OCT-4
DAY_AND_MONTH = re.compile(r"X?(\d{1,2})[-. ]" + MONTH + r"(?:[-. ]\d{2,4})?", re.IGNORECASE)
MONTH_AND_YEAR = re.compile(MONTH + r"[-. ](\d{1,2}|\d{4})", re.IGNORECASE)
ISO_DATE = re.compile(r"\d{4}-(\d{2})-(\d{2})(?:[T ][\d:.]+)?")
SLASHED_DATE = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.]\d{2,4}")
POWER_OF_TEN = re.compile(r"\d+(?:[.,]\d+)?E\+\d+", re.IGNORECASE)
# A spreadsheet counts days from this one; symbols entered between 1990 and 2040 became the numbers between these.
FIRST_DAY, SERIALS = date(1899, 12, 30), range(32874, 51501)

# Probes of Illumina, Affymetrix and Agilent, and Ensembl's genes and transcripts.
PROBE = re.compile(r"ILMN_\d+|.+_at|A_\d+_P\d+|ENS[GT]\d{11}(\.\d+)?", re.IGNORECASE)
SOME_NUMBER = re.compile(r"\d{1,9}")
ENSEMBL = re.compile(r"(ENSG\d{11})(?:\.\d+)?(?:_PAR_Y)?", re.IGNORECASE)
SYMBOL_AND_ENTREZ = re.compile(r"([^|]+)\|(\d+)")  # the names of TCGA's first pipelines: DDIT3|1649


@dataclass(frozen=True)
class GeneName:
    """What one name means.

    Parameters
    ----------
    name : str
        As it was given.
    symbol : str or None
        Current HGNC symbol; None where there is a problem.
    how : str or None
        As what the name was recognised.
    problem : {"ambiguous", "mangled", "unknown", "several"} or None
        It has meant several genes; a spreadsheet made a date or a number of it; it is not in the table; it is a probe of
        several genes at once.
    candidates : tuple of str
        Current symbols of the genes that an ambiguous or a mangled name may mean, or that a probe is of.
    """

    name: str
    symbol: str | None = None
    how: How | None = None
    problem: Problem | None = None
    candidates: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What is wrong with it, as a clause; empty where nothing is.

        Examples
        --------
        >>> resolve(["1-Dec"]).names[0].note
        'a date that a spreadsheet made of a symbol: BHLHE40 or DELEC1'
        """
        either = " or ".join(self.candidates)
        if self.problem == "mangled" and either:
            return f"a date that a spreadsheet made of a symbol: {either}"
        words = {
            "mangled": "a date or a number that a spreadsheet made of a name",
            "ambiguous": f"has meant {either}",
            "unknown": "not a name of a human gene",
            "several": f"a probe of {' and '.join(self.candidates)}",
        }
        return words.get(str(self.problem), "")


@dataclass(frozen=True)
class GeneNames:
    """What the names of a table mean, in the order of the table."""

    names: tuple[GeneName, ...]

    @property
    def symbols(self) -> list[str | None]:
        """Current symbol of each name; None where there is a problem."""
        return [one.symbol for one in self.names]

    @property
    def counts(self) -> dict[str, int]:
        """Number of names by how they were recognised, or else by problem.

        Examples
        --------
        >>> resolve(["DDIT3", "ERO1L", "ENSG00000175197.5", "1-Mar"]).counts
        {'symbol': 1, 'previous or alias': 1, 'ensembl': 1, 'mangled': 1}
        """
        return dict(Counter(str(one.problem or one.how) for one in self.names))

    @property
    def refused(self) -> tuple[GeneName, ...]:
        """Names that are ambiguous or mangled: not to be guessed."""
        return tuple(one for one in self.names if one.problem in ("ambiguous", "mangled"))

    def refuse(self, way_out: str) -> None:
        """Raise where a name is ambiguous or mangled.

        Raises
        ------
        InputError
            It names up to five of them with what they may mean, and the way out.
        """
        if not self.refused:
            return
        shown = "; ".join(f"{one.name!r} ({one.note})" for one in self.refused[:5])
        more = f"; and {len(self.refused) - 5} more" if len(self.refused) > 5 else ""
        raise InputError(f"What these names of genes mean cannot be told: {shown}{more}. {way_out}")

    def report(self) -> pd.DataFrame:
        """One row per name.

        Returns
        -------
        DataFrame
            ``name`` as given, ``symbol`` (empty where there is a problem), ``how`` it was recognised, or which problem there
            is, and a ``note`` on the problem.

        Examples
        --------
        >>> resolve(["HIG2", "LOC0"]).report().to_numpy().tolist()
        [['HIG2', 'HILPDA', 'previous or alias', ''], ['LOC0', '', 'unknown', 'not a name of a human gene']]
        """
        rows = [(one.name, one.symbol or "", one.problem or one.how, one.note) for one in self.names]
        return pd.DataFrame(rows, columns=["name", "symbol", "how", "note"])


def resolve(names: Sequence[str], *, told: Mapping[str, str] | None = None, strict: bool = False) -> GeneNames:
    """Current HGNC symbol of each name: symbol, previous symbol, alias, Ensembl gene id, Illumina probe.

    A name is, in this order: what the user tells; a current symbol; the previous symbol or alias of one gene; a date or a
    number that a spreadsheet made of a symbol; one of the former but for upper and lower case, or for the dots that R writes
    for hyphens. A name that was HGNC's symbol of one gene means that gene though others have it as an alias; a name that was
    the symbol of several genes, or is the alias of several, is ambiguous.

    Parameters
    ----------
    names : sequence of str
        Ensembl ids with or without version; ``SYMBOL|Entrez`` as in TCGA. A bare number means no gene: arrays number their
        probes so.
    told : mapping of str to str, optional
        Name to the symbol that it means, which settles what is ambiguous or mangled.
    strict : bool
        Refuse where a name is ambiguous or mangled. Unknown names (novel transcripts, controls) are never refused.

    Raises
    ------
    InputError
        With `strict`: a name is ambiguous or mangled; its candidates are named. Or: `told` names a gene that is not known.

    References
    ----------
    Seal et al. 2023 (HGNC), doi:10.1093/nar/gkac888. Ziemann et al. 2016 (spreadsheets), doi:10.1186/s13059-016-1044-7.

    Examples
    --------
    >>> resolve(["ERO1L", "HIG2", "ENSG00000175197.5", "ILMN_1655637"]).symbols
    ['ERO1A', 'HILPDA', 'DDIT3', 'UPK1A']
    >>> resolve(["AK3L1"], strict=True)
    Traceback (most recent call last):
    features.errors.InputError: What these names of genes mean cannot be told: 'AK3L1' (has meant AK3 or AK4). Take the names \
from a file that no spreadsheet has saved, or tell what each means.
    """
    known, meant = gene_table(), dict(told or {})
    for name, symbol in meant.items():
        if symbol not in known.symbols:
            raise InputError(f"Name {name!r} is told to mean {symbol!r}, which is no current HGNC symbol; write a current one.")
    # Numbers that are no dates are ids of something, and then so are those among them that could be dates.
    serials = all(int(name) in SERIALS for name in names if SOME_NUMBER.fullmatch(name))
    found = GeneNames(
        tuple(
            GeneName(name, meant[name], "as told") if name in meant else _meaning(name, known, serials=serials) for name in names
        )
    )
    if strict:
        found.refuse("Take the names from a file that no spreadsheet has saved, or tell what each means.")
    return found


def share_of_genes(names: Sequence[str]) -> float:
    """Share of names that are surely of a gene or a probe: whether an axis of a table is its genes.

    Older symbols and aliases count as none: samples are called S1, T2 and P3, and so were genes.

    Examples
    --------
    >>> share_of_genes(["DDIT3", "ENSG00000175197.5", "ILMN_1234567", "S1"]), share_of_genes(["1", "T2"])
    (0.75, 0.0)
    """
    surely = ("symbol", "ensembl", "entrez", "probe")
    known = [one.how in surely or bool(PROBE.fullmatch(one.name)) for one in resolve(names).names]
    return sum(known) / len(known) if known else 0.0


@dataclass(frozen=True)
class GeneTable:
    """Every name to the current symbols that it may mean."""

    symbols: frozenset[str]
    previous: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, tuple[str, ...]]
    ensembl: Mapping[str, str]
    entrez: Mapping[str, str]
    folded_symbols: Mapping[str, tuple[str, ...]]
    folded: Mapping[str, tuple[str, ...]]
    dates: Mapping[tuple[int, int], tuple[str, ...]]


@cache
def gene_table() -> GeneTable:
    """The table of names that ships with this package, read once.

    Examples
    --------
    >>> gene_table().ensembl["ENSG00000197930"]
    'ERO1A'
    """
    packed = files("features").joinpath("data/genes.tsv.xz").read_bytes()
    rows = [line.split("\t") for line in lzma.decompress(packed).decode().splitlines()[1:]]
    previous = _inverted((name, row[0]) for row in rows for name in row[1].split("|"))
    aliases = _inverted((name, row[0]) for row in rows for name in row[2].split("|"))
    symbols = [row[0] for row in rows]
    everything = [(name, symbol) for table in (previous, aliases) for name, meant in table.items() for symbol in meant]
    return GeneTable(
        symbols=frozenset(symbols),
        previous=previous,
        aliases=aliases,
        ensembl={f"ENSG{int(row[3]):011d}": row[0] for row in rows if row[3]},
        entrez={row[4]: row[0] for row in rows if row[4]},
        folded_symbols=_inverted((symbol.upper(), symbol) for symbol in symbols),
        folded=_inverted((name.upper(), symbol) for name, symbol in everything),
        dates=_dates([*zip(symbols, symbols, strict=True), *everything]),
    )


def _inverted(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Name to its symbols, in alphabetical order."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, symbol in pairs:
        if name:
            found[name].add(symbol)
    return {name: tuple(sorted(symbols)) for name, symbols in found.items()}


def _dates(pairs: Iterable[tuple[str, str]]) -> dict[tuple[int, int], tuple[str, ...]]:
    """Month and number to the current symbols of the names that a spreadsheet makes into that date."""
    found: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for name, symbol in pairs:
        if match := LIKE_A_DATE.fullmatch(name):
            found[_month(match[1]), int(match[2])].add(symbol)
    return {day: tuple(sorted(symbols)) for day, symbols in found.items()}


def _month(name: str) -> int:
    return MONTHS.index(name[:3].upper()) + 1


def _meaning(name: str, known: GeneTable, *, serials: bool) -> GeneName:
    text = name.strip()
    if found := _identifier(text, known):
        return GeneName(name, *found)
    if candidates := known.previous.get(text) or known.aliases.get(text):
        return _one_of(name, candidates, "previous or alias")
    if (days := _days(text, serials=serials)) or POWER_OF_TEN.fullmatch(text):
        candidates = tuple(sorted({symbol for day in days for symbol in known.dates.get(day, ())}))
        if candidates or not SOME_NUMBER.fullmatch(text):
            return GeneName(name, problem="mangled", candidates=candidates)
    return _otherwise_written(name, text.upper(), known)


def _identifier(text: str, known: GeneTable) -> tuple[str, How] | None:
    """Symbol, and as what it was recognised, of a name that means one gene by its form."""
    if text in known.symbols:
        return text, "symbol"
    if text in PROBES:
        return PROBES[text], "probe"
    if (match := ENSEMBL.fullmatch(text)) and match[1].upper() in known.ensembl:
        return known.ensembl[match[1].upper()], "ensembl"
    if (match := SYMBOL_AND_ENTREZ.fullmatch(text)) and match[2] in known.entrez:
        return known.entrez[match[2]], "entrez"
    return None


def _otherwise_written(name: str, upper: str, known: GeneTable) -> GeneName:
    for text in (upper, re.sub(r"[._]", "-", upper)):  # R makes HLA.A of HLA-A
        if candidates := known.folded_symbols.get(text):
            return _one_of(name, candidates, "symbol")
        if candidates := known.folded.get(text):
            return _one_of(name, candidates, "previous or alias")
    return GeneName(name, problem="unknown")


def _one_of(name: str, candidates: tuple[str, ...], how: How) -> GeneName:
    if len(candidates) > 1:
        return GeneName(name, problem="ambiguous", candidates=candidates)
    return GeneName(name, candidates[0], how)


def _days(text: str, *, serials: bool) -> list[tuple[int, int]]:
    """Month and number that a name may be the date of: none where it is no date."""
    if match := DAY_AND_MONTH.fullmatch(text):
        return [(_month(match[2]), int(match[1]))]
    if match := MONTH_AND_YEAR.fullmatch(text):
        return [(_month(match[1]), int(match[2]) % 100)]
    if match := ISO_DATE.fullmatch(text):
        return [(int(match[1]), int(match[2]))]
    if match := SLASHED_DATE.fullmatch(text):
        return [(int(match[1]), int(match[2])), (int(match[2]), int(match[1]))]
    if serials and SOME_NUMBER.fullmatch(text) and int(text) in SERIALS:
        day = FIRST_DAY + timedelta(days=int(text))
        return [(day.month, day.day)]
    return []
