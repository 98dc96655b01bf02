"""The gate before an alias: may this version take the place of the one that holds it?

Everything here is a pure function of two judged models and a policy; nothing is read and nothing is written.

References
----------
DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595 (paired areas under the ROC curve).
Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (resampling whole clusters, here patients).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import field_validator
from scipy.stats import t as student

from features.bundle import Estimate, ModelCard
from features.errors import HypoxiaError, InputError
from features.settings import Settings
from features.table import FeatureSchema
from training.gate_measures import CLASSES, Yardstick, yardstick_of
from training.gate_policy import MOST_RESAMPLES, CalibrationMargins, Evidence, GatePolicy, NonInferiority
from training.judged import signed_judgement
from training.paired import aligned, delong_test, is_clustered, measured, paired_difference, same_patients

AGREEMENT = 1e-9
LARGEST_PERMUTATION_P = 0.05
COMPARISONS = ("superiority", "non-inferiority", "floor")
CARD_MUST_SAY = ("study", "endpoint", "created", "intended_use", "pipeline", "threshold_origin", "fingerprint", "data_hash")
Outcome = Literal["passed", "failed", "insufficient evidence", "skipped"]


class GateError(HypoxiaError):
    """A version may not have the alias that was asked for; nothing was changed."""


class Check(Settings):
    """One question of the gate and its answer.

    Attributes
    ----------
    name : str
    outcome : {"passed", "failed", "insufficient evidence", "skipped"}
    sentence : str
        The answer in words, safe to print: no patient is named.
    numbers : dict of str to float or None
    overridable : bool
        Whether a person may decide against it. Never what says that the model is what it claims to be.
    """

    name: str
    outcome: Outcome
    sentence: str
    numbers: dict[str, float | None] = {}
    overridable: bool = True

    @field_validator("numbers")
    @classmethod
    def _numbers_are_finite(cls, numbers: dict[str, float | None]) -> dict[str, float | None]:
        """JSON has no infinity."""
        return {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}

    @property
    def stands_in_the_way(self) -> bool:
        """Whether the version may not be promoted because of it."""
        return self.outcome in ("failed", "insufficient evidence")


class Verdict(Settings):
    """All answers of the gate about one version.

    Attributes
    ----------
    version, champion : str
        The challenger's version, and that of the version in place (None: there is none).
    policy : str
        Digest of the policy.
    look : int or None
        Which use of these held-out patients this is, counted from 1; None where they were not looked at.
    level : float or None
        One-sided level of this look.
    runs : int or None
        Studies that opened held-out patients of the same table.
    """

    model: str
    version: str
    alias: str
    champion: str | None
    checks: tuple[Check, ...]
    policy: str
    look: int | None = None
    level: float | None = None
    runs: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Failed if any check did, else insufficient evidence if any check found so, else passed."""
        outcomes = {check.outcome for check in self.checks}
        if "failed" in outcomes:
            return "failed"
        return "insufficient evidence" if "insufficient evidence" in outcomes else "passed"

    @property
    def looked(self) -> bool:
        """Whether the held-out patients had a say: a comparison that was left out spends nothing."""
        return any(check.name in COMPARISONS and check.outcome in ("passed", "failed") for check in self.checks)

    @property
    def in_the_way(self) -> tuple[Check, ...]:
        """Checks because of which the version may not be promoted."""
        return tuple(check for check in self.checks if check.stands_in_the_way)

    @property
    def overridable(self) -> bool:
        """Whether a person may promote all the same."""
        return all(check.overridable for check in self.in_the_way)


class Judged(Protocol):
    """What the gate must know of a model."""

    @property
    def name(self) -> str | None: ...
    @property
    def version(self) -> str | None: ...
    @property
    def card(self) -> ModelCard: ...
    @property
    def predictions(self) -> pd.DataFrame: ...
    @property
    def internal(self) -> pd.DataFrame | None: ...
    @property
    def permutation_p(self) -> float | None: ...
    @property
    def schema(self) -> FeatureSchema: ...


@dataclass(frozen=True)
class Looks:
    """How often these held-out patients were used.

    Attributes
    ----------
    earlier : int
        Other judgements by the gate before this one.
    runs : int
        Runs that opened held-out patients of the same table, this model's among them.
    """

    earlier: int = 0
    runs: int = 1

    def number(self, policy: GatePolicy) -> int:
        """Which look this is, counted from 1."""
        return self.earlier + 1 if policy.count == "gate" else max(self.earlier + 1, self.runs)


