import kmedoids
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris, load_wine
from sklearn.metrics import pairwise_distances

from features.errors import InputError
from training.profile.clustering import ROWS, Clustering, Clusters, squared_distances

PAM, BEST = Clustering(), Clustering(method="best")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)


@st.composite
def profiles(draw: st.DrawFn) -> np.ndarray:
    """Few patients with few values, so that many are alike and many distances tie; or all of them apart."""
    rng, n = np.random.default_rng(draw(st.integers(0, 2**31))), draw(st.integers(2, 25))
    return rng.integers(0, 3, (n, 2)).astype(float) if draw(st.booleans()) else rng.normal(size=(n, 3))


def test_standard_scores_of_iris_are_clustered_as_the_world_clusters_them(rng: np.random.Generator) -> None:
    found = PAM.cluster(squared_distances(standard(load_iris().data)), 3, rng)
    # shared/science.md 1A, run in R cluster::pam and kmedoids; brute force over all triples of medoids finds nothing lower.
    assert found.loss == pytest.approx(146.6847423, abs=5e-8)
    np.testing.assert_array_equal(found.medoids + 1, [8, 95, 140])
    np.testing.assert_array_equal(np.bincount(found.labels), [50, 51, 49])


def test_raw_iris_has_a_lower_loss_than_pam_finds(rng: np.random.Generator) -> None:
    distances = squared_distances(load_iris().data)
    assert PAM.cluster(distances, 3, rng).loss == pytest.approx(84.44, abs=1e-10)  # R cluster 2.1.4 too
    best = BEST.cluster(distances, 3, rng)
    assert best.loss == pytest.approx(83.91, abs=1e-10)  # shared/science.md 1A: the optimum
    np.testing.assert_array_equal(best.medoids + 1, [8, 79, 121])


@pytest.mark.parametrize(
    ("clusters", "loss", "medoids"),
    [  # R cluster 2.1.4: pam(as.dist(as.matrix(dist(scale(wine)))^2), k, diss = TRUE)
        (2, 1941.34126357, [36, 164]),
        (3, 1555.81642596, [36, 107, 175]),
        (6, 1258.24811309, [35, 57, 89, 98, 121, 175]),
    ],
)
def test_wines_are_clustered_as_r_clusters_them(clusters: int, loss: float, medoids: list[int], rng: np.random.Generator) -> None:
    found = PAM.cluster(squared_distances(standard(load_wine().data)), clusters, rng)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    np.testing.assert_array_equal(found.medoids + 1, medoids)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clusters", [2, 3, 5])
def test_the_quicker_search_makes_the_swaps_of_plain_pam(seed: int, clusters: int) -> None:
    distances = squared_distances(np.random.default_rng(seed).normal(size=(120, 6)))
    plain, ours = kmedoids.pam(distances, clusters), PAM.cluster(distances, clusters, np.random.default_rng(0))
    np.testing.assert_array_equal(ours.medoids, np.sort(plain.medoids))
    assert ours.loss == pytest.approx(plain.loss, rel=1e-12)


def test_one_cluster_is_around_the_patient_that_is_nearest_to_all(rng: np.random.Generator) -> None:
    distances = squared_distances(rng.normal(size=(30, 4)))
    for method in (PAM, BEST):
        found = method.cluster(distances, 1, rng)
        assert found.medoids[0] == distances.sum(axis=0).argmin()
        assert not found.labels.any()


@given(profiles())
def test_distances_are_symmetric_and_zero_exactly_between_the_same_features(z: np.ndarray) -> None:
    distances = squared_distances(z)
    np.testing.assert_array_equal(distances, distances.T)
    same = (z[:, None] == z).all(axis=2)
    assert (distances >= 0).all()
    np.testing.assert_array_equal(distances[same], 0)
    np.testing.assert_allclose(distances, np.square(z[:, None] - z).sum(axis=2), atol=1e-12)


@given(profiles(), st.integers(1, 6), st.sampled_from([PAM, Clustering(method="best", starts=3)]))
def test_every_patient_is_with_the_nearest_medoid_and_every_cluster_has_its_own(
    z: np.ndarray, clusters: int, method: Clustering
) -> None:
    distances, different = squared_distances(z), len(np.unique(z, axis=0))
    if clusters > different:
        with pytest.raises(InputError, match=f"^{clusters} clusters cannot be made of {len(z)} patients"):
            method.cluster(distances, clusters, np.random.default_rng(0))
        return
    found = method.cluster(distances, clusters, np.random.default_rng(0))
    near = distances[:, found.medoids]
    np.testing.assert_array_equal(found.labels, near.argmin(axis=1))
    np.testing.assert_array_equal(found.labels[found.medoids], np.arange(clusters))
    np.testing.assert_array_equal(found.medoids, np.sort(found.medoids))
    assert found.loss == pytest.approx(near.min(axis=1).sum())


