"""Two biomarkers as one score: the separating line in normal form, its rivals, and the transformer that is shipped.

The study of cervical cancer (Fjeldbo et al. 2020) writes its score by the line's intercepts, as the distance
``(x / x0 + y / y0 + 1) / sqrt(1 / x0**2 + 1 / y0**2)``. The sign of the 1 is a misprint: its zero set is the line mirrored at
the origin, so that "score at or above 0" would contradict the line that the paper draws. Here the line is kept by its angle
and offset, which also holds where both intercepts are negative and where the line is parallel to an axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, copysign, cos, hypot, inf, isinf, isnan, pi, sin
from typing import Any, Literal, Self, get_args

import numpy as np
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from features.errors import InputError

RuleName = Literal["separating_line", "cox", "both_high", "imaging_alone", "genes_alone"]
RULE_NAMES: tuple[RuleName, ...] = get_args(RuleName)
BIOMARKERS = ("imaging", "genes")
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Line:
    """A line between less and more hypoxic, in normal form ``x cos(theta) + y sin(theta) = offset``.

    Attributes
    ----------
    theta : float
        Direction in which hypoxia rises, in radians from the first biomarker's axis. Between 0 and pi/2 more of either
        biomarker is more hypoxic; 0 is a cutoff of the first alone, pi/2 one of the second alone.
    offset : float
        Distance of the line from the origin along that direction, in the biomarkers' own units; negative where the origin is
        on the more hypoxic side.

    References
    ----------
    Fjeldbo et al. 2020 (the score as a distance from a line; there by its intercepts, and with a misprinted sign).

    Examples
    --------
    >>> line = Line.from_intercepts(0.4, 2.0)
    >>> round(line.score(0.4, 2.0), 6), round(line.score(0.0, 0.0), 6)
    (0.392232, -0.392232)
    """

    theta: float
    offset: float

    @classmethod
    def from_intercepts(cls, x0: float, y0: float) -> Self:
        """The line through (x0, 0) and (0, y0), with more of either biomarker more hypoxic.

        Parameters
        ----------
        x0, y0 : float
            Where it crosses the axes. Infinite for an axis that it does not cross; of one sign otherwise.

        Raises
        ------
        InputError
            The intercepts define no line, or one on whose hypoxic side more of one biomarker is less.

        Examples
        --------
        >>> Line.from_intercepts(0.27, float("inf"))
        Line(theta=0.0, offset=0.27)
        """
        _refuse_intercepts(x0, y0)
        across, along = abs(1 / x0), abs(1 / y0)
        side = copysign(1.0, y0 if isinf(x0) else x0)
        return cls(atan2(along, across), side / hypot(across, along))

    @property
    def normal(self) -> tuple[float, float]:
        """Cosine and sine of the angle; exactly 0 for a line that is parallel to an axis."""
        return (_unless_rounding(cos(self.theta)), _unless_rounding(sin(self.theta)))

    @property
    def intercepts(self) -> tuple[float, float]:
        """Where the line crosses the axes, (x0, y0); infinite where it does not."""
        across, along = self.normal
        return (self.offset / across if across else inf, self.offset / along if along else inf)

    @property
    def slope(self) -> float:
        """Change of the second biomarker along the line per unit of the first; infinite for a cutoff of the first alone."""
        across, along = self.normal
        return -across / along if along else -inf

    def score(self, x: Any, y: Any) -> Any:
        """Distance from the line, of the shape of `x` and `y`; 0 and above is more hypoxic."""
        across, along = self.normal
        return x * across + y * along - self.offset


class CompositeScore(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A patient's two biomarkers as one score: higher is more hypoxic, and 0 is the cutoff.

    It is learnt by ``training.composite.rules``, where the search and its tests are, and made by ``of_line`` or ``of_cutoffs``;
    here is what is needed to score a patient. The arithmetic is done patient by patient, so that a score never depends on
    the others that are scored with it.

    Parameters
    ----------
    rule : {"separating_line", "cox", "both_high", "imaging_alone", "genes_alone"}
        What the score is. ``separating_line``: distance from a line, in raw units. ``cox``: linear predictor (log hazard ratio)
        above its cutoff. ``both_high``: the smaller of the two excesses over a cutoff each, in standard deviations.
        ``imaging_alone``, ``genes_alone``: excess of one biomarker over its cutoff, in its unit.
    signs : sequence of int of length 2
        Per biomarker 1 where higher values are more hypoxic, -1 where lower ones are.
    missing : {"refuse", "alone"}
        What becomes of a patient without one of the biomarkers that the score needs. "refuse": the score is NaN, and whoever
        serves the score refuses the row. "alone": the other biomarker's excess over the cutoff that it has by itself, times the
        ratio of the standard deviations of score and biomarker among the patients of training, so that it is on the
        score's scale.

    Attributes
    ----------
    coefficients_ : ndarray of shape (2,)
        Of the biomarkers in raw units, with their signs (all rules but ``both_high``).
    cutoff_ : float
        Subtracted from the weighted sum (all rules but ``both_high``).
    cutoffs_ : ndarray of shape (2,)
        Of each biomarker in raw units (``both_high``).
    scales_ : ndarray of shape (2,)
        Standard deviations in training (``both_high``).
    score_sd_ : float
        Standard deviation of the score in training (ddof 1); a hazard ratio per standard deviation is per this.
    alone_cutoffs_ : ndarray of shape (2,)
        Cutoff of each biomarker by itself, in raw units; NaN where missing biomarkers are refused.
    alone_scales_ : ndarray of shape (2,)
        Units of the score per unit of the biomarker.

    Examples
    --------
    >>> score = CompositeScore.of_line("separating_line", (1, 1), np.array([0.980581, 0.196116]), 0.392232)
    >>> score.transform(np.array([[0.4, 2.0], [0.27, 0.0]])).round(3).tolist()
    [[0.392], [-0.127]]
    """

    n_features_in_: int

    def __init__(
        self,
        rule: RuleName = "separating_line",
        signs: Sequence[int] = (1, 1),
        missing: Literal["refuse", "alone"] = "refuse",
    ) -> None:
        self.rule = rule
        self.signs = signs
        self.missing = missing

    @classmethod
    def of_line(cls, rule: RuleName, signs: Sequence[int], coefficients: np.ndarray, cutoff: float) -> Self:
        """A score ``coefficients @ (x, y) - cutoff``, complete but for what training patients add (``described_by``)."""
        made = cls(rule, tuple(signs))._of_two()
        made.coefficients_, made.cutoff_ = np.asarray(coefficients, dtype=float), float(cutoff)
        return made

    @classmethod
    def of_cutoffs(cls, signs: Sequence[int], cutoffs: np.ndarray, scales: np.ndarray) -> Self:
        """The rule that both are high, complete but for what training patients add (``described_by``)."""
        made = cls("both_high", tuple(signs))._of_two()
        made.cutoffs_, made.scales_ = np.asarray(cutoffs, dtype=float), np.asarray(scales, dtype=float)
        return made

    def described_by(self, biomarkers: np.ndarray, alone_cutoffs: np.ndarray | None = None) -> Self:
        """Add what training patients say of the score: its spread, and the scales on which one biomarker stands alone.

        Parameters
        ----------
        biomarkers : ndarray of shape (n_patients, 2)
            Of training; patients with a gap do not count.
        alone_cutoffs : ndarray of shape (2,), optional
            Cutoff of each biomarker by itself; with them a patient with one biomarker is scored, without them refused.
        """
        complete = biomarkers[np.isfinite(biomarkers).all(axis=1)]
        self.missing = "refuse" if alone_cutoffs is None else "alone"
        self.score_sd_ = float(np.std(self._both(complete), ddof=1))
        self.alone_cutoffs_ = np.full(2, np.nan) if alone_cutoffs is None else np.asarray(alone_cutoffs, dtype=float)
        self.alone_scales_ = self.score_sd_ / np.std(complete, axis=0, ddof=1)
        return self

    @property
    def line(self) -> Line:
        """The line on which the score is 0, on the axes of the raw biomarkers (all rules but ``both_high``)."""
        check_is_fitted(self, "coefficients_")
        across, along = (float(one) for one in self.coefficients_)
        return Line(atan2(along, across), self.cutoff_ / hypot(across, along))

    def fit(self, X: Any, y: Any = None) -> Self:
        """Not here: the search is in ``training.composite.rules``."""
        raise TypeError("A composite score is learnt by training.composite.rules; it is not fitted as a transformer.")

    def transform(self, X: Any) -> np.ndarray:
        """Score of each patient.

        Parameters
        ----------
        X : array of shape (n_patients, 2)
            The imaging biomarker, then the genes', in raw units; a missing one is NaN.

        Returns
        -------
        ndarray of shape (n_patients, 1)
            At or above 0: more hypoxic. NaN where a biomarker that is needed is missing and nothing stands in for it.
        """
        check_is_fitted(self, "n_features_in_")
        biomarkers = validate_data(self, X, dtype=float, ensure_all_finite="allow-nan", reset=False)
        score = self._both(biomarkers)
        if self.missing == "alone":
            score = np.where(np.isnan(score), self._one(biomarkers), score)
        return score[:, None]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name of the one column that comes out."""
        return np.array(["composite_score"], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coefficients_") or hasattr(self, "cutoffs_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _of_two(self) -> Self:
        self.n_features_in_ = len(BIOMARKERS)
        return self

    def _both(self, biomarkers: np.ndarray) -> np.ndarray:
        if self.rule == "both_high":
            excess = np.asarray(self.signs) * (biomarkers - self.cutoffs_) / self.scales_
            return np.asarray(np.minimum(excess[:, 0], excess[:, 1]))
        return weighted_sum(biomarkers, self.coefficients_) - self.cutoff_

    def _one(self, biomarkers: np.ndarray) -> np.ndarray:
        excess = np.asarray(self.signs) * (biomarkers - self.alone_cutoffs_) * self.alone_scales_
        return np.where(np.isnan(excess[:, 0]), excess[:, 1], excess[:, 0])


class StandardisedLogOdds(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Probabilities of component models on one scale: log odds in standard deviations of patients that nobody learnt from.

    Models of different folds, and the one that is shipped, may be shrunk more or less: their probabilities differ in level and
    spread though they order patients alike. Each model's are therefore measured by the mean and the standard deviation of
    its own predictions of patients whom it had not learnt from.

    Parameters
    ----------
    centres, spreads : sequence of float of length 2
        Of the shipped model's log odds, per biomarker; NaN for one that is no probability and passes as it is.

    Examples
    --------
    >>> scale = StandardisedLogOdds((float("nan"), 0.0), (float("nan"), 0.5))
    >>> scale.transform(np.array([[1.5, 0.5], [1.5, 0.7310585786]])).round(6).tolist()
    [[1.5, 0.0], [1.5, 2.0]]
    """

    def __init__(self, centres: Sequence[float] = (0.0, 0.0), spreads: Sequence[float] = (1.0, 1.0)) -> None:
        self.centres = centres
        self.spreads = spreads

    def fit(self, X: Any, y: Any = None) -> Self:
        """Nothing is learnt here: the reference comes with the component."""
        validate_data(self, X, dtype=float, ensure_all_finite="allow-nan")
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Both biomarkers, shape (n_patients, 2); a missing one stays missing."""
        values = np.array(X, dtype=float)
        for own, (centre, spread) in enumerate(zip(self.centres, self.spreads, strict=True)):
            if not isnan(centre):
                values[:, own] = (log_odds(values[:, own]) - centre) / spread
        return values

    def inverse_transform(self, X: Any) -> np.ndarray:
        """The probabilities again, shape (n_patients, 2)."""
        values = np.array(X, dtype=float)
        for own, (centre, spread) in enumerate(zip(self.centres, self.spreads, strict=True)):
            if not isnan(centre):
                values[:, own] = expit(values[:, own] * spread + centre)
        return values

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Log odds, of probabilities that are kept a little off 0 and 1."""
    return np.asarray(logit(np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)))