def judge(
    challenger: Judged,
    champion: Judged | None,
    policy: GatePolicy,
    *,
    alias: str,
    looks: Looks,
    integrity: tuple[Check, ...] = (),
) -> Verdict:
    """All answers about a challenger.

    Parameters
    ----------
    champion : Judged or None
        The version that holds the alias; None at a first promotion.
    integrity : tuple of Check
        What was found when the bundles were opened.
    """
    look = looks.number(policy)
    level = policy.level(look)
    checks = [*integrity, check_card(challenger), check_predictions(challenger)]
    checks += [check_permutation(challenger)] if challenger.card.judged_out_of_fold else []
    if champion is None:
        evidence = check_evidence(challenger.predictions, policy.evidence, _whose(challenger))
        checks += [evidence, *_first(challenger, policy, level, evidence)]
    else:
        checks += _against(challenger, champion, policy, level)
    return Verdict(
        model=challenger.name or "",
        version=challenger.version or "",
        alias=alias,
        champion=champion.version if champion else None,
        checks=tuple(checks),
        look=look,
        runs=looks.runs,
        level=level,
        policy=policy.digest,
        warnings=(*_warnings(policy, looks, look, level, _whose(challenger)), *_out_of_fold(challenger)),
    )


def check_card(judged: Judged) -> Check:
    """Does the card say what the model is, learnt from what, judged how?"""
    card = judged.card
    said, _ = signed_judgement(card, judged.predictions, judged.internal)
    where, counted = ("internal", ()) if card.judged_out_of_fold else ("held_out", ("held_out_patients",))
    # The ratio is of the typical repeat (see signed_judgement); a slope would be that of the scores it was learnt from.
    own = {"hazard_ratio", "calibration_slope"} if card.composite is not None else set()
    unsaid = [name for name in CARD_MUST_SAY if not str(getattr(card, name)).strip()]
    unsaid += [name for name in ("samples", "events", "patients", *counted) if getattr(card, name) < 1]
    unsaid += [f"{where}.{one.name}" for one in _yardstick(judged).metrics if one.name not in {*said, *own}]
    unsaid += [] if card.versions else ["versions"]
    unsaid += [] if 0 <= card.threshold <= 1 else ["threshold"]
    words = f"The card of version {judged.version} is complete."
    if unsaid:
        words = f"The card of version {judged.version} does not say {', '.join(unsaid[:5])}; train the model again."
    return Check(name="card", outcome="failed" if unsaid else "passed", sentence=words, overridable=False)


def check_predictions(judged: Judged) -> Check:
    """Do the recorded predictions give the estimates that the card, which is signed, says?"""
    whose, differing = _whose(judged), _differing(judged)
    if judged.card.judged_out_of_fold:
        differing += [] if _is_one_repeat(judged.predictions, judged.internal) else ["predictions of one repeat"]
    elif judged.predictions["patient"].nunique() != judged.card.held_out_patients:
        differing.append("number of patients")
    words = f"The {whose} predictions of version {judged.version} give the estimates on its card."
    if differing:
        words = (
            f"The {whose} predictions of version {judged.version} do not give the {differing[0]} on its card: "
            "predictions.csv was changed after training. Put it back, or train the model again."
        )
    return Check(name="predictions", outcome="failed" if differing else "passed", sentence=words, overridable=False)


def _differing(judged: Judged) -> list[str]:
    """Titles of the measures that the recorded predictions do not give."""
    yardstick = _yardstick(judged)
    estimates, recorded = signed_judgement(judged.card, judged.predictions, judged.internal)
    known = {metric.name: metric.title for metric in yardstick.metrics}
    said = {name: estimate.value for name, estimate in estimates.items() if name in known}
    return [known[name] for name, value in said.items() if not _agrees(value, yardstick.measure(recorded, name))]


def _is_one_repeat(predictions: pd.DataFrame, internal: pd.DataFrame | None) -> bool:
    """Whether predictions are one repeat of those on which the card's estimates rest."""
    repeats = set(predictions["repeat"])
    if internal is None or len(repeats) != 1:
        return False
    same = internal[internal["repeat"].isin(repeats)].set_index("sample")
    of_patients = dict(zip(predictions["sample"], predictions["patient"], strict=True))
    if len(same) != len(predictions) or same["patient"].to_dict() != of_patients:
        return False
    columns = [name for name in ("label", "probability", "called", "time", "fold") if name in predictions]
    return bool(np.allclose(same.loc[predictions["sample"], columns].astype(float), predictions[columns].astype(float)))


