"""What separates the clusters: features by the distance between cluster means, and whether it is all tumour volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy.optimize import linear_sum_assignment
from scipy.stats import false_discovery_control, pearsonr, rankdata
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from features.errors import InputError
from features.feature import Feature
from features.imaging.profiles import Family
from features.settings import Settings
from training.profile.associations import Difference, kruskal_wallis
from training.profile.clustering import Clustering, squared_distances

OTHER = "other"
FAMILIES = get_args(Family)
# What PyRadiomics calls its images, up to the first hyphen.
IMAGES = {"original", "log", "wavelet", "square", "squareroot", "logarithm", "exponential", "gradient", "lbp"}
FEWEST_VOLUMES = 4
# From here on clusters are little more than volume. As an adjusted Rand index: Steinley's boundary of a moderate agreement; as
# eta-squared: that much of the variance of the volumes' ranks lies between the clusters.
MUCH_ALIKE = 0.65

Interval = Literal["strong", "moderate", "weak"]


class RankingSettings(Settings):
    """Where the distance of cluster means counts as strong, and as moderate.

    The distance grows with the number of clusters; the defaults are those of Halle et al. 2024, for three.

    Attributes
    ----------
    strong : float
        A feature is strong above it.
    moderate : float
        A feature that is not strong is moderate above it.
    """

    strong: float = Field(1.85, gt=0)
    moderate: float = Field(1.50, gt=0)

    @model_validator(mode="after")
    def _strong_is_above_moderate(self) -> Self:
        if self.strong <= self.moderate:
            raise ValueError(f"strong ({self.strong:g}) must be above moderate ({self.moderate:g})")
        return self

    def interval(self, distance: float) -> Interval:
        """The interval that a distance lies in.

        Examples
        --------
        >>> [RankingSettings().interval(distance) for distance in (1.86, 1.85, 1.5)]
        ['strong', 'moderate', 'weak']
        """
        return "strong" if distance > self.strong else "moderate" if distance > self.moderate else "weak"


@dataclass(frozen=True)
class Ranking:
    """Features by how far apart the clusters are in them.

    Attributes
    ----------
    table : DataFrame of shape (n_features, 5 + n_clusters)
        Index: feature, the one that separates clusters most first. Columns: distance (in standard deviations where features are
        z scores), rank (from 1), interval, sequence, family, and the mean of each cluster: mean_1, mean_2, ...
    """

    table: pd.DataFrame

    @property
    def strong(self) -> pd.Index:
        """The features of the upper interval."""
        return self.table.index[self.table["interval"] == "strong"]

    def shares(self, of: Literal["sequence", "family"]) -> pd.DataFrame:
        """How many features of each sequence, or family, are strong and moderate.

        Returns
        -------
        DataFrame, one row per sequence or family, by name
            features, strong, moderate (their numbers), strong_share, moderate_share (of the features of that row).

        Examples
        --------
        >>> names, shift = ["t2w_original_glcm_Contrast", "adc_original_glcm_Contrast"], np.array([2, 0.1])
        >>> z = pd.DataFrame(np.outer([-1.0, 1, -1, 1], shift), columns=names)
        >>> ranking = rank_features(z, np.array([0, 1, 0, 1]), lambda name: Feature(name=name), RankingSettings())
        >>> ranking.shares("sequence")["strong_share"].to_dict()
        {'adc': 0.0, 't2w': 1.0}
        """
        table = pd.crosstab(self.table[of], self.table["interval"]).reindex(columns=["strong", "moderate", "weak"], fill_value=0)
        features = table.sum(axis=1)
        return pd.DataFrame(
            {
                "features": features,
                "strong": table["strong"],
                "moderate": table["moderate"],
                "strong_share": table["strong"] / features,
                "moderate_share": table["moderate"] / features,
            }
        )


@dataclass(frozen=True)
class VolumeRelation:
    """How far the clusters are those of tumour volume.

    Attributes
    ----------
    table : DataFrame of shape (n_features, 3)
        Index: feature. Spearman's rho with volume, p_value, q_value (Benjamini and Hochberg over the features); NaN for a
        feature that is the same in all patients.
    related, related_strong : float
        Share of all, and of the strong features, with q at most the false discovery rate asked for; NaN where there is none.
    adjusted_rand : float
        Agreement of the clusters with as many clusters of volume alone: 1 the same clusters, 0 as by chance.
    agreement : float
        Share of patients that both put in the same cluster, under the best matching of their clusters.
    difference : Difference
        Volume between clusters, by the test of Kruskal and Wallis.
    n, missing : int
        Patients with and without a volume.
    logarithm : bool
        Whether logarithms of the volume were clustered: where all volumes are above zero.
    little_more : bool
        Whether the clusters are little more than volume: adjusted Rand index or eta-squared from 0.65.
    words : str
        The same in a sentence.
    """

    table: pd.DataFrame
    related: float
    related_strong: float
    adjusted_rand: float
    agreement: float
    difference: Difference
    n: int
    missing: int
    logarithm: bool
    little_more: bool
    words: str


def rank_features(z: pd.DataFrame, labels: np.ndarray, described: Callable[[str], Feature], settings: RankingSettings) -> Ranking:
    """Order features by the distance between the clusters' means.

    The distance of a feature is the root of the sum, over all pairs of clusters, of the squared difference of their means. It
    is the mean and not the medoid that counts. It describes clusters that were made from these same features, and is no test.

    Parameters
    ----------
    z : DataFrame of shape (n_patients, n_features)
        What was clustered, usually z scores, without gaps.
    labels : ndarray of shape (n_patients,), int
        Cluster of each patient, from 0.
    described : callable of str to Feature
        What is known of a feature (``FeatureTable.feature``); where that is neither sequence nor family, they are read from a
        name such as ``t2w_original_glcm_Contrast``, and are ``other`` where it does not say.
    settings : RankingSettings

    Raises
    ------
    InputError
        All patients are in one cluster.

    References
    ----------
    Halle et al. 2024, PMC11101482.

    Examples
    --------
    >>> z = pd.DataFrame({"adc_original_firstorder_Mean": [-1.0, -1, 1, 1], "age": [-1.0, 1, -1, 1]})
    >>> ranking = rank_features(z, np.array([0, 0, 1, 1]), lambda name: Feature(name=name), RankingSettings())
    >>> ranking.table.loc[:, "distance":"family"].reset_index().to_numpy().tolist()  # doctest: +NORMALIZE_WHITESPACE
    [['adc_original_firstorder_Mean', 2.0, 1, 'strong', 'adc', 'firstorder'], ['age', 0.0, 2, 'weak', 'other', 'other']]
    """
    means = z.groupby(np.asarray(labels)).mean()
    if len(means) < 2:
        raise InputError(f"All {len(z)} patients are in one cluster, so no feature separates any; ask for two clusters or more.")
    # The sum over pairs is the number of clusters times the sum of squares about the mean of means.
    distance = np.sqrt(len(means) * ((means - means.mean()) ** 2).sum())
    features = [described(str(name)) for name in z.columns]
    table = pd.DataFrame(
        {
            "distance": distance.to_numpy(),
            "interval": [settings.interval(one) for one in distance],
            "sequence": [one.sequence or sequence_in(one.name) for one in features],
            "family": [one.family or family_in(one.name) for one in features],
            **{f"mean_{number}": mean for number, mean in enumerate(means.to_numpy(), start=1)},
        },
        index=z.columns.rename("feature"),
    )
    table = table.sort_index().sort_values("distance", ascending=False, kind="stable")
    table.insert(1, "rank", np.arange(1, len(table) + 1))
    return Ranking(table)


def family_in(name: str) -> str:
    """Family of features that a name in the manner of PyRadiomics says.

    Examples
    --------
    >>> family_in("t2w_original_glcm_Contrast"), family_in("age")
    ('glcm', 'other')
    """
    return next((part for part in name.split("_") if part in FAMILIES), OTHER)


def sequence_in(name: str) -> str:
    """Sequence that a name in the manner of PyRadiomics says: what is before its image type and family.

    Examples
    --------
    >>> [sequence_in(name) for name in ("t2w_original_glcm_Contrast", "adc_wavelet-LLH_glcm_Contrast", "original_glcm_Contrast")]
    ['t2w', 'adc', 'other']
    """
    parts, family = name.split("_"), family_in(name)
    before = parts[: parts.index(family)] if family != OTHER else []
    return "_".join(part for part in before if part.split("-")[0] not in IMAGES) or OTHER


def volume_relation(
    z: pd.DataFrame,
    labels: np.ndarray,
    volume: pd.Series,
    ranking: Ranking,
    clustering: Clustering,
    rng: np.random.Generator,
    *,
    false_discovery: float = 0.05,
) -> VolumeRelation:
    """Ask whether the clusters are those of tumour volume.

    Every feature is set against volume by Spearman's rank correlation, volume alone is put into as many clusters by the same
    method, and the volumes of the clusters are compared, all in the patients whose volume is known.

    Parameters
    ----------
    z : DataFrame of shape (n_patients, n_features)
        What was clustered, without gaps. Where `volume` is one of the features (of that name), it is not set against itself.
    labels : ndarray of shape (n_patients,), int
        Cluster of each patient, from 0.
    volume : Series
        By the names of the patients, in any unit; gaps are NaN.
    ranking : Ranking
        Says which features are strong.
    clustering : Clustering
        Of the study.
    rng : Generator
        Draws the starts of the clustering.
    false_discovery : float
        Rate at which a feature counts as related to volume.

    Raises
    ------
    InputError
        Volume is known of fewer than four patients, or of one cluster only, or has fewer different values than there are
        clusters.

    References
    ----------
    Halle et al. 2024, PMC11101482. What agreement an adjusted Rand index is: Steinley 2004, doi:10.1037/1082-989X.9.3.386.

    Examples
    --------
    >>> volume = pd.Series([2.0, 3, 4, 30, 40, 50], name="volume")
    >>> z, labels = pd.DataFrame({"mean": volume**-1, "skewness": [1.0, -1, 0, 1, -1, 0]}), np.array([0, 0, 0, 1, 1, 1])
    >>> ranking = rank_features(z, labels, lambda name: Feature(name=name), RankingSettings())
    >>> found = volume_relation(z, labels, volume, ranking, Clustering(), np.random.default_rng(0))
    >>> found.table["rho"].round(2).to_dict(), found.adjusted_rand
    ({'mean': -1.0, 'skewness': -0.24}, 1.0)
    """
    volume = volume.reindex(z.index).astype(float).where(np.isfinite)
    known = volume.notna().to_numpy()
    z, labels, sizes = z.loc[known], np.asarray(labels)[known], volume[known].to_numpy()
    refuse_volumes(str(volume.name), sizes, labels)
    table = _correlations(z.drop(columns=[volume.name], errors="ignore"), sizes)
    related = (table["q_value"] <= false_discovery)[table["q_value"].notna()]
    logarithm = bool((sizes > 0).all())
    size = np.log(sizes) if logarithm else sizes
    alone = clustering.cluster(squared_distances(size[:, np.newaxis]), len(np.unique(labels)), rng).labels
    difference = kruskal_wallis([sizes[labels == cluster] for cluster in np.unique(labels)])
    adjusted_rand, agreement = float(adjusted_rand_score(labels, alone)), _agreement(labels, alone)
    little_more = max(adjusted_rand, difference.effect) >= MUCH_ALIKE
    return VolumeRelation(
        table=table,
        related=float(related.mean()),
        related_strong=float(related[related.index.isin(ranking.strong)].mean()),
        adjusted_rand=adjusted_rand,
        agreement=agreement,
        difference=difference,
        n=len(sizes),
        missing=int((~known).sum()),
        logarithm=logarithm,
        little_more=little_more,
        words=f"{_verdict(little_more, difference, false_discovery)}: {difference.words} for volume between clusters; volume "
        f"alone puts {agreement:.0%} of patients in the corresponding cluster (adjusted Rand index {adjusted_rand:.2f}).",
    )


def _verdict(little_more: bool, difference: Difference, level: float) -> str:
    if little_more:
        return "Clusters are little more than tumour volume"
    if difference.p_value <= level:
        return "Clusters differ in tumour volume and are more than it"
    return "Clusters are not those of tumour volume"


def refuse_volumes(name: str, sizes: np.ndarray, labels: np.ndarray) -> None:
    """Say what volumes cannot be set against clusters.

    Parameters
    ----------
    sizes : ndarray of shape (n_known,)
        Known volumes.
    labels : ndarray of shape (n_known,)
        Clusters of the same patients.

    Raises
    ------
    InputError
        There are fewer than four, of one cluster only, or fewer different ones than clusters.
    """
    clusters, different = len(np.unique(labels)), len(np.unique(sizes))
    if len(sizes) < FEWEST_VOLUMES or clusters < 2:
        raise InputError(
            f"Volume {name!r} is known of {len(sizes)} patients in {clusters} clusters; it takes {FEWEST_VOLUMES} patients in "
            "two clusters: name another column, or none."
        )
    if different < clusters:
        raise InputError(
            f"Volume {name!r} has {different} different values, which cannot be put into {clusters} clusters; name another "
            "column, or none."
        )


def _correlations(z: pd.DataFrame, sizes: np.ndarray) -> pd.DataFrame:
    """Spearman's correlation of each feature with volume: Pearson's of ranks, tied values sharing their mean rank."""
    table = pd.DataFrame(np.nan, index=z.columns.rename("feature"), columns=["rho", "p_value", "q_value"])
    varied = np.ptp(z.to_numpy(), axis=0) > 0
    if varied.any():
        found = pearsonr(rankdata(z.loc[:, varied], axis=0), rankdata(sizes)[:, np.newaxis], axis=0)
        q = false_discovery_control(found.pvalue)
        table.loc[varied] = np.column_stack([found.statistic, found.pvalue, q])
    return table


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    counts = contingency_matrix(first, second)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(first))
