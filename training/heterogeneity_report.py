"""What is said of heterogeneity within tumours: variance and its shares, the clustering of biopsies, and a picture of each."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from features.errors import InputError
from features.files import replace_whole
from features.heterogeneity import BIOPSY_VOXELS
from training.biopsy_clustering import Association
from training.biopsy_variance import FEW_BIOPSIES, Variance
from training.console import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.biopsied_maps import Biopsied

MORE, LESS, LINE = "#c05621", "#2b6cb0", "#4a5568"


def print_variance(console: Console, found: Variance) -> None:
    """Say it on a terminal."""
    what = "logits of fractions" if found.of_logit else "values as they are"
    say(console, "Heterogeneity", f"{found.anova.samples} samples of {found.anova.tumours} tumours; {what}")
    table = Table("method", "within", "between", "W/T", "interval", *(f"{biopsies} biopsies" for biopsies in FEW_BIOPSIES))
    for one in (found.anova, found.reml):
        share = found.within_share
        interval = f"{share.lower:.3f} to {share.upper:.3f}" if one is found.anova else ""
        reduced = (f"{one.reduced(biopsies):.3f}" for biopsies in FEW_BIOPSIES)
        table.add_row(
            one.method.upper(), f"{one.within:.4g}", f"{one.between:.4g}", f"{one.within_share:.3f}", interval, *reduced
        )
    console.print(table)


def variance_json(found: Variance) -> dict[str, Any]:
    """What ``hypoxia heterogeneity variance --json`` prints."""
    return {
        "samples": found.anova.samples,
        "tumours": found.anova.tumours,
        "empirical_logit": found.of_logit,
        "within_share": found.within_share.model_dump(mode="json"),
        "methods": json.loads(found.table().to_json(orient="records", double_precision=15)),
    }


def print_biopsies(console: Console, found: Biopsied) -> None:
    """Say it on a terminal."""
    tumours = found.tumours
    say(
        console, "Virtual biopsies", f"{tumours['biopsies'].sum()} biopsies of {BIOPSY_VOXELS} voxels from {len(tumours)} tumours"
    )
    shown = Table("tumour", "voxels", "hypoxic fraction", "biopsies", "SD", "expected", "clustered")
    for row in tumours.to_dict("records"):
        expected, more = row.get("expected", np.nan), row.get("more_clustered", pd.NA)
        shown.add_row(
            str(row["sample"]),
            str(row["voxels"]),
            f"{row['hypoxic_fraction']:.3f}",
            str(row["biopsies"]),
            _number(row["deviation"]),
            _number(expected),
            "" if pd.isna(more) else "more" if more else "less",
        )
    console.print(shown)
    if found.association is not None:
        say(console, "Discordant classification", _associated(found.association))
    for sample, reason in found.failures[["sample", "reason"]].itertuples(index=False):
        say(console, "Failed", f"{sample}: {reason}", "red")
    for note in found.notes:
        say(console, "Note", note, "yellow")


def biopsies_json(found: Biopsied) -> dict[str, Any]:
    """What ``hypoxia heterogeneity biopsies --json`` prints; what is undefined is null."""
    return {
        "tumours": json.loads(found.tumours.to_json(orient="records", double_precision=15)),
        "association": None if found.association is None else asdict(found.association),
        "failures": json.loads(found.failures.to_json(orient="records")),
        "notes": list(found.notes),
    }


def draw_variance(found: Variance, path: Path) -> None:
    """Draw the samples of each tumour around its mean, tumours by mean, as PNG.

    Raises
    ------
    InputError
        The picture cannot be written there.
    """
    samples = pd.DataFrame({"tumour": found.tumour, "value": found.values})
    means = samples.groupby("tumour")["value"].mean().sort_values()
    place = pd.Series(np.arange(len(means)), index=means.index)
    figure = _figure(7.0)
    axes = figure.subplots()
    axes.scatter(place[samples["tumour"]], samples["value"], s=12, alpha=0.6, color=LESS, linewidths=0, label="sample")
    axes.scatter(place, means, marker="_", s=60, color=LINE, label="mean of the tumour")
    share = found.within_share
    axes.set(
        xlabel="tumour, by its mean",
        ylabel="empirical logit of the fraction" if found.of_logit else "value",
        title=f"W/T {share.value:.2f} ({share.lower:.2f} to {share.upper:.2f})",
        xticks=[],
    )
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def draw_biopsies(found: Biopsied, path: Path) -> None:
    """Draw the spread of biopsies over the hypoxic fraction, with the curve and what chance alone gives, as PNG.

    Raises
    ------
    InputError
        The picture cannot be written there.
    """
    tumours = found.tumours.dropna(subset="deviation").sort_values("hypoxic_fraction")
    figure = _figure(5.5)
    axes = figure.subplots()
    if "expected" in tumours:
        more = tumours["more_clustered"].to_numpy(dtype=bool)
        for part, colour, name in ((more, MORE, "more clustered"), (~more, LESS, "less clustered")):
            _points(axes, tumours[part], colour, name)
        axes.plot(tumours["hypoxic_fraction"], tumours["expected"], color=LINE, label="expected (GAM)")
    else:
        _points(axes, tumours, LESS, "tumour")
    fraction = np.linspace(0, 1, 200)
    chance = np.sqrt(fraction * (1 - fraction) / BIOPSY_VOXELS)
    axes.plot(fraction, chance, ":", color=LINE, linewidth=0.9, label="voxels at random")
    axes.set(xlabel="hypoxic fraction", ylabel="SD of biopsies", xlim=(-0.02, 1.02), ylim=(-0.01, None))
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _points(axes: Any, tumours: pd.DataFrame, colour: str, name: str) -> None:
    axes.scatter(tumours["hypoxic_fraction"], tumours["deviation"], s=18, color=colour, linewidths=0, label=name)


def _associated(one: Association) -> str:
    ratio = "" if one.odds_ratio is None else f"odds ratio {one.odds_ratio:.2f}, "
    more, less = one.more_discordant + one.more_concordant, one.less_discordant + one.less_concordant
    return (
        f"{one.more_discordant} of {more} more clustered tumours, {one.less_discordant} of {less} less clustered ones; "
        f"{ratio}Fisher p = {one.p_value:.3g}"
    )


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _figure(width: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 4.0), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        replace_whole(path, lambda stage: stage.write_bytes(picture.getvalue()))
    except OSError as cause:
        raise InputError(f"{path} cannot be written ({cause.strerror}); name a file in a folder that exists.") from cause