def check_evidence(predictions: pd.DataFrame, least: Evidence, whose: str = "held-out") -> Check:
    """Are there enough patients, with and without the event, to say anything?"""
    labels = predictions.groupby("patient")["label"].max()
    counted = {"patients": len(labels), "events": int(labels.sum()), "non_events": int((1 - labels).sum())}
    short = [name for name, count in counted.items() if count < getattr(least, name)]
    found = f"{counted['patients']} {whose} patients, {counted['events']} with and {counted['non_events']} without the event"
    words = f"{found}: enough to judge."
    if short:
        needed = ", ".join(f"{getattr(least, name)} {name.replace('_', '-')}" for name in short)
        way_out = "Hold out" if whose == "held-out" else "Collect"
        words = f"{found}: too few to say anything (the policy asks for {needed}). {way_out} more patients."
    return Check(
        name="evidence",
        outcome="insufficient evidence" if short else "passed",
        sentence=words,
        numbers={name: float(count) for name, count in counted.items()},
    )


def check_permutation(challenger: Judged) -> Check:
    """Does a composite, or do clusters, part patients more than the same search does where the outcome was dealt anew?"""
    p_value = challenger.permutation_p
    words = "The run recorded no permutation p-value of the whole search (permutation_p); train the model again."
    if p_value is not None:
        kept = p_value <= LARGEST_PERMUTATION_P
        words = (
            f"Permutation p-value of the whole search {p_value:.3g}, {'not ' if kept else ''}above {LARGEST_PERMUTATION_P:g}"
            f"{'' if kept else ': patients are parted as well where the outcome was dealt to them anew'}."
        )
    passed = p_value is not None and p_value <= LARGEST_PERMUTATION_P
    numbers = {"p_value": p_value, "bar": LARGEST_PERMUTATION_P}
    return Check(name="permutation", outcome="passed" if passed else "failed", sentence=words, numbers=numbers)


def check_same_patients(challenger: Judged, champion: Judged, policy: GatePolicy) -> Check:
    """Were both judged on the same patients, samples and outcomes, from the same table?"""
    way_out = "Train both on one table and split, or score both on one labelled table: hypoxia compare A B --on TABLE."
    versions, name = f"Versions {champion.version} and {challenger.version}", "same patients"
    whose = "out-of-fold" if {_whose(champion), _whose(challenger)} == {"out-of-fold"} else "held-out"
    if _question(champion.card) != _question(challenger.card):
        words = (
            f"{versions} answer different questions ({_question(champion.card)}, and {_question(challenger.card)}). "
            "Train both for one endpoint and horizon, or give the new one a model name of its own."
        )
        return Check(name=name, outcome="failed", sentence=words)
    try:
        same_patients([champion.predictions, challenger.predictions])
    except InputError:
        return Check(name=name, outcome="failed", sentence=f"{versions} were judged on different {whose} patients. {way_out}")
    if policy.equal_data and champion.card.data_hash != challenger.card.data_hash:
        words = (
            f"{versions} come from different tables (their data hashes differ). {way_out} The {whose} patients are the same: "
            "equal_data: false in the policy compares them all the same."
        )
        return Check(name=name, outcome="failed", sentence=words)
    return Check(name=name, outcome="passed", sentence=f"Both were judged on the same {whose} patients.")


def _question(card: ModelCard) -> str:
    return "probability of a class" if card.horizon is None else card.probability_words


def check_different_model(challenger: pd.DataFrame, champion: pd.DataFrame) -> Check:
    """Is the challenger another model at all?"""
    same = np.allclose(challenger["probability"].to_numpy(), champion["probability"].to_numpy(), rtol=0, atol=AGREEMENT)
    words = "The challenger is another model." if not same else "The challenger predicts exactly what the champion does."
    return Check(name="another model", outcome="failed" if same else "passed", sentence=words, overridable=False)


def held_out_digest(predictions: pd.DataFrame) -> str:
    """SHA-256 over held-out samples, patients and labels, in any order: which patients were looked at."""
    rows = predictions[["sample", "patient", "label"]].astype(str).agg("\x1f".join, axis=1)
    return hashlib.sha256("\x1e".join(sorted(rows)).encode()).hexdigest()


