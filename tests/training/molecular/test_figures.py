"""Figures of molecular correlates show what was called, by group, and no patient's name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from training.molecular.figures import enrichment_plot, enrichment_summary, oncoplot, sam_plot, scores_by_group, volcano
from training.survival.figures import COLOURS


def written(figure: Figure) -> str:
    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def genes(count: int = 400, called: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    difference = np.r_[rng.choice([-1, 1], called) * rng.uniform(1, 2, called), rng.normal(0, 0.2, count - called)]
    p_value = np.r_[rng.uniform(0, 1e-6, called), rng.uniform(0.01, 1, count - called)]
    table = pd.DataFrame({"difference": difference, "p_value": p_value, "called": np.arange(count) < called})
    return table.set_index(pd.Index([f"GENE{number}" for number in range(count)], name="gene"))


def patients(count: int = 12) -> pd.Series:
    return pd.Series([f"cluster {number % 3 + 1}" for number in range(count)], index=[f"PATIENT-{i:03d}" for i in range(count)])


def test_a_volcano_names_called_genes_and_counts_both_sides() -> None:
    table = genes()
    figure = volcano(table, fold_change=1.5, title="cluster 3 against the others")
    words, up = written(figure), int((table["difference"] > 0)[table["called"]].sum())
    assert f"higher ({up})" in words
    assert f"lower ({12 - up})" in words
    assert "not called (388)" in words
    named = {text.get_text() for text in figure.axes[0].texts}
    assert len(named) >= 10
    assert named <= set(table.index[:12])


def test_names_in_a_volcano_cover_neither_each_other_nor_a_called_point() -> None:
    figure = volcano(genes(called=60), named=60)
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) >= 20
    assert not any(box.count_overlaps(boxes[:number]) for number, box in enumerate(boxes))
    points = figure.axes[0].transData.transform(np.vstack([one.get_offsets() for one in figure.axes[0].collections[1:]]))
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_one_gene_far_off_does_not_squeeze_a_volcano() -> None:
    table = genes()
    table.iloc[-1, 0], table.iloc[-2, 0] = 224.0, -50.0
    figure = volcano(table, units="the table's units")
    axes = figure.axes[0]
    left, right = axes.get_xlim()
    assert left == -right
    assert table["difference"][table["called"]].abs().max() < right < 3
    edges = {float(x) for one in axes.collections for x, _ in np.asarray(one.get_offsets()) if abs(x) >= right}
    assert edges == {left, right}
    assert "beyond (2)" in written(figure)
    assert axes.get_xlabel() == "difference of means (the table's units)"
    called_far = table.assign(called=table["difference"] > 100)
    assert volcano(called_far).axes[0].get_xlim()[1] > 224


def test_a_volcano_of_nothing_called_names_nothing() -> None:
    figure = volcano(genes().assign(called=False))
    assert not figure.axes[0].texts
    assert "not called (400)" in written(figure)


def test_p_values_of_zero_and_gaps_have_no_infinite_height() -> None:
    table = genes().rename(columns={"p_value": "q_value"})
    table.iloc[0, 1], table.iloc[1, 1] = 0.0, np.nan
    figure = volcano(table)
    heights = np.concatenate([np.asarray(one.get_offsets())[:, 1] for one in figure.axes[0].collections])
    assert len(heights) == 399
    assert np.isfinite(heights).all()
    assert figure.axes[0].get_ylabel() == "-log10 q"
    volcano(table.assign(q_value=0.0)).canvas.draw()
    volcano(table.iloc[:0]).canvas.draw()


def test_sam_draws_the_band_where_there_is_one() -> None:
    observed = np.linspace(-3, 5, 50)
    figure = sam_plot(np.linspace(-3, 3, 50), observed, 0.8, observed > 4, title="cluster 3")
    assert {"delta 0.8", "higher (7)", "lower (0)", "not called (43)"} <= set(written(figure).split("\n"))
    assert len(figure.axes[0].lines) == 3
    without = sam_plot(observed, observed, np.nan, observed > 9)
    assert len(without.axes[0].lines) == 1
    assert "as expected (no delta calls a gene)" in written(without)
    assert "as expected (delta 0)" in written(sam_plot(observed, observed, 0.0, observed > 9))


def test_an_enrichment_plot_has_three_panels_with_every_gene_of_the_set() -> None:
    running = np.r_[np.linspace(0, 0.7, 10), np.linspace(0.7, 0, 30)]
    figure = enrichment_plot(
        running, np.array([1, 4, 8]), 0.7, 2.1, 0.003, "HYPOXIA", metric=np.linspace(2, -2, 40), group="cluster 3"
    )
    assert len(figure.axes) == 3
    assert len(figure.axes[1].collections[0].get_segments()) == 3
    assert {"HYPOXIA", "NES 2.10, q = 0.003, 3 genes", "ES 0.70", "higher in cluster 3"} <= set(written(figure).split("\n"))
    assert len(enrichment_plot(-running, np.array([38]), -0.7, -2.1, 0.003, "HYPOXIA").axes) == 2


def test_enriched_sets_are_bars_by_their_score_and_pale_where_they_are_not_firm() -> None:
    table = pd.DataFrame(
        {"nes": [2.0, -1.0, np.nan, 0.5], "q_value": [0.01, 0.2, 1, 0.9], "size": [20, 30, 40, 50]}, index=list("ABCD")
    )
    figure = enrichment_summary(table, most=3)
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [-1.0, 0.5, 2.0]
    assert [bar.get_alpha() for bar in bars] == [0.3, 0.3, 1.0]
    assert "A (20)" in written(figure)
    assert "no gene set was tested" in written(enrichment_summary(table.iloc[2:3]))


@pytest.fixture
def mutations() -> pd.DataFrame:
    index = patients().index
    classes = pd.DataFrame("", index=index, columns=["RARE", "COMMON", "NEVER"])
    classes.iloc[:6, 1], classes.iloc[3, 0] = "Missense_Mutation", "Nonsense_Mutation"
    return classes


def test_an_oncoplot_has_genes_by_frequency_and_patients_by_group(mutations) -> None:
    figure = oncoplot(mutations, patients())
    strip, cells, shares = figure.axes
    np.testing.assert_allclose(
        np.asarray(strip.images[0].get_array())[0], np.repeat([to_rgba(colour) for colour in COLOURS[:3]], 4, axis=0)
    )
    assert [label.get_text() for label in cells.get_yticklabels()] == ["COMMON  50%", "RARE  8%"]
    painted = np.asarray(cells.images[0].get_array())
    mutated = np.abs(painted - to_rgba("#efefef")).sum(axis=2) > 0.01
    assert mutated[0].tolist() == [True, True, False, False] * 3
    assert [bar.get_width() for bar in shares.patches] == [50, 25, 50, 0, 50, 0]
    words = written(figure)
    assert "PATIENT" not in words
    assert {"Missense Mutation", "Nonsense Mutation", "cluster 3 (n=4)"} <= set(words.split("\n"))


def test_an_oncoplot_of_whether_genes_are_mutated_needs_no_classes(mutations) -> None:
    figure = oncoplot(mutations != "", patients().drop("PATIENT-000").iloc[::-1])
    assert "11 patients" in written(figure)
    assert "mutated" in written(figure)
    assert "no gene is mutated" in written(oncoplot(mutations[["NEVER"]], patients()))


def test_groups_are_in_the_order_of_their_categories(mutations) -> None:
    groups = patients().astype(pd.CategoricalDtype(["cluster 3", "none", "cluster 1", "cluster 2"]))
    legend = [line for line in written(oncoplot(mutations, groups)).split("\n") if line.startswith("cluster")]
    assert legend == ["cluster 3 (n=4)", "cluster 1 (n=4)", "cluster 2 (n=4)"]


def test_rare_classes_of_variants_share_a_colour() -> None:
    classes = pd.DataFrame({"GENE": [f"class {number}" for number in range(12)]}, index=patients().index)
    assert "other" in written(oncoplot(classes, patients())).split("\n")


def test_scores_have_a_panel_each_those_that_differ_first() -> None:
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.normal(size=(12, 5)), columns=list("abcde"), index=patients().index)
    scores.iloc[:3, 1] = np.nan
    figure = scores_by_group(scores, patients(), {"b": 0.001, "d": 0.2}, ylabel="score")
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["b\nq = 0.001", "d\nq = 0.2", "a", "c", "e"]
    assert "cluster 1\n(n=3)" in written(figure)
    assert "PATIENT" not in written(figure)


@pytest.mark.parametrize("values", [[0, 3, 1], [np.nan, np.nan, np.nan], [2, 2, 2]])
def test_few_and_missing_scores_are_drawn_without_a_warning(values) -> None:
    scores = pd.DataFrame({"HIF1A": values}, index=["a", "b", "c"])
    scores_by_group(scores, pd.Series(["high", "low", "low"], index=scores.index)).canvas.draw()
    assert "no score to draw" in written(scores_by_group(scores[[]], ["high", "low", "low"]))
