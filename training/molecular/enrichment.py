"""Gene set enrichment analysis (GSEA): whether the genes of a set lie together at an end of all genes, ranked by how they differ.

References
----------
Subramanian et al. 2005, doi:10.1073/pnas.0506580102. Golub et al. 1999 (signal to noise), doi:10.1126/science.286.5439.531.
The enrichment and its permutations are computed by gseapy (Fang et al. 2023, doi:10.1093/bioinformatics/btac757).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.errors import InputError
from training.molecular.gene_sets import among
from training.molecular.sam import deal_groups
from training.molecular.two_groups import check_two_groups, usable_genes

CELLS = 4_000_000  # deals x genes that are in memory at once: 32 MB an array
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
        permutations; ``group_p_value`` and ``group_q_value``: the same set where the groups are dealt to the patients anew, and
        its false discovery rate over the sets; ``leading_edge``: the genes up to that deviation, from
        the end that it is at.
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

    def firm(self, false_discovery: float) -> pd.DataFrame:
        """Rows of the sets that stand out among random sets of genes and among random groups of patients, too."""
        return self.table[self.table[["q_value", "group_q_value"]].max(axis=1) <= false_discovery]

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
    """Test sets of genes between two groups, against random sets of as many genes and against random groups of patients.

    Genes that vary together make a set stand out among random sets, as noise too: among random groups it does not.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Expression, log2. Genes with gaps, and those with the same value in all patients, are left out.
    groups : array-like of shape (n_patients,), bool
        True for the group of interest. Four patients or more in each group.
    sets : mapping of str to tuple of str
        Of columns of the table, as ``gene_sets.within`` gives them.
    permutations : int
        Random sets per set, and random groups; all groups where there are not more.

    Raises
    ------
    InputError
        The values are no complete numbers, a group has fewer than four patients, there is no permutation, or a set has no gene
        that can be ranked, or all of them.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = pd.DataFrame(rng.normal(size=(20, 200))).add_prefix("gene ")
    >>> groups = np.arange(20) < 10
    >>> values.loc[groups, [f"gene {i}" for i in range(20)]] += 1
    >>> sets = {"planted": tuple(f"gene {i}" for i in range(20)), "other": tuple(f"gene {i}" for i in range(50, 70))}
    >>> found = enrichment_of_sets(values, groups, sets, rng)
    >>> found.table["q_value"].round(3).to_dict(), list(found.firm(0.05).index)
    ({'planted': 0.001, 'other': 0.343}, ['planted'])
    """
    if permutations < 1:
        raise InputError(f"Enrichment needs permutations of the genes, and {permutations} were asked for; 1000 are usual.")
    groups = check_two_groups(groups, len(values))
    values, notes = usable_genes(values)
    ranking = signal_to_noise(values, groups)
    ranked = among(sets, list(ranking.index))
    table = _tested(ranking, ranked, permutations, seed=int(rng.integers(2**31)))
    null = _scores_of_groups(values, deal_groups(groups, permutations, rng), [ranked[name] for name in table.index])
    p_values, q_values = _against(table["es"].to_numpy(), null)
    table.insert(5, "group_p_value", p_values)
    table.insert(6, "group_q_value", q_values)
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


def _scores_of_groups(values: pd.DataFrame, dealt: np.ndarray, sets: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Enrichment scores, shape (n_deals, n_sets), of the groups of each deal."""
    matrix, places = values.to_numpy(dtype=float), [values.columns.get_indexer(pd.Index(genes)) for genes in sets]
    size = max(1, CELLS // matrix.shape[1])
    parts = (dealt[start : start + size] for start in range(0, len(dealt), size))
    return np.vstack([_scores(_ratios(matrix, part), places) for part in parts])


def _ratios(matrix: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Signal to noise of every gene in every deal, shape (n_deals, n_genes)."""
    centre = matrix.mean(axis=0)
    means, spreads = [], []
    for members in (dealt, ~dealt):
        count, centred = members.sum(axis=1, keepdims=True), matrix - centre
        mean = members @ centred / count
        variance = np.maximum(members @ centred**2 / count - mean**2, 0) * count / (count - 1)
        spread = np.maximum(np.sqrt(variance), LEAST_SPREAD * np.abs(mean + centre))
        means.append(mean)
        spreads.append(np.where(spread == 0, LEAST_SPREAD, spread))
    return np.asarray((means[0] - means[1]) / (spreads[0] + spreads[1]))


def _scores(ratios: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Enrichment score of each set, shape (n_deals, n_sets): a running sum turns at a gene of the set only."""
    n_genes, found = ratios.shape[1], []
    rank = np.empty(ratios.shape, dtype=np.int64)
    np.put_along_axis(rank, np.argsort(-ratios, axis=1, kind="stable"), np.arange(n_genes)[None], axis=1)
    for own in places:
        order = np.argsort(rank[:, own], axis=1)
        hits, weight = (np.take_along_axis(one[:, own], order, axis=1) for one in (rank, np.abs(ratios)))
        weight = weight / np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        above = np.cumsum(weight, axis=1) - (hits - np.arange(len(own))) / (n_genes - len(own))
        highest, lowest = above.max(axis=1), (above - weight).min(axis=1)
        found.append(np.where(highest >= -lowest, highest, lowest))
    return np.column_stack(found)


def _against(scores: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P and q of scores among those of random groups with the same sign, as GSEA has them.

    For q, scores are divided by the mean of the random ones of their set and sign, and those of all sets are taken together:
    the share of random scores as far from 0, over the share of scores that are.
    """
    found = [_of_sign(sign * scores, sign * null) for sign in (1, -1)]
    higher = scores >= 0
    return np.where(higher, found[0][0], found[1][0]), np.where(higher, found[0][1], found[1][1])


def _of_sign(scores: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the scores above 0; what it says of the others is not to be used."""
    above = null > 0
    p_values = (1 + (above & (null >= scores)).sum(axis=0)) / (1 + above.sum(axis=0))
    mean = np.where(above, null, 0).sum(axis=0) / np.maximum(above.sum(axis=0), 1)
    normal = scores / np.where(mean > 0, mean, 1)
    random = np.sort((null / np.where(mean > 0, mean, 1))[above])
    as_far = (1 + len(random) - np.searchsorted(random, normal)) / (1 + len(random))
    seen = np.sort(normal[scores >= 0])
    share = (len(seen) - np.searchsorted(seen, normal)) / max(len(seen), 1)
    return p_values, np.minimum(as_far / np.maximum(share, 1 / max(len(seen), 1)), 1.0)


@contextmanager
def _silent() -> Iterator[None]:
    """gseapy writes to the terminal by a logger of its own that has no name to be known by."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
