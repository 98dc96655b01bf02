"""Figures of a comparison, each an image within its page: of two classes, and of times to an event."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from training.compare import ComparedModel, Comparison
from training.prognosis import prognosis
from training.survival.figures import draw_kaplan_meier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, which the colour-blind can tell apart; with line styles, for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")

Plot = tuple[str, str, Callable[["Axes", Comparison], None]]


def drawn_figures(found: Comparison) -> list[tuple[str, str, str]]:
    """Every figure of a comparison: its name, what it shows in words, and the image as an address that holds it whole."""
    plots = PLOTS if found.horizon is None else (*_curves(found), *SURVIVAL_PLOTS)
    return [(name, words, _data_uri(draw, found)) for name, words, draw in plots]


def _drawn(found: Comparison) -> Iterable[tuple[ComparedModel, dict[str, Any]]]:
    """Models that may be drawn, each with its line."""
    for number, one in enumerate(found.models):
        if not one.not_estimable:
            yield one, {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)], "linewidth": 1.7}


def _roc(axes: Axes, found: Comparison) -> None:
    for one, line in _drawn(found):
        false_positive_rate, sensitivity, _ = roc_curve(one.predictions["label"], one.predictions["probability"])
        axes.step(false_positive_rate, sensitivity, where="post", label=f"{one.title}: {one.estimates['roc_auc']}", **line)
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes.legend(loc="lower right", fontsize=7.5)


def _precision_recall(axes: Axes, found: Comparison) -> None:
    for one, line in _drawn(found):
        precision, recall, _ = precision_recall_curve(one.predictions["label"], one.predictions["probability"])
        axes.step(recall, precision, where="post", label=f"{one.title}: {one.estimates['pr_auc']}", **line)
        axes.axhline(one.predictions["label"].mean(), linestyle=":", linewidth=0.8, color=line["color"])
    axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="Precision and recall", ylim=(0, 1.03))
    axes.legend(loc="lower left", fontsize=7.5)


def _reliability(axes: Axes, found: Comparison) -> None:
    for one, line in _drawn(found):
        table = one.reliability
        if table is None:
            continue
        error = np.abs(np.vstack([table["observed"] - table["lower"], table["upper"] - table["observed"]]))
        error = None if np.isnan(error).any() else error
        slope = one.calibration.slope.value
        label = f"{one.title}: slope {slope:.2f}" if slope is not None else one.title
        axes.errorbar(table["expected"], table["observed"], yerr=error, marker="o", markersize=4, capsize=2, label=label, **line)
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="predicted probability", ylabel="share of events", title="Reliability", xlim=(0, 1), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left", fontsize=7.5)


def _decision(axes: Axes, found: Comparison) -> None:
    highest = 0.1
    for one, line in _drawn(found):
        if one.curve is None:
            continue
        highest = max(highest, one.curve["model"].max())
        axes.plot(one.curve["threshold"], one.curve["model"], label=one.title, **line)
        mine = np.argmin(np.abs(one.curve["threshold"] - one.judged.card.threshold))
        axes.plot(one.curve["threshold"].iloc[mine], one.curve["model"].iloc[mine], marker="o", markersize=5, color=line["color"])
    for number, (one, _) in enumerate(_drawn(found)):
        if one.curve is not None and (number == 0 or found.unpaired):
            axes.plot(
                one.curve["threshold"], one.curve["treat_all"], color="grey", linewidth=1, label=None if number else "treat all"
            )
    axes.axhline(0, color="black", linewidth=1, label="treat none")
    axes.set(
        xlabel="threshold probability", ylabel="net benefit", title="Decision curve (dot: the model's threshold)", xlim=(0, 1)
    )
    axes.set_ylim(-0.25 * highest, 1.12 * highest)
    axes.legend(loc="upper right", fontsize=7.5)


PLOTS: tuple[Plot, ...] = (
    ("ROC", "Sensitivity against 1 - specificity of every model.", _roc),
    ("Precision and recall", "Positive predictive value against sensitivity; dotted: the share of events.", _precision_recall),
    (
        "Reliability",
        "Share of events among samples with similar probabilities, with Wilson intervals; dotted: right.",
        _reliability,
    ),
    ("Decision curve", "Net benefit of treating by each model, of treating all (grey) and of treating none (black).", _decision),
)


def _curves(found: Comparison) -> list[Plot]:
    """Kaplan-Meier curves of every model, in a figure each: two models' curves over each other are not to be read."""
    words = "Share without the event among patients that {} calls high risk, and the others."
    return [
        (f"Kaplan-Meier, {one.title}", words.format(one.title), partial(_kaplan_meier, model=one))
        for one in found.models
        if not one.not_estimable
    ]


def _kaplan_meier(axes: Axes, found: Comparison, *, model: ComparedModel) -> None:
    related = prognosis(model.predictions, pd.DataFrame(), found.horizon or 0.0, level=found.resampling.level)
    card, patients = model.judged.card, related.patients
    sides = {card.negative_label: patients[~patients["called"]], card.positive_label: patients[patients["called"]]}
    draw_kaplan_meier(
        axes,
        {name: (side["time"].to_numpy(), side["event"].to_numpy()) for name, side in sides.items() if len(side)},
        title=model.title,
        unit=found.time_unit,
        horizon=found.horizon,
        hazard_ratio=related.groups,
        p_value=model.p_value,
        p_name="log-rank p",
    )


def _reliability_by_horizon(axes: Axes, found: Comparison) -> None:
    _reliability(axes, found)
    axes.set(xlabel=f"predicted risk by {found.horizon:g} {found.time_unit}", ylabel="observed risk", title="Calibration")


SURVIVAL_PLOTS: tuple[Plot, ...] = (
    (
        "Calibration at the horizon",
        "Observed risk by the horizon (Kaplan-Meier, with intervals) among patients with similar predicted risks; dotted: right.",
        _reliability_by_horizon,
    ),
)


def _data_uri(draw: Callable[[Axes, Comparison], None], found: Comparison) -> str:
    """A plot as an image within the page; equal comparisons give equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.5), layout="constrained")
    draw(figure.subplots(), found)
    written = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "hypoxia"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode("ascii")
