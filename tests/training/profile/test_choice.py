import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris, load_wine
from sklearn.metrics import silhouette_score

from training.profile.choice import Criteria, Stability, criteria, stability
from training.profile.clustering import Clustering, Clusters, squared_distances
from training.progress import Silence

PAM, FEW = Clustering(), Clustering(method="best", starts=3)


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)


def clusterings(z: np.ndarray, largest: int = 6, clustering: Clustering = PAM) -> dict[int, Clusters]:
    distances = squared_distances(z)
    return {number: clustering.cluster(distances, number, np.random.default_rng(0)) for number in range(1, largest + 1)}


def judged(z: np.ndarray, seed: int = 0, references: int = 20, largest: int = 6, clustering: Clustering = PAM) -> Criteria:
    found = clusterings(z, largest, clustering)
    return criteria(z, squared_distances(z), found, clustering, np.random.default_rng(seed), references)


def resampled(z: np.ndarray, number: int = 3, seed: int = 0, resamples: int = 100, clustering: Clustering = PAM) -> Stability:
    clusters = clusterings(z, number, clustering)[number]
    return stability(z, clusters, clustering, resamples, np.random.default_rng(seed))


def three_blobs(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.zeros((3, 10))
    centres[1, 0] = centres[2, 1] = 8
    return rng.normal(size=(90, 10)) + centres[np.repeat([0, 1, 2], 30)]


def one_blob(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(90, 10))


def test_all_criteria_find_three_planted_clusters() -> None:
    found = judged(three_blobs())
    assert found.best == {"silhouette": 3, "calinski_harabasz": 3, "davies_bouldin": 3, "gap": 3}
    assert found.agree
    assert found.words == "All criteria choose 3 clusters: silhouette, Calinski-Harabasz, Davies-Bouldin and gap."


def test_planted_clusters_come_back_in_resamples() -> None:
    found = resampled(three_blobs())
    assert (found.table["jaccard"] > 0.9).all()
    assert (found.table["dissolved"] == 0).all()
    assert (found.table["consensus"] > 0.98).all()
    assert found.ambiguous < 0.02
    assert "cluster 1 is stable (1.00), cluster 2 is stable (1.00) and cluster 3 is stable (1.00)" in found.words


def test_in_noise_the_gap_mostly_says_that_there_are_no_clusters() -> None:
    found = [judged(one_blob(seed), seed, references=10, largest=4) for seed in range(10)]
    assert sum(each.best["gap"] == 1 for each in found) >= 9
    alone = [each for each in found if each.best["gap"] == 1]
    assert not any(each.agree for each in alone)
    assert all(each.words.endswith("gap chooses 1; only the gap can say that there are none.") for each in alone)


def test_clusters_of_noise_do_not_come_back() -> None:
    found = resampled(one_blob())
    assert (found.table["jaccard"] < 0.6).all()
    assert (found.table["dissolved"] > 0.2).all()
    assert found.ambiguous > 0.5
    assert found.words.count("is not to be trusted") == 3


@pytest.mark.parametrize(
    ("values", "silhouette", "calinski_harabasz", "gap"),
    [  # R: silinfo of cluster 2.1.4 on squared distances, calinhara of fpc 2.2-10, clusGap (B = 200, d.power = 2, scaledPCA)
        (load_iris().data, 0.647255, 241.417781, [0.3727, 0.8599, 0.9386, 0.8069, 0.8547, 0.8271]),
        (load_wine().data, 0.423685, 66.751966, [0.9367, 1.0961, 1.2341, 1.2104, 1.2177, 1.2280]),
    ],
)
def test_the_criteria_are_those_of_r(values: np.ndarray, silhouette: float, calinski_harabasz: float, gap: list[float]) -> None:
    found = judged(standard(values), references=100)
    assert found.table.loc[3, "silhouette"] == pytest.approx(silhouette, abs=1e-6)
    assert found.table.loc[3, "calinski_harabasz"] == pytest.approx(calinski_harabasz, abs=1e-6)
    np.testing.assert_allclose(found.table["gap"], gap, atol=0.02)  # four standard errors of the mean of either's references
    assert found.best["gap"] == 3  # maxSE(..., "Tibs2001SEmax")


def test_iris_on_which_the_criteria_disagree_is_said_to_be_so() -> None:
    found = judged(standard(load_iris().data))
    assert not found.agree
    assert found.words == (
        "The criteria disagree on the number of clusters: silhouette chooses 2, Calinski-Harabasz chooses 2, "
        "Davies-Bouldin chooses 2 and gap chooses 3."
    )


def test_silhouettes_are_of_the_squared_distances() -> None:
    z = standard(load_iris().data)
    squared, plain = judged(z, references=1).table.loc[3, "silhouette"], silhouette_score(z, clusterings(z)[3].labels)
    assert squared > plain + 0.1


@pytest.mark.parametrize(
    ("values", "jaccard"),
    [  # R fpc 2.2-10: clusterboot(d, B = 500, distances = TRUE, bootmethod = "boot") by cluster::pam, clusters by their medoid
        (load_iris().data, [0.989, 0.860, 0.878]),
        (load_wine().data, [0.872, 0.812, 0.928]),
    ],
)
def test_the_bootstrap_is_that_of_r(values: np.ndarray, jaccard: list[float]) -> None:
    found = resampled(standard(values), resamples=300)
    np.testing.assert_allclose(found.table["jaccard"], jaccard, atol=0.025)  # about four standard errors


def test_for_one_cluster_only_the_gap_is_defined() -> None:
    table = judged(one_blob(), largest=3).table
    assert list(table.index) == [1, 2, 3]
    assert table.loc[1, ["silhouette", "calinski_harabasz", "davies_bouldin"]].isna().all()
    assert table.drop(index=1).notna().all(axis=None)
    assert table.loc[1, ["loss", "gap", "gap_error"]].notna().all()
    assert table["loss"].is_monotonic_decreasing


def test_where_every_patient_is_a_cluster_nothing_but_the_loss_is_defined() -> None:
    found = judged(np.random.default_rng(0).normal(size=(4, 2)), largest=4)
    assert found.table.loc[4, "loss"] == 0
    assert found.table.loc[4].drop("loss").isna().all()
    assert set(found.best) == {"silhouette", "calinski_harabasz", "davies_bouldin", "gap"}


def test_patients_who_are_all_the_same_have_no_criterion() -> None:
    found = judged(np.ones((5, 2)), largest=1)
    assert found.best == {}
    assert found.agree
    assert found.words == "No criterion is defined for these numbers of clusters."


def test_more_features_than_patients_are_judged() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(45, 300)) + 2 * rng.normal(size=(3, 300))[np.repeat([0, 1, 2], 15)]
    assert judged(z).best["gap"] == 3


