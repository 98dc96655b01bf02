import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import InputError
from training.composite.logrank import LogRankScorer
from training.composite.splits import (
    corner_of,
    corner_parts,
    cutoff_of,
    linear_parts,
    linear_splits,
    threshold_parts,
    widest_line,
)

# Few distinct values, so that patients coincide, share a value and lie on one line; and values that do none of that.
coarse = st.integers(-4, 4).map(lambda value: value / 10)
fine = st.floats(-1, 1, allow_subnormal=False).map(lambda value: round(value, 6))
clouds = st.one_of(
    st.lists(st.tuples(coarse, coarse), min_size=2, max_size=14), st.lists(st.tuples(fine, fine), min_size=2, max_size=14)
).map(np.array)


def as_sets(parts: np.ndarray) -> set[tuple[bool, ...]]:
    return {tuple(part) for part in parts.tolist()}


def by_brute_force(points: np.ndarray) -> set[tuple[bool, ...]]:
    """Parts by lines just beside every line through two patients, and beside both axes."""
    pairs = [(points[i], points[j]) for i, j in combinations(range(len(points)), 2)]
    angles = [np.arctan2(b[0] - a[0], a[1] - b[1]) % np.pi for a, b in pairs if tuple(a) != tuple(b)]
    turned = [angle for angle in [0.0, *angles, np.pi / 2] if angle <= np.pi / 2]
    distinct = np.unique(np.round(turned, 9))
    between = (distinct[1:] + distinct[:-1]) / 2
    found = set()
    for angle in between:
        projected = np.round(points @ [np.cos(angle), np.sin(angle)], 12)
        found |= {tuple((projected >= value).tolist()) for value in np.unique(projected)[1:]}
    return found


@given(clouds)
def test_the_sweep_finds_the_parts_that_brute_force_finds_each_once(points: np.ndarray) -> None:
    found = linear_parts(*points.T, 1)
    assert len(as_sets(found)) == len(found)
    assert by_brute_force(points) <= as_sets(found)


@given(st.lists(st.tuples(coarse, coarse), min_size=2, max_size=14).map(np.array))
def test_every_part_has_a_line_in_raw_units_that_reproduces_each_side(points: np.ndarray) -> None:
    skewed = points * [0.37, 1900.0]  # a fraction and a raw expression value
    found = linear_splits(*skewed.T, 1)
    assert as_sets(found.high) == as_sets(linear_parts(*points.T, 1))  # neither units nor drawing lose a part
    normals = np.column_stack([np.cos(found.theta), np.sin(found.theta)])
    assert (found.theta >= 0).all()
    assert (found.theta <= np.pi / 2).all()
    for normal, offset, high in zip(normals, found.offset, found.high, strict=True):
        np.testing.assert_array_equal(skewed @ normal - offset >= -1e-9, high)


def test_without_ties_there_are_as_many_parts_as_pairs_in_disagreement_and_cutoffs() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 118))
    discordant = sum((x[i] - x[j]) * (y[i] - y[j]) < 0 for i, j in combinations(range(118), 2))
    assert len(linear_parts(x, y, 1)) == discordant + 117


def test_lines_of_any_slope_part_patients_in_all_the_ways_that_geometry_allows() -> None:
    # Without three on a line, n points are parted by lines in n (n - 1) / 2 + 1 ways, one of them trivial (Harding 1967); here
    # each has two directions, but for those on whose upper side both are low.
    x, y = np.random.default_rng(1).normal(size=(2, 30))
    found = as_sets(linear_parts(x, y, 1, monotone=False))
    ways = {min(part, tuple(not one for one in part)) for part in found}
    assert len(ways) == 30 * 29 / 2
    assert as_sets(linear_parts(x, y, 1)) < found


def test_the_minimum_counts_patients_and_not_places() -> None:
    x = np.repeat([0.0, 1.0, 2.0], [3, 5, 2])
    assert [part.sum() for part in linear_parts(x, np.zeros(10), 3)] == [7]
    assert [part.sum() for part in threshold_parts(x, 1)] == [7, 2]


def test_patients_on_one_line_by_their_decimals_are_on_one_line() -> None:
    # In binary 0.8, 0.9 and 1.0 are not equally far apart, and a line narrower than rounding would part them oddly.
    x, y = np.array([0.8, 0.9, 1.0]), np.array([0.3, -0.8, -1.9])
    assert as_sets(linear_parts(x, y, 1)) == {
        (False, True, True),
        (False, False, True),
        (True, False, False),
        (True, True, False),
    }


