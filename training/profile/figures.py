"""Figures of a profile: patients by features, what separates the clusters, how many there are and how firm they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from training.group_figures import (
    BRIGHT,
    MUTED,
    UNKNOWN,
    UNKNOWN_COLOUR,
    as_groups,
    cluster_words,
    draw_by_group,
    draw_legend,
    draw_strip,
    group_colours,
    palette,
)
from training.profile.choice import DOUBTFUL, NAMES, STABLE
from training.profile.clustering import squared_distances
from training.profile.ranking import OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

CLIPPED = 2.5  # standard deviations at which the colours of a heat map end
MOST_NAMES = 45  # features whose names can be read beside a heat map
BETTER = {
    "silhouette": "higher is better",
    "calinski_harabasz": "higher is better",
    "davies_bouldin": "lower is better",
    "gap": "the fewest within one error of the next",
}


def heat_map(
    z: pd.DataFrame,
    labels: np.ndarray,
    *,
    stage: pd.Series | None = None,
    volume: pd.Series | None = None,
    volume_unit: str = "",
    ranking: pd.DataFrame | None = None,
) -> Figure:
    """Patients by features, with cluster, stage and volume above and, beside it, what each feature is and how far it separates.

    Patients are columns: by cluster, and within it by volume, or where that is not known by distance to the cluster's mean.
    They are not named. Features are rows: by rank, or without a ranking by hierarchical clustering (average linkage).

    Parameters
    ----------
    z : DataFrame of shape (n_patients, n_features)
        In standard deviations, without gaps; colours end at 2.5.
    labels : ndarray of shape (n_patients,)
        Clusters, numbered from 0.
    stage : Series, optional
        By patient; in the order of its words, or of its categories.
    volume : Series, optional
        By patient; drawn on a logarithmic scale where all are positive.
    volume_unit : str
    ranking : DataFrame, optional
        Index feature; distance, sequence, family.

    Returns
    -------
    Figure
        Axes from the top: cluster, stage, volume, as far as given; then the heat map; then sequence and family, where they are
        known of a feature, and distance.
    """
    from matplotlib.figure import Figure

    patients = _order_of_patients(z, labels, volume)
    z, labels = _ordered_features(z.iloc[patients], ranking), np.asarray(labels)[patients]
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    kinds = {} if ranking is None else _kinds(ranking)
    frame = _Frame.on(figure, _bars(z.index, stage, volume), list(kinds), distance=ranking is not None)
    legend = {"patients": _cluster_strip(frame.above["cluster"], labels)}
    if "stage" in frame.above and stage is not None:
        legend["stage"] = _stage_strip(frame.above["stage"], stage.reindex(z.index))
    if "volume" in frame.above and volume is not None:
        _volume_bars(frame.above["volume"], volume.reindex(z.index).to_numpy(dtype=float), volume_unit)
    _cells(figure, frame.main, z, labels)
    if ranking is not None:
        _beside(frame, ranking.loc[z.columns], kinds)
    draw_legend(figure, legend | kinds)
    return figure


@dataclass(frozen=True)
class _Frame:
    """Axes of a heat map."""

    above: dict[str, Axes]
    main: Axes
    beside: dict[str, Axes]

    @classmethod
    def on(cls, figure: Figure, above: list[str], kinds: list[str], *, distance: bool) -> _Frame:
        heights = [{"volume": 1.6}.get(name, 0.5) for name in above]
        beside = [*kinds, *(["distance"] if distance else [])]
        widths = [24, *({"distance": 3}.get(name, 0.7) for name in beside)]
        grid = figure.add_gridspec(len(above) + 1, len(widths), height_ratios=[*heights, 16], width_ratios=widths)
        top = {name: figure.add_subplot(grid[row, 0]) for row, name in enumerate(above)}
        main = figure.add_subplot(grid[-1, 0])
        return cls(top, main, {name: figure.add_subplot(grid[-1, column]) for column, name in enumerate(beside, start=1)})


def _bars(patients: pd.Index, stage: pd.Series | None, volume: pd.Series | None) -> list[str]:
    given = {"cluster": True, "stage": stage is not None, "volume": volume is not None and volume.reindex(patients).notna().any()}
    return [name for name, there in given.items() if there]


def _order_of_patients(z: pd.DataFrame, labels: np.ndarray, volume: pd.Series | None) -> np.ndarray:
    values, labels = z.to_numpy(dtype=float), np.asarray(labels)
    means = pd.DataFrame(values).groupby(labels).transform("mean").to_numpy()
    within = ((values - means) ** 2).sum(axis=1)
    if volume is not None and volume.reindex(z.index).notna().any():
        within = volume.reindex(z.index).to_numpy(dtype=float)
    return np.lexsort((within, labels))  # numpy sorts gaps last


def _ordered_features(z: pd.DataFrame, ranking: pd.DataFrame | None) -> pd.DataFrame:
    if ranking is not None:
        return z[ranking.sort_values("distance", ascending=False, kind="stable").index]
    if z.shape[1] < 2:
        return z
    apart = squareform(np.sqrt(squared_distances(z.to_numpy(dtype=float).T)), checks=False)
    return z.iloc[:, leaves_list(linkage(apart, "average"))]


def _cluster_strip(axes: Axes, labels: np.ndarray) -> dict[str, str]:
    words = cluster_words(labels)
    colours = group_colours(words)
    draw_strip(axes, list(words), colours, "cluster")
    counts = words.value_counts()
    return {f"{name} (n={counts[name]})": colour for name, colour in colours.items()}


def _stage_strip(axes: Axes, stage: pd.Series) -> dict[str, str]:
    names = [UNKNOWN if pd.isna(one) else _word(one) for one in stage]
    colours = _rising([_word(one) for one in as_groups(stage).categories])
    colours |= {UNKNOWN: UNKNOWN_COLOUR} if UNKNOWN in names else {}
    draw_strip(axes, names, colours, "stage")
    return colours


def _word(stage: object) -> str:
    return f"{stage:g}" if isinstance(stage, float) else str(stage)  # a column of numbers with gaps is one of fractions


def _rising(names: list[str]) -> dict[str, str]:
    """Colours that darken from name to name."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return {name: to_hex(colormaps["OrRd"](depth)) for name, depth in zip(names, np.linspace(0.15, 1, len(names)), strict=True)}


