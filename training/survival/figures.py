"""Figures of follow-up, each drawn on axes that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training.survival.cox import HazardRatio
from training.survival.curves import Curve, cumulative_incidence, kaplan_meier, numbers_at_risk
from training.survival.proportional import ProportionalHazards

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Two groups in the colours of not hypoxic and hypoxic (training/report.py), further ones apart from them in print too.
COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#7f7f7f", "#762a83", "#bf812d")
MOST_TICKS = 6
FEWEST_FOR_TREND = 10
HALFWAY, TOP = 0.4, 0.9  # of the axes: where the legend at the right begins, and how low curves leave room for one row
FIRST_ROW, ROW = 40, 11  # points below the axes, of the table of numbers at risk


def draw_kaplan_meier(
    axes: Axes,
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str,
    unit: str,
    horizon: float | None = None,
    hazard_ratio: HazardRatio | None = None,
    p_value: float | None = None,
    p_name: str = "p",
    label: str | None = None,
) -> None:
    """Share of patients without the event, with intervals, ticks where patients were censored, and the numbers at risk beneath.

    Parameters
    ----------
    axes : Axes
    groups : mapping of str to (time, event)
        In the order of the legend: of two groups the one expected to do better first.
    title : str
    unit : str
        Of time: "months".
    horizon : float, optional
        Where the curves end; at the last follow-up when left out.
    hazard_ratio : HazardRatio, optional
        Printed with its interval.
    p_value : float, optional
        Printed beside it.
    p_name : str
        Which p that is: "log-rank p", "permutation p".
    label : str, optional
        What the numbers are, where a reader could take them for something else: "selected on these patients, biased".
    """
    end = _end(groups, horizon)
    for (name, (time, event)), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        curve = kaplan_meier(time, event)
        _step(axes, curve, end, colour, f"{name} (n={len(time)}, {int(np.sum(event))} events)")
        own = (curve.censored > 0) & (curve.times <= end)
        axes.plot(curve.times[own], curve.survival[own], linestyle="none", marker="|", markersize=6, color=colour)
    axes.set(xlim=(0, end), ylim=(0, 1.03), xlabel=unit, ylabel="share without the event", title=title)
    words = _words(hazard_ratio, p_value, p_name, label)
    if words:
        axes.text(0.03, 0.04, words, transform=axes.transAxes, fontsize=8, va="bottom")
    highest = max(_survival_at(HALFWAY * end, *one) for one in groups.values())
    _legend_beside(axes, words, top_is_free=highest < TOP - 0.05 * len(groups))
    _numbers_beneath(axes, {name: np.asarray(time) for name, (time, _) in groups.items()}, end)


def _survival_at(at: float, time: np.ndarray, event: np.ndarray) -> float:
    curve = kaplan_meier(time, event)
    return float(np.r_[1.0, curve.survival[curve.times <= at]][-1])


def _legend_beside(axes: Axes, words: str, *, top_is_free: bool) -> None:
    """At the upper right where bad curves leave it free; else above the words, where curves have not come down yet."""
    from matplotlib.transforms import ScaledTranslation

    if top_is_free:
        axes.legend(loc="upper right", fontsize=8)
        return
    lines = len(words.split("\n")) if words else 0
    up = ScaledTranslation(0, 10 * lines / 72, axes.figure.dpi_scale_trans)
    axes.legend(loc="lower left", bbox_to_anchor=(0.01, 0.04), bbox_transform=axes.transAxes + up, fontsize=8)


def draw_cumulative_incidence(
    axes: Axes,
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    title: str,
    unit: str,
    horizon: float | None = None,
) -> None:
    """Share of patients with the event where another one may forestall it, with the numbers at risk beneath.

    Parameters
    ----------
    groups : mapping of str to (time, state)
        States as in ``cumulative_incidence``.
    """
    end = _end(groups, horizon)
    for (name, (time, state)), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        struck, forestalled = (int(np.sum(np.asarray(state) == code)) for code in (1, 2))
        words = f"{name} (n={len(time)}, {struck} events, {forestalled} competing)"
        _step(axes, cumulative_incidence(time, state), end, colour, words)
    axes.set(xlim=(0, end), ylim=(0, 1.03), xlabel=unit, ylabel="share with the event", title=title)
    axes.legend(loc="upper left", fontsize=8)
    _numbers_beneath(axes, {name: np.asarray(time) for name, (time, _) in groups.items()}, end)


def draw_log_minus_log(axes: Axes, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str, unit: str) -> None:
    """Log cumulative hazard against log time: a constant distance between groups where hazards are proportional."""
    for (name, (time, event)), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        curve = kaplan_meier(time, event)
        own = (curve.survival > 0) & (curve.survival < 1)
        axes.step(curve.times[own], np.log(-np.log(curve.survival[own])), where="post", color=colour, label=name)
    axes.set(xscale="log", xlabel=f"{unit} (logarithmic)", ylabel="log(-log(share without the event))", title=title)
    axes.legend(loc="lower right", fontsize=8)


def draw_schoenfeld(axes: Axes, check: ProportionalHazards, covariate: str, *, unit: str) -> None:
    """How a coefficient changes over time: level where hazards are proportional.

    Parameters
    ----------
    check : ProportionalHazards
    covariate : str
        A column of its residuals.
    unit : str
        Of time.
    """
    at, changing = check.scaled_time, check.residuals[covariate].to_numpy()
    axes.scatter(at, changing, s=14, alpha=0.7, color=COLOURS[0])
    axes.axhline(changing.mean(), color="black", linestyle=":", linewidth=0.8)
    if len(np.unique(at)) >= FEWEST_FOR_TREND:
        trend = np.polynomial.Polynomial.fit(at, changing, 3)
        grid = np.linspace(at.min(), at.max(), 100)
        axes.plot(grid, trend(grid), color=COLOURS[1], label="cubic trend")
        axes.legend(loc="upper right", fontsize=8)
    chosen = np.unique(np.linspace(0, len(at) - 1, MOST_TICKS).astype(int))
    axes.set_xticks(at[chosen], [f"{time:.3g}" for time in check.time[chosen]])
    term = next((name for name in check.table.index if covariate == name or covariate.startswith(f"{name}=")), "GLOBAL")
    found = check.table.loc[term]
    axes.set(xlabel=f"{unit} ({check.transform} scale)", ylabel=f"coefficient of {covariate}")
    axes.set_title(f"{term}: chi-square {found['chi2']:.2f}, p = {found['p_value']:.2g}", fontsize=10)


def draw_calibration(axes: Axes, table: pd.DataFrame, *, horizon: float, unit: str, title: str = "Calibration") -> None:
    """Observed against predicted risk by the horizon, with intervals.

    Parameters
    ----------
    table : DataFrame
        From ``calibration_at``.
    """
    known = table.dropna(subset=["observed"])
    below = (known["observed"] - known["lower"]).fillna(0).clip(lower=0)
    above = (known["upper"] - known["observed"]).fillna(0).clip(lower=0)
    error = np.array([below, above])
    axes.errorbar(known["expected"], known["observed"], yerr=error, marker="o", capsize=2, color=COLOURS[1])
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03), xlabel=f"predicted risk by {horizon:g} {unit}", ylabel="observed risk", title=title)


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _end(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], horizon: float | None) -> float:
    return float(horizon if horizon is not None else max(np.max(time) for time, _ in groups.values()))


def _step(axes: Axes, curve: Curve, end: float, colour: str, words: str) -> None:
    own = curve.times <= end
    last = min(end, float(curve.times[-1]))
    times = np.r_[0.0, curve.times[own], last]
    middle, lower, upper = (
        np.r_[curve.start, values[own], values[own][-1:]] if own.any() else np.full(2, curve.start)
        for values in (curve.survival, curve.lower, curve.upper)
    )
    axes.step(times, middle, where="post", color=colour, linewidth=1.5, label=words)
    axes.fill_between(times, lower, upper, step="post", color=colour, alpha=0.12, linewidth=0)


def _words(hazard_ratio: HazardRatio | None, p_value: float | None, p_name: str, label: str | None) -> str:
    firth = " (Firth)" if hazard_ratio is not None and hazard_ratio.method == "firth" else ""
    lines = [
        label,
        None if hazard_ratio is None else f"hazard ratio{firth} {hazard_ratio}",
        None if p_value is None else f"{p_name} = {p_value:.2g}",
    ]
    return "\n".join(line for line in lines if line)


def _numbers_beneath(axes: Axes, times: Mapping[str, np.ndarray], end: float) -> None:
    """A row of numbers at risk per group, below the ticks that they belong to."""
    from matplotlib.ticker import MaxNLocator

    ticks = np.asarray(MaxNLocator(MOST_TICKS, steps=[1, 1.2, 2, 2.5, 3, 5, 6, 10]).tick_values(0, end))
    ticks = ticks[(ticks >= 0) & (ticks <= end)]
    axes.set_xticks(ticks)
    _beneath(axes, 0.0, 0, "at risk", "black")
    for row, (time, colour) in enumerate(zip(times.values(), _colours(len(times)), strict=True), start=1):
        for tick, count in zip(ticks, numbers_at_risk(time, ticks), strict=True):
            _beneath(axes, float(tick), row, str(count), colour)


def _beneath(axes: Axes, at: float, row: int, words: str, colour: str) -> None:
    # In points, not in heights of the axes: so the room for them does not shrink with the axes when the figure is laid out.
    axes.annotate(
        words,
        (at, 0),
        xytext=(0, -FIRST_ROW - row * ROW),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        annotation_clip=False,
        fontsize=8,
        ha="center",
        va="center",
        color=colour,
    )