def _first(challenger: Judged, policy: GatePolicy, level: float, evidence: Check) -> list[Check]:
    predictions, yardstick, whose = challenger.predictions, _yardstick(challenger), _whose(challenger)
    if evidence.stands_in_the_way:
        return [_too_few(name, whose) for name in ("floor", "Brier score", "calibration in the large", "calibration slope")]
    constant = yardstick.without_information(predictions)
    return [
        _floor(predictions, policy, level, yardstick),
        _brier(predictions, constant, policy, yardstick.constant, yardstick),
        *_calibrated(predictions, None, policy.calibration, yardstick),
    ]


def _against(challenger: Judged, champion: Judged, policy: GatePolicy, level: float) -> list[Check]:
    yardstick = _yardstick(challenger)
    same = check_same_patients(challenger, champion, policy)
    evidence = check_evidence(challenger.predictions, policy.evidence, _whose(challenger))
    names = (policy.comparison.kind.replace("_", "-"), "Brier score", "calibration in the large", "calibration slope")
    if same.stands_in_the_way:
        return [same, evidence, *map(_skipped, names)]
    old, new = aligned(champion.predictions, challenger.predictions)
    another = check_different_model(new, old)
    if evidence.stands_in_the_way or another.stands_in_the_way:
        skipped = [_too_few(name, _whose(challenger)) if evidence.stands_in_the_way else _skipped(name) for name in names]
        return [same, another, evidence, *skipped]
    return [
        same,
        another,
        evidence,
        _compared(new, old, policy, level, yardstick),
        *_benefit(challenger, champion, new, old, policy, level),
        _brier(new, old, policy, "the champion's", yardstick),
        *_calibrated(new, old, policy.calibration, yardstick),
    ]


def _compared(new: pd.DataFrame, old: pd.DataFrame, policy: GatePolicy, level: float, yardstick: Yardstick) -> Check:
    """Both constructions of the lower limit must be above the bar: on few patients one or the other alone is too generous."""
    margin = policy.comparison.margin if isinstance(policy.comparison, NonInferiority) else 0.0
    limits = lower_limits(new, old, policy, level, yardstick)
    numbers = {**limits, "bar": -margin if margin else 0.0}
    lower = min(limits[name] for name in limits if name != "difference")
    values = [yardstick.measure(one, yardstick.rank) for one in (new, old)]
    words = (
        f"{yardstick.rank_name} {values[0]:.3f} against the champion's {values[1]:.3f}: difference "
        f"{limits['difference']:+.3f}, lower limit {lower:+.3f} (one-sided level {level:.3g}), "
        f"{'above' if lower > -margin else 'not above'} {-margin or 0:g}."
    )
    outcome: Outcome = "passed" if lower > -margin else "failed"
    return Check(name=policy.comparison.kind.replace("_", "-"), outcome=outcome, sentence=words, numbers=numbers)


def lower_limits(
    new: pd.DataFrame, old: pd.DataFrame, policy: GatePolicy, level: float, yardstick: Yardstick = CLASSES
) -> dict[str, float]:
    """Difference of AUC or of the C-index (new minus old) and its one-sided lower limits by two constructions.

    The first is the bootstrap over patients; the second is DeLong's where every row is a patient's class, and the jackknife
    over patients with Student's t where a patient has several rows or has a time to an event, for which DeLong's variance
    does not hold.
    """
    drawn = paired_difference(
        old,
        new,
        yardstick.rank,
        np.random.default_rng(policy.seed),
        _resamples(policy, level),
        level=1 - 2 * level,
        horizon=yardstick.horizon,
    )
    found = {"difference": float(drawn.value or 0.0), "bootstrap": -math.inf if drawn.lower is None else drawn.lower}
    if yardstick.horizon is not None or is_clustered(new):
        return found | {"jackknife": _jackknife_lower(new, old, level, yardstick)}
    y, was, now = new["label"].to_numpy(), old["probability"].to_numpy(), new["probability"].to_numpy()
    return found | {"delong": float(delong_test(y, was, now, level=1 - 2 * level).lower)}


