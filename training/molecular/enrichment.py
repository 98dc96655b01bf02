"""Gene set enrichment analysis (GSEA): whether the genes of a set lie together at an end of all genes, ranked by how they differ.

References
----------
Subramanian et al. 2005, doi:10.1073/pnas.0506580102. Golub et al. 1999 (signal to noise), doi:10.1126/science.286.5439.531.
The enrichment and its permutations are computed by gseapy (Fang et al. 2023, doi:10.1093/bioinformatics/btac757).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.errors import InputError
from training.molecular.gene_sets import among
from training.molecular.two_groups import check_two_groups, usable_genes

# Of the mean, below which no standard deviation is believed; and of a mean of zero.
LEAST_SPREAD = 0.2


@dataclass(frozen=True)
class Enrichment:
    """Sets of genes, and where they lie among all genes.

    Attributes
    ----------
    table : DataFrame
        Index ``set``, by falling absolute ``nes``. ``size``: genes of the set in the table; ``es``: the largest deviation from 0
        of the running sum, above 0 where the set is higher in the group of interest; ``nes``: over the mean of its sign in
        random sets of that size; ``p_value`` (nominal) and ``q_value`` (false discovery rate), which are no lower than 1 /
        permutations; ``leading_edge``: the genes up to that deviation, from the end that it is at.
    ranking : Series
        Signal to noise of every gene, falling.
    sets : mapping of str to tuple of str
        As they were tested.
    notes : tuple of str
        What was left out, in sentences.
    """

    table: pd.DataFrame
    ranking: pd.Series
    sets: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def hits(self, name: str) -> np.ndarray:
        """Positions in the ranking of the genes of a set, ascending."""
        return np.flatnonzero(self.ranking.index.isin(self.sets[name]))

    def running_sum(self, name: str) -> np.ndarray:
        """Running sum of a set after each gene, from the highest in the group of interest down; shape (n_genes,)."""
        return running_sum(self.ranking.to_numpy(), self.hits(name))


def enrichment_of_sets(
    values: pd.DataFrame,
    groups: np.ndarray,
    sets: Mapping[str, tuple[str, ...]],
    rng: np.random.Generator,
    *,
    permutations: int = 1000,
) -> Enrichment:
    """Test sets of genes between two groups, against random sets of as many genes.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Expression, log2. Genes with gaps, and those with the same value in all patients, are left out.
    groups : array-like of shape (n_patients,), bool
        True for the group of interest. Four patients or more in each group.
    sets : mapping of str to tuple of str
        Of columns of the table, as ``gene_sets.within`` gives them.
    permutations : int
        Random sets per set.

    Raises
    ------
    InputError
        The values are no complete numbers, a group has fewer than four patients, there is no permutation, or a set has no gene
        that can be ranked, or all of them.

    Notes
    -----
    Genes that vary together make a set look more enriched than it is, as random sets do not: these p and q values are too small.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = pd.DataFrame(rng.normal(size=(20, 200))).add_prefix("gene ")
    >>> groups = np.arange(20) < 10
    >>> values.loc[groups, [f"gene {i}" for i in range(20)]] += 1
    >>> sets = {"planted": tuple(f"gene {i}" for i in range(20)), "other": tuple(f"gene {i}" for i in range(50, 70))}
    >>> enrichment_of_sets(values, groups, sets, rng).table["q_value"].round(3).to_dict()
    {'planted': 0.001, 'other': 0.343}
    """
    if permutations < 1:
        raise InputError(f"Enrichment needs permutations of the genes, and {permutations} were asked for; 1000 are usual.")
    groups = check_two_groups(groups, len(values))
    values, notes = usable_genes(values)
    ranking = signal_to_noise(values, groups)
    ranked = among(sets, list(ranking.index))
    table = _tested(ranking, ranked, permutations, seed=int(rng.integers(2**31)))
    return Enrichment(table, ranking, ranked, notes)


def signal_to_noise(values: pd.DataFrame, groups: np.ndarray) -> pd.Series:
    """Difference of the groups' means over the sum of their standard deviations (ddof 1), falling; equal ones by name.

    A standard deviation is taken as 0.2 of the mean's absolute value at least, and as 0.2 where both are 0, as Golub and the
    Broad Institute's GSEA take it: a gene that hardly varies in one group does not win by that.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Without gaps.
    groups : ndarray of shape (n_patients,), bool

    Examples
    --------
    >>> signal_to_noise(pd.DataFrame({"CA9": [10.0, 10, 12, 12]}), np.array([False, False, True, True])).round(4).to_dict()
    {'CA9': 0.4545}
    """
    inside, outside = (values.to_numpy(dtype=float)[members] for members in (groups, ~groups))
    ratio = (inside.mean(axis=0) - outside.mean(axis=0)) / (_spread(inside) + _spread(outside))
    ranking = pd.Series(ratio, index=values.columns, name="signal_to_noise")
    return ranking.sort_index().sort_values(ascending=False, kind="stable")


def running_sum(metric: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Share of the set's weight passed so far less the share of the other genes, after each gene.

    Parameters
    ----------
    metric : ndarray of shape (n_genes,)
        Falling; a gene of the set weighs its absolute value.
    hits : ndarray of int
        Positions of the set's genes.

    Returns
    -------
    ndarray of shape (n_genes,)
        Its furthest value from 0 is the enrichment score.

    Examples
    --------
    >>> running_sum(np.array([3.0, 2, 1, -1]), np.array([0, 2])).tolist()
    [0.75, 0.25, 0.5, 0.0]
    """
    weight = np.zeros(len(metric))
    weight[hits] = np.abs(metric[hits])
    miss = np.ones(len(metric))
    miss[hits] = 0
    total = weight.sum() or 1.0
    return np.asarray(np.cumsum(weight) / total - np.cumsum(miss) / miss.sum())


def _spread(values: np.ndarray) -> np.ndarray:
    spread = np.maximum(values.std(axis=0, ddof=1), LEAST_SPREAD * np.abs(values.mean(axis=0)))
    return np.where(spread == 0, LEAST_SPREAD, spread)


def _tested(ranking: pd.Series, sets: Mapping[str, tuple[str, ...]], permutations: int, *, seed: int) -> pd.DataFrame:
    """Result of gseapy, which is told positions for names: it would change their case, and splits them at semicolons."""
    # Slow to import, and nothing else here needs it.
    import gseapy

    position = {gene: f"G{rank}" for rank, gene in enumerate(ranking.index)}
    with _silent():
        found = gseapy.prerank(
            pd.Series(ranking.to_numpy(), index=list(position.values())),
            {name: [position[gene] for gene in genes] for name, genes in sets.items()},
            min_size=1,
            max_size=len(ranking),
            permutation_num=permutations,
            ascending=None,  # it is sorted, and stays so where values are equal
            threads=1,
            seed=seed,
            outdir=None,
            no_plot=True,
        )
    result = found.res2d.set_index("Term")
    names = ranking.index.to_numpy()
    table = pd.DataFrame(
        {
            "size": [len(sets[name]) for name in result.index],
            "es": result["ES"].astype(float),
            "nes": result["NES"].astype(float),
            "p_value": result["NOM p-val"].astype(float).clip(lower=1 / permutations),
            "q_value": result["FDR q-val"].astype(float).clip(lower=1 / permutations),
            "leading_edge": [tuple(names[int(one[1:])] for one in genes.split(";")) for genes in result["Lead_genes"]],
        }
    )
    return table.rename_axis("set")


@contextmanager
def _silent() -> Iterator[None]:
    """gseapy writes to the terminal by a logger of its own that has no name to be known by."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
