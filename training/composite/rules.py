"""How two biomarkers become one score: the separating line and what it is measured against.

Each rule is learnt in the same way: of all parts of the patients that it can make, the one with the largest log-rank statistic
in the direction that was said beforehand (more hypoxic is worse). To add one: a class with ``kind``, ``name``, ``parts`` and
``scored``, and its name in ``Rule``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from features.composite import BIOMARKERS, CompositeScore, RuleName, weighted_sum
from features.errors import InputError
from features.partial_likelihood import PartialLikelihood
from features.settings import Settings
from training.composite.logrank import ROUNDING, LogRankScorer
from training.composite.splits import corner_of, corner_parts, cutoff_of, linear_parts, threshold_parts, widest_line
from training.survival.checks import check_outcome

FEWEST_EVENTS = 5
Missing = Literal["refuse", "alone"]


@dataclass(frozen=True)
class Training:
    """Patients from whom a rule is learnt, both biomarkers known.

    Attributes
    ----------
    oriented : ndarray of shape (n_patients, 2)
        Biomarkers, turned so that higher is more hypoxic.
    signs : tuple of int
        Raw biomarkers are these times the oriented ones.
    time, event : ndarray of shape (n_patients,)
    """

    oriented: np.ndarray
    signs: tuple[int, ...]
    time: np.ndarray
    event: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """The two oriented biomarkers, one by one."""
        return self.oriented[:, 0], self.oriented[:, 1]

    @property
    def raw(self) -> np.ndarray:
        """Biomarkers as they were measured."""
        return self.oriented * np.asarray(self.signs)


@dataclass(frozen=True)
class Fitted:
    """A rule that was learnt from patients, and how hard it was looked for.

    Attributes
    ----------
    rule : CompositeScore
        Scores patients; at or above 0 is more hypoxic.
    statistic : float
        Log-rank z of the chosen part: positive where the more hypoxic have more events than expected. It is the largest of
        many, so that its square is no chi square.
    splits_searched : int
        Parts of the patients that it was chosen from.
    patients, events : tuple of int
        Less hypoxic, more hypoxic; of those with both biomarkers.
    flags : tuple of str
        What to bear in mind, a sentence each.
    """

    rule: CompositeScore
    statistic: float
    splits_searched: int
    patients: tuple[int, int]
    events: tuple[int, int]
    flags: tuple[str, ...]


class _Rule(Settings):
    """What all rules share.

    Parameters
    ----------
    minimum_share : float
        Of the patients that either side must have.
    minimum_patients : int
        That either side must have; the larger of the two counts.
    """

    minimum_share: float = Field(default=0.1, ge=0, lt=0.5)
    minimum_patients: int = Field(default=10, ge=1)

    # Whether the parts are made from the outcome as well, so that they change when it is permuted.
    outcome_makes_parts: ClassVar[bool] = False

    @property
    def name(self) -> RuleName:
        """The rule's name in a report, and in what is stored."""
        raise NotImplementedError

    def parts(self, training: Training) -> np.ndarray:
        """Parts that the rule can make, more hypoxic patients True: shape (n_parts, n_patients)."""
        raise NotImplementedError

    def scored(self, training: Training, high: np.ndarray) -> CompositeScore:
        """The score that makes a part, in raw units."""
        raise NotImplementedError

    def fit(
        self,
        biomarkers: np.ndarray,
        time: np.ndarray,
        event: np.ndarray,
        signs: Sequence[int] = (1, 1),
        *,
        missing: Missing = "refuse",
    ) -> Fitted:
        """Learn the rule from patients.

        Parameters
        ----------
        biomarkers : ndarray of shape (n_patients, 2)
            The imaging biomarker, then the genes', in raw units, one row per patient; a missing one is NaN.
        time : ndarray of shape (n_patients,)
            Follow-up, above zero.
        event : ndarray of shape (n_patients,)
            1 where the event happened then, 0 where the patient was censored.
        signs : sequence of int of length 2
            Per biomarker 1 where higher values are more hypoxic, -1 where lower ones are; never chosen by the outcome.
        missing : {"refuse", "alone"}
            Whether a patient with one biomarker is scored by it alone. Then the cutoff of each biomarker by itself is learnt
            from all patients who have it; the rule itself is learnt from those who have both.

        Raises
        ------
        InputError
            A biomarker is constant, or missing where none may be; no part is large enough; there are fewer than five events;
            the outcome cannot be used.
        """
        training = training_of(biomarkers, time, event, signs, missing)
        parts = self.checked_parts(training)
        score, high, statistic = self._chosen(training, parts)
        alone = self._alone_cutoffs(biomarkers, time, event, signs) if missing == "alone" else None
        score.described_by(training.raw, alone)
        sides = (int((~high).sum()), int(high.sum()))
        events = (int(training.event[~high].sum()), int(training.event[high].sum()))
        flags = (*_flags(sides, events, statistic, self.minimum(len(training))), *self._own_flags(score))
        return Fitted(score, statistic, len(parts), sides, events, flags)

    def checked_parts(self, training: Training) -> np.ndarray:
        """As ``parts``; raises InputError where there is none."""
        parts = self.parts(training)
        if not len(parts):
            raise InputError(
                f"No split by {self.name} leaves {self.minimum(len(training))} of {len(training)} patients on each side; "
                "set minimum_patients and minimum_share lower, or collect more patients."
            )
        return parts

    def minimum(self, n_patients: int) -> int:
        """Patients that either side must have, of so many."""
        return max(self.minimum_patients, ceil(self.minimum_share * n_patients - ROUNDING))

    def _chosen(self, training: Training, parts: np.ndarray) -> tuple[CompositeScore, np.ndarray, float]:
        """Score, part and statistic of the best part whose sides its score tells apart in floating point."""
        z = LogRankScorer(training.time, training.event).z(parts)
        for number in _by_preference(parts, z, training.event, lambda part: self._tilt(training, part)):
            score = self.scored(training, parts[number])
            if ((score.transform(training.raw)[:, 0] >= 0) == parts[number]).all():
                return score, parts[number], float(z[number])
        raise InputError(
            "No split of the patients is wider than rounding; give the biomarkers in units in which they differ more."
        )

    def _tilt(self, training: Training, part: np.ndarray) -> float:
        """What decides between parts that are alike in all else; the smaller is taken."""
        return 0.0

    def _own_flags(self, score: CompositeScore) -> tuple[str, ...]:
        return ()

    def _alone_cutoffs(self, biomarkers: np.ndarray, time: np.ndarray, event: np.ndarray, signs: Sequence[int]) -> np.ndarray:
        """Cutoff of each biomarker by itself, in raw units, learnt from the patients who have it."""
        return np.array([self._alone_cutoff(biomarkers[:, own], time, event, signs[own]) for own in range(len(BIOMARKERS))])

    def _alone_cutoff(self, values: np.ndarray, time: np.ndarray, event: np.ndarray, sign: int) -> float:
        has = np.isfinite(values)
        oriented, time, event = values[has] * sign, time[has], np.asarray(event)[has].astype(bool)
        parts = threshold_parts(oriented, self.minimum(len(oriented)))
        if not len(parts):
            raise InputError(f"No cutoff of one biomarker leaves {self.minimum(len(oriented))} patients on each side.")
        best = next(_by_preference(parts, LogRankScorer(time, event).z(parts), event, lambda part: 0.0))
        return sign * cutoff_of(oriented, parts[best])


