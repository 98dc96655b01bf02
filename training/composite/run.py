"""The study of a composite score, top to bottom: what a paper's methods section says, and the scrutiny that it lacks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from features.audit import Audit, audit
from features.bundle import Estimate
from features.cohort import Cohort
from features.errors import InputError
from features.outcome import survival_outcome
from features.risk import CoxRisk
from training.composite.biomarkers import MODALITIES, MeasuredBiomarkers
from training.composite.groups import FourGroups, four_groups
from training.composite.honest import (
    Apparent,
    Biomarkers,
    CrossValidated,
    OutOfFold,
    PermutationTest,
    Stability,
    apparent,
    cross_validated,
    permutation_p,
    stability,
)
from training.composite.rules import FEWEST_EVENTS, Alone, BothHigh, CoxPredictor, Fitted, Rule, SeparatingLine
from training.composite.stacked import Stacked
from training.composite.study import CompositeStudy
from training.cutpoints import MaximallySelected, maximally_selected
from training.evaluation import Evaluation, EvaluationSettings, evaluate
from training.prognosis import Prognosis, prognosis
from training.progress import Progress, Silence
from training.survival.contingency import Correlation, spearman
from training.survival.cox import AddedValue, added_value

COMPOSITE = "composite score (per standard deviation)"


@dataclass(frozen=True)
class RuleResult:
    """One rule: how it looks on the patients it was chosen on, and how it does on others.

    Attributes
    ----------
    fitted : Fitted
        Learnt from all patients.
    apparent : Apparent
        Selected and biased.
    out_of_fold : OutOfFold
        In the same folds as every other rule.
    """

    rule: Rule
    fitted: Fitted
    apparent: Apparent
    out_of_fold: OutOfFold


@dataclass(frozen=True)
class CompositeResult:
    """Everything that a study of a composite found, before any of it is recorded.

    Attributes
    ----------
    biomarkers : DataFrame of shape (n_patients, 2)
        Raw units, reference values from all patients.
    rules : dict of str to RuleResult
        By name, the study's own first.
    permutation : PermutationTest
        Of the study's own search.
    stability : Stability
        Of the study's own rule.
    cutpoints : dict of str to MaximallySelected
        Of each biomarker by itself.
    groups : FourGroups
        By each biomarker's own cutoff: the one known beforehand, else the one found here.
    correlation : Correlation
        Spearman's, of the two biomarkers as they are oriented.
    pipeline : Pipeline
        From both biomarkers to the score, and from the score to a risk by the horizon; the latter learnt from out-of-fold
        scores.
    evaluation : Evaluation
        Of out-of-fold predictions, all repeats.
    prognosis : Prognosis
        Of the same, with the clinical covariates.
    added : dict of str to AddedValue
        What the out-of-fold score adds to each biomarker alone.
    notes : tuple of str
        Rules that could not be compared, and why.
    """

    study: CompositeStudy
    cohort: Cohort
    measured: MeasuredBiomarkers
    audit: Audit
    biomarkers: pd.DataFrame
    rules: dict[str, RuleResult]
    folds: np.ndarray
    permutation: PermutationTest
    stability: Stability
    cutpoints: dict[str, MaximallySelected]
    groups: FourGroups
    correlation: Correlation
    pipeline: Pipeline
    evaluation: Evaluation
    prognosis: Prognosis
    added: dict[str, AddedValue]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> RuleResult:
        """The study's own rule."""
        return next(iter(self.rules.values()))

    @property
    def outcome(self) -> tuple[np.ndarray, np.ndarray]:
        """Time and event."""
        return outcome_of(self.cohort)


