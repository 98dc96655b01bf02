import numpy as np
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from features.composite import CompositeScore, Line, StandardisedLogOdds
from features.errors import InputError

# Worked by hand from the distance of a point to a line; science.md section 2 has them too.
EXAMPLES = [
    (0.4, 2.0, 0.4, 0.0, 0.0),
    (0.4, 2.0, 0.0, 2.0, 0.0),
    (0.4, 2.0, 0.0, 0.0, -0.392232),
    (0.4, 2.0, 0.4, 2.0, 0.392232),
    (0.4, 2.0, 0.27, 0.0, -0.127475),
    (-0.2, -1.0, 0.0, 0.0, 0.196116),
    (-0.2, -1.0, -0.2, 0.0, 0.0),
    (-0.2, -1.0, 0.1, -2.0, -0.098058),
]
intercept = st.floats(0.01, 100)


def printed_score(x: float, y: float, x0: float, y0: float) -> float:
    """As Fjeldbo et al. 2020 print it, with the sign that cannot be."""
    return (x / x0 + y / y0 + 1) / np.sqrt(1 / x0**2 + 1 / y0**2)


@pytest.mark.parametrize(("x0", "y0", "x", "y", "expected"), EXAMPLES)
def test_a_line_scores_as_in_the_worked_examples(x0: float, y0: float, x: float, y: float, expected: float) -> None:
    assert Line.from_intercepts(x0, y0).score(x, y) == pytest.approx(expected, abs=1e-6)


def test_the_printed_formula_does_not_score_zero_on_the_line_that_the_paper_draws() -> None:
    assert printed_score(0.4, 0.0, 0.4, 2.0) == pytest.approx(0.784465, abs=1e-6)
    # What it draws is the line mirrored at the origin.
    assert printed_score(-0.4, 0.0, 0.4, 2.0) == pytest.approx(0, abs=1e-12)
    assert Line.from_intercepts(0.4, 2.0).score(0.4, 0.0) == pytest.approx(0, abs=1e-12)


@given(x0=intercept, y0=intercept, below=st.booleans())
def test_intercepts_come_back_from_the_normal_form_on_both_sides_of_the_origin(x0: float, y0: float, below: bool) -> None:
    side = -1 if below else 1
    line = Line.from_intercepts(side * x0, side * y0)
    assert line.intercepts == (pytest.approx(side * x0), pytest.approx(side * y0))
    assert line.slope == pytest.approx(-y0 / x0)
    assert 0 < line.theta < np.pi / 2
    # More of either is more hypoxic, whichever side the origin is on.
    assert line.score(1.0, 0.0) > line.score(0.0, 0.0) < line.score(0.0, 1.0)


@pytest.mark.parametrize(("x0", "y0", "theta", "slope"), [(0.27, np.inf, 0.0, -np.inf), (np.inf, -0.5, np.pi / 2, 0.0)])
def test_a_line_parallel_to_an_axis_is_a_cutoff_of_one_biomarker(x0: float, y0: float, theta: float, slope: float) -> None:
    line = Line.from_intercepts(x0, y0)
    assert (line.theta, line.slope) == (theta, slope)
    assert line.intercepts == (x0, y0)
    score = line.score(np.array([0.27, 0.5]), np.array([-7.0, -0.5]))
    np.testing.assert_array_equal(score, [0.0, 0.5 - 0.27] if theta == 0 else [-6.5, 0.0])


@pytest.mark.parametrize(
    ("x0", "y0", "words"),
    [
        (0.4, -2.0, "opposite signs"),
        (0.0, 0.0, "open"),
        (np.inf, np.inf, "no line"),
        (np.nan, 1.0, "no line"),
        (0.0, 1.0, "open"),
    ],
)
def test_intercepts_that_are_no_monotone_line_are_refused_in_one_sentence(x0: float, y0: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Line.from_intercepts(x0, y0)


def line_score(missing: bool = False) -> CompositeScore:
    rng = np.random.default_rng(0)
    score = CompositeScore.of_line("separating_line", (1, -1), np.array([0.8, -0.6]), 0.5)
    return score.described_by(rng.normal(size=(50, 2)) * [1, 3], np.array([0.1, -0.2]) if missing else None)


def test_a_score_of_a_line_is_its_distance_and_says_the_line() -> None:
    score = CompositeScore.of_line("separating_line", (1, 1), np.array([2.0, 1.0]) / np.sqrt(5), 0.4 * 2 / np.sqrt(5))
    assert score.transform(np.array([[0.4, 0.0], [0.0, 0.8], [0.4, 0.8]]))[:, 0] == pytest.approx([0, 0, 0.8 / np.sqrt(5)])
    assert score.line.intercepts == pytest.approx((0.4, 0.8))


def test_both_high_is_at_or_above_zero_exactly_where_both_are() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-3, 4, size=(200, 2)) / 10
    score = CompositeScore.of_cutoffs((1, -1), np.array([0.1, -0.2]), np.array([0.3, 0.7])).described_by(values)
    expected = (values[:, 0] >= 0.1) & (values[:, 1] <= -0.2)
    np.testing.assert_array_equal(score.transform(values)[:, 0] >= 0, expected)
    assert expected.any()