class SeparatingLine(_Rule):
    """A straight line in the plane of the two biomarkers: the best of all lines that part the patients differently.

    Parameters
    ----------
    monotone : bool
        Whether more of either biomarker must never be less hypoxic. If not, lines of any slope count, and the side with the
        higher hazard is called more hypoxic.
    """

    kind: Literal["separating_line"] = "separating_line"
    monotone: bool = True

    @property
    def name(self) -> RuleName:
        """The rule's name."""
        return "separating_line"

    def parts(self, training: Training) -> np.ndarray:
        """Every part that a line makes."""
        return linear_parts(*training.columns, self.minimum(len(training)), monotone=self.monotone)

    def scored(self, training: Training, high: np.ndarray) -> CompositeScore:
        """Distance from the widest line that makes the part."""
        line = widest_line(training.oriented, high)
        return CompositeScore.of_line(self.name, training.signs, line.coefficients * training.signs, line.offset)

    def _tilt(self, training: Training, part: np.ndarray) -> float:
        return widest_line(training.oriented, part).tilt

    def _own_flags(self, score: CompositeScore) -> tuple[str, ...]:
        if (score.coefficients_ * score.signs >= 0).all():
            return ()
        return ("The line is not monotone: more hypoxia by one biomarker lowers the score.",)


