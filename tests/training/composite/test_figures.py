from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from training.composite.figures import cutoff_alone, draw_correlation, draw_hazard_ratios, draw_line_stability, draw_permutations
from training.composite.honest import Biomarkers, apparent, cross_validated, permutation_p, stability
from training.composite.rules import Alone, BothHigh, SeparatingLine
from training.survival.contingency import spearman

RULES = {rule.name: rule for rule in (SeparatingLine(), BothHigh(), Alone(which="imaging"), Alone(which="genes"))}


def found_by(own: str) -> SimpleNamespace:
    """What the figures read of a study's result."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 2)) * [0.1, 2] + [0.3, 0]
    time, event = rng.exponential(size=80), rng.random(80) < 0.5
    data = Biomarkers(values, time, event, range(80))
    rules = {own: RULES[own]} | RULES
    judged = cross_validated(rules, data, rng, folds=4, repeats=2)
    results = {}
    for name, rule in rules.items():
        fitted = data.fit(rule)
        results[name] = SimpleNamespace(fitted=fitted, apparent=apparent(fitted, data), out_of_fold=judged.rules[name])
    return SimpleNamespace(
        biomarkers=pd.DataFrame(values, columns=["hypoxic_fraction", "gene_score"]),
        outcome=(time, event),
        rules=results,
        chosen=results[own],
        stability=stability(RULES[own], data, 12, rng),
        permutation=permutation_p(RULES[own], data, 99, rng),
        correlation=spearman(*values.T),
        measured=SimpleNamespace(cutoff=lambda number: 0.27 if number == 0 else None),
    )


@pytest.fixture(scope="module")
def line() -> SimpleNamespace:
    return found_by("separating_line")


def drawn(draw, result) -> tuple[Figure, object]:
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    draw(axes, result)
    figure.canvas.draw()
    return figure, axes


def words(axes) -> str:
    return " ".join(text.get_text() for text in axes.get_legend().get_texts())


def test_the_correlation_shows_all_patients_the_line_and_the_cutoffs(line) -> None:
    _, axes = drawn(draw_correlation, line)
    assert sum(len(one.get_offsets()) for one in axes.collections) == 80
    assert "separating line" in words(axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("hypoxic_fraction", "gene_score")
    border = next(one for one in axes.lines if one.get_label() == "separating line")
    score = line.chosen.fitted.rule
    at = np.array([border.get_xy1(), np.add(border.get_xy1(), (1, border.get_slope()))])
    np.testing.assert_allclose(score.transform(at)[:, 0], 0, atol=1e-12)


def test_cutoffs_known_beforehand_are_drawn_instead_of_those_found(line) -> None:
    assert cutoff_alone(line, 0) == 0.27
    assert cutoff_alone(line, 1) == line.rules["genes_alone"].fitted.rule.cutoff_


def test_the_stability_shows_every_resample_and_the_frequency_of_each_patient(line) -> None:
    figure, axes = drawn(draw_line_stability, line)
    assert len(axes.lines) == 12 + 1
    np.testing.assert_array_equal(axes.collections[0].get_array(), line.stability.frequency)
    assert len(figure.axes) == 2  # with the scale of colours


def test_the_corner_of_the_rule_that_both_are_high_is_drawn_where_it_is() -> None:
    result = found_by("both_high")
    _, axes = drawn(draw_correlation, result)
    corner = next(one for one in axes.lines if one.get_label() == "both high")
    np.testing.assert_allclose(corner.get_xydata()[1], result.chosen.fitted.rule.cutoffs_)
    drawn(draw_line_stability, result)


def test_the_forest_calls_the_apparent_ratios_selected_and_biased(line) -> None:
    _, axes = drawn(draw_hazard_ratios, line)
    assert "selected on these patients, biased" in words(axes)
    assert "cross-validated" in words(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == [name.replace("_", " ") for name in line.rules]
    medians = [one.get_xdata()[0] for one in axes.lines if one.get_marker() == "s" and len(one.get_xdata())]
    np.testing.assert_allclose(medians, [rule.out_of_fold.median for rule in line.rules.values()])


def test_the_permutations_show_what_was_found_beside_what_chance_finds(line) -> None:
    _, axes = drawn(draw_permutations, line.permutation)
    assert sum(patch.get_height() for patch in axes.patches) == 99
    assert axes.lines[0].get_xdata()[0] == line.permutation.statistic
    assert f"p = {line.permutation.p_value:.3g}" in axes.get_title()