def _volume_bars(axes: Axes, volume: np.ndarray, unit: str) -> None:
    positive = bool(np.nanmin(volume) > 0)
    base = float(np.nanmin(volume)) * 0.8 if positive else min(0.0, float(np.nanmin(volume)))
    axes.stairs(volume, np.arange(len(volume) + 1) - 0.5, baseline=base, fill=True, color="#595959")
    axes.set(xlim=(-0.5, len(volume) - 0.5), xticks=[])
    if positive:
        _logarithmic(axes)
    axes.set_ylabel(f"volume\n({unit})" if unit else "volume", fontsize=8, rotation=0, ha="right", va="center")
    axes.tick_params(labelsize=7)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


def _cells(figure: Figure, axes: Axes, z: pd.DataFrame, labels: np.ndarray) -> None:
    image = axes.imshow(z.to_numpy(dtype=float).T, cmap="RdBu_r", vmin=-CLIPPED, vmax=CLIPPED, aspect="auto")
    for border in np.flatnonzero(np.diff(labels)):
        axes.axvline(border + 0.5, color="black", linewidth=1)
    axes.set(xticks=[], yticks=[], xlabel=f"{len(z)} patients")
    if z.shape[1] <= MOST_NAMES:
        axes.set_yticks(range(z.shape[1]), list(z.columns), fontsize=7)
    else:
        axes.set_ylabel(f"{z.shape[1]} features")
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.4, aspect=30, extend="both", pad=0.02)
    bar.set_label("standard deviations from the mean of all patients", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _beside(frame: _Frame, ranking: pd.DataFrame, kinds: Mapping[str, Mapping[str, str]]) -> None:
    for name, colours in kinds.items():
        draw_strip(frame.beside[name], ranking[name].tolist(), colours, name, upright=True)
    distance = frame.beside["distance"]
    distance.stairs(
        ranking["distance"].to_numpy(), np.arange(len(ranking) + 1) - 0.5, orientation="horizontal", fill=True, color="#595959"
    )
    distance.set(ylim=(len(ranking) - 0.5, -0.5), yticks=[], xlim=(0, None))
    distance.set_xlabel("distance\nof means", fontsize=8)
    distance.tick_params(labelsize=7)
    distance.spines[["top", "right"]].set_visible(False)


def kinds_known(ranking: pd.DataFrame) -> list[str]:
    """Which of sequence and family is known of any feature."""
    return [name for name in ("sequence", "family") if (ranking[name] != OTHER).any()]


def _kinds(ranking: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Colours of sequences and of families, as far as known."""
    colours = {"sequence": BRIGHT, "family": MUTED}
    return {name: palette(sorted(ranking[name].unique()), colours[name]) for name in kinds_known(ranking)}


def ranked_features(table: pd.DataFrame, strong: float, moderate: float) -> Figure:
    """Distance between the clusters' means of every feature, in descending order, with what each feature is beneath.

    Parameters
    ----------
    table : DataFrame
        Index feature; distance, sequence, family.
    strong, moderate : float
        Distances above which a feature separates the clusters strongly, or moderately.

    Returns
    -------
    Figure
        Axes: distances, then sequences and families, where they are known of a feature.
    """
    from matplotlib.figure import Figure

    table = table.sort_values("distance", ascending=False, kind="stable")
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    legend = _kinds(table)
    panels = figure.subplots(1 + len(legend), 1, height_ratios=[10, *[0.6] * len(legend)], squeeze=False)[:, 0]
    _distances(panels[0], table["distance"].to_numpy(), strong, moderate)
    for axes, (name, colours) in zip(panels[1:], legend.items(), strict=True):
        draw_strip(axes, table[name].tolist(), colours, name)
    if len(table) <= MOST_NAMES:
        panels[-1].set_xticks(range(len(table)), list(table.index), rotation=90, fontsize=7)
    if legend:
        draw_legend(figure, legend)
    return figure


def _distances(axes: Axes, distance: np.ndarray, strong: float, moderate: float) -> None:
    over = [int(np.sum(distance > strong)), int(np.sum((distance > moderate) & (distance <= strong)))]
    colours = np.repeat(["#1a1a1a", "#7a7a7a", "#cccccc"], [*over, len(distance) - sum(over)])
    axes.bar(range(len(distance)), distance, width=1.0 if len(distance) > MOST_NAMES else 0.85, color=colours)
    limits = (("strong", f"> {strong:g}", strong), ("moderate", f"> {moderate:g} to {strong:g}", moderate))
    for (name, words, limit), count, line in zip(limits, over, ("-", "--"), strict=True):
        axes.axhline(limit, color="#b2182b", linestyle=line, linewidth=0.9, label=f"{name}: {words}, {count} features")
    axes.set(xlim=(-0.5, len(distance) - 0.5), xticks=[], ylim=(0, 1.12 * max(float(np.max(distance)), strong)))
    axes.set(
        ylabel="distance between cluster means (SD)", title=f"{len(distance)} features by how far they separate the clusters"
    )
    axes.title.set_fontsize(10)
    axes.legend(loc="upper right", fontsize=8)


def criteria_figure(table: pd.DataFrame, best: Mapping[str, int], chosen: int | None = None) -> Figure:
    """What each criterion says about the number of clusters, its own choice, and the study's.

    Parameters
    ----------
    table : DataFrame
        Index number of clusters; silhouette, calinski_harabasz, davies_bouldin, gap, gap_error. Gaps: not defined there.
    best : mapping of str to int
        Number of clusters that each criterion chooses.
    chosen : int, optional
        The study's number of clusters.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, NAMES.items(), strict=True):
        _criterion(axes, table, name, best.get(name))
        axes.set_title(f"{title} ({BETTER[name]})", fontsize=9)
        axes.set(xticks=list(table.index), xlim=(min(table.index) - 0.4, max(table.index) + 0.4), xlabel="clusters")
        if chosen is not None:
            axes.axvline(chosen, color="black", linestyle=":", linewidth=1, label=f"the study's: {chosen}")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


def _criterion(axes: Axes, table: pd.DataFrame, name: str, best: int | None) -> None:
    values = table[name].to_numpy(dtype=float)
    if not np.isfinite(values).any():
        axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", va="center", color="#595959")
        return
    error = table["gap_error"].to_numpy(dtype=float) if name == "gap" else None
    axes.errorbar(table.index, values, yerr=error, marker="o", markersize=4, capsize=3, color="#2166ac")
    if best is not None:
        axes.plot(
            [best],
            table[name].to_numpy(dtype=float)[table.index == best],
            "*",
            markersize=12,
            color="#b2182b",
            label=f"its choice: {best}",
            zorder=3,
        )
    axes.margins(y=0.15)


def consensus_figure(consensus: np.ndarray, labels: np.ndarray) -> Figure:
    """How often each two patients fell into one cluster among subsamples that held both: dark blocks are firm clusters.

    Parameters
    ----------
    consensus : ndarray of shape (n_patients, n_patients)
        Shares; a gap where no subsample held both.
    labels : ndarray of shape (n_patients,)
        Clusters, numbered from 0.

    Returns
    -------
    Figure
        Axes: clusters, shares. Within a cluster patients are in the descending order of their mean share with its others.
    """
    from matplotlib.figure import Figure

    labels = np.asarray(labels)
    own = np.where(labels[:, None] == labels, np.nan_to_num(consensus), 0).sum(axis=1)
    order = np.lexsort((-own, labels))
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    strip, axes = figure.subplots(2, 1, height_ratios=[0.6, 16])
    legend = _cluster_strip(strip, labels[order])
    image = axes.imshow(consensus[np.ix_(order, order)], cmap=_with_gaps("Blues"), vmin=0, vmax=1, aspect="auto")
    for border in np.flatnonzero(np.diff(labels[order])) + 0.5:
        axes.axvline(border, color="black", linewidth=0.7)
        axes.axhline(border, color="black", linewidth=0.7)
    axes.set(xticks=[], yticks=[], xlabel=f"{len(labels)} patients", ylabel="patients")
    figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, aspect=30, pad=0.02).set_label(
        "share of subsamples with both in one cluster", fontsize=8
    )
    draw_legend(figure, {"patients": legend})
    return figure


def _with_gaps(name: str) -> Colormap:
    from matplotlib import colormaps

    return colormaps[name].with_extremes(bad=UNKNOWN_COLOUR)


def stability_figure(jaccard: np.ndarray) -> Figure:
    """Mean Jaccard similarity of each cluster with its likest in bootstrap samples, with the limits by which it is read.

    Parameters
    ----------
    jaccard : ndarray of shape (n_clusters,)
        0 to 1, in the order of the clusters; a gap where it is not defined.

    References
    ----------
    Hennig 2007, doi:10.1016/j.csda.2006.11.025
    """
    from matplotlib.figure import Figure

    jaccard = np.asarray(jaccard, dtype=float)
    names = cluster_words(np.arange(len(jaccard)))
    figure = Figure(figsize=(max(4.2, 1.6 + 0.9 * len(jaccard)), 3.8), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(jaccard)), jaccard, width=0.6, color=list(group_colours(names).values()))
    axes.axhline(STABLE, color="black", linestyle="--", linewidth=0.9, label=f"stable from {STABLE}")
    axes.axhline(DOUBTFUL, color="black", linestyle=":", linewidth=0.9, label=f"not to be trusted below {DOUBTFUL}")
    values = ["not defined" if np.isnan(value) else f"{value:.2f}" for value in jaccard]
    axes.set_xticks(range(len(names)), [f"{name}\n{value}" for name, value in zip(names, values, strict=True)])
    axes.set(ylim=(0, 1.02), ylabel="mean Jaccard similarity")
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=2)
    return figure


def volume_figure(volume: np.ndarray, labels: np.ndarray, *, unit: str = "") -> Figure:
    """Tumour volume by cluster, on a logarithmic scale where all volumes are positive.

    Parameters
    ----------
    volume : array-like of shape (n_patients,)
        Gaps are left out.
    labels : ndarray of shape (n_patients,)
        Clusters, numbered from 0.
    unit : str
    """
    from matplotlib.figure import Figure

    volume = np.asarray(volume, dtype=float)
    figure = Figure(figsize=(max(4.2, 1.6 + 0.9 * (np.max(labels) + 1)), 4.2), layout="constrained")
    axes = figure.subplots()
    draw_by_group(axes, volume, cluster_words(labels), title="Volume by cluster", ylabel=f"volume ({unit})" if unit else "volume")
    known = volume[np.isfinite(volume)]
    if len(known) and known.min() > 0:
        _logarithmic(axes)
    return figure


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