@pytest.mark.parametrize(
    ("gap", "error", "best"),
    [
        ([0.1, 0.5, 0.55, 0.2], 0.1, 2),  # the third is not more than its error above the second
        ([0.1, 0.5, 0.65, 0.2], 0.1, 3),
        ([0.1, 0.5, 0.9, 1.3], 0.1, 4),  # rises to the end: the most that was tried
        ([0.4, 0.1, 0.9, 0.2], 0.1, 1),  # the first, though a later one is higher
    ],
)
def test_the_gap_chooses_by_one_standard_error(gap: list[float], error: float, best: int) -> None:
    undefined = dict.fromkeys(("silhouette", "calinski_harabasz", "davies_bouldin"), np.nan)
    found = Criteria(pd.DataFrame({"gap": gap, "gap_error": error, **undefined}, index=[1, 2, 3, 4]))
    assert found.best == {"gap": best}


@pytest.mark.parametrize("clustering", [PAM, FEW])
def test_one_seed_gives_one_result(clustering: Clustering) -> None:
    z = one_blob()
    first, second = (judged(z, 7, 3, 3, clustering).table for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    one, two = (resampled(z, 3, 7, 10, clustering) for _ in range(2))
    pd.testing.assert_frame_equal(one.table, two.table)
    np.testing.assert_array_equal(one.consensus, two.consensus)


def test_consensus_is_a_share_of_the_subsamples_that_hold_both() -> None:
    found = resampled(one_blob(), resamples=30).consensus
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 1)
    assert np.nanmin(found) == 0
    assert resampled(one_blob(), number=1, resamples=30).table.to_numpy().tolist() == [[1, 0, 1]]


def test_pairs_that_no_subsample_holds_are_gaps() -> None:
    found = resampled(one_blob(), resamples=1)
    assert np.isnan(found.consensus).any()
    assert 0 <= found.ambiguous <= 1


def test_a_cluster_of_one_patient_has_no_consensus_and_dissolves_where_it_is_not_drawn() -> None:
    z = np.concatenate([one_blob(), np.full((1, 10), 50.0)])
    found = resampled(z, number=2, resamples=200)
    alone = int(np.bincount(clusterings(z, 2)[2].labels).argmin())
    assert np.isnan(found.table.loc[alone, "consensus"])
    # Not drawn with the probability (1 - 1/91)^91 = 0.366.
    assert found.table.loc[alone, "dissolved"] == pytest.approx(0.366, abs=0.12)


@pytest.mark.parametrize("patients", [2, 3, 5])
def test_resamples_of_a_few_patients_may_have_fewer_than_clusters(patients: int) -> None:
    z = np.random.default_rng(0).normal(size=(patients, 2))
    found = resampled(z, number=patients, resamples=40)
    assert found.table[["jaccard", "dissolved"]].notna().all(axis=None)
    assert (found.table["jaccard"] < 1).all()


def test_patients_with_the_same_features_are_resampled() -> None:
    z = np.repeat(np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]]), [2, 3, 4], axis=0)
    found = resampled(z, resamples=60)
    assert found.table["consensus"].tolist() == [1, 1, 1]


def test_whoever_watches_is_told_of_both_stages() -> None:
    told: list[str] = []

    class Listener(Silence):
        def stage(self, words: str) -> None:
            told.append(words)

    z = three_blobs()
    stability(z, clusterings(z)[3], PAM, 5, np.random.default_rng(0), Listener())
    assert told == [
        "5 bootstrap resamples of the patients, in 3 clusters each",
        "5 subsamples of 80% of the patients, in 3 clusters each",
    ]
