"""What a profile model says of rows: the cluster of each, how far it is from every cluster, and which features decided that."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from features.bundle import ModelBundle, ProfileCard, cluster_name
from features.profiles import Assignment

if TYPE_CHECKING:
    import pandas as pd

DECIDING = 5


@dataclass(frozen=True)
class Profile:
    """The clusters of a profile model.

    Attributes
    ----------
    features : tuple of str
        Those that are compared with the medoids, in the order in which they are: the model's, without its acquisition.
    """

    card: ProfileCard
    features: tuple[str, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The clusters as readers know them."""
        return tuple(cluster.name for cluster in self.card.clusters)

    @cached_property
    def columns(self) -> dict[str, str]:
        """Column of a scored table that holds the distance from each cluster, by the cluster's name."""
        return {cluster.name: f"distance.cluster_{cluster.number}" for cluster in self.card.clusters}

    def account_of(self, row: Mapping[Hashable, Any]) -> dict[str, Any]:
        """The cluster of a row of a scored table (see `Placement.beside`), as one object."""
        distances = {name: row[column] for name, column in self.columns.items()}
        return {"distances": distances, **{name: row[name] for name in ("cluster", "margin", "runner_up", "unlike_any_cluster")}}


@dataclass(frozen=True)
class Placement:
    """Where rows lie among the clusters of a profile model."""

    profile: Profile
    assignment: Assignment

    @cached_property
    def is_finite(self) -> np.ndarray:
        """Rows whose distances are numbers, shape (n_rows,), bool; those of a very large value overflow."""
        return np.asarray(np.isfinite(self.assignment.distances).all(axis=1))

    @cached_property
    def numbers(self) -> list[int]:
        """Cluster of each row, from 1."""
        return [self.profile.card.clusters[cluster].number for cluster in self.assignment.cluster]

    @cached_property
    def unlike(self) -> list[bool]:
        """Whether each row is farther from its cluster than any of the patients who made it."""
        return self.assignment.unlike.tolist()

    @cached_property
    def runners_up(self) -> list[str] | list[None]:
        """The second nearest cluster of each row; None where there is one cluster only."""
        if len(self.profile.names) == 1:
            return [None] * len(self.assignment.cluster)
        return [self.profile.names[cluster] for cluster in self.assignment.runner_up]

    @cached_property
    def margins(self) -> list[float] | list[None]:
        """How much farther that is than the nearest; None where there is one cluster only."""
        if len(self.profile.names) == 1:
            return [None] * len(self.assignment.cluster)
        with np.errstate(invalid="ignore"):  # of a row whose distances overflow, which is not answered
            return self.assignment.margin.tolist()

    def account(self, row: int) -> dict[str, Any]:
        """The cluster of a row, and why it is that one, as it is answered."""
        cluster = self.profile.card.clusters[self.assignment.cluster[row]]
        return {
            "cluster": cluster.name,
            **cluster.model_dump(include={"number", "patients", "events"}),
            "distances": dict(zip(self.profile.names, self.assignment.distances[row].tolist(), strict=True)),
            "margin": self.margins[row],
            "runner_up": self.runners_up[row],
            "unlike_any_cluster": self.unlike[row],
            "limit": float(self.assignment.limits[self.assignment.cluster[row]]),
            **self._decided(row),
        }

    def beside(self, table: pd.DataFrame) -> pd.DataFrame:
        """What was answered, with the clusters."""
        columns: dict[str, Any] = {
            "cluster": [cluster_name(number) for number in self.numbers],
            **dict(zip(self.profile.columns.values(), self.assignment.distances.T, strict=True)),
            "margin": self.margins,
            "runner_up": self.runners_up,
            "unlike_any_cluster": self.unlike,
        }
        return table.assign(**columns)

    def _decided(self, row: int) -> dict[str, Any]:
        margin = self.margins[row]
        if margin is None:
            return {"deciding": [], "rest": 0.0}
        found = self.assignment.deciding(row, DECIDING)
        # What is left of the margin, not a sum of its own, so that the numbers of the answer add up.
        return {
            "deciding": [{"feature": self.profile.features[place], "contribution": added} for place, added in found],
            "rest": margin - sum(added for _, added in found),
        }


def profile_of(bundle: ModelBundle) -> Profile | None:
    """The clusters of a bundle's model; None if it has none."""
    if bundle.card.profile is None:
        return None
    return Profile(bundle.card.profile, tuple(one.name for one in bundle.schema.features if one.family != "acquisition"))
