"""The report of a composite score: the paper's kind of number, labelled, beside those that can be believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from features.bundle import RESEARCH_USE_ONLY
from training.composite.biomarkers import MODALITIES
from training.composite.figures import cutoff_alone, draw_correlation, draw_hazard_ratios, draw_line_stability, draw_permutations
from training.composite.groups import GROUPS
from training.composite.honest import APPARENT
from training.composite.run import CompositeResult, RuleResult, outcome_of
from training.survival.figures import (
    draw_calibration,
    draw_cumulative_incidence,
    draw_kaplan_meier,
    draw_log_minus_log,
    draw_schoenfeld,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "separating_line": "separating line",
    "cox": "Cox model of both",
    "both_high": "both high",
    "both_high_given_cutoffs": "both high, given cutoffs",
    "imaging_alone": "imaging alone",
    "genes_alone": "genes alone",
}


def words_of(result: CompositeResult) -> str:
    """The rule with its numbers, as a phrase."""
    rule, (x, y) = result.chosen.fitted.rule, result.study.names
    if rule.rule == "both_high":
        over = ["at most" if sign < 0 else "at least" for sign in result.study.signs]
        return f"both high: {x} {over[0]} {rule.cutoffs_[0]:.4g} and {y} {over[1]} {rule.cutoffs_[1]:.4g}"
    across, along = rule.coefficients_
    terms = f"{across:.4g} x {x} {_signed(along)} x {y} {_signed(-rule.cutoff_)}"
    return f"{TITLES[rule.rule]}: {terms}; 0 and above is more hypoxic"


def _signed(number: float) -> str:
    return f"{'-' if number < 0 else '+'} {abs(number):.4g}"


def warnings_of(result: CompositeResult) -> tuple[str, ...]:
    """What a reader of the hazard ratios must know."""
    chosen, found = result.chosen, list(result.audit.warnings)
    if chosen.fitted.splits_searched > 1:
        found.append(
            f"The apparent hazard ratio was selected from {chosen.fitted.splits_searched} splits on the same patients: it is "
            "biased. Quote the cross-validated one, and the permutation p."
        )
    if result.permutation.p_value > 1 - result.study.evaluation.level:
        found.append(
            f"The whole search finds as much in {result.permutation.p_value:.0%} of cohorts whose outcome was dealt anew: this "
            "score is not told apart from chance."
        )
    found += _about_biomarkers(result)
    better = best_rule(result)
    if better is not None:
        found.append(f"In the same folds {TITLES[better]} does better than the study's own rule (cross-validated concordance).")
    found += chosen.fitted.flags
    failures = len(chosen.out_of_fold.failures) + len(result.stability.failures)
    if failures:
        found.append(f"{failures} folds or resamples gave no rule: groups of the size asked for are hard to find.")
    return (*found, *result.notes, *result.prognosis.notes)


def _about_biomarkers(result: CompositeResult) -> list[str]:
    """Directions that the outcome contradicts, and patients with one biomarker."""
    found = []
    for which, name in enumerate(result.study.names):
        concordance = result.rules[f"{MODALITIES[which]}_alone"].out_of_fold.concordance
        if concordance is not None and concordance < AGAINST:
            found.append(
                f"By {name!r} alone the patients called more hypoxic do better (concordance {concordance:.2f}): was its "
                "direction meant so (hypoxic: higher or lower)?"
            )
    lacking = int((~result.biomarkers.notna().all(axis=1)).sum())
    if lacking:
        found.append(
            f"{lacking} of {len(result.biomarkers)} patients lack one biomarker: the rules, their splits and the four groups are "
            "of the others; these are judged by the biomarker that they have."
        )
    return found


def best_rule(result: CompositeResult) -> str | None:
    """Name of another rule whose cross-validated concordance is higher than that of the study's own; None if none is."""
    own = next(iter(result.rules))
    scores = {name: rule.out_of_fold.concordance or 0.0 for name, rule in result.rules.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > scores[own] else None


def rule_rows(result: CompositeResult) -> list[tuple[str, ...]]:
    """Per rule: title, cross-validated hazard ratio with its range, concordance, apparent hazard ratio, splits searched."""
    return [(TITLES[name], *_row(rule)) for name, rule in result.rules.items()]


def _row(rule: RuleResult) -> tuple[str, ...]:
    judged, reach = rule.out_of_fold, rule.out_of_fold.range
    known = judged.median is not None and reach is not None
    honest = f"{judged.median:.2f} ({reach[0]:.2f} to {reach[1]:.2f})" if known and reach else "not estimable"
    concordance = "" if judged.concordance is None else f"{judged.concordance:.3f}"
    return honest, concordance, str(rule.apparent.hazard_ratio), str(rule.fitted.splits_searched)


# Concordance below which a biomarker's direction looks reversed.
AGAINST = 0.4
HEADINGS = (
    "rule",
    "hazard ratio, cross-validated\n(median, range over repeats)",
    "C-index,\ncross-validated",
    "hazard ratio, apparent\n(SELECTED AND BIASED)",
    "splits\nsearched",
)


def findings(result: CompositeResult) -> list[tuple[str, str]]:
    """What else was found, as titles and sentences."""
    stable, permuted, table = result.stability, result.permutation, result.groups.table
    found = [
        ("Rule", words_of(result)),
        (
            "Permutation of the whole search",
            f"p = {permuted.p_value:.3g} ({len(permuted.null)} permutations, {permuted.splits_searched} splits in each); "
            f"the naive log-rank p is {permuted.naive_p:.2g}, not to be used",
        ),
        ("Stability over bootstrap resamples", _stability(result)),
    ]
    if stable.corrected is not None:
        found.append(
            ("Bootstrap-corrected hazard ratio", f"{stable.corrected:.2f} (removes too little where a cutoff was selected)")
        )
    for name, one in result.added.items():
        found.append((f"Added to {name}", f"likelihood ratio {one.chi2:.2f}, p = {one.p_value:.3g} (out-of-fold score)"))
    if result.prognosis.added is not None:
        one = result.prognosis.added
        words = f"likelihood ratio {one.chi2:.2f}, p = {one.p_value:.3g} (out-of-fold score)"
        found.append(("Added to clinical covariates", words))
    for name, cut in result.cutpoints.items():
        found.append(
            (
                f"Best cutpoint of {name} alone",
                f"p = {cut.p_permutation:.3g} (permutation), {cut.p_lausen92:.3g} and {cut.p_lausen94:.3g} (Lausen and "
                "Schumacher 1992 and 1994)",
            )
        )
    found.append(
        (
            "Four groups",
            f"both {table.both}, genes only {table.genes_only}, neither {table.neither}, imaging only {table.imaging_only}; "
            f"{_cutoffs(result)}; agreement {table.agreement:.1%}, Fisher p = {table.fisher_p:.2g}, kappa {table.kappa:.3f}, "
            f"Spearman {_correlation(result)}",
        )
    )
    return found


def _cutoffs(result: CompositeResult) -> str:
    """Where each biomarker alone parts the patients for the four groups, and who said so."""
    words = []
    for which, name in enumerate(result.study.names):
        origin = "found here" if result.measured.cutoff(which) is None else "given"
        words.append(f"{name} at {cutoff_alone(result, which):.4g} ({origin})")
    return " and ".join(words)


def _correlation(result: CompositeResult) -> str:
    found = result.correlation
    return f"{found.value:.3f} ({found.lower:.3f} to {found.upper:.3f})"


def _stability(result: CompositeResult) -> str:
    stable = result.stability
    alike = float(np.nanmean(np.maximum(stable.frequency, 1 - stable.frequency)))
    if len(stable.degrees) == 0:
        return f"a patient is called the same in {alike:.0%} of resamples on average"
    low, middle, high = np.quantile(stable.degrees, [0.025, 0.5, 0.975])
    return (
        f"angle {middle:.0f} degrees ({low:.0f} to {high:.0f}; 0 is imaging alone, 90 genes alone, axes in standard deviations); "
        f"a patient is called the same in {alike:.0%} of resamples on average"
    )


def summary_text(result: CompositeResult) -> str:
    """The run in Markdown."""
    headings = [one.replace("\n", " ") for one in HEADINGS]
    lines = [
        f"# {result.study.model}",
        "",
        RESEARCH_USE_ONLY,
        "",
        f"{len(result.cohort.samples)} patients, {int(result.cohort.y.sum())} events by {result.cohort.horizon:g} "
        f"{result.cohort.time_unit}.",
        "",
        f"| {' | '.join(headings)} |",
        "|---" * len(headings) + "|",
        *(f"| {' | '.join(row)} |" for row in rule_rows(result)),
        "",
        *(f"- {title}: {words}." for title, words in findings(result)),
        "",
        *(f"Warning: {warning}" for warning in warnings_of(result)),
        "",
    ]
    return "\n".join(lines)


def composite_figures(result: CompositeResult) -> dict[str, Callable[[], Figure]]:
    """All figures of a run by file name, drawn when called."""
    drawn: dict[str, Callable[[], Figure]] = {
        "kaplan_meier_cross_validated": lambda: _panel(lambda axes: _honest_curves(axes, result)),
        "kaplan_meier_apparent": lambda: _panel(lambda axes: _apparent_curves(axes, result)),
        "four_groups": lambda: _panel(lambda axes: _four_groups(axes, result)),
        "correlation": lambda: _panel(lambda axes: draw_correlation(axes, result)),
        "line_stability": lambda: _panel(lambda axes: draw_line_stability(axes, result)),
        "hazard_ratios": lambda: _panel(lambda axes: draw_hazard_ratios(axes, result), (7.0, 4.2)),
        "permutations": lambda: _panel(lambda axes: draw_permutations(axes, result.permutation)),
        "log_minus_log": lambda: _panel(
            lambda axes: draw_log_minus_log(
                axes, _honest_groups(result), title="Out-of-fold classes", unit=result.cohort.time_unit
            )
        ),
    }
    related = result.prognosis
    if related.proportional is not None:
        check = related.proportional
        covariate = str(check.residuals.columns[0])
        drawn["schoenfeld"] = lambda: _panel(lambda axes: draw_schoenfeld(axes, check, covariate, unit=result.cohort.time_unit))
    if related.calibration is not None:
        table, horizon = related.calibration, result.cohort.horizon or 0.0
        drawn["calibration"] = lambda: _panel(
            lambda axes: draw_calibration(axes, table, horizon=horizon, unit=result.cohort.time_unit)
        )
    if related.states:
        drawn["cumulative_incidence"] = lambda: _panel(
            lambda axes: draw_cumulative_incidence(
                axes, related.states, title="Cumulative incidence", unit=result.cohort.time_unit
            )
        )
    return drawn


def _panel(draw: Callable[[Axes], None], size: tuple[float, float] = (5.6, 5.2)) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    return figure


def _honest_groups(result: CompositeResult) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    judged = result.chosen.out_of_fold
    return _groups(result, judged.scored[judged.typical], judged.high[judged.typical])


def _groups(result: CompositeResult, known: np.ndarray, high: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    times, event = outcome_of(result.cohort)
    sides = {"less hypoxic": known & ~high, "more hypoxic": known & high}
    return {name: (times[side], event[side]) for name, side in sides.items() if side.any()}


def _honest_curves(axes: Axes, result: CompositeResult) -> None:
    judged = result.chosen.out_of_fold
    draw_kaplan_meier(
        axes,
        _honest_groups(result),
        title="Cross-validated: the rule refitted without each patient",
        unit=result.cohort.time_unit,
        horizon=result.cohort.horizon,
        hazard_ratio=judged.hazard_ratios[judged.typical],
        p_value=result.permutation.p_value,
        p_name="permutation p of the whole search",
        label="out of fold, the typical repeat",
    )


def _apparent_curves(axes: Axes, result: CompositeResult) -> None:
    chosen = result.chosen
    score = chosen.fitted.rule.transform(result.biomarkers.to_numpy())[:, 0]
    draw_kaplan_meier(
        axes,
        _groups(result, ~np.isnan(score), score >= 0),
        title="Apparent: the patients whom the rule was chosen on",
        unit=result.cohort.time_unit,
        horizon=result.cohort.horizon,
        hazard_ratio=chosen.apparent.hazard_ratio,
        p_value=chosen.apparent.naive_p,
        p_name="log-rank p",
        label=APPARENT,
    )


def _four_groups(axes: Axes, result: CompositeResult) -> None:
    times, event = outcome_of(result.cohort)
    complete = result.biomarkers.notna().all(axis=1).to_numpy()
    test, groups = result.groups.log_rank, result.groups.outcomes(times[complete], event[complete])
    draw_kaplan_meier(
        axes,
        {name: groups[name] for name in (GROUPS[2], GROUPS[0], GROUPS[1], GROUPS[3]) if name in groups},
        title="Groups by either biomarker's own cutoff",
        unit=result.cohort.time_unit,
        horizon=result.cohort.horizon,
        p_value=None if test is None else test.p_value,
        p_name="log-rank p",
    )
