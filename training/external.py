"""A frozen model on patients from elsewhere: nothing is learnt from them, nothing about their table is guessed.

References
----------
Van Calster et al. 2016, doi:10.1016/j.jclinepi.2015.12.005 (calibration in the large and slope).
Collins et al. 2016, doi:10.1002/sim.6787 (how many events an external validation needs).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.bundle import RESEARCH_USE_ONLY, Estimate, ModelBundle, bundle_digest, load_bundle
from features.contract import Novelty
from features.errors import InputError, LeakError, did_you_mean
from features.extracted import refuse_other_extraction
from features.settings import Settings
from training.calibration import Calibration, calibration
from training.evaluation import Evaluation, EvaluationSettings, evaluate
from training.horizon import calibration_by_horizon
from training.judged import JudgedModel, load_judged
from training.labelled import NUMBERED, LabelledTable, outcome_asked, read_labelled, rows_for, score_labelled
from training.paired import why_not_estimable
from training.profile.spread import ClusterSpread, assigned_rows, spread_over_clusters, warnings_of_spread
from training.prognosis import Prognosis, prognosis
from training.tracking import Store, plain, started_run

SETTINGS = EvaluationSettings(bootstrap=2000)
FEW_EVENTS = 100
SHIFTED_SHARE = 0.05
MOST_HINTS = 10


class FeatureShift(Settings):
    """How much of a feature lies outside of what the model was trained on, as a share of rows."""

    feature: str
    below: float
    above: float
    missing: float


@dataclass(frozen=True)
class ExternalValidation:
    """How a frozen model did elsewhere.

    Attributes
    ----------
    external : Evaluation
    calibration : dict of str to Calibration
        By where: external, held out, internal.
    extra : tuple of str
        Columns of the table that the model does not take.
    renamed : dict of str to str
        Column to the feature of which the model's contract says that it is another name.
    shifts : tuple of FeatureShift
        By the share outside the training range, the largest first.
    unlike : float
        Share of rows that are unlike the training samples (out of range or too far).
    far : float
        Share of rows whose distance alone is beyond the limit.
    prognosis : Prognosis or None
        Of times to an event: hazard ratios, what the score adds to clinical covariates, and calibration by the horizon.
    clusters : tuple of ClusterSpread
        Of profiles: how the samples spread over the clusters.
    assigned : DataFrame or None
        Of profiles: the cluster of every sample.
    """

    model: JudgedModel
    table: LabelledTable
    external: Evaluation
    held_out: dict[str, Estimate]
    internal: dict[str, Estimate] | None
    calibration: dict[str, Calibration]
    extra: tuple[str, ...]
    renamed: dict[str, str]
    shifts: tuple[FeatureShift, ...]
    unlike: float
    far: float
    warnings: tuple[str, ...]
    prognosis: Prognosis | None = None
    clusters: tuple[ClusterSpread, ...] = ()
    assigned: pd.DataFrame | None = None

    @property
    def intercept_update(self) -> float | None:
        """What, added to every logit, would make as many events expected as were seen; None of times to an event."""
        return self.calibration["external"].intercept.value


def validate_externally(
    store: Store,
    reference: str,
    path: Path,
    *,
    label: str | None = None,
    event: str | None = None,
    time: str | None = None,
    patient: str | None = None,
    sample: str | None = None,
) -> tuple[ExternalValidation, str]:
    """Judge a registered model on a labelled table, and record it as a run; returns the validation and the run's id.

    Parameters
    ----------
    label, event, time : str, optional
        As in `training.labelled.outcome_asked`.
    patient, sample : str, optional
        As in `training.labelled.read_labelled`.

    Raises
    ------
    InputError
        There is no such model, or the table does not have what it needs.
    LeakError
        The model learnt from samples of the table.
    BundleError
        The model is not what was signed.
    """
    model = load_judged(store, reference)
    bundle = load_bundle(model.bundle_folder)
    words = [feature.name for feature in bundle.schema.with_levels]
    outcome = outcome_asked([model], label=label, event=event, time=time)
    table = read_labelled(path, outcome=outcome, patient=patient, sample=sample, usual=model.sample_columns, words=words)
    refuse_other_extraction(table.path, bundle.contract)
    refuse_missing_features(table, bundle)
    refuse_known_samples(model, table)
    found = judge_externally(model, bundle, table)
    return found, _record(store, found)


def refuse_missing_features(table: LabelledTable, bundle: ModelBundle) -> None:
    """Say which features the table lacks, and what may be meant; only names that the contract knows are taken as the same.

    Raises
    ------
    InputError
    """
    have = {*table.frame.columns, *_renamed(table, bundle).values()}
    missing = [name for name in bundle.schema.names if name not in have]
    if not missing:
        return
    others = list(_extra(table, bundle))
    if bundle.card.composite is not None:
        raise InputError(
            f"{table.path.name} lacks {' and '.join(map(repr, missing))}; a composite takes its two biomarkers as columns "
            f"{' and '.join(map(repr, bundle.schema.names))}: where one is the score of a model, score the table with that first "
            "(hypoxia predict)."
        )
    shown = "; ".join(f"{name!r}{did_you_mean(name, others)}" for name in missing[:MOST_HINTS])
    more = f"; and {len(missing) - MOST_HINTS} more" if len(missing) > MOST_HINTS else ""
    raise InputError(
        f"{table.path.name} lacks {len(missing)} of the {len(bundle.schema.names)} features of the model: {shown}{more}. It has "
        f"{len(others)} columns that the model does not take. Nothing is guessed: rename or add the columns."
    )


def refuse_known_samples(model: JudgedModel, table: LabelledTable) -> None:
    """A model must not be judged on what it learnt from.

    Raises
    ------
    LeakError
    """
    known = set(table.frame.index.astype(str)) & model.learnt_from if _is_named(table) else set()
    if known:
        raise LeakError(
            f"{len(known)} of {len(table.labels)} samples of the table have the name of a sample that {model.title} learnt from; "
            "it cannot be judged on them. Take them out, or, where they are others who share a name, rename them."
        )


def judge_externally(model: JudgedModel, bundle: ModelBundle, table: LabelledTable) -> ExternalValidation:
    """Everything that is said about a model and a table, from both alone."""
    predictions = score_labelled(bundle, table)
    matrix = rows_for(bundle, table).to_numpy()
    where = {"external": predictions}
    where |= {"held out": model.predictions} if bundle.card.held_out else {}  # a composite or profile has no such patients
    where |= {"internal": model.internal} if model.internal is not None else {}
    novelty, assigned = bundle.contract.judge(matrix), bundle.assigned(matrix)
    clusters: tuple[ClusterSpread, ...] = ()
    if assigned is not None and bundle.card.profile is not None:
        clusters = spread_over_clusters(bundle.card.profile.clusters, assigned, predictions, model.horizon)
    unlike = float(novelty.flagged.mean())
    return ExternalValidation(
        model=model,
        table=table,
        external=evaluate(predictions, SETTINGS, np.random.default_rng(0), model.horizon),
        held_out=bundle.card.held_out,
        internal=bundle.card.internal,
        calibration={name: _calibration(one, model.horizon) for name, one in where.items()},
        extra=_extra(table, bundle),
        renamed=_renamed(table, bundle),
        shifts=_shifts(bundle, novelty, matrix),
        unlike=unlike,
        far=float((novelty.distance > novelty.limit).mean()),
        warnings=(
            *_warnings(model, table, unlike),
            *warnings_of_spread(clusters, SHIFTED_SHARE),
            *_clinical_notes(model, table),
        ),
        prognosis=None if model.horizon is None else _prognosis(model, table, predictions, model.horizon),
        clusters=clusters,
        assigned=None if assigned is None else assigned_rows(assigned, predictions),
    )


def _calibration(predictions: pd.DataFrame, horizon: float | None) -> Calibration:
    rng = np.random.default_rng(0)
    return calibration(predictions, rng) if horizon is None else calibration_by_horizon(predictions, horizon, rng)


def _prognosis(model: JudgedModel, table: LabelledTable, predictions: pd.DataFrame, horizon: float) -> Prognosis:
    """Association with the outcome, beside the study's clinical covariates if the table has all of them."""
    patients = table.patients.to_numpy()
    covariates = list(model.study.cohort.clinical)
    known = table.frame[covariates] if not _lacking(model, table) else table.frame[[]]
    clinical = known.set_axis(patients)[~pd.Index(patients).duplicated()]
    competing = None if table.competing is None else table.competing.groupby(patients).any()
    return prognosis(predictions, clinical, horizon, level=SETTINGS.level, competing=competing)


