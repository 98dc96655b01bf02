"""A study of profiles of patients: what its YAML file can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from features.cohort import BinaryEndpoint
from features.errors import InputError
from features.platforms import Harmoniser
from features.settings import Settings
from features.survival import SurvivalEndpoint
from training.config import StudyBase
from training.molecular.study import MolecularSettings
from training.profile.by_outcome import Combine, refuse_combination
from training.profile.clustering import Clustering
from training.profile.ranking import RankingSettings

Criterion = Literal["silhouette", "calinski_harabasz", "davies_bouldin", "gap", "outcome"]


class JudgedClusters(Settings):
    """How many clusters there are, where the data are to say.

    Parameters
    ----------
    largest : int
        Numbers from 1 to this are judged.
    smallest : int
        A number one of whose clusters has fewer patients is passed over: these are outliers, and no profile.
    by : {"silhouette", "calinski_harabasz", "davies_bouldin", "gap", "outcome"}
        Whose choice is taken. With ``outcome`` it is the number whose clusters differ most in outcome: the result is then
        exploratory, and its p is a permutation's.
    """

    largest: int = Field(default=6, ge=2, le=20)
    smallest: int = Field(default=4, ge=1)
    by: Criterion = "silhouette"


def _kind_of_number(value: Any) -> str:
    """Without it a misspelt key would be told to be an integer."""
    return "judged" if isinstance(value, Mapping | JudgedClusters) else "given"


NumberOfClusters = Annotated[
    Annotated[int, Field(ge=2, le=20), Tag("given")] | Annotated[JudgedClusters, Tag("judged")], Discriminator(_kind_of_number)
]


class ProfileScrutiny(Settings):
    """How much scrutiny the clusters get.

    Parameters
    ----------
    resamples : int
        Of patients, behind the stability of the clusters and their consensus.
    references : int
        Data sets without clusters that the gap statistic compares with.
    permutations : int
        Of the outcome, every choice that looked at it being repeated in each.
    folds, repeats : int
        Of the cross-validation in which the whole profile is made anew.
    bootstrap : int
        Resamples of patients behind the intervals.
    level : float
        Coverage that intervals are meant to have.
    false_discovery : float
        Rate at which a feature, or a column, counts as associated.
    """

    resamples: int = Field(default=200, ge=20)
    references: int = Field(default=50, ge=10)
    permutations: int = Field(default=999, ge=99)
    folds: int = Field(default=5, ge=2)
    repeats: int = Field(default=5, ge=1)
    bootstrap: int = Field(default=1000, ge=100)
    level: float = Field(default=0.95, gt=0.5, lt=1)
    false_discovery: float = Field(default=0.05, gt=0, lt=1)


class ProfileStudy(StudyBase):
    """Everything that decides what a study of profiles finds: clusters of patients by their features.

    Parameters
    ----------
    harmonise : mapping, optional
        How the acquisition is taken out of the features before they are brought to one scale.
    clustering : mapping
        How the medoids are found.
    clusters : int or mapping
        How many, or who is to say.
    combine : list of lists of int, "outcome" or null
        Clusters, by their number in ascending order of the share of events, that are compared as one: ``[[1, 2], [3]]``. With
        ``outcome``, the two groups that differ most. Either way the outcome has a say, and the p of the comparison is a
        permutation's.
    adjust : list of str
        Clinical columns (of ``cohort.clinical``) that the clusters' hazard ratio is adjusted for.
    volume : str, optional
        Column of the tumour's volume, a feature or a clinical column: are the clusters more than that?
    stage : str, optional
        Clinical column that the heat map shows beside the clusters. Left out: one that is called stage, if there is one.
    ranking : mapping
        Which features count as parting the clusters.
    molecular : mapping, optional
        Genes, mutations and proteins that the clusters are related to.
    """

    kind: Literal["profile"]
    harmonise: Harmoniser | None = None
    clustering: Clustering = Clustering()
    clusters: NumberOfClusters = JudgedClusters()
    combine: Combine = None
    adjust: tuple[str, ...] = ()
    volume: str | None = None
    stage: str | None = None
    ranking: RankingSettings = RankingSettings()
    molecular: MolecularSettings | None = None
    evaluation: ProfileScrutiny = ProfileScrutiny()

    @model_validator(mode="after")
    def _has_one_table_and_an_outcome(self) -> Self:
        if not isinstance(self.cohort.endpoint, SurvivalEndpoint | BinaryEndpoint):
            raise ValueError("cohort.endpoint.kind must be survival or binary for a profile")
        if self.cohort.sequences:
            raise ValueError("cohort.sequences: a profile has one table; join its files under cohort.source.path")
        if self.scores:
            raise ValueError("scores: a profile is of the features of its table alone; take scores out")
        return self

    @model_validator(mode="after")
    def _columns_are_clinical(self) -> Self:
        for key, names in (("adjust", self.adjust), ("stage", (self.stage,) if self.stage else ())):
            for name in names:
                if name not in self.cohort.clinical:
                    known = ", ".join(self.cohort.clinical) or "none"
                    raise ValueError(f"{key} names {name!r}, which is not under cohort.clinical ({known}); name it there too")
        return self

    @model_validator(mode="after")
    def _hazards_need_times(self) -> Self:
        if self.adjust and not isinstance(self.cohort.endpoint, SurvivalEndpoint):
            raise ValueError(
                "adjust is of hazard ratios, which need times to an event (cohort.endpoint.kind: survival); take it out"
            )
        return self

    @model_validator(mode="after")
    def _combination_fits(self) -> Self:
        if self.chosen_by_outcome and self.combine not in (None, "outcome"):
            raise ValueError(
                "combine names clusters while the outcome chooses their number (clusters.by: outcome); give the number, or set "
                "combine: outcome"
            )
        try:
            refuse_combination(self.combine, self.largest)
        except InputError as cause:
            raise ValueError(str(cause)) from cause
        return self

    @property
    def largest(self) -> int:
        """The largest number of clusters that there can be."""
        return self.clusters if isinstance(self.clusters, int) else self.clusters.largest

    @property
    def chosen_by_outcome(self) -> bool:
        """Whether the outcome says how many clusters there are."""
        return isinstance(self.clusters, JudgedClusters) and self.clusters.by == "outcome"
