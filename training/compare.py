"""Recorded models side by side: each with its intervals, pairs on the same patients, and sequences that were tried.

References
----------
Efron & Tibshirani 1993, ch. 13 (percentile intervals) and 10.6 (bias by resampling).
Beran 1988, doi:10.1080/01621459.1988.10478649 (limits that hold for several estimates at once, balanced by their ranks).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from features.bundle import Estimate, load_bundle
from features.errors import InputError
from training.calibration import Calibration, calibration, decision_curve, reliability
from training.evaluation import (
    EvaluationSettings,
    evaluate,
    log_rank_of_calls,
    mann_whitney,
    metric_of,
    patient_resamples,
)
from training.horizon import calibration_by_horizon, reliability_by_horizon
from training.judged import JudgedModel, children_of, load_judged, signed_judgement
from training.labelled import NUMBERED, LabelledTable, refuse_several_questions, rows_for, score_labelled
from training.paired import (
    DeLong,
    bootstrap_p_value,
    delong_interval,
    delong_test,
    estimate_from,
    flips,
    holm,
    is_clustered,
    measured,
    paired_values,
    patients_and_events,
    same_patients,
    why_not_estimable,
)
from training.tracking import Store

PAIRED_METRICS = ("roc_auc", "brier")
SURVIVAL_PAIRED_METRICS = ("c_index", "uno_c", "auc_at_horizon", "brier_at_horizon")
THRESHOLDS = np.arange(0.01, 0.995, 0.01)
ROUNDING = 1e-9

Learnt = Literal["refuse", "leave-out", "keep"]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes
    ----------
    count : int
        Resamples of patients.
    level : float
    seed : int
        Of all of them; the same for every model, so that one command gives one answer.
    """

    count: int = 2000
    level: float = 0.95
    seed: int = 0

    def rng(self) -> np.random.Generator:
        """A new generator, the same each time."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class ComparedModel:
    """One model as it is shown.

    Attributes
    ----------
    predictions : DataFrame
        What it is judged by here: held out, or of the common table.
    not_estimable : str or None
        Why none of its numbers is shown.
    estimates : dict of str to Estimate
        By metric; as recorded with the model, or anew on the common table.
    reliability, curve : DataFrame or None
        See `training.calibration`, and `training.horizon` for times to an event, which have no decision curve here.
    p_value : float or None
        Mann-Whitney test of probabilities between the classes; of times to an event, log-rank test between those who are called
        and the others.
    unlike_training : float or None
        On a common table: share of its rows that the model's contract flags as unlike what it was trained on.
    """

    judged: JudgedModel
    predictions: pd.DataFrame
    not_estimable: str | None
    estimates: dict[str, Estimate]
    delong: Estimate | None
    calibration: Calibration
    reliability: pd.DataFrame | None
    curve: pd.DataFrame | None
    p_value: float | None = None
    unlike_training: float | None = None

    @property
    def title(self) -> str:
        """Name and version."""
        return self.judged.title

    @property
    def counts(self) -> tuple[int, int, int]:
        """Samples, patients, patients with the event."""
        return (len(self.predictions), *patients_and_events(self.predictions))

    @property
    def rank(self) -> str:
        """The metric by which models of its kind are compared first."""
        return paired_metrics(self.judged.horizon)[0]


@dataclass(frozen=True)
class Pair:
    """A challenger against the reference on the same patients.

    Attributes
    ----------
    differences : dict of str to Estimate
        Challenger minus reference, by metric.
    delong : DeLong or None
        None where patients have several samples, or too few are there.
    p_value, adjusted : float or None
        Of no difference of the AUC (of times to an event, of the C-index), by DeLong or else by the bootstrap; adjusted after
        Holm for several challengers.
    flips : DataFrame
        Samples that are called differently.
    """

    reference: str
    challenger: str
    differences: dict[str, Estimate]
    delong: DeLong | None
    p_value: float | None
    p_origin: Literal["DeLong", "bootstrap over patients"]
    adjusted: float | None
    flips: pd.DataFrame
    not_estimable: str | None


@dataclass(frozen=True)
class Picked:
    """The best of several sequences, corrected for having been picked.

    Attributes
    ----------
    sequence : str
    tried : int
        Sequences that it was picked from.
    plain : Estimate
        As if it had been the only one.
    corrected : Estimate
    """

    sequence: str
    tried: int
    plain: Estimate
    corrected: Estimate


@dataclass(frozen=True)
class Comparison:
    """Everything that is printed about several models.

    Attributes
    ----------
    pairs : tuple of Pair
        Of each further model with the first; empty where they were judged on different patients.
    unpaired : str or None
        Why there are no pairs.
    picked : Picked or None
        Where several sequences were tried.
    """

    models: tuple[ComparedModel, ...]
    resampling: Resampling
    pairs: tuple[Pair, ...]
    unpaired: str | None
    picked: Picked | None
    table: LabelledTable | None
    warnings: tuple[str, ...]

    @property
    def by_sequence(self) -> bool:
        """Whether these are models of several imaging sequences."""
        return _are_sequences([one.judged for one in self.models])

    @property
    def horizon(self) -> float | None:
        """Of all models, where they are of times to an event."""
        return self.models[0].judged.horizon

    @property
    def time_unit(self) -> str:
        """Of the horizon."""
        return self.models[0].judged.card.time_unit or "time"


def paired_metrics(horizon: float | None) -> tuple[str, ...]:
    """Measures of which differences are taken; by the first models are compared."""
    return PAIRED_METRICS if horizon is None else SURVIVAL_PAIRED_METRICS


def load_models(store: Store, references: Sequence[str]) -> list[JudgedModel]:
    """The models that are named; a run of several sequences stands for one model of each.

    Raises
    ------
    InputError
        Fewer than two, or one twice.
    """
    models = [load_judged(store, one) for name in references for one in (children_of(store, name) or [name])]
    seen: dict[str, str] = {}
    for model in models:
        if model.run_id in seen:
            raise InputError(
                f"{model.reference!r} and {seen[model.run_id]!r} are the same model ({model.title}); name two others."
            )
        seen[model.run_id] = model.reference
    if len(models) < 2:
        raise InputError(
            "There is nothing to compare with; name two models at least, or the run of a study of several sequences."
        )
    return models


def compare(
    models: Sequence[JudgedModel], resampling: Resampling, table: LabelledTable | None = None, learnt: Learnt = "refuse"
) -> Comparison:
    """Put models side by side; the first is the reference of every pair.

    Parameters
    ----------
    table : LabelledTable, optional
        Score all models on it first, instead of taking what each was judged on.
    learnt : {"refuse", "leave-out", "keep"}
        What to do with samples of the table that a model learnt from.

    Raises
    ------
    InputError
        The models answer different questions (classes, or times to an event by different horizons), or were judged on different
        patients (and are not of different sequences), or the table holds samples that a model learnt from.
    BundleError
        With a table: a bundle is not what was saved.
    """
    refuse_several_questions(models)
    if table is not None:
        table = _apart_from_development(models, table, learnt)
    shown = tuple(_scored(one, table, resampling) if table else _recorded(one, resampling) for one in models)
    unpaired = _why_unpaired(shown)
    pairs = () if unpaired else _pairs(shown, resampling)
    picked = _best_of_sequences(shown, resampling) if _are_sequences(models) else None
    return Comparison(shown, resampling, pairs, unpaired, picked, table, _warnings(shown, table))


def best_of(predictions: Mapping[str, pd.DataFrame], resampling: Resampling, horizon: float | None = None) -> Picked:
    """The highest AUC (of times to an event, C-index) among several models, corrected for having been picked as the highest.

    Patients of all models are resampled together. The value is the plain one less what, over the resamples, the picked one
    gained over its own AUC by being picked. The lower limit is a percentile whose level is lowered until, in all but
    (1 - level) / 2 of the resamples, no model at all falls below its own percentile of that level: it then holds for
    whichever is picked, also when all are equally good. With one model it is the ordinary percentile. The upper limit is the
    ordinary one, since picking only ever raises an AUC. On nine sequences of noise and 36 patients the interval covers 0.5 in
    95% of simulations (the plain one in 78%), and the value is 0.04 too high on average (the plain one 0.15).

    Parameters
    ----------
    predictions : mapping of str to DataFrame
        By sequence; patients may be in some only.
    horizon : float, optional
        Of models of times to an event.
    """
    names, rank = list(predictions), paired_metrics(horizon)[0]
    values = _ranked_together(predictions, resampling, rank, horizon)
    plain = {name: estimate_from(values[:, k], resampling.level, metric_of(rank).undefined) for k, name in enumerate(names)}
    first = int(np.nanargmax(values[0]))
    resamples = values[1:][np.isfinite(values[1:]).all(axis=1)]
    chosen = plain[names[first]]
    if chosen.lower is None or not len(resamples):
        return Picked(names[first], len(names), chosen, chosen)
    of_each = np.argmax(resamples, axis=1)
    gained = resamples[np.arange(len(resamples)), of_each] - values[0][of_each]
    ranks = np.array([np.searchsorted(np.sort(column), column, side="right") for column in resamples.T]) / len(resamples)
    tail = (1 - resampling.level) / 2
    lower = float(np.quantile(resamples[:, first], np.quantile(ranks.min(axis=0), tail, method="lower")))
    value = float(values[0][first] - max(0.0, gained.mean()))
    upper = max(float(chosen.upper or value), value)
    corrected = Estimate(value=value, lower=min(lower, chosen.lower, value), upper=upper, level=resampling.level)
    return Picked(names[first], len(names), chosen, corrected)


def flip_counts(changed: pd.DataFrame) -> dict[str, int]:
    """Calls that the challenger makes right and wrong, among events and non-events."""
    event = changed["label"] == 1
    better, worse = changed["better"].eq(True), changed["better"].eq(False)
    return {
        "events_gained": int((event & better).sum()),
        "events_lost": int((event & worse).sum()),
        "non_events_gained": int((~event & better).sum()),
        "non_events_lost": int((~event & worse).sum()),
    }


def _ranked_together(
    predictions: Mapping[str, pd.DataFrame], resampling: Resampling, rank: str, horizon: float | None
) -> np.ndarray:
    """AUC or C-index of every model (columns) as it is (first row) and in resamples of all patients together."""
    tables = list(predictions.values())
    weights, _ = patient_resamples(pd.concat(tables, ignore_index=True), resampling.count, resampling.rng())
    every = np.vstack([np.ones((1, weights.shape[1])), weights])
    ends = np.cumsum([0, *map(len, tables)])
    columns = [
        measured(one, rank, every[:, start:end], horizon) for one, start, end in zip(tables, ends[:-1], ends[1:], strict=True)
    ]
    return np.column_stack(columns)


def _recorded(judged: JudgedModel, resampling: Resampling) -> ComparedModel:
    estimates = dict(judged.card.held_out)
    repeated = judged.card.judged_out_of_fold  # its card has estimates over all repeats, and pairs are of one
    if repeated or any(one.level != resampling.level for one in estimates.values()):  # of another level than is asked for
        settings = EvaluationSettings(bootstrap=max(100, resampling.count), level=resampling.level, internal=None)
        estimates = evaluate(judged.predictions, settings, resampling.rng(), judged.horizon).estimates
    return _shown(judged, judged.predictions, estimates, resampling)


def _scored(judged: JudgedModel, table: LabelledTable, resampling: Resampling) -> ComparedModel:
    bundle = load_bundle(judged.bundle_folder)
    predictions = score_labelled(bundle, table)
    settings = EvaluationSettings(bootstrap=max(100, resampling.count), level=resampling.level, internal=None)
    estimates = evaluate(predictions, settings, resampling.rng(), judged.horizon).estimates
    flagged = bundle.contract.judge(rows_for(bundle, table).to_numpy()).flagged
    return replace(_shown(judged, predictions, estimates, resampling), unlike_training=float(flagged.mean()))


def _shown(
    judged: JudgedModel, predictions: pd.DataFrame, estimates: dict[str, Estimate], resampling: Resampling
) -> ComparedModel:
    reason = why_not_estimable(predictions)
    if reason:
        none = Estimate(value=None, level=resampling.level, reason=reason)
        return ComparedModel(
            judged, predictions, reason, dict.fromkeys(estimates, none), None, Calibration(none, none, none), None, None
        )
    if judged.horizon is not None:
        return _shown_by_horizon(judged, predictions, estimates, resampling, judged.horizon)
    y, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
    return ComparedModel(
        judged=judged,
        predictions=predictions,
        not_estimable=None,
        estimates=estimates,
        delong=None if is_clustered(predictions) else delong_interval(y, probability, resampling.level),
        calibration=calibration(predictions, resampling.rng(), resampling.count, resampling.level),
        reliability=reliability(predictions, resampling.level),
        curve=decision_curve(predictions, THRESHOLDS),
        p_value=mann_whitney(predictions, judged.alternative),
    )


def _shown_by_horizon(
    judged: JudgedModel, predictions: pd.DataFrame, estimates: dict[str, Estimate], resampling: Resampling, horizon: float
) -> ComparedModel:
    return ComparedModel(
        judged=judged,
        predictions=predictions,
        not_estimable=None,
        estimates=estimates,
        delong=None,
        calibration=calibration_by_horizon(predictions, horizon, resampling.rng(), resampling.count, resampling.level),
        reliability=reliability_by_horizon(predictions, horizon, resampling.level),
        curve=None,
        p_value=log_rank_of_calls(predictions),
    )


def _why_unpaired(models: Sequence[ComparedModel]) -> str | None:
    """None where all were judged on the same patients; sequences may lack some patients, and are then only listed."""
    try:
        same_patients([one.predictions for one in models])
    except InputError as different:
        words = str(different)
        for number, one in enumerate(models, start=1):
            words = re.sub(rf"\bmodel {number}\b", one.title, words)
        if not _are_sequences([one.judged for one in models]):
            raise InputError(words) from different
        return words
    return None


def _are_sequences(models: Sequence[JudgedModel]) -> bool:
    sequences = {one.card.sequence for one in models}
    return None not in sequences and len(sequences) == len(models)


def _pairs(models: Sequence[ComparedModel], resampling: Resampling) -> tuple[Pair, ...]:
    pairs = [_pair(models[0], one, resampling) for one in models[1:]]
    tested = [one.p_value for one in pairs if one.p_value is not None]
    adjusted = iter(holm(tested))
    return tuple(one if one.p_value is None else replace(one, adjusted=next(adjusted)) for one in pairs)


def _pair(reference: ComparedModel, challenger: ComparedModel, resampling: Resampling) -> Pair:
    a, b = reference.predictions, challenger.predictions
    reason = why_not_estimable(a)
    horizon = reference.judged.horizon
    metrics = paired_metrics(horizon)
    delong, p_value = None, None
    differences = dict.fromkeys(metrics, Estimate(value=None, level=resampling.level, reason=reason))
    if reason is None:
        values = {name: paired_values(a, b, name, resampling.rng(), resampling.count, horizon) for name in metrics}
        differences = {name: estimate_from(found, resampling.level, metric_of(name).undefined) for name, found in values.items()}
        delong = None if is_clustered(a) or horizon is not None else _delong(a, b, resampling.level)
        p_value = delong.p_value if delong else bootstrap_p_value(values[reference.rank])
    origin: Literal["DeLong", "bootstrap over patients"] = "DeLong" if delong else "bootstrap over patients"
    return Pair(reference.title, challenger.title, differences, delong, p_value, origin, None, flips(a, b, horizon), reason)


def _delong(a: pd.DataFrame, b: pd.DataFrame, level: float) -> DeLong | None:
    second = b.set_index("sample").loc[a["sample"]]
    y = a["label"].to_numpy()
    if min((y == 1).sum(), (y == 0).sum()) < 2:
        return None
    return delong_test(y, a["probability"].to_numpy(), second["probability"].to_numpy(), level)


def _best_of_sequences(models: Sequence[ComparedModel], resampling: Resampling) -> Picked | None:
    estimable = {str(one.judged.card.sequence): one.predictions for one in models if one.rank in _defined(one)}
    return best_of(estimable, resampling, models[0].judged.horizon) if len(estimable) > 1 else None


def _defined(model: ComparedModel) -> set[str]:
    return {name for name, estimate in model.estimates.items() if estimate.value is not None}


def _apart_from_development(models: Sequence[JudgedModel], table: LabelledTable, learnt: Learnt) -> LabelledTable:
    """Rows of the table that no model learnt from, by the sample's or the patient's name."""
    if learnt == "keep":
        return table
    known = set().union(*(one.learnt_from for one in models))
    known_patients = set().union(*(one.learnt_patients for one in models))
    # Rows without names are numbered, and a number says nothing about who it is.
    numbered = table.frame.index.name == NUMBERED
    nameless = numbered and list(table.patients) == list(table.frame.index)
    seen = (table.frame.index.isin(known) & (not numbered)) | (table.patients.isin(known_patients).to_numpy() & (not nameless))
    if not seen.any():
        return table
    if learnt == "refuse":
        raise InputError(
            f"{int(seen.sum())} of {len(seen)} rows of {table.path.name} have the names of samples or patients that a model "
            "learnt from, so its scores there are no test of it. Leave them out with --learnt leave-out, or, if these are other "
            "patients under the same names, pass --learnt keep."
        )
    rest = table.without(table.frame.index[seen])
    if rest.labels.nunique() < 2:
        raise InputError(
            f"Without what the models learnt from, {table.path.name} holds one class or nothing; name another table."
        )
    return rest


def _warnings(models: Sequence[ComparedModel], table: LabelledTable | None) -> tuple[str, ...]:
    found = list(table.notes if table else ())
    if table and table.frame.index.name == NUMBERED:
        found.append("The rows of the table have no names (--sample), so nobody can tell whether a model learnt from them.")
    first = models[0].judged
    for one in models:
        if not table and not _card_agrees(one):
            name = metric_of(one.rank).title if one.judged.horizon is not None else "AUC"
            found.append(f"{one.title}: the recorded predictions do not give the {name} on its card; train it again.")
        found += [f"{one.title}: {words}" for words in one.judged.card.warnings]
    for other in (model.judged for model in models[1:]):
        if other.card.endpoint != first.card.endpoint:
            found.append(f"{other.title} was trained for another endpoint than {first.title}.")
        if other.card.data_hash != first.card.data_hash and not table and other.card.sequence == first.card.sequence:
            found.append(f"{other.title} was made from other data than {first.title}.")
    if any(is_clustered(one.predictions) for one in models):
        found.append(
            "Some patients have several samples: intervals and p values resample whole patients, DeLong's test is left out."
        )
    return (*found, *_out_of_fold(models, table))


def _out_of_fold(models: Sequence[ComparedModel], table: LabelledTable | None) -> list[str]:
    """What is learnt from and judged on the same patients by design is no leak, but must be known."""
    if table is not None:
        return []
    profiles = [one.title for one in models if one.judged.card.profile is not None]
    found = []
    if profiles:
        found.append(
            f"Profiles have no held-out patients ({', '.join(profiles)}): they are judged out of fold on the patients learnt "
            "from, each risk by clusters that were made without the patient. Intervals resample patients and not the making."
        )
    composites = [one.title for one in models if one.judged.card.composite is not None]
    if not composites:
        return found
    return [
        *found,
        f"A composite has no held-out patients ({', '.join(composites)}): it is judged out of fold on the patients learnt from, "
        "each score by a rule that was fitted without the patient. Intervals resample patients and not the fitting, and the risk "
        "was fitted to these scores, so that its calibration is right here by construction: judge it on other patients (--on "
        "TABLE).",
    ]


def _card_agrees(model: ComparedModel) -> bool:
    judged = model.judged
    estimates, recorded = signed_judgement(judged.card, judged.predictions, judged.internal)
    said = estimates.get(model.rank)
    if said is None or said.value is None:
        return True
    found = measured(recorded, model.rank, np.ones((1, len(recorded))), judged.horizon)[0]
    return bool(abs(found - said.value) < ROUNDING)
