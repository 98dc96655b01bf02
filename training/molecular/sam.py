"""Significance analysis of microarrays (SAM): which genes differ between two groups, by permutations of the groups.

References
----------
Tusher, Tibshirani & Chu 2001, doi:10.1073/pnas.091062498; the R package samr 3.0, whose numbers these are. The bound of the false
genes: Hemerik & Goeman 2018, doi:10.1111/rssb.12238.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb

import numpy as np
import pandas as pd

from features.errors import InputError
from training.molecular.two_groups import check_two_groups, usable_genes

# As in samr: the constant is estimated from this many genes on, and is a low percentile of the spreads below.
GENES_FOR_S0, FEW_GENES_S0 = 500, 0.05
BINS, PERCENTILES, DELTAS = 100, 20, 50
# Of the standard deviation to the median absolute deviation, in normal values.
MAD_TO_SD = 1.4826
# Statistics of the same groups, added up in another order.
ROUNDING = 1e-9
# Values of permuted statistics that are held at once, which bounds the memory whatever the number of permutations.
AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Sam:
    """Genes of two groups, compared.

    Attributes
    ----------
    table : DataFrame
        One row per gene, by falling absolute d. ``difference``: mean of the group of interest less that of the other, log2;
        ``fold_change``: 2 to that power; ``s``: its standard error; ``d``: difference / (s + s0); ``expected``: mean over
        permutations of the d of this rank; ``p_value``: of d among the permuted d of all genes, two-sided; ``q_value``: the
        lowest `fdr_bound` of a delta at which the gene is called, 1 where there is none; ``median_q_value``: the same of
        `median_fdr`, which is SAM's own rate (over these deltas; samr's q is over a finer grid); ``called``: q_value at most the
        false discovery rate asked for.
    s0 : float
        Constant that keeps genes with a small spread from winning, in units of s.
    pi0 : float
        Share of genes that do not differ, estimated; above 1 by chance.
    delta_table : DataFrame
        One row per delta, the distance of d from its expectation beyond which genes are called: ``delta``, ``median_false`` and
        ``false_90`` (pi0 times the median and the 90th percentile over permutations of genes beyond the two cuts), ``called``,
        ``median_fdr`` and ``fdr_90`` (these over the genes called; NaN where none is), ``cut_low`` and ``cut_up`` (largest
        negative and smallest positive d that is called; infinite where none is): all as samr has them. Then ``bound``, the
        number that false genes exceed with a probability of 1 - `certainty` at most, and ``fdr_bound``, its share of the genes
        called.
    delta : float
        The smallest of the table at which `fdr_bound` is at most the rate asked for, which decides who is `called`; NaN for none.
    permutations : int
        That were used.
    notes : tuple of str
        What was left out, in sentences.
    """

    table: pd.DataFrame
    s0: float
    pi0: float
    delta_table: pd.DataFrame
    delta: float
    permutations: int
    notes: tuple[str, ...] = ()


def sam(
    values: pd.DataFrame,
    groups: np.ndarray,
    rng: np.random.Generator,
    *,
    permutations: int = 1000,
    false_discovery: float = 0.05,
    fold_change: float = 1.0,
    certainty: float = 0.95,
) -> Sam:
    """Compare two groups gene by gene.

    SAM's own false discovery rate takes the median of the false genes over permutations. Where few genes differ that is 0 though
    one time in two a false gene is among them, so `called` asks for more: that with `certainty` no larger share of the genes
    called than `false_discovery` is false. Up to 19 genes at 5% that is: none.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_genes)
        Expression, log2. Genes with gaps, and those with the same value in all patients, are left out; samr imputes the former.
    groups : array-like of shape (n_patients,), bool
        True for the group of interest. Four patients or more in each group.
    permutations : int
        Of the groups. All are taken, each once, where there are not more.
    false_discovery : float
        Largest share of false genes among those called.
    fold_change : float
        Genes with a smaller one, up or down, are not called; 1 for no such limit.
    certainty : float
        Probability with which that share is kept to.

    Raises
    ------
    InputError
        The values are no complete numbers, a group has fewer than four patients, there is no permutation, or no gene varies
        within the groups.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = pd.DataFrame(rng.normal(size=(20, 600))).add_prefix("gene ")
    >>> groups = np.arange(20) < 10
    >>> values.loc[groups, "gene 7"] += 4
    >>> found = sam(values, groups, rng, permutations=200)
    >>> found.table.index[found.table["called"]].tolist()
    ['gene 7']
    """
    if permutations < 1:
        raise InputError(f"SAM needs permutations of the groups, and {permutations} were asked for; 1000 are usual.")
    groups = check_two_groups(groups, len(values))
    values, notes = usable_genes(values)
    dealt = deal_groups(groups, permutations, rng)
    if _rank_of_bound(len(dealt), certainty) > len(dealt):
        least = ceil(certainty / (1 - certainty))
        notes += (
            f"{len(dealt)} permutations are too few to call a gene with a certainty of {certainty:.0%}: {least} or more can.",
        )
    return compare(
        values, groups, dealt, false_discovery=false_discovery, fold_change=fold_change, certainty=certainty, notes=notes
    )


def deal_groups(groups: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Permutations of two groups: all of them, each once, where there are not more than asked for; else drawn at random.

    Parameters
    ----------
    groups : ndarray of shape (n_patients,), bool

    Returns
    -------
    ndarray of shape (n_permutations, n_patients), bool

    Examples
    --------
    >>> deal_groups(np.arange(8) < 4, 1000, np.random.default_rng(0)).shape
    (70, 8)
    """
    n, inside = len(groups), int(groups.sum())
    if comb(n, inside) > permutations:
        return rng.permuted(np.tile(groups, (permutations, 1)), axis=1)
    every = np.array(list(combinations(range(n), inside)))
    return np.asarray((every[:, :, None] == np.arange(n)).any(axis=1))