def test_the_widest_line_is_as_far_from_the_nearest_patients_as_a_fine_search_says() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(40, 2)) * [0.1, 5]
    scaled = points / points.std(axis=0)
    angles = np.linspace(0, np.pi / 2, 20001)
    projected = scaled @ np.stack([np.cos(angles), np.sin(angles)])
    parts = linear_parts(*points.T, 4)
    for high in parts[rng.choice(len(parts), 40, replace=False)]:
        line = widest_line(points, high)
        normal = line.coefficients * points.std(axis=0)
        length = np.hypot(*normal)
        margin = (points[high] @ line.coefficients).min() - (points[~high] @ line.coefficients).max()
        assert margin / length >= (projected[high].min(axis=0) - projected[~high].max(axis=0)).max() - 1e-12
        middle = (points[high] @ line.coefficients).min() + (points[~high] @ line.coefficients).max()
        assert line.offset == pytest.approx(middle / 2)


@given(clouds)
def test_corners_are_all_pairs_of_cutoffs_that_each_leave_someone_out(points: np.ndarray) -> None:
    x, y = points.T
    found = corner_parts(x, y, 1)
    assert len(as_sets(found)) == len(found)
    expected = {tuple(((x >= a) & (y >= b)).tolist()) for a in np.unique(x)[1:] for b in np.unique(y)[1:]}
    # A pair of cutoffs of which one has no patient at it is another pair; where that would leave nobody out it is no corner.
    expected = {part for part in expected if any(part) and x[list(part)].min() > x.min() and y[list(part)].min() > y.min()}
    assert as_sets(found) == expected
    for high in found:
        a, b = corner_of(x, y, high)
        np.testing.assert_array_equal((x >= a) & (y >= b), high)


@given(st.lists(fine, min_size=2, max_size=30, unique=True).map(np.array))
def test_a_cutoff_lies_between_its_sides(values: np.ndarray) -> None:
    for high in threshold_parts(values, 1):
        cutoff = cutoff_of(values, high)
        np.testing.assert_array_equal(values >= cutoff, high)


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_no_line_of_a_grid_beats_the_exact_search(seed: int) -> None:
    assert_no_line_of_a_grid_is_better(np.random.default_rng(seed), 60)


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 2**31))
def test_no_line_of_a_thousand_by_thousand_intercepts_beats_the_exact_search(seed: int) -> None:
    assert_no_line_of_a_grid_is_better(np.random.default_rng(seed), 1000)


def assert_no_line_of_a_grid_is_better(rng: np.random.Generator, size: int) -> None:
    n = int(rng.integers(25, 60))
    x, y = rng.gamma(2, 0.1, n), rng.normal(size=n)
    if rng.random() < 0.5:
        x, y = x.round(2), y.round(1)  # ties
    time, event = rng.exponential(size=n).round(2) + 0.01, rng.random(n) < 0.5
    event[0] = True
    scorer = LogRankScorer(time, event)
    best = scorer.z(linear_parts(x, y, 5)).max()
    x0, y0 = (rng.uniform(0.01, 1.2 * values.max(), size) for values in (x, y))
    for side in (1, -1):
        for across in side * x0:
            parts = side * (x / across + y / (side * y0)[:, None] - 1) >= 0
            parts = np.unique(parts[(parts.sum(axis=1) >= 5) & (parts.sum(axis=1) <= n - 5)], axis=0)
            if len(parts):
                assert scorer.z(parts).max() <= best + 1e-9


def test_all_lines_of_118_patients_are_searched_in_a_fifth_of_a_second() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 118))
    follow_up, event = rng.exponential(size=118), rng.random(118) < 0.35
    took = []
    for _ in range(5):  # the fastest, since others may work on this machine
        start = time.perf_counter()
        parts = linear_parts(x, y, 12)
        best = parts[LogRankScorer(follow_up, event).z(parts).argmax()]
        widest_line(np.column_stack([x, y]), best)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.2


def test_more_patients_than_memory_holds_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="up to 1000 patients"):
        linear_parts(np.arange(1001.0), np.arange(1001.0), 10)
    with pytest.raises(InputError, match="up to 500 patients"):
        linear_parts(np.arange(501.0), np.arange(501.0), 10, monotone=False)
