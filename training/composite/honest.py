"""What a rule that was chosen for its separation is worth: beside the apparent hazard ratio, those that can be believed.

A line that was chosen from thousands by the outcome separates the patients that it was chosen on even where both biomarkers
are noise: about one of two null cohorts of the size of the paper's has a naive p below 0.05, at a median hazard ratio of two.
So the p value comes from permutations of the outcome with the whole search repeated, and the hazard ratio from
cross-validation with the rule refitted in each fold. Harrell's bootstrap correction stands beside them; of a maximally selected
cutoff it removes too little.

References
----------
Simon et al. 2011, doi:10.1093/bib/bbr001 (cross-validated Kaplan-Meier curves).
Hilsenbeck & Clark 1996, doi:10.1002/(SICI)1097-0258(19960115)15:1<103::AID-SIM156>3.0.CO;2-Y (price of an optimal cutpoint).
Harrell, Lee & Mark 1996, doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4 (bootstrap correction).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2
from threadpoolctl import threadpool_limits

from features.composite import CompositeScore
from features.errors import InputError
from training.composite.logrank import ROUNDING, LogRankScorer
from training.composite.rules import Fitted, Missing, Rule, Training, training_of
from training.progress import Progress, Silence
from training.survival.checks import check_outcome
from training.survival.cox import HazardRatio, hazard_ratio
from training.survival.metrics import above, later

# Products as small as these are slower on two threads, and ten times slower on a busy machine.
ONE_THREAD = 1
APPARENT = "apparent (selected on these patients, biased)"
CROSS_VALIDATED = "cross-validated"


@dataclass(frozen=True)
class Biomarkers:
    """Two biomarkers and the outcome of patients, one row each.

    Attributes
    ----------
    values : ndarray of shape (n_patients, 2), or callable
        The imaging biomarker, then the genes', in raw units. A function where they depend on the patients that are learnt from
        (a signature that is scored against their medians): it takes their positions and gives the values of all patients.
    time : ndarray of shape (n_patients,)
        Follow-up, above zero.
    event : ndarray of shape (n_patients,)
        1 where the event happened then, 0 where the patient was censored.
    patients : sequence of str
        Names, each once.
    signs : tuple of int
        Per biomarker 1 where higher is more hypoxic, -1 where lower is.
    missing : {"refuse", "alone"}
        As in ``fit`` of a rule.

    Raises
    ------
    InputError
        The outcome cannot be used, or a patient comes twice.
    """

    values: np.ndarray | Callable[[np.ndarray], np.ndarray]
    time: np.ndarray
    event: np.ndarray
    patients: Sequence[str]
    signs: Sequence[int] = (1, 1)
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        time, event = check_outcome(self.time, self.event)
        object.__setattr__(self, "time", time)
        object.__setattr__(self, "event", event)
        count = len(set(self.patients))
        if count != len(time):
            raise InputError(
                f"There are {len(time)} rows of {count} patients, and a composite score takes one row per patient; "
                "join the samples of a patient first."
            )

    def __len__(self) -> int:
        return len(self.time)

    def seen_from(self, train: np.ndarray) -> np.ndarray:
        """Values of all patients, shape (n_patients, 2), where those at the positions `train` are learnt from."""
        return np.asarray(self.values(train) if callable(self.values) else self.values, dtype=float)

    @property
    def whole(self) -> np.ndarray:
        """Values of all patients where all are learnt from."""
        return self.seen_from(np.arange(len(self)))

    def fit(self, rule: Rule, train: np.ndarray | None = None) -> Fitted:
        """Learn a rule from the patients at these positions (all, when left out; one may come several times)."""
        train = np.arange(len(self)) if train is None else train
        return self.fit_to(self.seen_from(train), rule, train)

    def fit_to(self, values: np.ndarray, rule: Rule, train: np.ndarray) -> Fitted:
        """The same from values that are at hand, as ``seen_from`` gives them."""
        return rule.fit(values[train], self.time[train], self.event[train], self.signs, missing=self.missing)


@dataclass(frozen=True)
class Apparent:
    """A rule judged on the patients whom it was chosen on.

    Attributes
    ----------
    hazard_ratio : HazardRatio
        Of more to less hypoxic. Too high, since the rule was selected for it.
    naive_p : float
        Log-rank p as if the rule had been given beforehand: too small.
    label : str
        What must stand beside them.
    """

    hazard_ratio: HazardRatio
    naive_p: float
    label: str = APPARENT


@dataclass(frozen=True)
class PermutationTest:
    """Whether a search finds more than it finds where there is nothing.

    Attributes
    ----------
    statistic : float
        The largest log-rank z of the search.
    null : ndarray of shape (n_permutations,)
        The largest z of the search in each permutation of the outcome.
    p_value : float
        One-sided; (1 + number as large) / (1 + number of permutations), so never below ``floor``.
    naive_p : float
        Two-sided, of one split that was given beforehand; for comparison.
    splits_searched : int
    """

    statistic: float
    null: np.ndarray
    p_value: float
    naive_p: float
    splits_searched: int

    @property
    def floor(self) -> float:
        """The smallest p that so many permutations can give."""
        return 1 / (1 + len(self.null))


@dataclass(frozen=True)
class OutOfFold:
    """One rule in repeated cross-validation.

    Attributes
    ----------
    scores : ndarray of shape (n_repeats, n_patients)
        By the rule that was learnt without the patient; NaN where there is none. Their zero is the rule's cutoff.
    hazard_ratios : tuple of HazardRatio
        Of more to less hypoxic over the patients of all folds, one per repeat.
    concordances : ndarray of shape (n_repeats,)
        Harrell's, over pairs of patients of one fold, whose scores are by one rule; NaN where there is no pair.
    failures : tuple of str
        Why a fold gave no rule.
    """

    scores: np.ndarray
    hazard_ratios: tuple[HazardRatio, ...]
    concordances: np.ndarray
    failures: tuple[str, ...]

    @property
    def scored(self) -> np.ndarray:
        """Whether the patient has a score: shape (n_repeats, n_patients)."""
        return ~np.isnan(self.scores)

    @property
    def high(self) -> np.ndarray:
        """Whether the patient is called more hypoxic: shape (n_repeats, n_patients); False without a score."""
        return np.asarray(self.scores >= 0)

    @property
    def values(self) -> np.ndarray:
        """Hazard ratio of each repeat, NaN where it is not estimable."""
        return np.array([np.nan if one.value is None else one.value for one in self.hazard_ratios])

    @property
    def median(self) -> float | None:
        """Median hazard ratio over the repeats; None where it is not estimable in any."""
        return _over(np.median, self.values)

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest hazard ratio over the repeats: how much hangs on the folds, not a confidence interval."""
        lowest, highest = _over(np.min, self.values), _over(np.max, self.values)
        return None if lowest is None or highest is None else (lowest, highest)

    @property
    def geometric_mean(self) -> float | None:
        """Geometric mean of the hazard ratio over the repeats."""
        return _over(lambda values: np.exp(np.log(values).mean()), self.values)

    @property
    def concordance(self) -> float | None:
        """Mean concordance over the repeats; 0.5 where the score tells nothing."""
        return _over(np.mean, self.concordances)

    @property
    def typical(self) -> int:
        """The repeat whose hazard ratio is the (lower) median: the one to draw."""
        order = np.argsort(np.where(np.isnan(self.values), np.inf, self.values), kind="stable")
        return int(order[max(int(np.isfinite(self.values).sum()) - 1, 0) // 2])


@dataclass(frozen=True)
class CrossValidated:
    """Several rules under the same folds.

    Attributes
    ----------
    rules : dict of str to OutOfFold
    folds : ndarray of shape (n_repeats, n_patients), int
        Fold in which each patient was left out.
    """

    rules: dict[str, OutOfFold]
    folds: np.ndarray


@dataclass(frozen=True)
class Stability:
    """One rule learnt from resamples of the patients.

    Attributes
    ----------
    fits : tuple of Fitted
        One per resample that gave a rule.
    frequency : ndarray of shape (n_patients,)
        Share of the resamples' rules that call the patient more hypoxic; NaN for one whom they cannot score.
    optimism : ndarray of shape (n_fits,)
        Log hazard ratio of each rule among the patients of its resample, less that among all patients; NaN where one of them
        is not estimable.
    apparent : float
        Log hazard ratio of the rule that was learnt from all patients, among them.
    spread : ndarray of shape (2,)
        Standard deviations of the biomarkers, in which ``degrees`` measures.
    failures : tuple of str
        Why a resample gave no rule.
    """

    fits: tuple[Fitted, ...]
    frequency: np.ndarray
    optimism: np.ndarray
    apparent: float
    spread: np.ndarray
    failures: tuple[str, ...]

    @property
    def theta(self) -> np.ndarray:
        """Angle of each line in radians, in raw units of the oriented biomarkers: 0 to pi/2 for a monotone rule.

        Shape (n_fits,); empty for the rule that both are high. Lines on whose more hypoxic side both are low are never fitted,
        so that no angle lies where the circle is cut open, and quantiles are those of plain numbers.
        """
        return self._angles(np.ones(2))

    @property
    def degrees(self) -> np.ndarray:
        """The same in degrees on axes in standard deviations of the patients, which do not depend on the biomarkers' units."""
        return np.degrees(self._angles(self.spread))

    @property
    def offset(self) -> np.ndarray:
        """Distance of each line from the origin in raw units: shape (n_fits,); empty for the rule that both are high."""
        return np.array([one.line.offset for one in self._lines])

    @property
    def cutoffs(self) -> np.ndarray:
        """Cutoffs of the rule that both are high, in raw units: shape (n_fits, 2); empty for the others."""
        found = [one.rule.cutoffs_ for one in self.fits if one.rule.rule == "both_high"]
        return np.array(found).reshape(len(found), 2)

    @property
    def corrected(self) -> float | None:
        """Hazard ratio less the mean optimism of the resamples (Harrell); too high where a cutoff was selected."""
        known = self.optimism[np.isfinite(self.optimism)]
        return float(np.exp(self.apparent - known.mean())) if len(known) and np.isfinite(self.apparent) else None

    @property
    def _lines(self) -> list[CompositeScore]:
        return [one.rule for one in self.fits if one.rule.rule != "both_high"]

    def _angles(self, scale: np.ndarray) -> np.ndarray:
        oriented = [one.coefficients_ * np.asarray(one.signs) * scale for one in self._lines]
        return np.array([np.arctan2(along, across) for across, along in oriented])


def apparent(fitted: Fitted, data: Biomarkers) -> Apparent:
    """A rule judged on the patients whom it was chosen on, labelled as such.

    Raises
    ------
    InputError
        It puts all of them on one side.
    """
    score = _scores(fitted.rule, data.whole)
    known = ~np.isnan(score)
    return Apparent(hazard_ratio(data.time[known], data.event[known], score[known] >= 0), _naive(fitted.statistic))


def permutation_p(
    rule: Rule, data: Biomarkers, permutations: int, rng: np.random.Generator, progress: Progress | None = None
) -> PermutationTest:
    """Test of no association, with the whole search repeated in every permutation of the outcome.

    Parameters
    ----------
    permutations : int
        Outcomes (time with event) are dealt to the patients anew that often; the biomarkers stay as they are, also where they
        depend on the patients that are learnt from.

    Raises
    ------
    InputError
        As in ``fit`` of the rule.

    Examples
    --------
    >>> from training.composite.rules import Alone
    >>> values = np.column_stack([np.arange(40.0), np.arange(40.0)[::-1]])
    >>> data = Biomarkers(values, 40 - np.arange(40.0), np.ones(40), range(40))
    >>> permutation_p(Alone(which="imaging"), data, 99, np.random.default_rng(0)).p_value
    0.01
    """
    (progress or Silence()).stage(f"{permutations} permutations of the search by {rule.name}")
    training = training_of(data.whole, data.time, data.event, data.signs, data.missing)
    parts = rule.checked_parts(training)
    scorer = LogRankScorer(training.time, training.event)
    statistic = float(scorer.z(parts).max())
    dealt = [rng.permutation(len(training)) for _ in range(permutations)]
    with threadpool_limits(ONE_THREAD):
        if rule.outcome_makes_parts:
            null = np.array([_found_by(rule, training, rows) for rows in dealt])
        else:
            null = np.array([scorer.permuted(rows).z(parts).max() for rows in dealt])
    p_value = (1 + int((null >= statistic - ROUNDING).sum())) / (1 + permutations)
    return PermutationTest(statistic, null, p_value, _naive(statistic), len(parts))


def cross_validated(
    rules: Mapping[str, Rule],
    data: Biomarkers,
    rng: np.random.Generator,
    *,
    folds: int = 10,
    repeats: int = 10,
    progress: Progress | None = None,
) -> CrossValidated:
    """All rules in repeated cross-validation, each learnt anew from the patients of the other folds.

    Parameters
    ----------
    rules : mapping of str to Rule
        By the names under which they are reported.
    folds, repeats : int
        Folds have the same number of events, as far as it can be divided; all rules see the same.

    Raises
    ------
    InputError
        There are fewer events than folds.
    """
    if data.event.sum() < folds:
        raise InputError(f"There are {int(data.event.sum())} events, fewer than the {folds} folds; use fewer folds.")
    assigned = np.array([_balanced_folds(data.event, folds, rng) for _ in range(repeats)])
    scores = {name: np.full(assigned.shape, np.nan) for name in rules}
    failures: dict[str, list[str]] = {name: [] for name in rules}
    with threadpool_limits(ONE_THREAD):
        for repeat, fold_of in enumerate(assigned):
            (progress or Silence()).stage(f"cross-validation of {len(rules)} rules, repeat {repeat + 1} of {repeats}")
            for fold in range(folds):
                found = _left_out(rules, data, np.flatnonzero(fold_of != fold))
                for name, outcome in found.items():
                    if isinstance(outcome, str):
                        failures[name].append(f"repeat {repeat + 1}, fold {fold + 1}: {outcome}")
                    else:
                        scores[name][repeat, fold_of == fold] = outcome
    return CrossValidated({name: _out_of_fold(scores[name], assigned, data, failures[name]) for name in rules}, assigned)


def stability(
    rule: Rule, data: Biomarkers, resamples: int, rng: np.random.Generator, progress: Progress | None = None
) -> Stability:
    """How the rule changes with the patients that it is learnt from, and how much its hazard ratio owes to them.

    Parameters
    ----------
    resamples : int
        Of patients, drawn with replacement.

    Raises
    ------
    InputError
        No resample gave a rule, or not all patients together.
    """
    (progress or Silence()).stage(f"{resamples} resamples of the patients for {rule.name}")
    whole, n = data.whole, len(data)
    at_first = _scores(data.fit(rule).rule, whole)
    fits, called, optimism, failures = [], [], [], []
    with threadpool_limits(ONE_THREAD):
        for drawn in rng.integers(0, n, size=(resamples, n)):
            values = data.seen_from(drawn)
            try:
                fitted = data.fit_to(values, rule, drawn)
            except InputError as cause:
                failures.append(str(cause))
                continue
            score = _scores(fitted.rule, values)
            fits.append(fitted)
            called.append(np.where(np.isnan(score), np.nan, score >= 0))
            optimism.append(_log_hazard(data, score, drawn) - _log_hazard(data, score))
    if not fits:
        raise InputError(f"None of {resamples} resamples of the patients gave a rule by {rule.name}: {failures[0]}")
    return Stability(
        tuple(fits),
        np.mean(called, axis=0),
        np.array(optimism),
        _log_hazard(data, at_first),
        np.nanstd(whole, axis=0, ddof=1),
        tuple(failures),
    )


def _scores(rule: CompositeScore, values: np.ndarray) -> np.ndarray:
    return np.asarray(rule.transform(values)[:, 0])


def _left_out(rules: Mapping[str, Rule], data: Biomarkers, train: np.ndarray) -> dict[str, np.ndarray | str]:
    """Scores of the patients who were not learnt from by each rule, or why there are none."""
    values = data.seen_from(train)
    rest = np.setdiff1d(np.arange(len(data)), train)
    found: dict[str, np.ndarray | str] = {}
    for name, rule in rules.items():
        try:
            found[name] = _scores(data.fit_to(values, rule, train).rule, values[rest])
        except InputError as cause:
            found[name] = str(cause)
    return found


def _naive(z: float) -> float:
    return float(chi2.sf(z**2, 1))


def _over(summary: Callable[[np.ndarray], float], values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(summary(known)) if len(known) else None


def _found_by(rule: Rule, training: Training, rows: np.ndarray) -> float:
    """Largest statistic of the search where the outcome is dealt anew; endless where there is no model to search by."""
    dealt = Training(training.oriented, training.signs, training.time[rows], training.event[rows])
    try:
        return float(LogRankScorer(dealt.time, dealt.event).z(rule.checked_parts(dealt)).max())
    except InputError:
        return float("inf")  # counts against the finding


def _balanced_folds(event: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each patient: events are dealt out in turn, then the others."""
    order = rng.permutation(len(event))
    order = np.concatenate([order[event[order]], order[~event[order]]])
    assigned = np.empty(len(event), dtype=int)
    assigned[order] = np.arange(len(event)) % folds
    return assigned


def _out_of_fold(scores: np.ndarray, assigned: np.ndarray, data: Biomarkers, failures: list[str]) -> OutOfFold:
    ratios = tuple(_ratio(data, score) for score in scores)
    concordances = [_concordance(data, score, fold_of) for score, fold_of in zip(scores, assigned, strict=True)]
    return OutOfFold(scores, ratios, np.array(concordances), tuple(failures))


def _ratio(data: Biomarkers, score: np.ndarray, rows: np.ndarray | None = None) -> HazardRatio:
    """Hazard ratio of the classes among the patients at these positions (all, when left out) who have a score."""
    rows = np.arange(len(data)) if rows is None else rows
    rows = rows[~np.isnan(score[rows])]
    try:
        return hazard_ratio(data.time[rows], data.event[rows], score[rows] >= 0)
    except InputError as cause:  # all on one side, or none scored
        return HazardRatio(None, None, None, None, None, str(cause))


def _log_hazard(data: Biomarkers, score: np.ndarray, rows: np.ndarray | None = None) -> float:
    found = _ratio(data, score, rows).value
    return float("nan") if found is None else float(np.log(found))


def _concordance(data: Biomarkers, score: np.ndarray, fold_of: np.ndarray) -> float:
    known = ~np.isnan(score)
    time, event, score, fold_of = data.time[known], data.event[known], score[known], fold_of[known]
    comparable = later(time, event, time, event) & (fold_of[:, None] == fold_of)
    return float((comparable * above(score, score)).sum() / comparable.sum()) if comparable.any() else float("nan")
