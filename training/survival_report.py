"""Figures and sentences about times to an event, from finished results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from training.prognosis import SCORE, Prognosis
from training.survival.cox import CoxFit
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

    from training.run import StudyResult

WHOSE = {
    "held out": "held-out patients, opened once",
    "internal": "out of fold, all folds pooled",
    "every patient": "every patient; the score was published, not learnt from them",
}


def survival_figures(result: StudyResult) -> dict[str, Callable[[], Figure]]:
    """All figures of what was predicted of times to an event, by file name, drawn when called."""
    drawn: dict[str, Callable[[], Figure]] = {}
    for name, one in result.prognosis.items():
        file = name.replace(" ", "_")
        drawn[f"kaplan_meier_{file}"] = partial(_panel, partial(_curves, result=result, name=name, one=one))
        if one.calibration is not None:
            drawn[f"calibration_{file}"] = partial(_panel, partial(_calibration, result=result, one=one))
        if one.states:
            drawn[f"cumulative_incidence_{file}"] = partial(_panel, partial(_incidence, result=result, name=name, one=one))
    last = list(result.prognosis)[-1]
    one = result.prognosis[last]
    if len(_groups(one)) > 1:
        drawn["log_minus_log"] = partial(_panel, partial(_log_minus_log, result=result, name=last, one=one))
    if one.proportional is not None:
        drawn["schoenfeld"] = partial(_panel, partial(_schoenfeld, result=result, one=one))
    return drawn


def survival_lines(result: StudyResult) -> list[str]:
    """Sentences of the summary."""
    found = [f"- {name}: {words}." for name, one in result.prognosis.items() for words in prognosis_words(one)]
    return [*found, ""] if found else []


def prognosis_words(one: Prognosis) -> list[str]:
    """What a score says of the outcome, as phrases."""
    words = []
    if one.alone is not None:
        words.append(f"hazard ratio per standard deviation of the score {_ratio(one.alone)}")
    if one.adjusted is not None:
        words.append(f"adjusted for clinical covariates {_ratio(one.adjusted)}")
    if one.added is not None:
        words.append(f"added to clinical covariates: likelihood ratio {one.added.chi2:.2f}, p = {one.added.p_value:.3g}")
    if one.groups is not None:
        p = "" if one.test is None else f", log-rank p = {one.test.p_value:.3g}"
        words.append(f"hazard ratio of those called {one.groups} (Wald's interval){p}")
    if one.proportional is not None:
        p_value = one.proportional.table["p_value"].astype(float)["GLOBAL"]
        words.append(f"proportional hazards: p = {p_value:.3g}")
    return words


def _ratio(fit: CoxFit) -> str:
    row = fit.table.loc[SCORE].astype(float)
    return f"{row['hazard_ratio']:.3f} ({row['lower']:.3f} to {row['upper']:.3f}), p = {row['p_value']:.3g}"


def _panel(draw: Callable[[Axes], None]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    draw(figure.subplots())
    return figure


def _groups(one: Prognosis) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    patients = one.patients
    sides = {"low risk": patients[~patients["called"]], "high risk": patients[patients["called"]]}
    return {name: (side["time"].to_numpy(), side["event"].to_numpy()) for name, side in sides.items() if len(side)}


def _curves(axes: Axes, *, result: StudyResult, name: str, one: Prognosis) -> None:
    draw_kaplan_meier(
        axes,
        _groups(one),
        title=name[0].upper() + name[1:],
        unit=result.cohort.time_unit,
        horizon=result.cohort.horizon,
        hazard_ratio=one.groups,
        p_value=None if one.test is None else one.test.p_value,
        p_name="log-rank p",
        label=WHOSE[name],
    )


def _calibration(axes: Axes, *, result: StudyResult, one: Prognosis) -> None:
    assert one.calibration is not None  # noqa: S101 - asked before
    draw_calibration(axes, one.calibration, horizon=result.cohort.horizon or 0.0, unit=result.cohort.time_unit)


def _incidence(axes: Axes, *, result: StudyResult, name: str, one: Prognosis) -> None:
    draw_cumulative_incidence(axes, one.states, title=f"Cumulative incidence, {name}", unit=result.cohort.time_unit)


def _log_minus_log(axes: Axes, *, result: StudyResult, name: str, one: Prognosis) -> None:
    draw_log_minus_log(axes, _groups(one), title=f"Log-minus-log, {name}", unit=result.cohort.time_unit)


def _schoenfeld(axes: Axes, *, result: StudyResult, one: Prognosis) -> None:
    assert one.proportional is not None  # noqa: S101 - asked before
    draw_schoenfeld(axes, one.proportional, str(one.proportional.residuals.columns[0]), unit=result.cohort.time_unit)
