"""Every way in which a line, a corner or a cutoff can part the patients; none is left out and none comes twice.

Biomarkers come in here *oriented*: turned so that higher is more hypoxic in both. Parts are told by whom they hold, since the
log-rank statistic knows no more of a line than that; the line itself is drawn only for the part that is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from math import atan2, hypot, pi

import numpy as np

from features.composite import weighted_sum
from features.errors import InputError

# Beyond, the parts (up to half the square of the patients, three times as many for lines of any slope) do not fit in memory.
MOST_PATIENTS, MOST_FOR_ANY_SLOPE = 1000, 500
# Two slopes from doubles that differ by less than this share may be one slope and rounding: those are compared exactly.
DOUBTFUL = 1e-14


@dataclass(frozen=True)
class Splits:
    """Parts of the patients into more and less hypoxic, with a line for each.

    Attributes
    ----------
    high : ndarray of shape (n_splits, n_patients), bool
        Who is more hypoxic.
    theta : ndarray of shape (n_splits,)
        Angle of the line's normal, in radians, on the axes of the oriented biomarkers in their own units.
    offset : ndarray of shape (n_splits,)
        Of the line, along that direction.
    """

    high: np.ndarray
    theta: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class WidestLine:
    """The line of a part that is farthest from the nearest patients on both sides.

    Attributes
    ----------
    coefficients : ndarray of shape (2,)
        Cosine and sine of its angle in raw oriented units.
    offset : float
        A patient is on the more hypoxic side where the weighted sum reaches it.
    tilt : float
        How far its angle is from 45 degrees where both axes are in standard deviations, in radians.
    """

    coefficients: np.ndarray
    offset: float
    tilt: float

    @property
    def theta(self) -> float:
        """Its angle in radians."""
        return atan2(self.coefficients[1], self.coefficients[0])

    def high(self, points: np.ndarray) -> np.ndarray:
        """Who is on the more hypoxic side, from an array of shape (n_patients, 2)."""
        return np.asarray(weighted_sum(points, self.coefficients) - self.offset >= 0)


def linear_splits(x: np.ndarray, y: np.ndarray, minimum: int, *, monotone: bool = True) -> Splits:
    """All parts that a line makes, with the widest line of each.

    Parameters
    ----------
    x, y : ndarray of shape (n_patients,)
        Biomarkers, higher more hypoxic.
    minimum : int
        Patients that either side must have.
    monotone : bool
        Whether more of either biomarker is never less hypoxic. If not, lines of any angle count, except those on whose more
        hypoxic side both biomarkers are low.

    Returns
    -------
    Splits
        Without those whose line would be narrower than the rounding of floating-point numbers.

    Examples
    --------
    Three patients in a corner: two cutoffs of each biomarker, and the line that has the two outer ones above it.

    >>> found = linear_splits(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]), 1)
    >>> found.high.astype(int).tolist(), np.degrees(found.theta).round().tolist()
    ([[0, 1, 1], [0, 1, 0], [0, 0, 1]], [45.0, 0.0, 90.0])
    """
    points, parts = np.column_stack([x, y]), linear_parts(x, y, minimum, monotone=monotone)
    lines = [widest_line(points, high) for high in parts]
    drawn = np.array([bool((line.high(points) == high).all()) for line, high in zip(lines, parts, strict=True)], dtype=bool)
    theta, offset = np.array([line.theta for line in lines]), np.array([line.offset for line in lines])
    return Splits(parts[drawn], theta[drawn], offset[drawn])


def linear_parts(x: np.ndarray, y: np.ndarray, minimum: int, *, monotone: bool = True) -> np.ndarray:
    """All parts that a line makes: shape (n_splits, n_patients), each once.

    The direction of the line's normal is turned from one axis to the other. Patients are in the order of their projections on
    it; the parts are the ends of that order, and they change only where two projections change places. With ``n`` patients
    there are at most ``n (n - 1) / 2`` and some of those changes; each is found from the sign of differences and the order of
    their ratios, which is decided exactly where rounding leaves it open. Patients with the same values stay together.

    Parameters
    ----------
    x, y, minimum, monotone
        As in ``linear_splits``.

    Raises
    ------
    InputError
        There are more than 1000 patients; 500, if lines of any slope count.
    """
    refuse_too_many(len(x), MOST_PATIENTS if monotone else MOST_FOR_ANY_SLOPE)
    if monotone:
        return _large_enough(_swept(x, y), minimum)
    turned = [_swept(x, y), _swept(y, -x), _swept(-y, x)]  # high x and high y; high y and low x; low y and high x
    return np.unique(_large_enough(np.concatenate(turned), minimum), axis=0)


def widest_line(points: np.ndarray, high: np.ndarray) -> WidestLine:
    """The line of a part with the largest margin, on axes in standard deviations of the patients.

    Parameters
    ----------
    points : ndarray of shape (n_patients, 2)
        Biomarkers, higher more hypoxic.
    high : ndarray of shape (n_patients,), bool
        A part that some line makes; neither side empty. It is looked for among lines on whose more hypoxic side both
        biomarkers are high, and where there is none among the others.
    """
    spread = points.std(axis=0)
    scaled = points / np.where(spread > 0, spread, 1)
    width, angle = _widest(scaled, high, 0.0)
    if not width > 0:
        others = [_widest(scaled, high, start) for start in (pi / 2, -pi / 2)]
        width, angle = max([(width, angle), *others])
    direction = np.array([np.cos(angle), np.sin(angle)])
    direction[np.abs(direction) < 1e-15] = 0  # a right angle
    raw = direction / np.where(spread > 0, spread, 1)
    raw = raw / hypot(*raw)
    projected = weighted_sum(points, raw)
    return WidestLine(raw, between(float(projected[~high].max()), float(projected[high].min())), abs(angle - pi / 4))


def corner_parts(x: np.ndarray, y: np.ndarray, minimum: int) -> np.ndarray:
    """All parts whose more hypoxic patients are at or above a cutoff of both biomarkers, each cutoff leaving someone out.

    Parameters
    ----------
    x, y, minimum
        As in ``linear_splits``.

    Returns
    -------
    ndarray of shape (n_splits, n_patients), bool
        Each once.

    Examples
    --------
    >>> corner_parts(np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0, 2.0]), 1).astype(int).tolist()
    [[0, 1, 0, 1], [0, 0, 0, 1]]
    """
    refuse_too_many(len(x))
    found = [part for value in np.unique(x)[1:] for part in _corners_at(x, y, value, minimum)]
    return np.array(found, dtype=bool).reshape(len(found), len(x))


def corner_of(x: np.ndarray, y: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Cutoffs of both biomarkers that make a part, each halfway to the next lower value: shape (2,)."""
    return np.array([cutoff_of(values, values >= values[high].min()) for values in (x, y)])


