"""Figures of profiles show the clusters in their order, and no patient's name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from training.profile.figures import (
    consensus_figure,
    criteria_figure,
    heat_map,
    ranked_features,
    stability_figure,
    volume_figure,
)
from training.survival.figures import COLOURS

FAMILIES = ("firstorder", "glcm", "shape")


def profiles(n_patients: int = 24, n_features: int = 60, clusters: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n_patients) % clusters
    names = [f"t2w_original_{FAMILIES[number % 3]}_F{number}" for number in range(n_features)]
    patients = [f"PATIENT-{number:03d}" for number in range(n_patients)]
    values = rng.normal(size=(n_patients, n_features)) + 2 * rng.normal(size=(clusters, n_features))[labels]
    return pd.DataFrame(values, index=patients, columns=names), labels


def ranked(z: pd.DataFrame) -> pd.DataFrame:
    parts = {"sequence": [name.split("_")[0] for name in z], "family": [name.split("_")[2] for name in z]}
    return pd.DataFrame({"distance": np.linspace(3, 0.5, z.shape[1]), **parts}, index=z.columns)


def written(figure: Figure) -> str:
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def strip_colours(axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())[0]


@pytest.fixture(scope="module")
def full() -> Figure:
    z, labels = profiles()
    stage = pd.Series([*["II", "I", None, "IV"] * 6], index=z.index)
    volume = pd.Series(np.linspace(90, 1, 24), index=z.index)
    return heat_map(z, labels, stage=stage, volume=volume, ranking=ranked(z).sample(frac=1, random_state=0))


def test_bars_above_the_heat_map_are_in_the_order_of_the_clusters(full) -> None:
    expected = np.repeat([to_rgba(colour) for colour in COLOURS[:3]], 8, axis=0)
    np.testing.assert_allclose(strip_colours(full.axes[0]), expected)


def test_the_heat_map_has_bars_for_cluster_stage_and_volume_and_for_what_the_features_are(full) -> None:
    labels = [axes.get_ylabel() or axes.get_xlabel() for axes in full.axes]
    assert labels[:3] == ["cluster", "stage", "volume"]
    assert labels[4:7] == ["sequence", "family", "distance\nof means"]
    words = written(full)
    assert all(word in words for word in ("cluster 3 (n=8)", "IV", "not known", "t2w", "glcm", "60 features", "24 patients"))


def test_what_is_known_of_no_feature_has_no_strip_and_no_legend() -> None:
    z, labels = profiles()
    unknown = ranked(z).assign(sequence="other")
    words = written(heat_map(z, labels, ranking=unknown)).split("\n") + written(ranked_features(unknown, 1.85, 1.5)).split("\n")
    assert words.count("family") == 4  # strip and legend of both
    assert "sequence" not in words
    nothing = unknown.assign(family="other")
    assert "other" not in written(heat_map(z, labels, ranking=nothing)).split("\n")
    assert not ranked_features(nothing, 1.85, 1.5).legends


def test_volume_is_drawn_with_its_unit() -> None:
    z, labels = profiles()
    figure = heat_map(z, labels, volume=pd.Series(np.linspace(90, 1, 24), index=z.index), volume_unit="cm3")
    assert figure.axes[1].get_ylabel() == "volume\n(cm3)"


def test_stages_that_are_numbers_are_in_their_order() -> None:
    z, labels = profiles(6, 4, 2)
    figure = heat_map(z, labels, stage=pd.Series([10, 2, np.nan, 1, 2, 2], index=z.index))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-5:] == ["stage", "1", "2", "10", "not known"]


def test_no_patient_is_named_in_a_heat_map(full) -> None:
    assert "PATIENT" not in written(full)


def test_cells_are_ordered_by_cluster_volume_and_rank() -> None:
    z, labels = profiles(6, 4, 2)
    volume = pd.Series([6.0, 5, 4, 3, np.nan, 1], index=z.index)
    figure = heat_map(z, labels, volume=volume, ranking=ranked(z).iloc[::-1])
    shown = np.asarray(figure.axes[2].images[0].get_array())
    np.testing.assert_array_equal(shown, z.iloc[[2, 0, 4, 5, 3, 1]].to_numpy().T)


def test_without_ranking_like_features_lie_side_by_side() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 30))
    noise = 0.01 * rng.normal(size=(30, 4))
    z = pd.DataFrame(np.column_stack([one, other, one, other]) + noise, columns=["a1", "b1", "a2", "b2"])
    figure = heat_map(z, np.zeros(30, dtype=int))
    names = [label.get_text()[0] for label in figure.axes[1].get_yticklabels()]
    assert names in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


@pytest.mark.parametrize(("patients", "features", "clusters"), [(2, 1, 1), (2, 3, 2), (1, 2, 1), (20, 3, 7)])
def test_the_smallest_profiles_are_drawn_without_a_warning(patients, features, clusters) -> None:
    z, labels = profiles(patients, features, clusters)
    unknown = pd.Series(np.nan, index=z.index)
    figure = heat_map(z, labels, stage=unknown.astype(object), volume=unknown, ranking=ranked(z))
    assert "volume" not in written(figure)  # none is known
    for drawn in (
        heat_map(z, labels),
        ranked_features(ranked(z), 1.85, 1.5),
        consensus_figure(np.full((patients, patients), np.nan), labels),
        stability_figure(np.full(clusters, np.nan)),
        volume_figure(unknown.to_numpy(), labels),
        volume_figure(np.arange(patients) - 0.5, labels),
    ):
        drawn.canvas.draw()


def test_two_thousand_features_are_drawn() -> None:
    heat_map(*profiles(60, 2000)).canvas.draw()


def test_ranked_features_fall_and_both_intervals_are_counted() -> None:
    z, _ = profiles()
    table = ranked(z)
    figure = ranked_features(table.iloc[::-1], 1.85, 1.5)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == sorted(table["distance"], reverse=True)
    words, distance = written(figure), table["distance"]
    assert f"strong: > 1.85, {(distance > 1.85).sum()} features" in words
    assert f"moderate: > 1.5 to 1.85, {((distance > 1.5) & (distance <= 1.85)).sum()} features" in words
    assert [axes.get_ylabel() for axes in figure.axes[1:]] == ["sequence", "family"]


def test_each_criterion_marks_its_choice_beside_that_of_the_study() -> None:
    table = pd.DataFrame(
        {
            "silhouette": [np.nan, 0.4, 0.6],
            "calinski_harabasz": [np.nan, 9.0, 8.0],
            "davies_bouldin": np.nan,
            "gap": [0.1, 0.4, 0.8],
            "gap_error": 0.05,
        },
        index=[1, 2, 3],
    )
    figure = criteria_figure(table, {"silhouette": 3, "calinski_harabasz": 2, "gap": 3}, 3)
    marked = [[line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "*"] for axes in figure.axes]
    assert marked == [[[[3, 0.6]]], [[[2, 9.0]]], [], [[[3, 0.8]]]]
    words = written(figure)
    assert words.count("the study's: 3") == 4
    assert "not defined" in words


def test_consensus_is_in_blocks_by_cluster() -> None:
    labels = np.array([1, 0, 1, 0])
    consensus = np.where(labels[:, None] == labels, 0.9, 0.1)
    shown = np.asarray(consensus_figure(consensus, labels).axes[1].images[0].get_array())
    np.testing.assert_array_equal(shown, np.kron(np.eye(2), np.full((2, 2), 0.8)) + 0.1)


def test_stability_has_a_bar_per_cluster_with_its_value() -> None:
    figure = stability_figure(np.array([0.93, 0.71, np.nan]))
    assert "cluster 2\n0.71" in written(figure)
    assert "cluster 3\nnot defined" in written(figure)
    assert "stable from 0.75" in written(figure)


def test_volumes_that_are_not_known_are_counted_out() -> None:
    figure = volume_figure(np.array([1.0, 10, np.nan, 100]), np.array([0, 0, 1, 1]), unit="cm3")
    assert "cluster 1\n(n=2)" in written(figure)
    assert "cluster 2\n(n=1)" in written(figure)
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylabel() == "volume (cm3)"