def run_composite(study: CompositeStudy, measured: MeasuredBiomarkers, progress: Progress | None = None) -> CompositeResult:
    """Make a composite score, and find out what it is worth.

    Parameters
    ----------
    measured : MeasuredBiomarkers
        Of one row per patient.
    """
    progress, start, settings, cohort = progress or Silence(), time.monotonic(), study.evaluation, measured.cohort
    progress.stage("looking through the table")
    found, data = audit(cohort), biomarker_data(study, measured)
    everyone = measured.of_everyone()

    progress.stage("searching all splits for each rule")
    compared = rules_of(study, measured)
    fitted, notes = fit_rules(compared, data)
    rules = {name: compared[name] for name in fitted}
    own = study.composite
    assert not isinstance(own, Stacked)  # noqa: S101 - searched for by training.run

    permutation = permutation_p(own, data, settings.permutations, study.rng("permutations"), progress)
    judged = cross_validated(
        rules, data, study.rng("cross-validation"), folds=settings.folds, repeats=settings.repeats, progress=progress
    )
    stable = stability(own, data, settings.bootstrap, study.rng("stability"), progress)

    progress.stage("relating the out-of-fold score to the outcome")
    chosen = next(iter(rules))
    results = {
        name: RuleResult(rule, fitted[name], apparent(fitted[name], data), judged.rules[name]) for name, rule in rules.items()
    }
    pipeline = _with_risk(fitted[chosen], judged.rules[chosen], measured)
    predictions = out_of_fold_predictions(cohort, judged, chosen, pipeline)
    estimates = EvaluationSettings(bootstrap=max(settings.bootstrap, 100), level=settings.level, internal=None)
    evaluation = evaluate(predictions, estimates, study.rng("intervals"), cohort.horizon)
    honest = {"hazard_ratio": _cross_validated_ratio(judged.rules[chosen])}
    # The risk was learnt from these very scores: its calibration here is true by construction, and says nothing.
    judgement = {name: one for name, one in evaluation.estimates.items() if name != "calibration_slope"}
    evaluation = replace(evaluation, estimates=judgement | honest)
    clinical = cohort.clinical.set_axis(cohort.patients.to_numpy())
    competing = None if cohort.competing is None else cohort.competing.set_axis(cohort.patients.to_numpy())
    related = prognosis(predictions, clinical, cohort.horizon or 0.0, level=settings.level, competing=competing)
    related = replace(related, calibration=None)
    frame = pd.DataFrame(everyone, index=cohort.samples, columns=list(study.names))
    return CompositeResult(
        study=study,
        cohort=cohort,
        measured=measured,
        audit=found,
        biomarkers=frame,
        rules=results,
        folds=judged.folds,
        permutation=permutation,
        stability=stable,
        cutpoints=_cutpoints(study, frame, cohort),
        groups=_four_groups(study, measured, frame, fitted),
        correlation=spearman(*(frame.dropna().to_numpy() * np.asarray(study.signs)).T),
        pipeline=pipeline,
        evaluation=evaluation,
        prognosis=related,
        added=_added_over_each(related, frame.set_axis(cohort.patients.to_numpy())),
        seconds=time.monotonic() - start,
        notes=notes,
    )


def biomarker_data(study: CompositeStudy, measured: MeasuredBiomarkers) -> Biomarkers:
    """Biomarkers and outcome of a cohort, one row per patient, as the scrutiny takes them."""
    times, event = outcome_of(measured.cohort)
    patients = measured.cohort.patients.to_list()
    return Biomarkers(measured.learnt_from, times, event, patients, study.signs, study.missing)


