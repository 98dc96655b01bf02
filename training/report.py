"""Figures and text from finished results; nothing is computed here that is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from features.audit import few_held_out
from features.bundle import RESEARCH_USE_ONLY, Estimate
from training.evaluation import Evaluation, metric_of
from training.signature_recipe import coverage_words
from training.survival_report import survival_figures, survival_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from training.explanation import Explanation
    from training.run import StudyResult

HYPOXIC, NOT_HYPOXIC, INTERNAL = "#b2182b", "#2166ac", "#7f7f7f"
SHOWN_FEATURES = 20


def title_of(metric: str) -> str:
    """A metric's name as it is printed; pooled ones say so."""
    base = metric_of(metric).title
    return f"{base}, pooled" if metric.endswith("_pooled") else base


def figures(result: StudyResult) -> dict[str, Callable[[], Figure]]:
    """All figures of a run by file name, drawn when called."""
    judged = {"held-out": result.held_out} | ({"internal": result.internal} if result.internal else {})
    about = _about_classes(result, judged) if result.cohort.horizon is None else survival_figures(result)
    return {
        **about,
        "votes": lambda: _votes(result.fitted.selection.votes),
        "shap_beeswarm": lambda: _beeswarm(result.explanation),
        "shap_bar": lambda: _bars(result.explanation),
    }


def _about_classes(result: StudyResult, judged: Mapping[str, Evaluation]) -> dict[str, Callable[[], Figure]]:
    return {
        "roc": lambda: _panel(lambda axes: _roc(axes, judged)),
        "precision_recall": lambda: _panel(lambda axes: _precision_recall(axes, judged)),
        "calibration": lambda: _panel(lambda axes: _calibration(axes, judged)),
        "scores_by_class": lambda: _panel(lambda axes: _scores_by_class(axes, result.held_out)),
        "summary": lambda: _summary(result, judged),
    }


def summary_text(result: StudyResult, model: str) -> str:
    """The run in Markdown: what was learnt from, how it did, what it is."""
    fitted, cohort = result.fitted, result.cohort
    chosen = fitted.selection.selected
    lines = [
        f"# {model}",
        "",
        f"{RESEARCH_USE_ONLY}",
        "",
        f"{len(cohort.samples)} samples of {cohort.patients.nunique()} patients, {int(cohort.y.sum())} events; "
        f"{len(result.split.train)} samples for development, {len(result.split.test)} held out.",
        "",
        "| measure | held out | internal |",
        "|---|---|---|",
        *(f"| {name} | {held} | {inner} |" for name, held, inner in estimate_rows(result.held_out, result.internal)),
        "",
        *survival_lines(result),
        f"Pipeline: {fitted.words}. Threshold {fitted.threshold:.3f}.",
        "",
        f"Features ({len(chosen)}, {fitted.selection.votes_used} votes or more): {', '.join(chosen)}.",
        *(["", *(f"Warning: {warning}" for warning in warnings_of(result))] if warnings_of(result) else []),
        "",
    ]
    return "\n".join(lines)


def estimate_rows(held_out: Evaluation, internal: Evaluation | None) -> list[tuple[str, str, str]]:
    """Title, held-out and internal estimate of every metric, as text."""
    names = [*held_out.estimates, *(name for name in (internal.estimates if internal else {}) if name not in held_out.estimates)]
    return [
        (title_of(name), _shown(held_out.estimates.get(name)), _shown(internal.estimates.get(name) if internal else None))
        for name in names
    ]


def warnings_of(result: StudyResult) -> tuple[str, ...]:
    """What a reader of the estimates must know."""
    selection, search, found = result.fitted.selection, result.fitted.search, list(result.audit.warnings)
    found += _about_signature(result)
    if selection.fell_back:
        found.append(f"No feature reached {selection.votes_needed} votes; those with {selection.votes_used} were taken.")
    if not result.repeatable:
        found.append("A wall-clock limit had a say in this model: the same study may give another one.")
    if search.failures:
        reasons = sorted({str(trial.failure) for trial in search.failures})
        found.append(f"{len(search.failures)} of {len(search.trials)} candidates failed ({'; '.join(reasons[:3])}).")
    predictions, positives = result.held_out.predictions, result.held_out.predictions["called"]
    found += few_held_out(predictions.groupby("patient")["label"].max())
    if positives.all() or not positives.any():
        side = "positive" if positives.iloc[0] else "negative"
        found.append(f"Every held-out sample is called {side}: the threshold does not carry over, only the ranking is of use.")
    if result.cohort.features[list(result.fitted.selection.selected)].isna().to_numpy().any():
        found.append(
            "Features of the model have missing values in the table; they were imputed in training and in the estimates above, "
            "but a served model takes complete rows only."
        )
    undefined = [title_of(name) for name, estimate in result.held_out.estimates.items() if estimate.value is None]
    if undefined:
        found.append(f"Undefined on the held-out patients: {', '.join(undefined)}.")
    return tuple(found)


def _about_signature(result: StudyResult) -> list[str]:
    """A warning where few of the signature's genes are there."""
    recipe = result.study.recipe.signature
    warning = coverage_words(recipe, result.cohort.features)[1] if recipe else None
    return [warning] if warning else []


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def _panel(draw: Callable[[Axes], None], size: tuple[float, float] = (4.6, 4.4)) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    return figure


def _summary(result: StudyResult, judged: Mapping[str, Evaluation]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 4.2), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    _roc(first, judged)
    _scores_by_class(second, result.held_out)
    _draw_bars(third, result.explanation, 12)
    return figure


