"""Figures of molecular correlates: genes that differ, sets that are enriched, mutations and scores by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from training.group_figures import MUTED, as_groups, draw_by_group, draw_legend, draw_strip, group_colours, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Higher, lower and like in the group of interest.
HIGHER, LOWER, ALIKE = "#b2182b", "#2166ac", "#b8b8b8"
MOST_GENES, MOST_CLASSES, MOST_PANELS = 30, 8, 12
MOST_WITHIN = 0.99  # share of the genes that a volcano's axis reaches
# Where the name of a point is tried, in points from it: beside it first, then further off.
OFFSETS = [
    (across * far, up * far)
    for far in (1, 2, 3.2, 4.6)
    for across, up in ((6, 0), (-6, 0), (6, 6), (-6, 6), (6, -6), (-6, -6), (0, 8), (0, -8))
]


def volcano(table: pd.DataFrame, *, fold_change: float = 1.0, title: str = "", named: int = 24, units: str = "log2") -> Figure:
    """Genes by how much and how surely they differ, the most extreme of the called ones named.

    The axis reaches as far as the called genes and 99% of all; genes beyond are arrowheads at its edge.

    Parameters
    ----------
    table : DataFrame
        Index gene; difference (of the means), called, and p_value or else q_value. What is 0 is drawn at the smallest
        that is not.
    fold_change : float
        Its limits are drawn where it is above 1.
    title : str
    named : int
        Genes that are named at most; names that find no room are left out.
    units : str
        Of the differences.
    """
    from matplotlib.figure import Figure

    measure = "p_value" if "p_value" in table else "q_value"
    known = table.dropna(subset=["difference", measure])
    called = known["called"].to_numpy(dtype=bool)
    reach = _reach(known["difference"].to_numpy(dtype=float), called, fold_change)
    points = pd.DataFrame({"x": known["difference"], "y": _heights(known[measure])})
    figure = Figure(figsize=(6.6, 5.6), layout="constrained")
    axes = figure.subplots()
    within = (points["x"].abs() <= reach).to_numpy()
    for own, colour, words in _sides(points["x"].to_numpy(), called):
        shown, size = points[own & within], 7 if colour == ALIKE else 12
        axes.scatter(shown["x"], shown["y"], s=size, color=colour, linewidths=0, label=words)
    if fold_change > 1:
        for limit in (-np.log2(fold_change), np.log2(fold_change)):
            axes.axvline(limit, color="black", linestyle=":", linewidth=0.8)
    axes.set(xlim=(-reach, reach), xlabel=f"difference of means ({units})", ylabel=f"-log10 {measure.split('_')[0]}")
    _beyond(axes, points[~within], reach)
    axes.margins(y=0.1)
    axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", fontsize=8, ncols=4, frameon=False, markerscale=1.6, columnspacing=1.2)
    extreme = (points[called]["x"].abs() * points[called]["y"]).sort_values(ascending=False, kind="stable").index
    figure.draw_without_rendering()  # what is where is known only once the figure is laid out
    _name_points(axes, points[called].loc[extreme], named)
    return figure


def _reach(difference: np.ndarray, called: np.ndarray, fold_change: float) -> float:
    """Half the width of a volcano: one gene that is far off, and not called, does not squeeze the others."""
    most = [np.quantile(np.abs(difference), MOST_WITHIN)] if len(difference) else []
    return float(1.15 * max([0.1, np.log2(fold_change), *np.abs(difference[called]), *most]))


def _beyond(axes: Axes, points: pd.DataFrame, reach: float) -> None:
    for side, marker in ((points["x"] > 0, ">"), (points["x"] < 0, "<")):
        edge = np.sign(points["x"][side]) * reach
        axes.scatter(edge, points["y"][side], s=22, marker=marker, color=ALIKE, edgecolors="black", linewidths=0.4, clip_on=False)
    if len(points):
        axes.scatter([], [], s=22, marker=">", color=ALIKE, edgecolors="black", linewidths=0.4, label=f"beyond ({len(points)})")


def _heights(values: pd.Series) -> np.ndarray:
    least = values[values > 0].min() if (values > 0).any() else 1.0
    return -np.log10(values.clip(lower=least).to_numpy(dtype=float)) + 0.0  # no negative zero


def _sides(difference: np.ndarray, called: np.ndarray) -> list[tuple[np.ndarray, str, str]]:
    sides = (
        (~called, ALIKE, "not called"),
        (called & (difference < 0), LOWER, "lower"),
        (called & (difference >= 0), HIGHER, "higher"),
    )
    return [(own, colour, f"{words} ({int(own.sum())})") for own, colour, words in sides]


def _name_points(axes: Axes, points: pd.DataFrame, named: int) -> None:
    """Name the first points where their names cover no other and no point; a name without room is left out."""
    marks = axes.transData.transform(points[["x", "y"]].to_numpy(dtype=float)) if len(points) else np.empty((0, 2))
    taken: list[Bbox] = []
    for name, x, y in points.iloc[:named].itertuples():
        placed = _placed(axes, str(name), (x, y), taken, marks)
        if placed is not None:
            taken.append(placed)


def _placed(axes: Axes, name: str, at: tuple[float, float], taken: list[Bbox], marks: np.ndarray) -> Bbox | None:
    from matplotlib.text import Text

    for across, up in OFFSETS:
        words = _annotated(axes, name, at, across, up)
        words.get_window_extent()  # moves the words to their point; the extent itself would count the line to it
        box = Text.get_window_extent(words)
        inside = (
            axes.bbox.containsx(box.x0)
            and axes.bbox.containsx(box.x1)
            and axes.bbox.containsy(box.y0)
            and axes.bbox.containsy(box.y1)
        )
        if inside and not box.count_overlaps(taken) and not _covers(box, marks):
            return box
        words.remove()
    return None


def _annotated(axes: Axes, name: str, at: tuple[float, float], across: float, up: float) -> Annotation:
    far = abs(across) + abs(up) > 16
    words = axes.annotate(
        name,
        at,
        xytext=(across, up),
        textcoords="offset points",
        fontsize=7,
        ha="left" if across > 0 else "right" if across < 0 else "center",
        va="center",
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#595959", "shrinkA": 0, "shrinkB": 2} if far else None,
    )
    words.set_in_layout(False)
    return words


def _covers(box: Bbox, marks: np.ndarray) -> bool:
    box = box.padded(2)  # a point is more than its middle
    return bool(np.any((marks[:, 0] > box.x0) & (marks[:, 0] < box.x1) & (marks[:, 1] > box.y0) & (marks[:, 1] < box.y1)))


def sam_plot(expected: np.ndarray, observed: np.ndarray, delta: float, called: np.ndarray, *, title: str = "") -> Figure:
    """SAM's statistic against what permutations make one expect: genes beyond the band of width delta differ.

    Parameters
    ----------
    expected, observed : ndarray of shape (n_genes,)
        Of one gene each, in any order.
    delta : float
        Half the height of the band; there is none where this is 0, or missing since no gene is called at any.
    called : ndarray of shape (n_genes,), bool

    References
    ----------
    Tusher et al. 2001, doi:10.1073/pnas.091062498
    """
    from matplotlib.figure import Figure

    expected, observed, called = (np.asarray(values) for values in (expected, observed, called))
    figure = Figure(figsize=(5.4, 5.4), layout="constrained")
    axes = figure.subplots()
    for own, colour, words in _sides(observed, called.astype(bool)):
        axes.scatter(expected[own], observed[own], s=9, color=colour, linewidths=0, label=words)
    ends = np.array([np.min(expected), np.max(expected)])
    axes.plot(ends, ends, color="black", linewidth=0.8, label=_band(delta))
    if delta > 0:
        axes.plot(ends, ends + delta, color="black", linestyle="--", linewidth=0.8, label=f"delta {delta:.3g}")
        axes.plot(ends, ends - delta, color="black", linestyle="--", linewidth=0.8)
    axes.set(xlabel="expected d (mean of permutations)", ylabel="observed d")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper left", fontsize=8, markerscale=1.6)
    return figure


def _band(delta: float) -> str:
    if np.isnan(delta):
        return "as expected (no delta calls a gene)"
    return "as expected" if delta > 0 else "as expected (delta 0)"


def enrichment_plot(
    running: np.ndarray,
    hits: np.ndarray,
    es: float,
    nes: float,
    q_value: float,
    name: str,
    *,
    metric: np.ndarray | None = None,
    group: str = "",
) -> Figure:
    """The running sum of a gene set down the ranked genes, where its genes lie, and what they are ranked by.

    Parameters
    ----------
    running : ndarray of shape (n_genes,)
        From the gene that is highest in the group of interest to the lowest.
    hits : ndarray of int
        Positions of the set's genes, from 0.
    es, nes, q_value : float
        Enrichment score, normalised, and its false discovery rate.
    name : str
        Of the set.
    metric : ndarray of shape (n_genes,), optional
        What the genes are ranked by, falling; without it the third panel is left out.
    group : str
        The group of interest, in words: "cluster 3".

    References
    ----------
    Subramanian et al. 2005, doi:10.1073/pnas.0506580102
    """
    from matplotlib.figure import Figure

    heights = [5, 0.8] if metric is None else [5, 0.8, 2.2]
    figure = Figure(figsize=(6, 4.8), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _running_sum(panels[0], np.asarray(running), es)
    panels[0].set_title(f"{name}\nNES {nes:.2f}, q = {q_value:.2g}, {len(hits)} genes", fontsize=10)
    panels[1].vlines(hits, 0, 1, color="black", linewidth=0.7)
    panels[1].set(yticks=[], ylim=(0, 1), ylabel="set")
    if metric is not None:
        _ranked_by(panels[2], np.asarray(metric), group)
    panels[-1].set(xlim=(-0.5, len(running) - 0.5), xlabel=f"rank of {len(running)} genes")
    figure.align_ylabels(panels)
    return figure


def _running_sum(axes: Axes, running: np.ndarray, es: float) -> None:
    peak = int(np.argmax(running) if es >= 0 else np.argmin(running))
    axes.plot(running, color="#1b7837", linewidth=1.5)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.plot([peak, peak], [0, running[peak]], color=HIGHER, linestyle=":", linewidth=1.1)
    axes.set(ylabel="running sum")
    corner, across, up = ((0.98, 0.95), "right", "top") if es >= 0 else ((0.02, 0.05), "left", "bottom")
    axes.text(*corner, f"ES {es:.2f}", transform=axes.transAxes, fontsize=9, color=HIGHER, ha=across, va=up)
    axes.margins(y=0.12)


def _ranked_by(axes: Axes, metric: np.ndarray, group: str) -> None:
    axes.fill_between(np.arange(len(metric)), metric, color=ALIKE, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(ylabel="ranked by")
    within = f" in {group}" if group else ""
    axes.text(0.01, 0.06, f"higher{within}", transform=axes.transAxes, fontsize=8, color=HIGHER)
    axes.text(0.99, 0.9, f"lower{within}", transform=axes.transAxes, fontsize=8, color=LOWER, ha="right", va="top")


def enrichment_summary(table: pd.DataFrame, *, false_discovery: float = 0.05, most: int = 20, title: str = "") -> Figure:
    """Normalised enrichment scores of the sets that are furthest from 0; those above the false discovery rate are pale.

    Parameters
    ----------
    table : DataFrame
        Index set; nes, q_value, size.
    false_discovery : float
    most : int
        Sets that are drawn.
    """
    from matplotlib.figure import Figure

    known = table.dropna(subset=["nes"])
    top = known.loc[known["nes"].abs().sort_values(ascending=False, kind="stable").index[:most]].sort_values("nes")
    figure = Figure(figsize=(8, 1.5 + 0.26 * max(len(top), 3)), layout="constrained")
    axes = figure.subplots()
    if top.empty:
        return _nothing(figure, axes, "no gene set was tested")
    firm = (top["q_value"] <= false_discovery).to_numpy()
    bars = axes.barh(range(len(top)), top["nes"], color=np.where(top["nes"] >= 0, HIGHER, LOWER))
    for bar, certain in zip(bars, firm, strict=True):
        bar.set_alpha(1.0 if certain else 0.3)
    words = [f"{_short(str(name))} ({size:.0f})" for name, size in zip(top.index, top["size"], strict=True)]
    axes.set_yticks(range(len(top)), words, fontsize=8)
    for position, (nes, q_value) in enumerate(zip(top["nes"], top["q_value"], strict=True)):
        axes.annotate(
            f"q = {q_value:.2g}",
            (nes, position),
            xytext=(4 if nes >= 0 else -4, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            ha="left" if nes >= 0 else "right",
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.25)
    axes.set_xlabel(f"normalised enrichment score (in brackets: genes; pale: q > {false_discovery:g})", fontsize=8)
    axes.set_ylim(-0.6, len(top) - 0.4)
    axes.set_title(title, fontsize=10)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= 44 else f"{name[:43]}…"


def _nothing(figure: Figure, axes: Axes, words: str) -> Figure:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color="#595959")
    axes.set_axis_off()
    return figure


def oncoplot(matrix: pd.DataFrame, groups: Any, *, most: int = MOST_GENES, title: str = "") -> Figure:
    """Who is mutated in which gene: patients as columns by group, genes as rows by frequency, the share of each group beside.

    Parameters
    ----------
    matrix : DataFrame of shape (n_patients, n_genes)
        Whether the gene is mutated, or the class of its variant and "" for none.
    groups : Series, or array-like of shape (n_patients,)
        Words; a Series is matched by patient, and patients of no group are left out. In the order of its categories.
    most : int
        Genes that are drawn.

    Returns
    -------
    Figure
        Axes: groups, mutations, shares by group. Patients are not named.
    """
    from matplotlib.figure import Figure

    matrix, known = _grouped(_variants(matrix), groups)
    counted = (matrix != "").sum().sort_values(ascending=False, kind="stable")
    genes = counted[counted > 0].index[:most]
    figure = Figure(figsize=(10, 2.0 + 0.24 * max(len(genes), 4)), layout="constrained")
    if not len(genes):
        return _nothing(figure, figure.subplots(), "no gene is mutated")
    order = _waterfall(matrix[genes] != "", known)
    matrix, known = matrix[genes].iloc[order], known[order]
    grid = figure.add_gridspec(2, 2, height_ratios=[0.5, max(len(genes), 4)], width_ratios=[8, 2])
    strip, cells, shares = (figure.add_subplot(grid[at]) for at in ((0, 0), (1, 0), (1, 1)))
    colours = group_colours(known)
    counts = pd.Series(known).value_counts()
    draw_strip(strip, list(known), colours, "group")
    strip.set_title(title, fontsize=10)
    classes = _variant_cells(cells, matrix)
    for border in np.flatnonzero(np.diff(known.codes)):
        cells.axvline(border + 0.5, color="black", linewidth=1.2)
    _shares(shares, matrix != "", known, colours)
    draw_legend(figure, {"group": {f"{name} (n={counts[name]})": colour for name, colour in colours.items()}, "variant": classes})
    return figure


def _grouped(matrix: pd.DataFrame, groups: Any) -> tuple[pd.DataFrame, pd.Categorical[Any]]:
    found = groups.reindex(matrix.index) if isinstance(groups, pd.Series) else pd.Series(groups, index=matrix.index)
    there = found.notna().to_numpy()
    return matrix[there], as_groups(found[there])


def _variants(matrix: pd.DataFrame) -> pd.DataFrame:
    """Classes in words, whichever way the matrix was given."""
    if all(pd.api.types.is_bool_dtype(kind) for kind in matrix.dtypes):
        return pd.DataFrame(np.where(matrix, "mutated", ""), index=matrix.index, columns=matrix.columns)
    return matrix.where(matrix.notna(), "")


def _waterfall(mutated: pd.DataFrame, groups: pd.Categorical[Any]) -> np.ndarray:
    """Patients by group, then those with the most frequent gene first, and so on down the genes."""
    return np.lexsort([*(~mutated.to_numpy()).T[::-1], groups.codes])


def _variant_cells(axes: Axes, words: pd.DataFrame) -> dict[str, str]:
    """Draw a cell per patient and gene; answer the colours of the classes."""
    from matplotlib.colors import to_rgba_array

    frequent = [name for name in pd.Series(words.to_numpy().ravel()).value_counts().index if name]
    colours = palette(frequent[:MOST_CLASSES], MUTED) | dict.fromkeys(["other"] * (len(frequent) > MOST_CLASSES), "#595959")
    painted = {"": "#efefef"} | {name: colours.get(name, "#595959") for name in frequent}
    cells = to_rgba_array([painted[word] for word in words.to_numpy().T.ravel()]).reshape(*words.shape[::-1], 4)
    axes.imshow(cells, aspect="auto", interpolation="nearest")
    width = 0.6 if len(words) <= 200 else 0
    axes.vlines(np.arange(1, len(words)) - 0.5, -0.5, words.shape[1] - 0.5, color="white", linewidth=width)
    axes.hlines(np.arange(1, words.shape[1]) - 0.5, -0.5, len(words) - 0.5, color="white", linewidth=1.5)
    share = (words != "").mean()
    axes.set_yticks(range(words.shape[1]), [f"{gene}  {share[gene]:.0%}" for gene in words.columns], fontsize=8)
    axes.set(xticks=[], xlabel=f"{len(words)} patients", xlim=(-0.5, len(words) - 0.5), ylim=(words.shape[1] - 0.5, -0.5))
    axes.tick_params(length=0)
    return {name.replace("_", " "): colour for name, colour in colours.items()}


def _shares(axes: Axes, mutated: pd.DataFrame, groups: pd.Categorical[Any], colours: Mapping[str, str]) -> None:
    thick = 0.84 / len(colours)
    for number, (name, colour) in enumerate(colours.items()):
        own = mutated[groups == name].mean().to_numpy()
        axes.barh(np.arange(mutated.shape[1]) - 0.42 + (number + 0.5) * thick, 100 * own, height=thick, color=colour)
    axes.set(ylim=(mutated.shape[1] - 0.5, -0.5), yticks=[], xlabel="% of group", xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)


def scores_by_group(
    scores: pd.DataFrame, groups: Any, q_values: Mapping[str, float] | pd.Series | None = None, *, ylabel: str = ""
) -> Figure:
    """Every patient's scores by group, a panel per score.

    Parameters
    ----------
    scores : DataFrame of shape (n_patients, n_scores)
        Twelve are drawn at most: those with the smallest q values, or without them the first.
    groups : Series, or array-like of shape (n_patients,)
        Words; a Series is matched by patient, and patients of no group are left out. In the order of its categories.
    q_values : mapping of str to float, optional
        By score; printed above.
    """
    from matplotlib.figure import Figure

    scores, known = _grouped(scores, groups)
    said = pd.Series(dict({} if q_values is None else q_values), dtype=float).reindex(scores.columns)
    shown = said.sort_values(kind="stable").index[:MOST_PANELS]
    if not len(shown):
        figure = Figure(figsize=(3.4, 3.0), layout="constrained")
        return _nothing(figure, figure.subplots(), "no score to draw")
    across = min(len(shown), 4)
    wide = max(2.4, 0.6 + 0.75 * len(known.categories))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(max(wide * across, 3.4), 3.0 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axes, name in zip(panels.flat, shown, strict=False):
        q_words = "" if np.isnan(said[name]) else f"\nq = {said[name]:.2g}"
        draw_by_group(
            axes, scores[name], known, title=f"{_short(str(name))}{q_words}", ylabel=ylabel if axes in panels[:, 0] else ""
        )
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    return figure