def threshold_parts(values: np.ndarray, minimum: int) -> np.ndarray:
    """All parts that a cutoff of one biomarker makes: shape (n_splits, n_patients), from most patients above it to fewest.

    Examples
    --------
    >>> threshold_parts(np.array([3.0, 1.0, 2.0, 2.0]), 1).astype(int).tolist()
    [[1, 0, 1, 1], [1, 0, 0, 0]]
    """
    return _large_enough(values >= np.unique(values)[1:, None], minimum)


def cutoff_of(values: np.ndarray, high: np.ndarray) -> float:
    """Cutoff halfway between the sides of a part that one biomarker makes; at or above it is more hypoxic."""
    return between(float(values[~high].max()), float(values[high].min()))


def between(below: float, above: float) -> float:
    """The middle of two numbers, or the upper one where rounding leaves nothing in between.

    Examples
    --------
    >>> between(1.0, 2.0), between(1.0, 1.0 + 2**-52) > 1.0
    (1.5, True)
    """
    middle = below + (above - below) / 2
    return middle if below < middle <= above else above


def refuse_too_many(n_patients: int, most: int = MOST_PATIENTS) -> None:
    """Refuse what would not fit in memory."""
    if n_patients > most:
        raise InputError(
            f"The exact search is made for up to {most} patients (here {n_patients}); "
            "use the rule `cox`, or learn the line from some of them."
        )


def _corners_at(x: np.ndarray, y: np.ndarray, value: float, minimum: int) -> np.ndarray:
    """Parts whose lowest x is this value; those whose lowest x is higher are the parts of another cutoff."""
    within = x >= value
    cutoffs = np.unique(y[within & (y <= y[x == value].max()) & (y > y.min())])
    return _large_enough(within & (y >= cutoffs[:, None]), minimum)


def _large_enough(parts: np.ndarray, minimum: int) -> np.ndarray:
    size = parts.sum(axis=1)
    return np.asarray(parts[(size >= minimum) & (size <= parts.shape[1] - minimum)])


