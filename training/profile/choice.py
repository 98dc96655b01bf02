"""How many clusters there are, by four criteria that may disagree, and how far the clusters can be trusted.

References
----------
Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7 (silhouette).
Calinski & Harabasz 1974, doi:10.1080/03610927408827101.
Davies & Bouldin 1979, doi:10.1109/TPAMI.1979.4766909.
Tibshirani, Walther & Hastie 2001, doi:10.1111/1467-9868.00293 (gap).
Hennig 2007, doi:10.1016/j.csda.2006.11.025 (bootstrap of clusters).
Monti et al. 2003, doi:10.1023/A:1023949509487 (consensus); Senbabaoglu et al. 2014, doi:10.1038/srep06207 (ambiguous pairs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import squareform
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from training.profile.clustering import Clustering, Clusters, squared_distances
from training.progress import Progress, Silence, paced

NAMES = {"silhouette": "silhouette", "calinski_harabasz": "Calinski-Harabasz", "davies_bouldin": "Davies-Bouldin", "gap": "gap"}
STABLE, DOUBTFUL, DISSOLVED = 0.75, 0.6, 0.5  # Hennig's limits of the mean Jaccard, and of one resample's
SUBSAMPLE = 0.8  # share of patients, as Monti et al. take
AMBIGUOUS = 0.1, 0.9  # a pair between these is neither together nor apart


@dataclass(frozen=True)
class Criteria:
    """What four criteria say of each number of clusters.

    Attributes
    ----------
    table : DataFrame
        Index ``clusters``, their number, ascending. NaN where a criterion is not defined; for one cluster only the gap is.

        ==================  =================================================================================================
        loss                Sum of dissimilarities to the medoids; falls with the number, and so chooses none.
        silhouette          Mean over patients, -1 to 1, of the dissimilarities that were clustered (MATLAB's ``evalclusters``
                            does so too; it is higher than that of unsquared distances). Higher is better.
        calinski_harabasz   Ratio of mean squares between and within clusters, about their means. Higher is better.
        davies_bouldin      Mean over clusters of spread over separation, Euclidean, about their means. Lower is better.
        gap                 How far the log of the sum of squares about the cluster means lies below that of data without
                            clusters. The fewest clusters are best whose gap is within one standard error of the next one's.
        gap_error           That standard error, with the one of the references' own number.
        ==================  =================================================================================================
    """

    table: pd.DataFrame

    @property
    def best(self) -> dict[str, int]:
        """Number of clusters that each criterion chooses; one that is defined for none is left out.

        Examples
        --------
        >>> Criteria(pd.DataFrame({"silhouette": [np.nan, 0.4, 0.6], "calinski_harabasz": [np.nan, 9.0, 8.0],
        ...     "davies_bouldin": [np.nan, 0.5, 0.4], "gap": [0.1, 0.4, 0.8], "gap_error": 0.05}, index=[1, 2, 3])).best
        {'silhouette': 3, 'calinski_harabasz': 2, 'davies_bouldin': 3, 'gap': 3}
        """
        known = {name: self.table[name].dropna() for name in NAMES}
        return {name: _chosen(name, values, self.table["gap_error"]) for name, values in known.items() if len(values)}

    @property
    def agree(self) -> bool:
        """Whether all criteria that choose choose the same number."""
        return len(set(self.best.values())) <= 1

    @property
    def words(self) -> str:
        """The choice in one sentence."""
        best = self.best
        if not best:
            return "No criterion is defined for these numbers of clusters."
        if self.agree:
            return f"All criteria choose {_counted(next(iter(best.values())))}: {_listed([NAMES[name] for name in best])}."
        choices = _listed([f"{NAMES[name]} chooses {number}" for name, number in best.items()])
        none = "; only the gap can say that there are none" if best.get("gap") == 1 else ""
        return f"The criteria disagree on the number of clusters: {choices}{none}."


@dataclass(frozen=True)
class Stability:
    """How far clusters come back when patients are drawn anew.

    Attributes
    ----------
    table : DataFrame of shape (n_clusters, 3)
        Index ``cluster``, from 0. ``jaccard``: mean over bootstrap resamples of the Jaccard similarity with the likest cluster
        that was found there, 0 to 1, higher is more stable (a cluster of which no patient was drawn counts as 0). ``dissolved``:
        share of resamples where it is 0.5 or less. ``consensus``: mean over pairs of the cluster's patients of how often they
        are together; NaN for one patient.
    consensus : ndarray of shape (n_patients, n_patients)
        Share of the subsamples that hold both patients in which both are in one cluster; NaN where none holds both.
    ambiguous : float
        Share of the pairs of patients whose consensus is between 0.1 and 0.9 (PAC); lower is clearer.
    """

    table: pd.DataFrame
    consensus: np.ndarray
    ambiguous: float

    @property
    def words(self) -> str:
        """The verdict on each cluster in one sentence."""
        found = [f"cluster {i + 1} {_verdict(jaccard)} ({jaccard:.2f})" for i, jaccard in enumerate(self.table["jaccard"])]
        return f"By mean Jaccard similarity over bootstrap resamples {_listed(found)}."


def criteria(
    z: np.ndarray,
    distances: np.ndarray,
    clusterings: Mapping[int, Clusters],
    clustering: Clustering,
    rng: np.random.Generator,
    references: int,
    progress: Progress | None = None,
) -> Criteria:
    """Judge numbers of clusters.

    Parameters
    ----------
    z : ndarray of shape (n_patients, n_features)
        Features, without gaps.
    distances : ndarray of shape (n_patients, n_patients)
        Their squared distances, which were clustered.
    clusterings : mapping of int to Clusters
        Clusters by their number.
    clustering : Clustering
        How they were found; the gap's references are clustered so too.
    rng : Generator
        Draws the references.
    references : int
        Data sets without clusters: uniform in the box along the principal components. 0 leaves the gap out.
    progress : Progress, optional
        Told now and then how many of them are clustered.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = np.concatenate([rng.normal(centre, 1, (20, 2)) for centre in ((0, 0), (9, 0), (0, 9))])
    >>> distances, clustering = squared_distances(z), Clustering()
    >>> clusterings = {number: clustering.cluster(distances, number, rng) for number in range(1, 6)}
    >>> criteria(z, distances, clusterings, clustering, rng, references=20).words
    'All criteria choose 3 clusters: silhouette, Calinski-Harabasz, Davies-Bouldin and gap.'
    """
    numbers = sorted(clusterings)
    table = pd.DataFrame(
        [_internal(z, distances, clusterings[number]) for number in numbers],
        index=pd.Index(numbers, name="clusters"),
        columns=["loss", "silhouette", "calinski_harabasz", "davies_bouldin"],
    )
    within = pd.Series({number: _sum_of_squares(z, clusterings[number].labels) for number in numbers})
    if references == 0:
        return Criteria(table.assign(gap=np.nan, gap_error=np.nan))
    # Where every patient is a cluster, or is its cluster's mean, nothing is left to compare.
    spread = within[(within > 0) & (within.index < len(z))]
    box, considered = _box(z), list(spread.index)
    watched = paced(references, progress or Silence(), "data sets without clusters, for the gap")
    logs = np.log([_reference(len(z), box, considered, clustering, rng) for _ in watched])
    gap = pd.Series(logs.mean(axis=0) - np.log(spread.to_numpy()), index=spread.index)
    error = pd.Series(logs.std(axis=0) * np.sqrt(1 + 1 / references), index=spread.index)
    return Criteria(table.assign(gap=gap, gap_error=error))


def stability(
    z: np.ndarray,
    clusters: Clusters,
    clustering: Clustering,
    resamples: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Stability:
    """Cluster resamples of the patients, and see which clusters come back.

    The bootstrap's repeated patients count once, as is usual where clusters are compared: a patient drawn three times would be
    a small cluster of its own. Consensus is over subsamples of 80% of the patients. A resample with fewer different patients
    than clusters is put into as many as there are.

    Parameters
    ----------
    z : ndarray of shape (n_patients, n_features)
        Features, without gaps.
    clusters : Clusters
        Of these patients, the ones to judge.
    clustering : Clustering
        How they were found, and those of the resamples are.
    resamples : int
        Of either kind.
    rng : Generator
        Draws the resamples.
    progress : Progress, optional
        Told of both stages.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = np.concatenate([rng.normal(centre, 1, (20, 2)) for centre in (0, 9)])
    >>> clusters = Clustering().cluster(squared_distances(z), 2, rng)
    >>> stability(z, clusters, Clustering(), 50, rng).words
    'By mean Jaccard similarity over bootstrap resamples cluster 1 is stable (1.00) and cluster 2 is stable (1.00).'
    """
    n, number, progress = len(z), len(clusters.medoids), progress or Silence()
    again = _Again(squared_distances(z), np.unique(z, axis=0, return_inverse=True)[1], number, clustering)
    progress.stage(f"{resamples} bootstrap resamples of the patients, in {_counted(number)} each")
    watched = paced(resamples, progress, "bootstrap resamples")
    jaccard = np.array([_jaccard(clusters, *again.found(rng.integers(n, size=n), rng)) for _ in watched])
    progress.stage(f"{resamples} subsamples of {SUBSAMPLE:.0%} of the patients, in {_counted(number)} each")
    size, watched = max(round(SUBSAMPLE * n), 2), paced(resamples, progress, "subsamples")
    consensus = _consensus(n, [again.found(rng.choice(n, size, replace=False), rng) for _ in watched])
    own = [_pairs(consensus[np.ix_(members, members)]) for members in (clusters.labels == i for i in range(number))]
    table = pd.DataFrame(
        {
            "jaccard": jaccard.mean(axis=0),
            "dissolved": (jaccard <= DISSOLVED).mean(axis=0),
            "consensus": [pairs.mean() if len(pairs) else np.nan for pairs in own],
        },
        index=pd.RangeIndex(number, name="cluster"),
    )
    pairs = _pairs(consensus)
    return Stability(table, consensus, float(((pairs > AMBIGUOUS[0]) & (pairs < AMBIGUOUS[1])).mean()))


def _internal(z: np.ndarray, distances: np.ndarray, clusters: Clusters) -> tuple[float, float, float, float]:
    labels = clusters.labels
    if not 1 < len(clusters.medoids) < len(z):
        return clusters.loss, np.nan, np.nan, np.nan
    silhouette = float(silhouette_score(distances, labels, metric="precomputed"))
    return clusters.loss, silhouette, float(calinski_harabasz_score(z, labels)), float(davies_bouldin_score(z, labels))


def _sum_of_squares(z: np.ndarray, labels: np.ndarray) -> float:
    """About the means of the clusters."""
    members = labels == np.arange(labels.max() + 1)[:, None]
    means = members @ z / members.sum(axis=1, keepdims=True)
    return float(np.square(z - means[labels]).sum())


def _box(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of the patients along each principal component."""
    left, spread, _ = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    scores = left * spread
    return scores.min(axis=0), scores.max(axis=0)