def compare(
    values: pd.DataFrame,
    groups: np.ndarray,
    dealt: np.ndarray,
    *,
    false_discovery: float,
    fold_change: float,
    certainty: float,
    notes: tuple[str, ...] = (),
) -> Sam:
    """SAM with permutations that are given: `sam` for values and groups that were checked.

    Parameters
    ----------
    dealt : ndarray of shape (n_permutations, n_patients), bool
        Who is of the group of interest in each permutation.
    """
    x = np.ascontiguousarray(values.to_numpy(dtype=float))
    difference, s = _difference_and_error(x, groups)
    s0 = estimate_s0(difference, s)
    d = difference / (s + s0)
    permuted = _Permuted(x - x.mean(axis=0), dealt, s0)
    expected, p_value, pi0 = _pool(d, permuted)
    far_apart = np.abs(difference) >= np.log2(fold_change)
    cuts = _cuts(d, expected, far_apart)
    deltas = _delta_table(cuts, permuted, pi0, fold_change, certainty)
    kept = deltas.loc[(deltas["called"] > 0) & (deltas["fdr_bound"] <= false_discovery), "delta"]
    q_value = cuts.lowest(deltas["fdr_bound"])
    table = pd.DataFrame(
        {
            "difference": difference,
            "fold_change": 2**difference,
            "s": s,
            "d": d,
            "expected": expected[np.argsort(np.argsort(d, kind="stable"))],
            "p_value": p_value,
            "q_value": q_value,
            "median_q_value": cuts.lowest(deltas["median_fdr"]),
            "called": q_value <= false_discovery,
        },
        index=values.columns,
    )
    table = table.iloc[np.argsort(-np.abs(d), kind="stable")]
    return Sam(table, s0, pi0, deltas, float(kept.min()), len(dealt), notes)


def estimate_s0(difference: np.ndarray, s: np.ndarray) -> float:
    """The percentile of the spreads with which the scatter of d depends least on the spread.

    With fewer than 500 genes it is their fifth percentile.

    Parameters
    ----------
    difference, s : ndarray of shape (n_genes,)
        Of means, and its standard error.

    Raises
    ------
    InputError
        No gene varies within the groups.

    Examples
    --------
    >>> estimate_s0(np.zeros(101), np.arange(101.0) + 1)
    6.0
    """
    varying = s[s > 0]
    if not len(varying):
        raise InputError("No gene varies within the two groups, so differences between them have no error; check the values.")
    breaks = np.unique(_quantiles(s, np.arange(BINS + 1) * (1 / BINS)))
    shares = np.arange(PERCENTILES + 1) * (1 / PERCENTILES)
    if len(s) < GENES_FOR_S0 or len(breaks) < 3:
        return float(_quantiles(varying, np.array([FEW_GENES_S0]))[0])
    bins = np.maximum(np.searchsorted(breaks, s, side="left") - 1, 0)[s > 0]
    constants = _quantiles(s, shares)
    constants[0] = 0.0
    unevenness = [_unevenness(difference[s > 0] / (varying + constant), bins) for constant in constants]
    return float(_quantiles(varying, shares)[int(np.argmin(unevenness))])