def _swept(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Parts of lines on whose more hypoxic side both are high; of all sizes."""
    # Sorted by x, then y: the order of projections on a direction just beside the first axis.
    points, patient = np.unique(np.column_stack([x, y]), axis=0, return_inverse=True)
    order = np.arange(len(points))
    first, second, groups = _changes(points)
    parts = np.zeros((max(len(points) - 1, 0) + len(first), len(points)), dtype=bool)
    for gap in range(len(points) - 1):
        parts[gap, gap + 1 :] = True
    found = max(len(points) - 1, 0)
    place = order.copy()
    for start, end in groups:
        for low, high in _blocks(place[first[start:end]], place[second[start:end]]):
            order[low : high + 1] = order[low : high + 1][::-1]
            place[order[low : high + 1]] = np.arange(low, high + 1)
            for gap in range(low, high):
                parts[found, order[gap + 1 :]] = True
                found += 1
    return np.asarray(parts[:found][:, patient.ravel()])


def _blocks(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last place of each run of patients that lie on one line, from the places of its pairs."""
    if len(low) == 1:  # nearly always
        yield int(low[0]), int(high[0])
        return
    start, end = -1, -1
    for one, other in sorted(zip(low.tolist(), high.tolist(), strict=True)):
        if one >= end:
            if start >= 0:
                yield start, end
            start, end = one, other
        end = max(end, other)
    yield start, end


def _changes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Pairs that change places while the direction turns, in the order in which they do, and which of them do so at once."""
    first, second = np.triu_indices(len(points), 1)
    x, y = points.T
    change = (x[first] < x[second]) & (y[first] > y[second])
    first, second = first[change], second[change]
    with np.errstate(over="ignore"):
        tangent = (x[second] - x[first]) / (y[first] - y[second])
    order = np.argsort(tangent, kind="stable")
    first, second, tangent = first[order], second[order], tangent[order]
    with np.errstate(invalid="ignore"):
        apart = tangent[1:] - tangent[:-1] > DOUBTFUL * tangent[1:]
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(tangent)] if len(tangent) else [0]
    groups: list[tuple[int, int]] = []
    for start, end in pairwise(bounds):
        groups += [(start, end)] if end - start == 1 else _exactly(points, first, second, start, end)
    return first, second, groups


def _exactly(points: np.ndarray, first: np.ndarray, second: np.ndarray, start: int, end: int) -> list[tuple[int, int]]:
    """Put pairs whose ratios are too close for floating point into their exact order, and tell which are equal.

    Values count as they are written in decimals: 0.8, 0.9 and 1.0 are one step apart, which their binary images are not.
    """

    def ratio(number: int) -> Fraction:
        (x1, y1), (x2, y2) = (map(_written, points[one]) for one in (first[number], second[number]))
        return (x2 - x1) / (y1 - y2)

    exact = sorted((ratio(number), number) for number in range(start, end))
    numbers = [number for _, number in exact]
    first[start:end], second[start:end] = first[numbers], second[numbers]
    groups = []
    for _, same in groupby(exact, key=lambda pair: pair[0]):
        count = len(list(same))
        groups.append((start, start + count))
        start += count
    return groups


def _written(value: float) -> Fraction:
    return Fraction(repr(float(value)))


def _widest(points: np.ndarray, high: np.ndarray, start: float) -> tuple[float, float]:
    """Margin and angle of the widest line whose normal is between an angle and a right angle more."""
    turn = np.array([[np.cos(start), np.sin(start)], [-np.sin(start), np.cos(start)]])
    turned = points @ turn.T
    above, below = _lower_left(turned[high]), -_lower_left(-turned[~high])
    angles = _candidate_angles(above, below)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    margins = (above @ directions).min(axis=0) - (below @ directions).max(axis=0)
    best = int(np.argmax(margins))
    return float(margins[best]), float(angles[best] + start)


def _lower_left(points: np.ndarray) -> np.ndarray:
    """Those that no other has both coordinates below: only they can be nearest to a line with a falling slope."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    return np.asarray(ordered[np.r_[True, ordered[1:, 1] < lowest[:-1]]])


def _candidate_angles(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Where the widest line can be: facing the nearest pair, along two patients of one side, or along an axis."""
    facing = (above[:, None] - below[None]).reshape(-1, 2)
    along = [_falling(side) for side in (above, below)]
    normals = np.concatenate([facing, *along, np.eye(2)])
    normals = normals[(normals >= 0).all(axis=1) & (normals > 0).any(axis=1)]
    return np.unique(np.arctan2(normals[:, 1], normals[:, 0]))


def _falling(side: np.ndarray) -> np.ndarray:
    """Normals of the lines through two patients of one side, with both coordinates above 0 where the line falls."""
    first, second = np.triu_indices(len(side), 1)
    difference = side[second] - side[first]
    normals = np.column_stack([-difference[:, 1], difference[:, 0]])
    return np.asarray(normals * np.where(normals[:, :1] < 0, -1, 1))