def _reference(
    patients: int, box: tuple[np.ndarray, np.ndarray], numbers: list[int], clustering: Clustering, rng: np.random.Generator
) -> list[float]:
    """Sums of squares of data as wide as these along each principal component, and without clusters."""
    # Neither distances nor sums of squares depend on the axes, so the components' own will do.
    drawn = rng.uniform(*box, (patients, len(box[0])))
    distances = squared_distances(drawn)
    return [_sum_of_squares(drawn, clustering.cluster(distances, number, rng).labels) for number in numbers]


def _chosen(name: str, values: pd.Series, gap_error: pd.Series) -> int:
    """Number of clusters that a criterion chooses of those that it is defined for."""
    numbers, heights = values.index.to_numpy(dtype=int), values.to_numpy(dtype=float)
    if name == "gap":
        following = heights[1:] - gap_error[numbers[1:]].to_numpy(dtype=float)
        return int(numbers[np.append(heights[:-1] >= following, True).argmax()])  # the most of all where the gap only rises
    return int(numbers[heights.argmin() if name == "davies_bouldin" else heights.argmax()])


@dataclass(frozen=True)
class _Again:
    """Resamples of one cohort, clustered as the cohort was.

    Attributes
    ----------
    distances : ndarray of shape (n_patients, n_patients)
    profile : ndarray of shape (n_patients,), int
        The same for patients whose features are the same.
    """

    distances: np.ndarray
    profile: np.ndarray
    number: int
    clustering: Clustering

    def found(self, drawn: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The patients that were drawn, each once, and their clusters."""
        rows = np.unique(drawn)
        number = min(self.number, len(np.unique(self.profile[rows])))
        if number == 1:
            return rows, np.zeros(len(rows), dtype=int)
        return rows, self.clustering.cluster(self.distances[np.ix_(rows, rows)], number, rng).labels


def _jaccard(clusters: Clusters, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each cluster with the likest of a resample."""
    here = (clusters.labels[rows] == np.arange(len(clusters.medoids))[:, None]).astype(float)
    there = (labels[:, None] == np.arange(labels.max() + 1)).astype(float)
    both = here @ there
    return np.asarray((both / (here.sum(axis=1, keepdims=True) + there.sum(axis=0) - both)).max(axis=1))


def _consensus(n: int, found: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """How often two patients are together, of the times that both were drawn."""
    drawn = np.zeros((n, len(found)))
    members = np.zeros((n, sum(labels.max() + 1 for _, labels in found)))
    column = 0
    for resample, (rows, labels) in enumerate(found):
        drawn[rows, resample] = 1
        members[rows, column + labels] = 1
        column += labels.max() + 1
    together, times = members @ members.T, drawn @ drawn.T
    return np.asarray(np.divide(together, times, out=np.full((n, n), np.nan), where=times > 0))


def _pairs(consensus: np.ndarray) -> np.ndarray:
    """Of different patients, each pair once, where it is known."""
    pairs = squareform(consensus, checks=False)
    return pairs[~np.isnan(pairs)]


def _verdict(jaccard: float) -> str:
    if jaccard >= STABLE:
        return "is stable"
    return "is doubtful" if jaccard >= DOUBTFUL else "is not to be trusted"


def _counted(number: int) -> str:
    return "1 cluster" if number == 1 else f"{number} clusters"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