def _unevenness(d: np.ndarray, bins: np.ndarray) -> float:
    """Coefficient of variation over bins of the scatter of d within them."""
    order = np.argsort(bins, kind="stable")
    parts = np.split(d[order], np.flatnonzero(np.diff(bins[order])) + 1)
    scatter = np.array([MAD_TO_SD * np.median(np.abs(part - np.median(part))) for part in parts])
    return float(scatter.std(ddof=1) / scatter.mean()) if scatter.any() else np.inf


def _quantiles(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """R's, rounding included: whether a spread is above the limit of a bin that it is itself depends on the last digit."""
    ordered = np.sort(values)
    index = 1 + (len(values) - 1) * shares
    low = np.floor(index)
    least, most = ordered[low.astype(int) - 1], ordered[np.ceil(index).astype(int) - 1]
    between = index - low
    return np.where(least == most, least, (1 - between) * least + between * most)


def _difference_and_error(x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Difference of the means, and its pooled standard error, per gene."""
    means, squares = [], []
    for members in (x[groups], x[~groups]):
        # With samr's precision and order of operations: genes of equal spread then differ in the last digit as they do there,
        # which decides about bins, and so about s0 in tied values.
        mean = (members.sum(axis=0, dtype=np.longdouble) / len(members)).astype(float)
        variance = ((members - mean) ** 2 * (1 / (len(members) - 1))).sum(axis=0)
        means.append(mean)
        squares.append((len(members) - 1) * variance)
    per_patient = 1 / int(groups.sum()) + 1 / int((~groups).sum())
    return means[0] - means[1], np.sqrt((squares[0] + squares[1]) * per_patient / (len(x) - 2))


@dataclass(frozen=True)
class _Permuted:
    """The statistics of permuted groups.

    Attributes
    ----------
    centred : ndarray of shape (n_patients, n_genes)
        Mean 0 in each gene.
    dealt : ndarray of shape (n_permutations, n_patients), bool
    """

    centred: np.ndarray
    dealt: np.ndarray
    s0: float

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """d and difference of some permutations at a time; shape (n_some, n_genes)."""
        n_patients, n_genes = self.centred.shape
        inside = int(self.dealt[0].sum())
        per_patient = 1 / inside + 1 / (n_patients - inside)
        total = (self.centred**2).sum(axis=0)
        some = max(1, AT_ONCE // n_genes)
        for start in range(0, len(self.dealt), some):
            sums = self.dealt[start : start + some].astype(float) @ self.centred
            # Sums of the two groups are each other's negative, so one says both means and the squares within.
            within = np.maximum(total - sums**2 * per_patient, 0.0)
            difference = sums * per_patient
            yield difference / (np.sqrt(within * per_patient / (n_patients - 2)) + self.s0), difference


def _pool(d: np.ndarray, permuted: _Permuted) -> tuple[np.ndarray, np.ndarray, float]:
    """Expected d by rank from the lowest, p value per gene, and the share of genes that do not differ."""
    expected = np.zeros(len(d))
    below, above, beyond = (np.zeros(len(d), dtype=np.int64) for _ in range(3))
    size = np.abs(d) * (1 - ROUNDING)
    for null, _ in permuted.blocks():
        rows = np.sort(null, axis=1)
        expected += rows.sum(axis=0)
        pooled = np.sort(rows, axis=None, kind="stable")
        below += np.searchsorted(pooled, d, side="left")
        above += len(pooled) - np.searchsorted(pooled, d, side="right")
        beyond += len(pooled) - np.searchsorted(pooled, size, side="left") + np.searchsorted(pooled, -size, side="right")
    n_pooled = len(permuted.dealt) * len(d)
    # Between the quartiles of the pooled values, where half of the genes that do not differ are.
    central = (below > (n_pooled - 1) / 4) & (above > (n_pooled - 1) / 4)
    return expected / len(permuted.dealt), (1 + beyond) / (1 + n_pooled), float(central.sum() / (len(d) / 2))


@dataclass(frozen=True)
class _Cuts:
    """What each delta calls: genes with d at most `low` or at least `up`, of those that are far enough apart.

    Attributes
    ----------
    deltas, low, up : ndarray of shape (n_deltas,)
        Infinite where nothing is called on that side.
    called : ndarray of shape (n_deltas, n_genes), bool
    """

    deltas: np.ndarray
    low: np.ndarray
    up: np.ndarray
    called: np.ndarray

    def lowest(self, rates: pd.Series) -> np.ndarray:
        """Per gene the lowest rate of a delta that calls it, 1 at most."""
        return np.where(self.called, rates.to_numpy(dtype=float)[:, None], 1.0).min(axis=0, initial=1.0)


def _cuts(d: np.ndarray, expected: np.ndarray, far_apart: np.ndarray) -> _Cuts:
    order = np.argsort(d, kind="stable")
    ordered, far = d[order], far_apart[order]
    gap = ordered - expected
    deltas = np.linspace(0, np.sqrt(np.abs(gap).max()), DELTAS) ** 2
    low, up = np.full(DELTAS, -np.inf), np.full(DELTAS, np.inf)
    for row, delta in enumerate(deltas):
        # From the first gene that is further from its expectation than delta, all that are more extreme are called.
        higher, lower = np.flatnonzero((gap > delta) & (expected > 0)), np.flatnonzero((-gap > delta) & (expected < 0))
        if len(higher):
            up[row] = ordered[higher[0] :][far[higher[0] :]].min(initial=np.inf)
        if len(lower):
            low[row] = ordered[: lower[-1] + 1][far[: lower[-1] + 1]].max(initial=-np.inf)
    called = ((d <= low[:, None]) | (d >= up[:, None])) & far_apart
    return _Cuts(deltas, low, up, called)


def _delta_table(cuts: _Cuts, permuted: _Permuted, pi0: float, fold_change: float, certainty: float) -> pd.DataFrame:
    # The bound counts beyond the nearer cut on either side: the cuts were chosen by looking, and one of them often is infinite.
    nearer = np.minimum(cuts.up, -cuts.low)
    false, two_sided = [], []
    for null, difference in permuted.blocks():
        rows = np.sort(np.where(np.abs(difference) >= np.log2(fold_change), null, 0.0), axis=1)
        false.append(_outside(rows, cuts.low * (1 + ROUNDING), cuts.up * (1 + ROUNDING)))
        two_sided.append(_outside(rows, -nearer * (1 - ROUNDING), nearer * (1 - ROUNDING)))
    number, called = np.concatenate(false), cuts.called.sum(axis=1)
    median, high = pi0 * np.median(number, axis=0), pi0 * np.quantile(number, 0.9, axis=0)
    bound = _bound(np.concatenate(two_sided), called, certainty)
    columns = {
        "delta": cuts.deltas,
        "median_false": median,
        "false_90": high,
        "called": called,
        "median_fdr": _share(median, called),
        "fdr_90": _share(high, called),
        "cut_low": cuts.low,
        "cut_up": cuts.up,
        "bound": bound,
        "fdr_bound": _share(bound, called),
    }
    return pd.DataFrame(columns)


def _outside(rows: np.ndarray, low: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Values below `low` or above `up`, per sorted row and pair; shape (n_rows, n_pairs)."""
    return np.stack([np.searchsorted(row, low, side="left") + len(row) - np.searchsorted(row, up, side="right") for row in rows])


def _bound(number: np.ndarray, called: np.ndarray, certainty: float) -> np.ndarray:
    """Quantile of the numbers over the permutations and the groups as they are (Hemerik and Goeman), never above those called."""
    rank = _rank_of_bound(len(number), certainty)
    return called if rank > len(number) else np.minimum(np.sort(number, axis=0)[rank - 1], called)


def _rank_of_bound(permutations: int, certainty: float) -> int:
    """Rank from the lowest; rounded first, as 0.95 of 20 must be 19."""
    return ceil(round(certainty * (permutations + 1), 9))


def _share(false: np.ndarray, called: np.ndarray) -> np.ndarray:
    return np.divide(false, called, out=np.full(len(called), np.nan), where=called > 0)