def _roc(axes: Axes, judged: Mapping[str, Evaluation]) -> None:
    for name, evaluation in judged.items():
        for _, part in evaluation.predictions.groupby(["repeat", "fold"]):
            false_positive_rate, sensitivity, _ = roc_curve(part["label"], part["probability"])
            axes.step(false_positive_rate, sensitivity, where="post", **_line(name))
        axes.plot([], [], label=f"{name} {evaluation.estimates['roc_auc']}", **_line(name))
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes.legend(loc="lower right", fontsize=8)


def _precision_recall(axes: Axes, judged: Mapping[str, Evaluation]) -> None:
    for name, evaluation in judged.items():
        for _, part in evaluation.predictions.groupby(["repeat", "fold"]):
            precision, recall, _ = precision_recall_curve(part["label"], part["probability"])
            axes.step(recall, precision, where="post", **_line(name))
        axes.plot([], [], label=f"{name} {evaluation.estimates['pr_auc']}", **_line(name))
        axes.axhline(evaluation.predictions["label"].mean(), linestyle=":", linewidth=0.8, color=_line(name)["color"])
    axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="Precision and recall", ylim=(0, 1.03))
    axes.legend(loc="lower left", fontsize=8)


def _calibration(axes: Axes, judged: Mapping[str, Evaluation]) -> None:
    for name, evaluation in judged.items():
        predictions = evaluation.predictions
        groups = pd.qcut(predictions["probability"], min(5, len(predictions) // 10 or 1), duplicates="drop")
        binned = predictions.groupby(groups, observed=True).agg(
            x=("probability", "mean"), y=("label", "mean"), n=("label", "size")
        )
        error = np.sqrt(binned["y"] * (1 - binned["y"]) / binned["n"])
        color = _line(name)["color"]
        axes.errorbar(
            binned["x"], binned["y"], yerr=error, marker="o", capsize=2, label=f"{name} (bars: 1 standard error)", color=color
        )
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="predicted probability", ylabel="share of events", title="Calibration", xlim=(0, 1), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left", fontsize=8)


def _scores_by_class(axes: Axes, evaluation: Evaluation) -> None:
    predictions = evaluation.predictions
    for label, (name, color) in enumerate((("not hypoxic", NOT_HYPOXIC), ("hypoxic", HYPOXIC))):
        scores = predictions.loc[predictions["label"] == label, "probability"].to_numpy()
        spread = 0.28 * (np.argsort(np.argsort(scores)) % 7 / 6 - 0.5)
        axes.scatter(label + spread, scores, s=16, alpha=0.75, color=color, label=f"{name} (n={len(scores)})")
        if len(scores):
            axes.hlines(np.median(scores), label - 0.25, label + 0.25, color="black", linewidth=1.2)
    axes.axhline(predictions["threshold"].iloc[0], linestyle="--", linewidth=0.9, color="black")
    p = "" if evaluation.p_value is None else f", Mann-Whitney p = {evaluation.p_value:.2g} ({evaluation.alternative})"
    axes.set(xticks=[0, 1], ylabel="predicted probability", title=f"Held-out patients{p}")
    axes.title.set_fontsize(10)
    axes.set_xticklabels(["not hypoxic", "hypoxic"])


def _votes(votes: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    counts = votes.sum(axis=1)
    top = votes.loc[counts.sort_values(ascending=False, kind="stable").index[:40]]
    figure = Figure(figsize=(6.5, 1.5 + 0.19 * len(top)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(top.to_numpy(), cmap="Blues", aspect="auto", vmin=0, vmax=1.3)
    axes.set_xticks(range(votes.shape[1]), votes.columns, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(top)), [f"{name} ({counts[name]})" for name in top.index], fontsize=7)
    axes.set_title(f"Votes, {len(top)} features with the most")
    return figure


def _beeswarm(explanation: Explanation) -> Figure:
    from matplotlib.figure import Figure

    names = explanation.importance().index[:SHOWN_FEATURES][::-1]
    figure = Figure(figsize=(7, 1.2 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        values = explanation.values[name].to_numpy()
        height = explanation.features[name].rank(pct=True).to_numpy()
        spread = 0.5 * (np.argsort(np.argsort(values)) % 5 / 4 - 0.5)
        points = axes.scatter(values, row + spread, c=height, cmap="coolwarm", s=12, vmin=0, vmax=1)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="SHAP value (change of the probability)", title="What moves the answer, held-out patients")
    figure.colorbar(points, ax=axes, label="feature value, low to high (rank)")
    return figure


def _bars(explanation: Explanation) -> Figure:
    count = min(SHOWN_FEATURES, len(explanation.values.columns))
    return _panel(lambda axes: _draw_bars(axes, explanation, SHOWN_FEATURES), (7, 1.2 + 0.27 * count))


def _draw_bars(axes: Axes, explanation: Explanation, count: int) -> None:
    top = explanation.importance().iloc[:count][::-1]
    axes.barh(range(len(top)), top.to_numpy(), color=NOT_HYPOXIC)
    axes.set_yticks(range(len(top)), list(top.index), fontsize=7)
    axes.set(xlabel="mean |SHAP value|", title="Which features move the answer most")


def _line(name: str) -> dict[str, Any]:
    return {"color": HYPOXIC, "linewidth": 1.6} if name == "held-out" else {"color": INTERNAL, "linewidth": 0.9, "alpha": 0.8}