def _benefit(
    challenger: Judged, champion: Judged, new: pd.DataFrame, old: pd.DataFrame, policy: GatePolicy, level: float
) -> list[Check]:
    if not isinstance(policy.comparison, NonInferiority):
        return []
    declared = policy.comparison
    if declared.benefit == "fewer features":
        counts = len(challenger.schema.names), len(champion.schema.names)
        words = f"Declared benefit, fewer features: {counts[0]} against the champion's {counts[1]}."
        outcome: Outcome = "passed" if counts[0] < counts[1] else "failed"
        return [Check(name="benefit", outcome=outcome, sentence=words, numbers={"new": counts[0], "old": counts[1]})]
    if declared.benefit == "lower Brier score":
        found = _brier_difference(new, old, policy, level, _yardstick(challenger))
        if found.value is None:
            return [_unreached("benefit")]
        upper = found.upper if found.upper is not None else math.inf
        words = f"Declared benefit, a lower Brier score: difference {found.value:+.3f}, upper limit {upper:+.3f}."
        return [Check(name="benefit", outcome="passed" if upper < 0 else "failed", sentence=words, numbers={"upper": upper})]
    return [Check(name="benefit", outcome="passed", sentence=f"Declared benefit, not checked: {declared.reason}")]


def _floor(predictions: pd.DataFrame, policy: GatePolicy, level: float, yardstick: Yardstick) -> Check:
    """As against a champion that ranks by chance."""
    chance = predictions.assign(probability=0.5)
    limits = lower_limits(predictions, chance, policy, level, yardstick)
    lower = 0.5 + min(limits[name] for name in limits if name != "difference")
    words = (
        f"First promotion: {yardstick.rank_name} {yardstick.measure(predictions, yardstick.rank):.3f}, lower limit {lower:.3f} "
        f"(one-sided level {level:.3g}), {'above' if lower > policy.floor else 'not above'} the floor of {policy.floor:g}."
    )
    numbers = {**limits, "bar": policy.floor}
    return Check(name="floor", outcome="passed" if lower > policy.floor else "failed", sentence=words, numbers=numbers)


def _brier(new: pd.DataFrame, old: pd.DataFrame, policy: GatePolicy, whose: str, yardstick: Yardstick) -> Check:
    """The upper limit counts: that no harm was seen on forty patients does not say that there is none."""
    margin, found = policy.calibration.brier, _brier_difference(new, old, policy, policy.error / 2, yardstick)
    if found.value is None:
        return _unreached("Brier score")
    upper = found.upper if found.upper is not None else math.inf
    values = [yardstick.measure(one, yardstick.brier) for one in (new, old)]
    words = (
        f"Brier score {values[0]:.3f} against {whose} {values[1]:.3f}: difference {found.value:+.3f}, "
        f"upper limit {upper:+.3f}, {'not above' if upper <= margin else 'above'} the margin of {margin:g}."
    )
    outcome: Outcome = "passed" if upper <= margin else "failed"
    numbers = {"difference": found.value, "upper": upper, "margin": margin}
    return Check(name="Brier score", outcome=outcome, sentence=words, numbers=numbers)


def _calibrated(new: pd.DataFrame, old: pd.DataFrame | None, margins: CalibrationMargins, yardstick: Yardstick) -> list[Check]:
    if yardstick.composite:  # a check that nothing could fail would look like evidence
        words = "Not judged: the composite's risk was fitted to these out-of-fold scores; see hypoxia validate on other patients."
        return [Check(name=name, outcome="skipped", sentence=words) for name in ("calibration in the large", "calibration slope")]
    return [_in_the_large(new, old, margins, yardstick), _slope(new, old, margins, yardstick)]


def _in_the_large(new: pd.DataFrame, old: pd.DataFrame | None, margins: CalibrationMargins, yardstick: Yardstick) -> Check:
    name = "calibration in the large"
    gap, before = yardstick.gap(new), 0.0 if old is None else yardstick.gap(old)
    if gap is None or before is None:
        return _unreached(name)
    worse = abs(gap) - abs(before)
    against = "" if old is None else f" (the champion: {before:+.3f})"
    words = (
        f"Mean probability minus {yardstick.observed} {gap:+.3f}{against}: "
        f"{'within' if worse <= margins.in_the_large else 'beyond'} the margin of {margins.in_the_large:g}."
    )
    return Check(
        name=name,
        outcome="passed" if worse <= margins.in_the_large else "failed",
        sentence=words,
        numbers={"gap": gap, "champion": before if old is not None else None, "margin": margins.in_the_large},
    )