@given(profiles(), st.integers(2, 4), st.integers(0, 2**31))
def test_the_best_of_many_starts_is_never_worse_than_pam_and_repeats_itself(z: np.ndarray, clusters: int, seed: int) -> None:
    distances, few = squared_distances(z), Clustering(method="best", starts=4)
    if len(np.unique(z, axis=0)) < clusters:
        return
    best = few.cluster(distances, clusters, np.random.default_rng(seed))
    assert best.loss <= PAM.cluster(distances, clusters, np.random.default_rng(0)).loss
    np.testing.assert_array_equal(best.medoids, few.cluster(distances, clusters, np.random.default_rng(seed)).medoids)


def test_pam_draws_nothing(rng: np.random.Generator) -> None:
    distances, before = squared_distances(rng.normal(size=(20, 3))), rng.bit_generator.state
    PAM.cluster(distances, 3, rng)
    assert rng.bit_generator.state == before


def test_far_from_zero_distances_keep_their_digits(rng: np.random.Generator) -> None:
    z = rng.normal(size=(40, 3))
    np.testing.assert_allclose(squared_distances(z + 1e6), squared_distances(z), rtol=1e-6, atol=1e-8)


def test_more_patients_than_are_worked_on_at_once_have_the_same_distances(rng: np.random.Generator) -> None:
    z = rng.normal(size=(2 * ROWS + 3, 5))
    np.testing.assert_allclose(squared_distances(z), pairwise_distances(z, metric="sqeuclidean"), atol=1e-11)


def test_planted_clusters_are_found(rng: np.random.Generator) -> None:
    planted = np.repeat([0, 1, 2], [15, 30, 45])
    z = rng.normal(size=(90, 20)) + 5 * rng.normal(size=(3, 20))[planted]
    found = PAM.cluster(squared_distances(z), 3, rng)
    np.testing.assert_array_equal(found.labels, planted)  # numbered by the row of the medoid, as planted here


def test_the_same_clusters_under_other_numbers(rng: np.random.Generator) -> None:
    found = PAM.cluster(squared_distances(rng.normal(size=(30, 3))), 3, rng)
    other = found.ordered([2, 0, 1])
    for new, old in enumerate([2, 0, 1]):
        assert other.medoids[new] == found.medoids[old]
        np.testing.assert_array_equal(other.labels == new, found.labels == old)
    np.testing.assert_array_equal(other.ordered([1, 2, 0]).labels, found.labels)


def test_of_equally_near_medoids_the_first_has_the_patient(rng: np.random.Generator) -> None:
    line = np.array([[0.0], [0.0], [0.0], [1.0], [2.0], [2.0], [2.0]])
    found = PAM.cluster(squared_distances(line), 2, rng)
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("z", "clusters", "sentence"),
    [
        ([[1.0]], 1, r"^Clusters need two patients or more \(got 1\)\.$"),
        ([[1.0], [2.0]], 3, r"^3 clusters cannot be made of 2 patients; ask for 1 to 2\.$"),
        ([[1.0], [2.0]], 0, r"^0 clusters cannot be made of 2 patients; ask for 1 to 2\.$"),
        ([[1.0], [1.0]], 2, r"^2 clusters cannot be made of 2 patients of whom no 2 differ; ask for fewer clusters,"),
        ([[1.0], [1.0], [2.0]], 3, r"^3 clusters cannot be made of 3 patients of whom no 3 differ; ask for fewer clusters,"),
    ],
)
def test_what_cannot_be_clustered_is_said_in_one_sentence(z: list[list[float]], clusters: int, sentence: str) -> None:
    for method in (PAM, BEST):
        with pytest.raises(InputError, match=sentence):
            method.cluster(squared_distances(np.array(z)), clusters, np.random.default_rng(0))


def test_gaps_are_refused() -> None:
    with pytest.raises(InputError, match=r"^2 feature values are missing or infinite; impute them before clustering\.$"):
        squared_distances(np.array([[np.nan, 1.0], [2.0, np.inf]]))


def test_as_many_clusters_as_patients_leave_no_loss(rng: np.random.Generator) -> None:
    found = PAM.cluster(squared_distances(rng.normal(size=(6, 2))), 6, rng)
    assert found.loss == 0
    np.testing.assert_array_equal(found.labels, np.arange(6))


def test_clusters_are_not_changed_in_place() -> None:
    found = Clusters(np.array([0, 2]), np.array([0, 0, 1]), 1.0)
    found.ordered([1, 0])
    np.testing.assert_array_equal(found.labels, [0, 0, 1])
