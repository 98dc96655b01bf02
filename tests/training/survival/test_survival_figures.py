"""Figures of follow-up show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from training.survival.cox import HazardRatio, cox, hazard_ratio
from training.survival.curves import kaplan_meier
from training.survival.discrimination import calibration_at
from training.survival.figures import (
    draw_calibration,
    draw_cumulative_incidence,
    draw_kaplan_meier,
    draw_log_minus_log,
    draw_schoenfeld,
)
from training.survival.proportional import proportional_hazards


@pytest.fixture
def figure() -> Figure:
    return Figure(figsize=(5, 5), layout="constrained")


@pytest.fixture
def groups() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        name: (np.minimum(rng.exponential(mean, 40), 60), rng.random(40) < 0.7)
        for name, mean in (("less hypoxic", 60), ("more hypoxic", 25))
    }


def written(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_kaplan_meier_shows_both_curves_the_ratio_and_the_numbers_at_risk(figure, groups) -> None:
    axes = figure.subplots()
    ratio = HazardRatio(2.5, 1.2, 5.1, 0.01, "wald", None)
    draw_kaplan_meier(
        axes, groups, title="PFS", unit="months", horizon=60, hazard_ratio=ratio, p_value=0.012, label="selected, biased"
    )
    assert "selected, biased\nhazard ratio 2.5 (1.2 to 5.1)\np = 0.012" in written(axes)
    assert axes.get_xticks().tolist() == [0, 12, 24, 36, 48, 60] or axes.get_xticks().tolist() == [0, 10, 20, 30, 40, 50, 60]
    counts = [str(int((time >= tick).sum())) for time, _ in groups.values() for tick in axes.get_xticks()]
    assert written(axes)[-len(counts) :] == counts
    curve = kaplan_meier(*groups["less hypoxic"])
    drawn = axes.lines[0]
    assert drawn.get_ydata()[1:-1].tolist() == curve.survival[curve.times <= 60].tolist()
    assert axes.get_legend().get_texts()[1].get_text().startswith("more hypoxic (n=40, ")
    figure.draw_without_rendering()


def test_the_name_of_the_test_stands_before_its_p(figure, groups) -> None:
    axes = figure.subplots()
    draw_kaplan_meier(axes, groups, title="", unit="months", p_value=0.012, p_name="log-rank p")
    assert "log-rank p = 0.012" in written(axes)


@pytest.mark.parametrize("mean", [15, 2000])
def test_the_legend_covers_neither_good_curves_nor_bad_ones_nor_the_words(figure, mean) -> None:
    rng = np.random.default_rng(0)
    groups = {name: (np.minimum(rng.exponential(mean, 60), 60.0), np.ones(60)) for name in ("less hypoxic", "more hypoxic")}
    groups = {name: (time, time < 60) for name, (time, _) in groups.items()}
    axes = figure.subplots()
    draw_kaplan_meier(axes, groups, title="", unit="months", p_value=0.012, label="selected on these patients, biased")
    figure.draw_without_rendering()
    legend = axes.get_legend().get_window_extent()
    assert not any(
        legend.contains(*point) for line in axes.lines for point in axes.transData.transform(np.column_stack(line.get_data()))
    )
    assert not legend.overlaps(axes.texts[0].get_window_extent())


def test_the_numbers_at_risk_lie_within_the_figure(figure) -> None:
    time = np.arange(1.0, 30)
    axes = figure.subplots()
    draw_kaplan_meier(axes, {name: (time, np.ones(29)) for name in "abcd"}, title="", unit="months")
    figure.draw_without_rendering()
    bounds = [text.get_window_extent() for text in axes.texts]
    assert min(box.y0 for box in bounds) >= 0
    assert len({round(box.y0) for box in bounds}) == 5  # the heading and four rows


def test_a_ratio_that_cannot_be_estimated_is_drawn_as_its_reason(figure, groups) -> None:
    axes = figure.subplots()
    draw_kaplan_meier(axes, groups, title="", unit="months", hazard_ratio=hazard_ratio([1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1]))
    assert "hazard ratio not estimable: no event while both groups were at risk" in written(axes)


def test_a_shrunk_ratio_says_that_it_is_one(figure, groups) -> None:
    axes = figure.subplots()
    draw_kaplan_meier(
        axes, groups, title="", unit="months", hazard_ratio=hazard_ratio(np.arange(1, 25), np.ones(24), np.arange(24) < 12)
    )
    assert any(text.startswith("hazard ratio (Firth) ") for text in written(axes))


def test_a_curve_is_not_drawn_past_the_last_follow_up(figure) -> None:
    axes = figure.subplots()
    draw_kaplan_meier(axes, {"short": (np.array([1.0, 2, 3]), np.array([1, 0, 0]))}, title="", unit="months", horizon=60)
    assert axes.lines[0].get_xdata().max() == 3


def test_incidence_counts_competing_events(figure) -> None:
    axes = figure.subplots()
    draw_cumulative_incidence(axes, {"all": (np.arange(1.0, 9), np.array([1, 2, 0, 1, 2, 0, 1, 0]))}, title="", unit="months")
    assert axes.get_legend().get_texts()[0].get_text() == "all (n=8, 3 events, 2 competing)"
    figure.draw_without_rendering()


def test_parallel_log_minus_log_curves_belong_to_proportional_hazards(figure) -> None:
    """Exponential quantiles with a hazard ratio of e: a distance of one on the plot's scale."""
    share = np.linspace(0.05, 0.95, 19)
    slow = -np.log(1 - share)
    axes = figure.subplots()
    draw_log_minus_log(axes, {"slow": (slow, np.ones(19)), "fast": (slow / np.e, np.ones(19))}, title="", unit="months")
    first, second = axes.lines
    assert second.get_ydata().tolist() == first.get_ydata().tolist()
    assert np.log(first.get_xdata()) - np.log(second.get_xdata()) == pytest.approx(np.ones(18))
    figure.draw_without_rendering()


def test_schoenfeld_residuals_are_drawn_at_their_times_with_the_test(figure) -> None:
    rng = np.random.default_rng(1)
    covariates = pd.DataFrame({"score": rng.normal(size=60), "stage": rng.choice(["I", "II", "III"], 60)})
    fit = cox(covariates, rng.exponential(10, 60), rng.random(60) < 0.8)
    check = proportional_hazards(fit)
    axes = figure.subplots()
    draw_schoenfeld(axes, check, "stage=II", unit="months")
    assert axes.get_title().startswith(f"stage: chi-square {check.table.loc['stage', 'chi2']:.2f}")
    assert axes.collections[0].get_offsets().data[:, 1].tolist() == check.residuals["stage=II"].tolist()
    figure.draw_without_rendering()


def test_calibration_is_drawn_where_it_is_known(figure) -> None:
    table = calibration_at([1, 2, 3, 6, 7, 8], [1, 0, 0, 1, 0, 0], [0.1, 0.1, 0.1, 0.9, 0.9, 0.9], 5, groups=2)
    axes = figure.subplots()
    draw_calibration(axes, table, horizon=5, unit="years")
    assert axes.lines[0].get_xdata().tolist() == [0.9]
    assert axes.get_xlabel() == "predicted risk by 5 years"
    figure.draw_without_rendering()