def weighted_sum(biomarkers: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Weighted sum of two biomarkers per patient, shape (n_patients,); one with weight 0 may be missing.

    No matrix product: its rounding depends on how many patients there are, and a patient at the cutoff would change sides.

    Examples
    --------
    >>> weighted_sum(np.array([[0.5, np.nan], [1.0, 2.0]]), np.array([2.0, 0.0]))
    array([1., 2.])
    """
    total = np.zeros(len(biomarkers))
    for column, coefficient in zip(biomarkers.T, coefficients, strict=True):
        if coefficient != 0:
            total = total + column * coefficient
    return total


def _refuse_intercepts(x0: float, y0: float) -> None:
    shown = f"Intercepts {x0:g} and {y0:g}"
    if isnan(x0) or isnan(y0) or (isinf(x0) and isinf(y0)):
        raise InputError(f"{shown} define no line; give at least one that is finite.")
    if x0 == 0 or y0 == 0:
        raise InputError(f"{shown} leave the line's slope open; give a line through the origin by its angle and offset 0.")
    if x0 * y0 < 0 and not isinf(x0 * y0):
        raise InputError(
            f"{shown} have opposite signs: more of one biomarker would be less hypoxic; give intercepts of one sign, "
            "or turn the biomarker's sign round."
        )


def _unless_rounding(value: float) -> float:
    """0 for the cosine or sine of a right angle, which in floating point is 6e-17."""
    return 0.0 if abs(value) < pi * 2**-53 else value
