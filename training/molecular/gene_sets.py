"""Gene sets of local GMT files, and which of their genes a table of expression has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from features.errors import InputError
from features.genes import resolve

SMALLEST, LARGEST = 15, 500
GMT = "a GMT file has a set per line: its name, a description, then its genes, with tabs between"


@dataclass(frozen=True)
class GeneSets:
    """Sets that can be tested in a table.

    Attributes
    ----------
    sets : mapping of str to tuple of str
        Name to the columns of the table that are its genes.
    left_out : DataFrame
        Index ``set``: the sets that are not tested. ``listed``: genes of the file; ``found``: of these in the table; ``why``.
    """

    sets: Mapping[str, tuple[str, ...]]
    left_out: pd.DataFrame

    @property
    def words(self) -> str:
        """How many sets there are, and why others are left out, as a sentence.

        Examples
        --------
        >>> within({"BOTH": ("CA9", "LDHA"), "ONE": ("CA9", "MYC")}, ["CA9", "LDHA", "X"], smallest=2).words
        'Gene sets tested in the expression: 1 of 2; 1 left out: fewer than 2 genes in the table (the first: ONE, 1 of 2).'
        """
        parts = [f"Gene sets tested in the expression: {len(self.sets)} of {len(self.sets) + len(self.left_out)}"]
        for why, rows in self.left_out.groupby("why", sort=False):
            first = f"{rows.index[0]}, {rows['found'].iloc[0]} of {rows['listed'].iloc[0]}"
            parts.append(f"{len(rows)} left out: {why} (the first: {first})")
        return f"{'; '.join(parts)}."


def read_gmt(paths: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """Read gene sets from one or more GMT files.

    Parameters
    ----------
    paths : iterable of Path
        Text files. A set that is in several of them with the same genes is taken once.

    Returns
    -------
    dict of str to tuple of str
        Name of each set to its genes, as they are written, each once; in the order of the files.

    Raises
    ------
    InputError
        A file is not there, is no GMT file or holds no set, or two sets of one name have different genes.

    References
    ----------
    https://software.broadinstitute.org/cancer/software/gsea/wiki/index.php/Data_formats (the GMT format)
    """
    merged: dict[str, tuple[str, ...]] = {}
    for path in paths:
        for name, genes in _sets_of(path):
            if set(merged.get(name, genes)) != set(genes):
                raise InputError(f"Gene set {name!r} of {path} was read before with other genes; rename one of the two.")
            merged.setdefault(name, genes)
    if not merged:
        raise InputError(f"No gene set was read; {GMT}.")
    return merged


def within(
    sets: Mapping[str, tuple[str, ...]], genes: Sequence[str], *, smallest: int = SMALLEST, largest: int = LARGEST
) -> GeneSets:
    """Limit sets to the genes of a table, and leave out those that are then too small or too large.

    Names are compared as they are; those that are only in one of the two by what they mean (features.genes), so that ERO1L of a
    file is ERO1A of a table. An ambiguous name is not guessed at.

    Parameters
    ----------
    sets : mapping of str to tuple of str
        From `read_gmt`.
    genes : sequence of str
        Columns of the table.
    smallest, largest : int
        Genes that a set must have in the table.

    Raises
    ------
    InputError
        No set is left.

    Examples
    --------
    >>> kept = within({"HYPOXIA": ("ERO1L", "CA9", "STC2"), "SMALL": ("CA9", "LDHA")}, ["ERO1A", "CA9", "X"], smallest=2)
    >>> dict(kept.sets), kept.left_out.loc["SMALL", "why"]
    ({'HYPOXIA': ('ERO1A', 'CA9')}, 'fewer than 2 genes in the table')
    """
    column = _columns_by_name(sets, genes)
    found = {name: tuple(dict.fromkeys(column[gene] for gene in listed if gene in column)) for name, listed in sets.items()}
    why = {name: _why_not(len(there), len(genes), smallest, largest) for name, there in found.items()}
    kept = {name: there for name, there in found.items() if not why[name]}
    if not kept:
        most = max(map(len, found.values()), default=0)
        raise InputError(
            f"None of the {len(sets)} gene sets has {smallest} to {largest} genes in the table of {len(genes)} genes (the one "
            f"with the most has {most}); check that both name genes alike, or widen the limits."
        )
    rows = [(name, len(sets[name]), len(found[name]), why[name]) for name in sets if why[name]]
    left_out = pd.DataFrame(rows, columns=["set", "listed", "found", "why"]).set_index("set")
    return GeneSets(kept, left_out)


def among(sets: Mapping[str, tuple[str, ...]], genes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each set without the genes that cannot be ranked.

    Parameters
    ----------
    genes : sequence of str
        Those that can.

    Raises
    ------
    InputError
        There is no set, or one has none of the genes, or all of them.

    Examples
    --------
    >>> among({"HYPOXIA": ("CA9", "LDHA")}, ["CA9", "X"])
    {'HYPOXIA': ('CA9',)}
    """
    if not sets:
        raise InputError("No gene set is there to test; read some from a GMT file.")
    known = set(genes)
    found = {name: tuple(gene for gene in dict.fromkeys(listed) if gene in known) for name, listed in sets.items()}
    for name, there in found.items():
        if not 0 < len(there) < len(genes):
            raise InputError(
                f"Gene set {name!r} has {len(there)} of the {len(genes)} genes that can be ranked; leave out sets with none, or "
                "with all."
            )
    return found


def _sets_of(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    if not path.is_file():
        raise InputError(f"There is no file {path}; gene sets are read from local GMT files only.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text; {GMT}.") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        genes = tuple(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise InputError(f"Line {number} of {path} is no gene set with genes; {GMT}.")
        found.append((name, genes))
    return found


def _columns_by_name(sets: Mapping[str, tuple[str, ...]], genes: Sequence[str]) -> dict[str, str]:
    """Each name of the sets that the table has, under that or an older or newer name, to its column."""
    same = {gene: gene for gene in genes}
    # A column that has the current symbol stands for its gene before one that has an older name.
    symbols = resolve(list(genes)).symbols
    by_symbol = {symbol: gene for symbol, gene in zip(symbols, genes, strict=True) if symbol} | same
    unknown = sorted({gene for members in sets.values() for gene in members} - set(genes))
    meant = zip(unknown, resolve(unknown).symbols, strict=True)
    return same | {name: by_symbol[symbol] for name, symbol in meant if symbol and symbol in by_symbol}


def _why_not(found: int, n_genes: int, smallest: int, largest: int) -> str:
    if found < smallest:
        return f"fewer than {smallest} genes in the table"
    if found > largest:
        return f"more than {largest} genes in the table"
    return "it is all genes of the table" if found == n_genes else ""
