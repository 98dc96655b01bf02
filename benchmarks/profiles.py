"""Clusters of 10,000 patients by 300 features: ours against plain scikit-learn distances and a plain kmedoids call, same result.

Run: ``python benchmarks/profiles.py [--rounds 3]``. All are timed in one process, in turn; what counts is ratio and memory.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import kmedoids
import numpy as np
from sklearn.metrics import pairwise_distances

from training.profile.clustering import Clustering, squared_distances

PATIENTS, FEATURES, CLUSTERS = 10_000, 300, 3


def example(seed: int = 0) -> np.ndarray:
    """Standard scores of patients in three overlapping clusters."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(PATIENTS, FEATURES)) + 0.5 * rng.normal(size=(CLUSTERS, FEATURES))[rng.integers(CLUSTERS, size=PATIENTS)]
    return (z - z.mean(axis=0)) / z.std(axis=0, ddof=1)


def ours(z: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and medoids by our function."""
    found = Clustering().cluster(squared_distances(z), CLUSTERS, np.random.default_rng(0))
    return found.loss, found.medoids


def plain(search: Callable[..., kmedoids.KMedoidsResult]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Loss and medoids by the libraries alone."""

    def cluster(z: np.ndarray) -> tuple[float, np.ndarray]:
        found = search(pairwise_distances(z, metric="sqeuclidean"), CLUSTERS, init="build")
        return found.loss, np.sort(found.medoids)

    return cluster


def peak_bytes() -> int:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    z, matrix = example(), PATIENTS**2 * 8
    before = peak_bytes()
    ours(z)  # first, since the peak never falls again
    print(f"memory beyond the features: {(peak_bytes() - before) / matrix:.2f} of the distance matrix of {matrix / 1e6:.0f} MB")
    tasks = {"ours": ours, "plain pam": plain(kmedoids.pam), "plain fastpam1": plain(kmedoids.fastpam1)}
    took: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        found = {}
        for name, task in tasks.items():
            start = time.perf_counter()
            found[name] = task(z)
            took[name].append(time.perf_counter() - start)
    seconds = {name: float(np.median(times)) for name, times in took.items()}
    print(f"{PATIENTS} x {FEATURES}, {CLUSTERS} clusters: " + ", ".join(f"{name} {each:.1f} s" for name, each in seconds.items()))
    loss, medoids = found.pop("ours")
    for name, (other, others) in found.items():
        same = bool(np.array_equal(medoids, others)) and abs(loss / other - 1) < 1e-9
        print(
            f"ours over {name}: ratio {seconds['ours'] / seconds[name]:.2f} (median of {rounds}); same medoids and loss: {same}"
        )


if __name__ == "__main__":
    main()
