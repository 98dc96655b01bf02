"""K-medoids clusters of patients: a cluster is the patients that are nearest to one patient of theirs, the medoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import kmedoids
import numpy as np
from pydantic import Field

from features.errors import InputError
from features.settings import Settings

ROWS = 256  # of the distance matrix that are worked on at once: 20 MB at 10,000 patients
ENOUGH = 10_000  # swaps: each lowers the loss, and a cohort needs a few; the library stops at 100 unless told


@dataclass(frozen=True)
class Clusters:
    """Patients in clusters around medoids.

    Attributes
    ----------
    medoids : ndarray of shape (n_clusters,), int
        Row positions of the medoids.
    labels : ndarray of shape (n_patients,), int
        Cluster of each patient, from 0: the position in ``medoids`` of the nearest one, of equally near ones the first.
    loss : float
        Sum over patients of the dissimilarity to their medoid; lower is tighter.
    """

    medoids: np.ndarray
    labels: np.ndarray
    loss: float

    def ordered(self, order: Sequence[int]) -> Clusters:
        """The same clusters under other numbers.

        Parameters
        ----------
        order : sequence of int
            All clusters, each once: new cluster ``i`` is old cluster ``order[i]``.

        Examples
        --------
        >>> Clusters(np.array([4, 2, 7]), np.array([0, 0, 1, 2]), 1.5).ordered([2, 0, 1])
        Clusters(medoids=array([7, 4, 2]), labels=array([1, 1, 2, 0]), loss=1.5)
        """
        return Clusters(self.medoids[list(order)], np.argsort(order)[self.labels], self.loss)


class Clustering(Settings):
    """How patients are put into clusters, once their number is given.

    Attributes
    ----------
    method : {"pam", "best"}
        ``pam`` is BUILD and SWAP of Kaufman and Rousseeuw: it draws nothing, and gives what ``pam`` of R's cluster package
        gives, unless two medoids are equally good and it takes the other. It ends where no single swap of a medoid is better,
        which need not be the lowest loss that there is. ``best`` descends from random medoids too, and takes the lowest of all.
    starts : int
        Random starts of ``best``.

    References
    ----------
    Kaufman & Rousseeuw 1990, doi:10.1002/9780470316801; Schubert & Rousseeuw 2021, doi:10.1016/j.is.2021.101804.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> distances, rng = squared_distances(load_iris().data), np.random.default_rng(0)
    >>> round(Clustering().cluster(distances, 3, rng).loss, 2)
    84.44
    >>> best = Clustering(method="best").cluster(distances, 3, rng)
    >>> round(best.loss, 2), best.medoids + 1
    (83.91, array([  8,  79, 121]))
    """

    method: Literal["pam", "best"] = "pam"
    starts: int = Field(50, ge=1)

    def cluster(self, distances: np.ndarray, clusters: int, rng: np.random.Generator) -> Clusters:
        """Find this many clusters.

        Parameters
        ----------
        distances : ndarray of shape (n_patients, n_patients), float64
            Dissimilarities, symmetric, 0 on the diagonal; higher is less alike.
        clusters : int
            Their number, from 1.
        rng : Generator
            Draws the starts of ``best``; ``pam`` does not touch it.

        Returns
        -------
        Clusters
            Numbered by the row of their medoid.

        Raises
        ------
        InputError
            There is one patient, or there are fewer patients, or fewer that differ, than clusters.
        """
        n = len(distances)
        if n < 2:
            raise InputError(f"Clusters need two patients or more (got {n}).")
        if not 1 <= clusters <= n:
            raise InputError(f"{clusters} clusters cannot be made of {n} patients; ask for 1 to {n}.")
        return min(self._found(distances, clusters, rng), key=lambda found: found.loss)

    def _found(self, distances: np.ndarray, clusters: int, rng: np.random.Generator) -> list[Clusters]:
        # The same swaps as kmedoids.pam, found quicker.
        found = [_around(kmedoids.fastpam1(distances, clusters, max_iter=ENOUGH, init="build").medoids, distances)]
        if len(np.unique(found[0].labels)) < clusters:
            raise InputError(
                f"{clusters} clusters cannot be made of {len(distances)} patients of whom no {clusters} differ; "
                "ask for fewer clusters, or remove repeated patients."
            )
        for _ in range(self.starts if self.method == "best" else 0):
            start = rng.choice(len(distances), clusters, replace=False)
            # One thread, since several visit the patients in an order that no seed repeats.
            found.append(_around(kmedoids.fasterpam(distances, start, max_iter=ENOUGH, n_cpu=1).medoids, distances))
        return found


def squared_distances(z: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance between all pairs of patients.

    Parameters
    ----------
    z : ndarray of shape (n_patients, n_features)
        Features, usually z scores, without gaps.

    Returns
    -------
    ndarray of shape (n_patients, n_patients), float64
        In squared units of ``z``; exactly symmetric, never below 0, and exactly 0 between patients whose features are the same.
        It is the only array of this size that is made.

    Raises
    ------
    InputError
        A value is missing or infinite.

    Examples
    --------
    >>> squared_distances(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]))
    array([[ 0., 25., 25.],
           [25.,  0.,  0.],
           [25.,  0.,  0.]])
    """
    z = np.asarray(z, dtype=float)
    if not np.isfinite(z).all():
        raise InputError(f"{int((~np.isfinite(z)).sum())} feature values are missing or infinite; impute them before clustering.")
    # Products of centred values are small, so that little is lost where they nearly cancel.
    centred = z - z.mean(axis=0)
    distances = centred @ centred.T
    norms = distances.diagonal().copy()
    for start in range(0, len(z), ROWS):
        block = distances[start : start + ROWS]
        np.maximum(norms[start : start + ROWS, None] + norms - 2 * block, 0, out=block)
    _, patient, times = np.unique(z, axis=0, return_inverse=True, return_counts=True)
    for repeated in np.flatnonzero(times > 1):
        same = np.flatnonzero(patient == repeated)
        distances[np.ix_(same, same)] = 0
    return distances


def _around(medoids: np.ndarray, distances: np.ndarray) -> Clusters:
    """Every patient with the nearest medoid."""
    medoids = np.sort(medoids.astype(int))
    near = distances[:, medoids]
    labels = near.argmin(axis=1)
    return Clusters(medoids, labels, float(near.min(axis=1).sum()))