def test_a_patient_without_a_biomarker_is_not_scored_unless_the_other_stands_in() -> None:
    values = np.array([[0.1, np.nan], [np.nan, -0.2], [np.nan, np.nan], [0.7, 0.1]])
    assert np.isnan(line_score().transform(values)[:3]).all()
    stands_in = line_score(missing=True)
    found = stands_in.transform(values)[:, 0]
    np.testing.assert_allclose(found[:2], 0, atol=1e-15)  # each at its own cutoff
    assert np.isnan(found[2])
    assert found[3] == line_score().transform(values)[3, 0]


def test_a_biomarker_alone_is_on_the_scale_of_the_score_and_in_its_direction() -> None:
    rng = np.random.default_rng(2)
    score = line_score(missing=True)
    low_genes = np.column_stack([np.full(4000, np.nan), -0.2 - 3 * rng.normal(size=4000)])
    found = score.transform(low_genes)[:, 0]
    assert np.corrcoef(found, low_genes[:, 1])[0, 1] == pytest.approx(-1)  # lower is more hypoxic here
    assert found.std() / score.score_sd_ == pytest.approx(1, rel=0.25)  # the 50 patients of training set the scale


def test_a_rule_of_one_biomarker_needs_only_that_one() -> None:
    score = CompositeScore.of_line("imaging_alone", (1, 1), np.array([1.0, 0.0]), 0.27)
    np.testing.assert_allclose(score.transform(np.array([[0.3, np.nan], [0.27, 1.0]]))[:, 0], [0.03, 0.0], atol=1e-15)
    assert np.isnan(score.transform(np.array([[np.nan, 1.0]]))).all()


def test_a_score_does_not_depend_on_who_is_scored_with_it() -> None:
    values = np.random.default_rng(3).normal(size=(500, 2))
    score = line_score()
    together = score.transform(values)
    alone = np.concatenate([score.transform(row[None]) for row in values])
    np.testing.assert_array_equal(together, alone)


def test_a_score_survives_being_stored_and_read_under_its_own_name_only() -> None:
    pipeline = make_pipeline(line_score(missing=True))
    stored = skops.io.dumps(pipeline)
    assert skops.io.get_untrusted_types(data=stored) == ["features.composite.CompositeScore"]
    back = skops.io.loads(stored, trusted=["features.composite.CompositeScore"])
    values = np.array([[0.3, 1.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(back.transform(values), pipeline.transform(values))
    assert back[0].line == pipeline[0].line


def test_a_score_is_not_fitted_here_and_a_clone_is_not_fitted() -> None:
    with pytest.raises(TypeError, match=r"training\.composite\.rules"):
        line_score().fit(np.zeros((3, 2)), None)
    copy = clone(line_score(missing=True))
    assert (copy.rule, copy.signs, copy.missing) == ("separating_line", (1, -1), "alone")
    with pytest.raises(Exception, match="not fitted"):
        copy.transform(np.zeros((1, 2)))


def test_probabilities_of_components_go_to_one_scale_and_back_and_what_is_missing_stays_so() -> None:
    scale = StandardisedLogOdds((float("nan"), -0.4), (float("nan"), 0.02))
    given = np.array([[1e6, 0.41], [-3.0, 0.4], [np.nan, np.nan], [0.0, 0.0]])
    there = scale.transform(given)
    np.testing.assert_array_equal(there[:, 0], given[:, 0])
    np.testing.assert_allclose(scale.inverse_transform(there)[:2], given[:2], rtol=1e-12)
    assert np.isnan(there[2]).all()
    assert np.isfinite(there[3]).all(), "a probability of 0 has log odds that one can compute with"
    assert there[0, 1] > there[1, 1]
    np.testing.assert_array_equal(scale.transform(given[:1]), there[:1])