def _lacking(model: JudgedModel, table: LabelledTable) -> list[str]:
    return [name for name in model.study.cohort.clinical if name not in table.frame.columns]


def _clinical_notes(model: JudgedModel, table: LabelledTable) -> tuple[str, ...]:
    lacking = _lacking(model, table) if model.horizon is not None else []
    if not lacking:
        return ()
    return (f"The table lacks the study's clinical covariates {', '.join(lacking)}, so hazard ratios are not adjusted for any.",)


def described(found: ExternalValidation, run_id: str, uri: str) -> dict[str, Any]:
    """A validation as one JSON object; no patient is named in it."""
    model, table = found.model, found.table
    return {
        "run_id": run_id,
        "tracking_uri": uri,
        "model": {"name": model.name, "version": model.version, "digest": bundle_digest(model.bundle_folder)},
        "table": {
            "name": table.path.name,
            "sha256": table.digest,
            "samples": len(table.labels),
            "patients": int(table.patients.nunique()),
            "events": int(table.labels.sum()),
            **({} if model.horizon is None else {"horizon": model.horizon, "time_unit": model.card.time_unit}),
        },
        "schema": {"missing": [], "extra": list(found.extra), "renamed": found.renamed},
        "shift": {
            "rows_unlike_training": found.unlike,
            "rows_too_far": found.far,
            "features": [one.model_dump() for one in found.shifts],
        },
        "external": _dumped(found.external.estimates),
        "held_out": _dumped(found.held_out),
        "internal": _dumped(found.internal) if found.internal else None,
        "calibration": {
            where: {name: getattr(one, name).model_dump() for name in ("intercept", "slope", "ratio")}
            for where, one in found.calibration.items()
        },
        "intercept_update": found.intercept_update,
        **({} if found.prognosis is None else {"prognosis": plain(found.prognosis.as_json())}),
        **({"clusters": [one.model_dump() for one in found.clusters]} if found.clusters else {}),
        "warnings": list(found.warnings),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _shifts(bundle: ModelBundle, novelty: Novelty, matrix: np.ndarray) -> tuple[FeatureShift, ...]:
    below, above, missing = (rows.mean(axis=0) for rows in (novelty.below, novelty.above, np.isnan(matrix)))
    shifts = [
        FeatureShift(feature=name, below=float(low), above=float(high), missing=float(gaps))
        for name, low, high, gaps in zip(bundle.schema.names, below, above, missing, strict=True)
    ]
    return tuple(sorted(shifts, key=lambda one: -(one.below + one.above + one.missing)))


def _renamed(table: LabelledTable, bundle: ModelBundle) -> dict[str, str]:
    present = set(table.frame.columns)
    return {other: name for other, name in bundle.contract.aliases.items() if other in present and name not in present}


def _extra(table: LabelledTable, bundle: ModelBundle) -> tuple[str, ...]:
    taken = {*bundle.schema.names, *_renamed(table, bundle), table.frame.index.name}
    return tuple(str(name) for name in table.frame.columns if name not in taken)


def _is_named(table: LabelledTable) -> bool:
    """Rows that have no names are numbered, and a number says nothing about who it is."""
    return table.frame.index.name != NUMBERED


def _warnings(model: JudgedModel, table: LabelledTable, unlike: float) -> tuple[str, ...]:
    found = list(table.notes)
    known = set(model.predictions["patient"]) | model.learnt_patients
    numbered = not _is_named(table) and list(table.patients) == list(table.frame.index.astype(str))
    shared = 0 if numbered else len(set(table.patients) & known)
    if shared:
        found.append(
            f"{shared} patients of the table have the identifier of one that the model was made or judged with; if they are the "
            "same people, this validation is not external."
        )
    if not _is_named(table):
        found.append("The rows have no names (--sample), so nobody can tell whether the model learnt from them.")
    events = int(table.labels.groupby(table.patients.to_numpy()).max().sum())
    few = why_not_estimable(pd.DataFrame({"patient": table.patients.to_numpy(), "label": table.labels.to_numpy()}))
    if few:
        found.append(f"External performance is {few}.")
    if events < FEW_EVENTS:
        found.append(f"{events} patients have the event; a firm external validation needs {FEW_EVENTS} or more.")
    if unlike > SHIFTED_SHARE:
        found.append(f"{unlike:.0%} of the rows are unlike what the model was trained on; see which features.")
    return tuple(found)


def _record(store: Store, found: ExternalValidation) -> str:
    """Write a validation as a run of the model's experiment."""
    model = found.model
    tags = {
        "kind": "external validation",
        "model": str(model.name or ""),
        "model_version": str(model.version or ""),
        "validated_run": model.run_id,
        "table_sha256": found.table.digest,
    }
    with started_run(store, model.study, tags) as run_id:
        for name, value in _metrics(found).items():
            store.client.log_metric(run_id, name, value)
        store.client.log_text(run_id, found.external.predictions.to_csv(index=False), "predictions.csv")
        if found.assigned is not None:
            store.client.log_text(run_id, found.assigned.to_csv(index=False), "clusters.csv")
        body = json.dumps(described(found, run_id, store.uri), indent=1)
        store.client.log_text(run_id, body, "external_validation.json")
    return run_id


def _metrics(found: ExternalValidation) -> dict[str, float]:
    estimates = dict(found.external.estimates)
    fit = found.calibration["external"]
    estimates |= {"calibration_intercept": fit.intercept, "observed_to_expected": fit.ratio}
    estimates.setdefault("calibration_slope", fit.slope)
    logged: dict[str, float | None] = {"external_rows_unlike_training": found.unlike}
    if found.assigned is not None:
        logged["external_unlike_any_cluster"] = float(found.assigned["unlike_any_cluster"].mean())
    for name, one in estimates.items():
        logged |= {f"external_{name}": one.value, f"external_{name}_lower": one.lower, f"external_{name}_upper": one.upper}
    if found.external.horizon is not None and found.external.p_value is not None:
        logged["external_log_rank_p"] = found.external.p_value
    return {name: value for name, value in logged.items() if value is not None}


def _dumped(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {name: one.model_dump() for name, one in estimates.items()}
