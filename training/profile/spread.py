"""How patients from elsewhere spread over the clusters of a frozen profile model: are the profiles found again there?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from features.bundle import ClusterCard, cluster_name
from features.profiles import Assignment
from features.settings import Settings
from training.horizon import observed_risk


class ClusterSpread(Settings):
    """The samples of a table that are nearest to one cluster.

    Attributes
    ----------
    number : int
        Of the cluster, from 1.
    samples, events : int
    share : float
        Of all samples of the table.
    share_learnt : float
        Of the patients whom the profiles were learnt from.
    risk : float
        As the model answers for the cluster.
    observed : float or None
        Share of its samples with the event, or their risk by the horizon after Kaplan and Meier; None where it has no sample, or
        none was followed so far.
    unlike : int
        Samples that are farther from the medoid than any patient learnt from ("unlike any cluster").
    """

    number: int
    samples: int
    events: int
    share: float
    share_learnt: float
    risk: float
    observed: float | None
    unlike: int

    @property
    def name(self) -> str:
        """As it is called wherever a person reads."""
        return cluster_name(self.number)


def spread_over_clusters(
    clusters: tuple[ClusterCard, ...], assigned: Assignment, predictions: pd.DataFrame, horizon: float | None
) -> tuple[ClusterSpread, ...]:
    """Count the samples of every cluster.

    Parameters
    ----------
    clusters : tuple of ClusterCard
        Of the model's card.
    assigned : Assignment
        Of the samples.
    predictions : DataFrame
        Of the same samples in the same order, with label, and time if there is a horizon.
    horizon : float or None
    """
    learnt = sum(one.patients for one in clusters)
    return tuple(
        _of_cluster(card, learnt, assigned.unlike, predictions, assigned.cluster == number, horizon)
        for number, card in enumerate(clusters)
    )


def assigned_rows(assigned: Assignment, predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per sample: its cluster (from 1), distance from the medoid, margin to the second nearest, unlike any or not."""
    return predictions[["sample", "patient"]].assign(
        cluster=assigned.cluster + 1,
        distance=assigned.distances.min(axis=1),
        margin=assigned.margin,
        unlike_any_cluster=assigned.unlike,
    )


def warnings_of_spread(found: tuple[ClusterSpread, ...], most_unlike: float) -> tuple[str, ...]:
    """What speaks against the profiles being found again.

    Examples
    --------
    >>> one = ClusterSpread(number=1, samples=9, events=1, share=1, share_learnt=0.6, risk=0.1, observed=0.1, unlike=3)
    >>> none = ClusterSpread(number=2, samples=0, events=0, share=0, share_learnt=0.4, risk=0.5, observed=None, unlike=0)
    >>> for words in warnings_of_spread((one, none), 0.05): print(words)
    3 of 9 samples are unlike any cluster: farther from the nearest medoid than any patient whom it was learnt with.
    No sample is nearest to cluster 2, to which 40% of the patients belong whom the profiles were learnt from.
    """
    unlike, samples = (sum(getattr(one, name) for one in found) for name in ("unlike", "samples"))
    words = []
    if unlike > most_unlike * samples:
        words.append(
            f"{unlike} of {samples} samples are unlike any cluster: farther from the nearest medoid than any patient whom it was "
            "learnt with."
        )
    words += [
        f"No sample is nearest to {one.name}, to which {one.share_learnt:.0%} of the patients belong whom the profiles were "
        "learnt from."
        for one in found
        if not one.samples
    ]
    return tuple(words)


def _of_cluster(
    card: ClusterCard, learnt: int, unlike: np.ndarray, predictions: pd.DataFrame, inside: np.ndarray, horizon: float | None
) -> ClusterSpread:
    mine = predictions[inside]
    return ClusterSpread(
        number=card.number,
        samples=len(mine),
        events=int(mine["label"].sum()),
        share=len(mine) / len(predictions),
        share_learnt=card.patients / learnt,
        risk=card.risk,
        observed=_observed(mine, horizon),
        unlike=int(unlike[inside].sum()),
    )


def _observed(predictions: pd.DataFrame, horizon: float | None) -> float | None:
    if predictions.empty:
        return None
    found = float(predictions["label"].mean()) if horizon is None else observed_risk(predictions, horizon)
    return None if math.isnan(found) else found
