"""Published gene signatures as data, and their scores."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from features.errors import InputError, did_you_mean
from features.settings import Settings

Method = Literal["votes", "mean_z", "centroid", "ssgsea", "diagonal_lda", "ridge_logistic"]

# Of a signature's genes: below the first share it is said, below the second nothing is scored.
ENOUGH, FEWEST = 0.8, 0.5


class Signature(Settings):
    """A list of genes that rise together in hypoxia.

    Parameters
    ----------
    rule : str
        How its authors, or those who compared it, make a score of it.
    source : str
        Where the list was taken from.
    method : str
        The score of ``features.signature_scores`` that comes closest to the rule.
    aliases : dict
        Symbol to the other symbols under which a table may carry the same gene.
    ambiguous : tuple of str
        Symbols that once meant a gene of the signature and now mean another. They are never scored, and never features
        of a model whose outcome is the signature.
    """

    title: str
    doi: str
    rule: str
    source: str = ""
    method: Method = "votes"
    genes: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]] = {}
    ambiguous: tuple[str, ...] = ()

    def names_of(self, gene: str) -> tuple[str, ...]:
        """The gene's symbol, then its aliases."""
        return (gene, *self.aliases.get(gene, ()))

    def columns(self, present: Collection[str]) -> tuple[str, ...]:
        """Every column that carries, or under an older symbol may carry, a gene of the signature."""
        wanted = {name for gene in self.genes for name in self.names_of(gene)} | set(self.ambiguous)
        return tuple(column for column in present if column in wanted)

    def found(self, present: Collection[str]) -> dict[str, str]:
        """Gene to the column that stands for it: its symbol if present, else the first alias that is."""
        chosen = {gene: next((name for name in self.names_of(gene) if name in present), None) for gene in self.genes}
        return {gene: column for gene, column in chosen.items() if column is not None}


@dataclass(frozen=True)
class Coverage:
    """How much of a signature a table holds.

    Attributes
    ----------
    title : str
        Of the signature.
    found : dict of str to str
        Gene to the column that stands for it.
    missing : tuple of str
        Genes that no column stands for.
    """

    title: str
    found: dict[str, str]
    missing: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that stand for genes, in the signature's order."""
        return tuple(self.found.values())

    @property
    def genes(self) -> int:
        """How many genes the signature has."""
        return len(self.found) + len(self.missing)

    @property
    def share(self) -> float:
        """Genes found over all, from 0 to 1."""
        return len(self.found) / self.genes

    @property
    def warning(self) -> str | None:
        """A sentence where less than 80% of the genes are there, None otherwise."""
        if self.share >= ENOUGH:
            return None
        shown = ", ".join(self.missing[:10]) + (f" and {len(self.missing) - 10} more" if len(self.missing) > 10 else "")
        return f"Only {len(self.found)} of the {self.genes} genes of {self.title} are in the table (not: {shown})."


def coverage(signature: Signature, columns: Collection[str]) -> Coverage:
    """Which genes of a signature a table holds, under any of their unambiguous names.

    Parameters
    ----------
    columns : collection of str
        Names of the table's columns.

    Raises
    ------
    InputError
        Fewer than half of the genes are there.

    Examples
    --------
    >>> toy = Signature(title="toy", doi="", rule="", genes=("A", "B", "C"), aliases={"B": ("OLDB",)})
    >>> held = coverage(toy, ["A", "OLDB"])
    >>> held.found, held.warning
    ({'A': 'A', 'B': 'OLDB'}, 'Only 2 of the 3 genes of toy are in the table (not: C).')
    """
    found = signature.found(columns)
    if len(found) < FEWEST * len(signature.genes):
        raise InputError(
            f"Only {len(found)} of the {len(signature.genes)} genes of {signature.title} are in the table; at least half "
            "are needed. Check that columns are named by HGNC gene symbols."
        )
    return Coverage(signature.title, found, tuple(gene for gene in signature.genes if gene not in found))


def numeric(expression: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    """These columns of a table, which must hold numbers.

    Raises
    ------
    InputError
        A column holds text.
    """
    genes = expression.loc[:, list(columns)]
    text = [name for name in genes.columns if not pd.api.types.is_numeric_dtype(genes[name])]
    if text:
        raise InputError(f"Gene {text[0]!r} holds text; make it a number, or leave the cell empty.")
    return genes


def gene_aliases(features: Collection[str]) -> dict[str, str]:
    """Other symbols of genes among the features: symbol to feature; none that has come to mean another gene.

    Examples
    --------
    >>> toy = Signature(title="toy", doi="", rule="", genes=("A", "B"), aliases={"B": ("OLDB",)})
    >>> toy.names_of("B")
    ('B', 'OLDB')
    """
    found: dict[str, str] = {}
    for signature in signatures().values():
        for gene in signature.genes:
            names = [name for name in signature.names_of(gene) if name not in signature.ambiguous]
            present = [name for name in names if name in features]
            if len(present) == 1:
                found |= {name: present[0] for name in names if name != present[0]}
    return found


@cache
def signatures() -> dict[str, Signature]:
    """All signatures that ship with this package, by name.

    Examples
    --------
    >>> len(signatures()["buffa2010"].genes)
    51
    """
    text = files("features").joinpath("data/signatures.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return {
        name: Signature(**body, **_other_names(body["genes"], content["aliases"], content["ambiguous"]))
        for name, body in content["signatures"].items()
    }


def _other_names(genes: Collection[str], aliases: dict[str, list[str]], ambiguous: dict[str, list[str]]) -> dict[str, Any]:
    """What else the genes of one signature are called, of all that is known."""
    doubtful = dict.fromkeys(name for gene in genes for name in ambiguous.get(gene, ()))
    return {"aliases": {gene: aliases[gene] for gene in genes if gene in aliases}, "ambiguous": tuple(doubtful)}


def find_signature(name: str) -> Signature:
    """The signature of that name.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name not in signatures():
        raise InputError(
            f"Signature {name!r} is not known{did_you_mean(name, list(signatures()))}; known: {', '.join(signatures())}."
        )
    return signatures()[name]


def median_vote_score(signature: Signature, expression: pd.DataFrame) -> pd.Series:
    """Sum over the signature's genes of +1 at or above the cohort's median and -1 below it; higher is more hypoxic.

    A value that is missing votes neither way.

    Parameters
    ----------
    signature : Signature
    expression : DataFrame of shape (n_samples, n_genes)
        Any monotone scale: only ranks against the median count.

    Returns
    -------
    Series of shape (n_samples,)
        Between minus and plus the number of genes found; NaN for a sample with values of fewer than half of the genes.

    Raises
    ------
    InputError
        Fewer than half of the signature's genes are there, or one of them holds text.

    References
    ----------
    Bhandari et al. 2019, doi:10.1038/s41588-018-0318-2.

    Examples
    --------
    >>> toy = Signature(title="toy", doi="", rule="", genes=("A", "B"), aliases={"B": ("OLDB",)})
    >>> median_vote_score(toy, pd.DataFrame({"A": [1.0, 2, 3], "OLDB": [5.0, 1, 9]})).tolist()
    [0.0, 0.0, 2.0]
    """
    genes = numeric(expression, coverage(signature, expression.columns).columns)
    votes = np.where(genes >= genes.median(), 1.0, -1.0) * genes.notna()
    enough = genes.notna().sum(axis=1) >= len(signature.genes) / 2
    return votes.sum(axis=1).where(enough).rename("score")