def outcome_of(cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Time and event of a cohort of survival."""
    outcome = cohort.outcome
    return outcome["time"], outcome["event"]


def rules_of(study: CompositeStudy, measured: MeasuredBiomarkers) -> dict[str, Rule]:
    """The study's own rule, then every other and either biomarker alone, under the same limits on the size of a group."""
    own = study.composite
    assert not isinstance(own, Stacked)  # noqa: S101 - it has no rule
    limits = {"minimum_share": own.minimum_share, "minimum_patients": own.minimum_patients}
    others: list[Rule] = [
        SeparatingLine(**limits),
        CoxPredictor(**limits),
        BothHigh(**limits),
        Alone(which="imaging", **limits),
        Alone(which="genes", **limits),
    ]
    rules = [own, *others]
    known = (measured.cutoff(0), measured.cutoff(1))
    named: dict[str, Rule] = {}
    for rule in rules:
        named.setdefault(rule.name, rule)
    if known[0] is not None and known[1] is not None:
        named["both_high_given_cutoffs"] = BothHigh(cutoffs=(known[0], known[1]), **limits)
    return named


def fit_rules(rules: Mapping[str, Rule], data: Biomarkers) -> tuple[dict[str, Fitted], tuple[str, ...]]:
    """Rules learnt from all patients, and sentences on those that are there for comparison only and cannot be.

    Raises
    ------
    InputError
        The first rule, or a cutoff of one biomarker alone, cannot be learnt.
    """
    needed = {next(iter(rules)), *(f"{modality}_alone" for modality in MODALITIES)}
    fitted, notes = {}, []
    for name, rule in rules.items():
        try:
            fitted[name] = data.fit(rule)
        except InputError as cause:
            if name in needed:
                raise
            notes.append(f"No comparison with {name.replace('_', ' ')}: {cause}")
    return fitted, tuple(notes)


def refuse_what_cannot_be_joined(study: CompositeStudy, measured: MeasuredBiomarkers) -> None:
    """Say before a run is started what it would stop at.

    Raises
    ------
    InputError
        The study's own rule cannot be learnt from all patients, or there are fewer events than folds.
    """
    data, folds, rules = biomarker_data(study, measured), study.evaluation.folds, rules_of(study, measured)
    fitted, _ = fit_rules(rules, data)
    events, own = int(data.event.sum()), next(iter(rules))
    if events < folds:
        raise InputError(
            f"There are {events} events, fewer than the {folds} folds (evaluation.folds); use fewer folds, or follow the "
            "patients longer."
        )
    patients, happened = (sum(pair) for pair in (fitted[own].patients, fitted[own].events))  # with both biomarkers
    learning, seen = patients - ceil(patients / folds), happened - ceil(happened / folds)
    limit = rules[own].minimum(learning)
    searched = fitted[own].splits_searched > 1
    if seen < FEWEST_EVENTS or (searched and learning < 2 * limit):
        raise InputError(
            f"With {folds} folds (evaluation.folds) a rule is learnt from about {learning} patients with {seen} events, too few "
            f"for {limit} patients on each side and {FEWEST_EVENTS} events; use more folds, or collect more patients."
        )


def out_of_fold_predictions(cohort: Cohort, judged: CrossValidated, name: str, pipeline: Pipeline) -> pd.DataFrame:
    """Out-of-fold scores of a rule as predictions like any model's, all repeats."""
    found, times = judged.rules[name], cohort.times
    assert times is not None  # noqa: S101 - a study of survival
    parts = []
    for repeat, (score, fold) in enumerate(zip(found.scores, judged.folds, strict=True)):
        known = ~np.isnan(score)
        parts.append(
            pd.DataFrame(
                {
                    "sample": cohort.samples[known].astype(str),
                    "patient": cohort.patients.to_numpy()[known],
                    "label": cohort.y[known],
                    "probability": pipeline[-1].predict_proba(score[known, None])[:, 1],
                    "threshold": _risk_at_cutoff(pipeline),
                    "called": score[known] >= 0,
                    "repeat": repeat,
                    "fold": fold[known],
                    "time": times.to_numpy()[known],
                    "score": score[known],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _with_risk(fitted: Fitted, out_of_fold: OutOfFold, measured: MeasuredBiomarkers) -> Pipeline:
    """The score, then a risk of one variable; learnt from out-of-fold scores, since on its own patients a score is too good.

    The direction was said beforehand: where out-of-fold scores fall with the hazard, as those of noise often do, the risk is the
    same for all. Turned around it would tell the patients whom it was turned by apart.
    """
    score, cohort = out_of_fold.scores[out_of_fold.typical], measured.cohort
    known = ~np.isnan(score)
    times, event = outcome_of(cohort)
    if not event[known].any():
        raise InputError(f"No fold of the cross-validation gave a rule: {'; '.join(out_of_fold.failures[:1])}")
    outcome = survival_outcome(times[known], event[known])
    head = CoxRisk(horizon=cohort.horizon).fit(score[known, None], outcome)
    if head.coef_[0] < 0:
        head.fit(np.zeros((int(known.sum()), 1)), outcome)
    scale = [] if measured.scale is None else [("scale", measured.scale)]
    return Pipeline([*scale, ("score", fitted.rule), ("risk", head)])


def _risk_at_cutoff(pipeline: Pipeline) -> float:
    return float(pipeline[-1].predict_proba(np.zeros((1, 1)))[0, 1])


def _cross_validated_ratio(out_of_fold: OutOfFold) -> Estimate:
    """Hazard ratio of the typical repeat with its interval; None where no repeat has one."""
    typical = out_of_fold.hazard_ratios[out_of_fold.typical]
    return Estimate(value=typical.value, lower=typical.lower, upper=typical.upper, level=typical.level, reason=typical.reason)


def _cutpoints(study: CompositeStudy, biomarkers: pd.DataFrame, cohort: Cohort) -> dict[str, MaximallySelected]:
    times, event = outcome_of(cohort)
    found = {}
    for name, sign in zip(study.names, study.signs, strict=True):
        known = biomarkers[name].notna().to_numpy()
        values, rng = sign * biomarkers[name].to_numpy()[known], study.rng(f"cutpoint of {name}")
        found[name] = maximally_selected(values, times[known], event[known], study.evaluation.permutations, rng)
    return found


def _four_groups(
    study: CompositeStudy, measured: MeasuredBiomarkers, biomarkers: pd.DataFrame, fitted: Mapping[str, Fitted]
) -> FourGroups:
    """By the cutoffs that were known beforehand, else by those that were found here."""
    complete = biomarkers.notna().all(axis=1).to_numpy()
    values = biomarkers.to_numpy()[complete]
    calls = []
    for number, (sign, modality) in enumerate(zip(study.signs, MODALITIES, strict=True)):
        cutoff = measured.cutoff(number)
        own = fitted[f"{modality}_alone"].rule.transform(values)[:, 0] >= 0
        calls.append(own if cutoff is None else sign * values[:, number] >= sign * cutoff)
    times, event = outcome_of(measured.cohort)
    return four_groups(calls[0], calls[1], times[complete], event[complete])


def _added_over_each(related: Prognosis, biomarkers: pd.DataFrame) -> dict[str, AddedValue]:
    """Likelihood-ratio tests of the out-of-fold score beside each biomarker."""
    patients = related.patients
    score = patients[["score"]].rename(columns={"score": COMPOSITE})
    times, event = patients["time"].to_numpy(), patients["event"].to_numpy()
    found, scaled = {}, (biomarkers - biomarkers.mean()) / biomarkers.std()  # whatever their units
    for name in biomarkers.columns:
        try:
            found[str(name)] = added_value(scaled.loc[patients.index, [name]], score, times, event)
        except InputError:
            continue  # not estimable beside this biomarker: the score is the biomarker
    return found
