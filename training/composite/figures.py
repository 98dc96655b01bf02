"""Figures of a composite score, each drawn on axes that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import chi2

from features.composite import BIOMARKERS, CompositeScore
from training.composite.honest import APPARENT, CROSS_VALIDATED, PermutationTest
from training.report import HYPOXIC, INTERNAL, NOT_HYPOXIC

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from training.composite.run import CompositeResult, RuleResult

MOST_LINES = 200


def draw_correlation(axes: Axes, result: CompositeResult) -> None:
    """Both biomarkers of each patient, coloured by outcome, with the rule's border and the cutoff of each biomarker alone."""
    values, event = result.biomarkers.to_numpy(dtype=float), result.outcome[1]
    for struck, name, colour in ((False, "no event seen", NOT_HYPOXIC), (True, "event", HYPOXIC)):
        own = event == struck
        axes.scatter(values[own, 0], values[own, 1], s=18, alpha=0.75, color=colour, label=f"{name} (n={int(own.sum())})")
    _frame(axes, result, f"Spearman {result.correlation.value:.2f}")
    cutoffs = [cutoff_alone(result, number) for number in range(len(BIOMARKERS))]
    axes.axvline(cutoffs[0], linestyle=":", linewidth=0.9, color="black", label="cutoffs of each alone")
    axes.axhline(cutoffs[1], linestyle=":", linewidth=0.9, color="black")
    _border(axes, result.chosen.fitted.rule, color="black", linewidth=1.4, label=result.chosen.fitted.rule.rule.replace("_", " "))
    axes.legend(fontsize=8)


def draw_line_stability(axes: Axes, result: CompositeResult) -> None:
    """The rule's border in resamples of the patients, who are coloured by how many of them call each more hypoxic."""
    stable, values = result.stability, result.biomarkers.to_numpy(dtype=float)
    points = axes.scatter(
        values[:, 0], values[:, 1], c=stable.frequency, cmap="coolwarm", vmin=0, vmax=1, s=20, edgecolor="black"
    )
    _frame(axes, result, f"{len(stable.fits)} resamples of the patients")
    shown = stable.fits[:MOST_LINES]
    for fitted in shown:
        _border(axes, fitted.rule, color=INTERNAL, linewidth=0.6, alpha=max(0.06, 4 / max(len(shown), 1)))
    _border(axes, result.chosen.fitted.rule, color="black", linewidth=1.6, label="all patients")
    bar = axes.figure.colorbar(points, ax=axes)
    bar.set_label("share of resamples that call the patient more hypoxic", fontsize=8)
    axes.legend(fontsize=8)


def draw_hazard_ratios(axes: Axes, result: CompositeResult) -> None:
    """Hazard ratio of each rule: as it is on the patients that it was chosen on, and cross-validated in the same folds."""
    for row, rule in enumerate(result.rules.values()):
        _apparent_ratio(axes, rule, row - 0.14)
        _honest_ratio(axes, rule, row + 0.14)
    axes.errorbar([], [], xerr=[], fmt="o", mfc="white", color=INTERNAL, capsize=2, label=APPARENT)
    axes.plot([], [], "s", color=HYPOXIC, label=f"{CROSS_VALIDATED} (median; thick: range over repeats; thin: 95% interval)")
    axes.axvline(1, color="black", linestyle=":", linewidth=0.8)
    axes.set_yticks(range(len(result.rules)), [name.replace("_", " ") for name in result.rules])
    axes.set(xscale="log", ylim=(len(result.rules) - 0.5, -0.5), xlabel="hazard ratio, more to less hypoxic")
    ticks = [tick for tick in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def draw_permutations(axes: Axes, test: PermutationTest) -> None:
    """The largest statistic of the search in cohorts whose outcome was dealt anew, and the one that was found."""
    null = test.null[np.isfinite(test.null)]
    axes.hist(null, bins=min(40, max(10, len(null) // 20)), color=NOT_HYPOXIC, alpha=0.6, label="outcome dealt anew")
    axes.axvline(test.statistic, color=HYPOXIC, linewidth=1.6, label=f"found ({test.statistic:.2f})")
    naive = float(np.sqrt(chi2.ppf(0.95, 1)))
    axes.axvline(
        naive, color="black", linestyle=":", linewidth=0.9, label=f"5% limit of one split given beforehand ({naive:.2f})"
    )
    axes.set(
        xlabel=f"largest log-rank z of {test.splits_searched} splits",
        ylabel="permutations",
        title=f"p = {test.p_value:.3g} (naive {test.naive_p:.2g})",
    )
    axes.margins(y=0.3)  # room for the legend
    axes.legend(fontsize=7, loc="upper left")


def cutoff_alone(result: CompositeResult, number: int) -> float:
    """Cutoff of one biomarker alone in its unit: the one that was known beforehand, else the one that was found."""
    known = result.measured.cutoff(number)
    found = result.rules[f"{BIOMARKERS[number]}_alone"].fitted.rule
    return found.cutoff_ * found.signs[number] if known is None else known


def _frame(axes: Axes, result: CompositeResult, title: str) -> None:
    """Names on the axes, and limits that no border moves."""
    x, y = result.biomarkers.columns
    axes.set(xlabel=x, ylabel=y, title=title, xlim=axes.get_xlim(), ylim=axes.get_ylim())
    axes.title.set_fontsize(10)


def _border(axes: Axes, rule: CompositeScore, **style: Any) -> None:
    """Where the score is 0."""
    if rule.rule == "both_high":
        _corner(axes, rule, style)
        return
    (across, along), offset = rule.line.normal, rule.line.offset
    point = (offset * across, offset * along)
    if along == 0:
        axes.axvline(point[0], **style)
    else:
        axes.axline(point, slope=-across / along, **style)


def _corner(axes: Axes, rule: CompositeScore, style: dict[str, Any]) -> None:
    x, y = rule.cutoffs_
    far_x, far_y = (limits[1] if sign > 0 else limits[0] for sign, limits in zip(rule.signs, _limits(axes), strict=True))
    axes.plot([x, x, far_x], [far_y, y, y], **style)


def _limits(axes: Axes) -> tuple[tuple[float, float], tuple[float, float]]:
    return axes.get_xlim(), axes.get_ylim()


def _apparent_ratio(axes: Axes, rule: RuleResult, row: float) -> None:
    ratio = rule.apparent.hazard_ratio
    if ratio.value is None or ratio.lower is None or ratio.upper is None:
        axes.text(1, row, " not estimable", fontsize=7, va="center", color=INTERNAL)
        return
    axes.plot([ratio.lower, ratio.upper], [row, row], color=INTERNAL, linewidth=1)
    axes.plot(ratio.value, row, "o", mfc="white", color=INTERNAL)


def _honest_ratio(axes: Axes, rule: RuleResult, row: float) -> None:
    judged, reach = rule.out_of_fold, rule.out_of_fold.range
    if judged.median is None or reach is None:
        axes.text(1, row, " not estimable", fontsize=7, va="center", color=HYPOXIC)
        return
    typical = judged.hazard_ratios[judged.typical]
    if typical.lower is not None and typical.upper is not None:
        axes.plot([typical.lower, typical.upper], [row, row], color=HYPOXIC, linewidth=0.9)
    axes.plot(reach, [row, row], color=HYPOXIC, linewidth=3.5, alpha=0.5, solid_capstyle="butt")
    axes.plot(judged.median, row, "s", color=HYPOXIC, markersize=6)