class CoxPredictor(_Rule):
    """The linear predictor of a Cox model of both biomarkers, with the cutoff of the largest log-rank statistic."""

    kind: Literal["cox"] = "cox"
    outcome_makes_parts: ClassVar[bool] = True

    @property
    def name(self) -> RuleName:
        """The rule's name."""
        return "cox"

    def parts(self, training: Training) -> np.ndarray:
        """Every part that a cutoff of the linear predictor makes."""
        return threshold_parts(weighted_sum(training.oriented, _log_hazards(training)), self.minimum(len(training)))

    def scored(self, training: Training, high: np.ndarray) -> CompositeScore:
        """Log hazard ratio above the cutoff."""
        coefficients = _log_hazards(training)
        cutoff = cutoff_of(weighted_sum(training.oriented, coefficients), high)
        return CompositeScore.of_line(self.name, training.signs, coefficients * training.signs, cutoff)

    def _own_flags(self, score: CompositeScore) -> tuple[str, ...]:
        against = np.flatnonzero(score.coefficients_ * score.signs < 0)
        return tuple(f"In the Cox model more hypoxia by {BIOMARKERS[own]} lowers the hazard." for own in against)


class BothHigh(_Rule):
    """More hypoxic are those who are so by both biomarkers.

    Parameters
    ----------
    cutoffs : list of float of length 2, optional
        Of the imaging biomarker and of the genes', in raw units, where they come from elsewhere (published, say): then nothing
        is searched. Left out, they are searched together.
    """

    kind: Literal["both_high"] = "both_high"
    cutoffs: tuple[float, float] | None = None

    @property
    def name(self) -> RuleName:
        """The rule's name."""
        return "both_high"

    def parts(self, training: Training) -> np.ndarray:
        """Every part that a cutoff of each makes."""
        if self.cutoffs is None:
            return corner_parts(*training.columns, self.minimum(len(training)))
        above = training.oriented >= np.asarray(self.cutoffs) * training.signs
        return _given(above[:, 0] & above[:, 1], "cutoffs")

    def scored(self, training: Training, high: np.ndarray) -> CompositeScore:
        """The smaller of the two excesses over the cutoffs, in standard deviations."""
        found = corner_of(*training.columns, high) * training.signs if self.cutoffs is None else np.asarray(self.cutoffs)
        return CompositeScore.of_cutoffs(training.signs, found, training.oriented.std(axis=0, ddof=1))

    def _alone_cutoffs(self, biomarkers: np.ndarray, time: np.ndarray, event: np.ndarray, signs: Sequence[int]) -> np.ndarray:
        if self.cutoffs is not None:
            return np.asarray(self.cutoffs, dtype=float)
        return super()._alone_cutoffs(biomarkers, time, event, signs)


class Alone(_Rule):
    """One biomarker by itself.

    Parameters
    ----------
    which : {"imaging", "genes"}
    cutoff : float, optional
        In raw units, where it comes from elsewhere: then nothing is searched.
    """

    kind: Literal["alone"] = "alone"
    which: Literal["imaging", "genes"]
    cutoff: float | None = None

    @property
    def name(self) -> RuleName:
        """The rule's name."""
        return "imaging_alone" if self.which == "imaging" else "genes_alone"

    def parts(self, training: Training) -> np.ndarray:
        """Every part that a cutoff makes."""
        values = training.oriented[:, self._own]
        if self.cutoff is None:
            return threshold_parts(values, self.minimum(len(training)))
        return _given(values >= self.cutoff * training.signs[self._own], "cutoff")

    def scored(self, training: Training, high: np.ndarray) -> CompositeScore:
        """Excess over the cutoff."""
        sign = training.signs[self._own]
        cutoff = cutoff_of(training.oriented[:, self._own], high) if self.cutoff is None else self.cutoff * sign
        coefficients = np.zeros(len(BIOMARKERS))
        coefficients[self._own] = sign
        return CompositeScore.of_line(self.name, training.signs, coefficients, cutoff)

    @property
    def _own(self) -> int:
        return BIOMARKERS.index(self.which)


