"""What is said of the robustness of features: how many reach what, which the least, and a picture by family."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from features.errors import InputError
from training.console import say
from training.remeasuring import Robustness

# Good and excellent reliability: Koo & Li 2016, doi:10.1016/j.jcm.2016.02.012.
THRESHOLDS = (0.75, 0.9)
SHOWN_LEAST = 5
UNKNOWN = "unknown"
POINT = "#2b6cb0"


def reached(table: pd.DataFrame) -> pd.DataFrame:
    """How many features reach an ICC(2,1) of 0.75 and of 0.9, by the value and by the lower end of its interval.

    Parameters
    ----------
    table : DataFrame
        Of ``Robustness``.

    Returns
    -------
    DataFrame
        A row per family, in the order of the table, and one of all; columns ``features, icc_0.75, icc_0.9, lower_0.75,
        lower_0.9``.

    Examples
    --------
    >>> table = pd.DataFrame({"family": ["glcm", "shape"], "icc_2_1": [0.8, 0.95], "lower_2_1": [0.6, 0.9]})
    >>> reached(table).loc["all"].tolist()
    [2, 2, 1, 1, 1]
    """
    counts = pd.DataFrame({"features": 1}, index=table.index)
    for part in ("icc", "lower"):
        for threshold in THRESHOLDS:
            counts[f"{part}_{threshold:g}"] = (table[f"{part}_2_1"] >= threshold).astype(int)
    by_family = counts.groupby(table["family"].fillna(UNKNOWN), sort=False).sum()
    return pd.concat([by_family, counts.sum().to_frame("all").T])


def print_robustness(console: Console, robustness: Robustness, output: Path) -> None:
    """Say it on a terminal."""
    words = f"{len(robustness.table)} features, {len(robustness.tables)} measurements of {robustness.samples} samples"
    say(console, "Robustness", f"{words}; ICC(2,1), absolute agreement")
    counts = reached(robustness.table)
    table = Table("family", "features", *(f"{part} \u2265 {t:g}" for part in ("ICC", "lower end") for t in THRESHOLDS))
    for family, row in (counts.drop("all") if len(counts) == 2 else counts).iterrows():
        table.add_row(str(family), *map(str, row))
    console.print(table)
    least = _least(robustness.table)
    shown = zip(*(least[name] for name in ("feature", "icc_2_1", "lower_2_1", "upper_2_1")), strict=True)
    worst = ", ".join(f"{name} {icc:.3f} [{low:.3f}, {high:.3f}]" for name, icc, low, high in shown)
    say(console, "Least robust", worst)
    for note in robustness.notes:
        say(console, "Note", note, "yellow")
    say(console, "All features", str(output))


def as_json(robustness: Robustness, output: Path) -> dict[str, Any]:
    """What ``hypoxia robustness --json`` prints; what is undefined is null."""
    families = reached(robustness.table).rename_axis("family").reset_index()
    return {
        "tables": [str(path) for path in robustness.tables],
        "settings_hash": robustness.settings_hash,
        "samples": robustness.samples,
        "features": len(robustness.table),
        "reached": json.loads(families.to_json(orient="records")),
        "least": json.loads(_least(robustness.table).to_json(orient="records", double_precision=15)),
        "notes": list(robustness.notes),
        "output": str(output),
    }


def draw(robustness: Robustness, path: Path) -> None:
    """Draw the correlations by family, a point per feature and a box of the quartiles, as PNG.

    Raises
    ------
    InputError
        The picture cannot be written there.
    """
    from matplotlib.figure import Figure

    known = robustness.table.dropna(subset="icc_2_1").assign(family=lambda table: table["family"].fillna(UNKNOWN))
    families = {str(family): rows["icc_2_1"].to_numpy() for family, rows in known.groupby("family", sort=False)}
    figure = Figure(figsize=(7, 1.6 + 0.45 * len(families)), layout="constrained")
    axes = figure.subplots()
    for place, (family, values) in enumerate(reversed(families.items())):
        spread = 0.3 * (np.arange(len(values)) % 7 / 6 - 0.5)
        axes.scatter(values, place + spread, s=9, alpha=0.5, color=POINT, linewidths=0, label=family)
        axes.boxplot(values, positions=[place], orientation="horizontal", widths=0.55, showfliers=False, manage_ticks=False)
    for threshold in THRESHOLDS:
        axes.axvline(threshold, linestyle=":", linewidth=0.9, color="black")
    axes.set_yticks(range(len(families)), [f"{name} ({len(values)})" for name, values in reversed(families.items())], fontsize=8)
    title = f"{len(robustness.tables)} measurements of {robustness.samples} samples"
    axes.set(xlabel="ICC(2,1)", title=title, ylim=(-0.6, max(len(families), 1) - 0.4))
    axes.set_xlim(right=1.02)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    _write(path, picture.getvalue())


def _least(table: pd.DataFrame) -> pd.DataFrame:
    columns = ["feature", "sequence", "family", "n", "icc_2_1", "lower_2_1", "upper_2_1"]
    return table[columns].dropna(subset="icc_2_1").nsmallest(SHOWN_LEAST, "icc_2_1")


def _write(path: Path, content: bytes) -> None:
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        stage.write_bytes(content)
        stage.replace(path)
    except OSError as cause:
        stage.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({cause.strerror}); name a file in a folder that exists.") from cause