def _slope(new: pd.DataFrame, old: pd.DataFrame | None, margins: CalibrationMargins, yardstick: Yardstick) -> Check:
    """With no champion only a slope below 1 counts: probabilities that are too extreme mislead, shy ones do not."""
    name = "calibration slope"
    if margins.slope is None:
        return Check(name=name, outcome="skipped", sentence="The policy leaves the calibration slope out.")
    slope, before = yardstick.slope(new), None if old is None else yardstick.slope(old)
    if slope is None or (old is not None and before is None):
        words = "No slope can be estimated: a model parts the classes without an error, or scores all alike."
        return Check(name=name, outcome="skipped", sentence=words)
    if before is None:
        passed = slope >= 1 / margins.slope
        words = f"Calibration slope {slope:.2f}, {'not ' if passed else ''}below {1 / margins.slope:.2g}."
    else:
        passed = _times_from_one(slope) <= margins.slope * _times_from_one(before)
        words = f"Calibration slope {slope:.2f} (the champion: {before:.2f}), {'at most' if passed else 'more than'} "
        words += f"{margins.slope:g} times as far from 1."
    numbers = {"slope": slope, "champion": before, "margin": margins.slope}
    return Check(name=name, outcome="passed" if passed else "failed", sentence=words, numbers=numbers)


def _times_from_one(slope: float) -> float:
    """2 for a slope of 2 and for one of a half; infinite where the ranking is upside down."""
    return math.inf if slope <= 0 else max(slope, 1 / slope)


def _jackknife_lower(new: pd.DataFrame, old: pd.DataFrame, level: float, yardstick: Yardstick) -> float:
    """Lower limit of the difference of ranking from leaving out one patient at a time."""
    patient, names = pd.factorize(new["patient"])
    without = (np.arange(len(names))[:, None] != patient[None, :]).astype(float)
    every = np.vstack([np.ones((1, len(new))), without])
    values = np.subtract(*(measured(one, yardstick.rank, every, yardstick.horizon) for one in (new, old)))
    left_out = values[1:]
    count = len(left_out)
    variance = (count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum())
    return float(values[0]) - float(student.ppf(1 - level, count - 1)) * math.sqrt(variance)


def _resamples(policy: GatePolicy, level: float) -> int:
    """A limit at level 0.001 needs more than two resamples beyond it."""
    return min(max(policy.bootstrap, math.ceil(20 / level)), MOST_RESAMPLES)


def _brier_difference(new: pd.DataFrame, old: pd.DataFrame, policy: GatePolicy, level: float, yardstick: Yardstick) -> Estimate:
    rng, count = np.random.default_rng(policy.seed), _resamples(policy, level)
    return paired_difference(old, new, yardstick.brier, rng, count, level=1 - 2 * level, horizon=yardstick.horizon)


def _agrees(said: float | None, found: float) -> bool:
    return math.isnan(found) if said is None else abs(said - found) <= AGREEMENT


def _out_of_fold(challenger: Judged) -> tuple[str, ...]:
    if not challenger.card.judged_out_of_fold:
        return ()
    kind = "composite" if challenger.card.composite is not None else "profile"
    return (f"A {kind} has no held-out patients: it is judged on out-of-fold predictions of the patients that it learnt from.",)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _skipped(name: str) -> Check:
    return Check(name=name, outcome="skipped", sentence="Nothing to compare.")


def _unreached(name: str) -> Check:
    words = "Not judged: nobody was followed up to the horizon."
    return Check(name=name, outcome="insufficient evidence", sentence=words)


def _yardstick(judged: Judged) -> Yardstick:
    return yardstick_of(judged.card.horizon, composite=judged.card.composite is not None)


def _whose(judged: Judged) -> str:
    """A composite or a profile has no held-out patients: it is judged out of fold on all."""
    return "out-of-fold" if judged.card.judged_out_of_fold else "held-out"


def _too_few(name: str, whose: str) -> Check:
    return Check(name=name, outcome="insufficient evidence", sentence=f"Not judged: too few {whose} patients.")


def _warnings(policy: GatePolicy, looks: Looks, look: int, level: float, whose: str) -> tuple[str, ...]:
    found, used = [], "opened held-out patients" if whose == "held-out" else "were judged on patients"
    if looks.earlier:
        cost = (
            f"the one-sided level is {level:.3g} instead of {policy.level(1):.3g}"
            if look > 1 and policy.looks != "ignore"
            else "the policy ignores it"
        )
        found.append(
            f"The gate judged others on these {whose} patients {_times(looks.earlier)} before: {cost}. Fresh patients mend that."
        )
    if looks.runs > 1:
        counted = (
            "which counts as looks" if policy.count == "runs" else "which the policy does not count as looks (count: runs does)"
        )
        found.append(
            f"{looks.runs} studies {used} of this table, {counted}: a model that was picked as the best of "
            "them looks better than it is."
        )
    return tuple(found)