Rule = Annotated[SeparatingLine | CoxPredictor | BothHigh | Alone, Field(discriminator="kind")]
COMPARED: tuple[Rule, ...] = (SeparatingLine(), CoxPredictor(), BothHigh(), Alone(which="imaging"), Alone(which="genes"))


def training_of(
    biomarkers: np.ndarray, time: np.ndarray, event: np.ndarray, signs: Sequence[int], missing: Missing = "refuse"
) -> Training:
    """Patients with both biomarkers, checked.

    Parameters
    ----------
    biomarkers, time, event, signs, missing
        As in ``fit`` of a rule.

    Raises
    ------
    InputError
        As in ``fit`` of a rule.
    """
    time, event = check_outcome(time, event)
    biomarkers = np.asarray(biomarkers, dtype=float)
    if biomarkers.shape != (len(time), len(BIOMARKERS)):
        raise InputError(f"A composite score takes two biomarkers for each of {len(time)} patients (got {biomarkers.shape}).")
    complete = np.isfinite(biomarkers).all(axis=1)
    if missing == "refuse" and not complete.all():
        raise InputError(
            f"{int((~complete).sum())} of {len(time)} patients lack a biomarker; leave them out, or set missing: alone to score "
            "them by the other one."
        )
    _refuse_constant(biomarkers[complete])
    if event[complete].sum() < FEWEST_EVENTS:
        raise InputError(
            f"There are {int(event[complete].sum())} events among {int(complete.sum())} patients with both biomarkers, and a "
            f"rule is not learnt from fewer than {FEWEST_EVENTS}; follow them longer."
        )
    turns = tuple(int(sign) for sign in signs)
    return Training(biomarkers[complete] * np.asarray(turns), turns, time[complete], event[complete])


def _refuse_constant(biomarkers: np.ndarray) -> None:
    for name, values in zip(BIOMARKERS, biomarkers.T, strict=True):
        if len(values) and values.min() == values.max():
            raise InputError(
                f"The biomarker of {name} is the same in all {len(values)} patients with both, so it parts nobody; "
                "give another, or compare patients by one biomarker alone."
            )


def _given(high: np.ndarray, named: str) -> np.ndarray:
    if high.all() or not high.any():
        raise InputError(f"All {len(high)} patients are on one side of the given {named}; check its unit, or leave it out.")
    return high[None]


def _log_hazards(training: Training) -> np.ndarray:
    coefficients = PartialLikelihood(training.oriented, training.time, training.event).maximum()
    if coefficients is None:
        raise InputError(
            "The Cox model of both biomarkers has no maximum: some mixture of them sorts the events perfectly, or one follows "
            "from the other; leave the rule `cox` out."
        )
    return coefficients


def _by_preference(parts: np.ndarray, z: np.ndarray, event: np.ndarray, tilt: Callable[[np.ndarray], float]) -> Iterator[int]:
    """Numbers of the parts, best first: by statistic, the larger smaller side, its events, and the tilt."""

    def rank(number: int) -> tuple[int, int, float]:
        high = parts[number]
        smaller = high if 2 * high.sum() <= len(high) else ~high
        return (-int(smaller.sum()), -int(event[smaller].sum()), tilt(high))

    left = np.argsort(-z, kind="stable")
    while len(left):
        tied = left[z[left] >= z[left[0]] - ROUNDING]
        yield from sorted(tied.tolist(), key=rank) if len(tied) > 1 else tied.tolist()
        left = left[len(tied) :]


def _flags(patients: tuple[int, int], events: tuple[int, int], statistic: float, minimum: int) -> Iterator[str]:
    for side, count, happened in zip(("less", "more"), patients, events, strict=True):
        if happened < FEWEST_EVENTS:
            yield f"The {side} hypoxic have {happened} events: their hazard ratio is unstable."
        if count < minimum:
            yield f"The {side} hypoxic are {count} patients, fewer than {minimum}."
    if statistic <= 0:
        yield "No split has more events on its more hypoxic side than expected."
