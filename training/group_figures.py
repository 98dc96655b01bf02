"""What pictures of groups of patients share: one colour per group, strips of colour, one legend, values by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.bundle import cluster_name
from training.survival.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's bright and muted colours, which the colour-blind can tell apart (personal.sron.nl/~pault); none is a group's.
BRIGHT = ("#4477aa", "#ccbb44", "#ee6677", "#66ccee", "#aa3377", "#228833")
MUTED = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499")
UNKNOWN, UNKNOWN_COLOUR = "not known", "#e4e4e4"
GOLDEN_RATIO = 0.6180339887


def cluster_words(labels: np.ndarray) -> pd.Categorical[Any]:
    """Labels of clusters, numbered from 0, as a person reads them: "cluster 1" is the first.

    Examples
    --------
    >>> cluster_words(np.array([1, 0])).tolist()
    ['cluster 2', 'cluster 1']
    """
    names = [cluster_name(number + 1) for number in range(int(np.max(labels)) + 1)]
    return pd.Categorical.from_codes(np.asarray(labels, dtype=int), categories=pd.Index(names))


def as_groups(groups: Any) -> pd.Categorical[Any]:
    """Groups in the order in which they are drawn: that of a categorical, else that of the words; unused ones left out."""
    known = pd.Categorical(groups)
    return known.remove_unused_categories()


def group_colours(groups: pd.Categorical[Any]) -> dict[str, str]:
    """Colour of each group, that of its Kaplan-Meier curve."""
    return palette(list(groups.categories), COLOURS)


def palette(names: Sequence[Any], colours: Sequence[str]) -> dict[str, str]:
    """A colour per name, in turn; that of what is not known is always the same."""
    return {str(name): UNKNOWN_COLOUR if name == UNKNOWN else colour for name, colour in zip(names, cycle(colours), strict=False)}


def draw_strip(axes: Axes, names: Sequence[Any], colours: Mapping[str, str], title: str, *, upright: bool = False) -> None:
    """One coloured cell per name, along the patients or, upright, along the features."""
    from matplotlib.colors import to_rgba_array

    cells = to_rgba_array([colours[str(name)] for name in names])
    axes.imshow(cells[:, None] if upright else cells[None], aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if upright:
        axes.set_xlabel(title, fontsize=8, rotation=90)
    else:
        axes.set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")


def draw_legend(figure: Figure, parts: Mapping[str, Mapping[str, str]]) -> None:
    """One legend beside the whole figure: of each part its title, then its colours."""
    from matplotlib.patches import Patch

    handles: list[Patch] = []
    headings = set()
    for title, colours in parts.items():
        headings.add(len(handles))
        handles.append(Patch(visible=False, label=title))
        handles += [Patch(facecolor=colour, edgecolor="black", linewidth=0.3, label=name) for name, colour in colours.items()]
    legend = figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False, handlelength=1.2)
    for position, text in enumerate(legend.get_texts()):
        if position in headings:
            text.set(fontweight="bold", x=-20)


def draw_by_group(axes: Axes, values: Any, groups: Any, *, title: str, ylabel: str = "") -> None:
    """Every patient's value, by group, with the quartiles of each group as a box; gaps are left out and counted out.

    Parameters
    ----------
    axes : Axes
    values : array-like of shape (n_patients,)
    groups : array-like of shape (n_patients,)
        Words, or a categorical, whose order is that of the groups.
    title, ylabel : str
    """
    from matplotlib.ticker import MaxNLocator

    known, values = as_groups(groups), np.asarray(values, dtype=float)
    for position, (name, colour) in enumerate(group_colours(known).items()):
        own = values[(known == known.categories[position]) & np.isfinite(values)]
        _box(axes, own, position, colour)
        axes.plot([], [], "o", color=colour, label=name)
    counts = [int(np.sum((known == name) & np.isfinite(values))) for name in known.categories]
    words = [f"{name}\n(n={count})" for name, count in zip(known.categories, counts, strict=True)]
    axes.set_xticks(range(len(words)), words, fontsize=8)
    axes.set(xlim=(-0.6, len(words) - 0.4), ylabel=ylabel)
    if not np.any(values[np.isfinite(values)] % 1):
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(title, fontsize=9)


def _box(axes: Axes, own: np.ndarray, position: int, colour: str) -> None:
    if not len(own):
        return
    # Spread by rank and the golden ratio: neighbours in value lie far apart, and equal data give equal pictures.
    ranks = np.argsort(np.argsort(own, kind="stable"), kind="stable")
    spread = 0.5 * ((ranks * GOLDEN_RATIO) % 1 - 0.5)
    axes.scatter(position + spread, own, s=10, alpha=0.6, color=colour, linewidths=0)
    line = {"color": "black", "linewidth": 0.9}
    axes.boxplot(
        own,
        positions=[position],
        widths=0.62,
        showfliers=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops=line,
    )
