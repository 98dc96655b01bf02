"""A result of profiles written to MLflow and into the registry, as every model's is."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from features.bundle import ClusterCard, ModelBundle, ModelCard, ProfileCard, save_bundle
from features.contract import contract_of
from training.molecular.run import write_correlates
from training.profile.pictures import profile_figures, profile_page
from training.profile.report import METHODS, summary_text, warnings_of, words_of
from training.profile.run import ProfileResult
from training.profile.tables import named_tables, profile_json
from training.tracking import (
    BACKGROUND_ROWS,
    GOLDEN_ROWS,
    Recorded,
    Store,
    called_of,
    digests_of_predictions,
    learnt_from,
    log_numbers,
    register,
    shuffled_quantiles,
    three,
    write_about,
    write_figures,
    write_json,
    write_split_of_everyone,
)

CLUSTERS, PAGE = "clusters.csv", "report.html"


def record_profile(store: Store, run_id: str, result: ProfileResult) -> Recorded:
    """Write a finished result into its run and register the model."""
    study = result.study
    log_numbers(store, run_id, _metrics(result), _parameters(result))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_tables(result, folder)
        write_figures(profile_figures(result), folder / "figures")
        (folder / "summary.md").write_text(summary_text(result), encoding="utf-8")
        (folder / PAGE).write_text(profile_page(result), encoding="utf-8")
        card = profile_card(result, _digests(folder))
        golden = shuffled_quantiles(_learnt(result), result.fitted.schema, GOLDEN_ROWS, study.rng("golden rows"))
        save_bundle(profile_bundle(result, card), folder / "bundle", golden)
        store.client.log_artifacts(run_id, str(folder))
    return Recorded(run_id, study.model, register(store, study.model, run_id, card))


def profile_bundle(result: ProfileResult, card: ModelCard) -> ModelBundle:
    """What ships of a result."""
    study, cohort, schema, learnt = result.study, result.cohort, result.fitted.schema, _learnt(result)
    return ModelBundle(
        pipeline=result.fitted.pipeline,
        schema=schema,
        card=card,
        contract=contract_of(learnt, study.contract, cohort.patients, {}, cohort.extraction_hash),
        background=shuffled_quantiles(learnt, schema, BACKGROUND_ROWS, study.rng("background rows")),
    )


def profile_card(result: ProfileResult, predictions: dict[str, str]) -> ModelCard:
    """The card of a result: judged out of fold, since profiles have no held-out patients."""
    study, cohort = result.study, result.cohort
    return ModelCard(
        name=study.model,
        **learnt_from(study, cohort),
        **called_of(cohort),
        held_out_patients=0,
        threshold=result.fitted.threshold,
        threshold_origin="risk of all patients",
        pipeline=words_of(result),
        held_out={},
        internal=result.evaluation.estimates,
        warnings=warnings_of(result),
        predictions=predictions,
        profile=_profiles(result),
    )


def _profiles(result: ProfileResult) -> ProfileCard:
    last, counts = result.fitted.last, result.outcome.clusters.table[["patients", "events"]].astype(int).to_numpy().tolist()
    cards = [
        ClusterCard(number=number, patients=patients, events=events, risk=float(risk), limit=float(limit))
        for number, ((patients, events), risk, limit) in enumerate(zip(counts, last.risks_, last.limits_, strict=True), start=1)
    ]
    return ProfileCard(
        clusters=tuple(cards),
        method=METHODS[result.study.clustering.method],
        chosen_by=result.chosen_by,
        exploratory=result.choice.exploratory,
        words=f"{words_of(result)}. The medoids are {len(cards)} patients' standard scores, which the model holds.",
    )


def _digests(folder: Path) -> dict[str, str]:
    """Of the predictions and of who is in which cluster: what the card signs."""
    return {**digests_of_predictions(folder), CLUSTERS: hashlib.sha256((folder / CLUSTERS).read_bytes()).hexdigest()}


def _learnt(result: ProfileResult) -> pd.DataFrame:
    """What the profiles were learnt from: numbers, in the model's order."""
    return result.fitted.schema.conform(result.cohort.inputs, impute=True)


def _metrics(result: ProfileResult) -> dict[str, float]:
    logged = {
        "seconds": result.seconds,
        "permutation_p": result.choice.p_value,
        "naive_p_not_to_be_used" if result.choice.exploratory else "outcome_p": result.choice.naive_p,
        "clusters": len(result.names),
        "loss": result.fitted.clusters.loss,
        "smallest_jaccard": float(result.stability.table["jaccard"].min()),
        "ambiguous_pairs": result.stability.ambiguous,
        "strong_features": len(result.ranking.strong),
    }
    for name, estimate in result.evaluation.estimates.items():
        logged |= three(f"internal_{name}", estimate)
    return {name: float(value) for name, value in logged.items() if np.isfinite(value)}


def _parameters(result: ProfileResult) -> dict[str, str]:
    study, cohort = result.study, result.cohort
    return {
        "samples": str(len(cohort.samples)),
        "events": str(int(cohort.y.sum())),
        "patients": str(cohort.patients.nunique()),
        "features": str(cohort.features.shape[1]),
        "seed": str(study.seed),
        "clustering": study.clustering.method,
        "chosen_by": result.chosen_by,
        "harmonised": result.fitted.harmonised or "no",
        "pipeline": words_of(result),
    }


def _write_tables(result: ProfileResult, folder: Path) -> None:
    write_split_of_everyone(folder, result.cohort)
    write_about(folder, result.study, result.audit, result.fitted.schema)
    write_json(folder / "profile.json", profile_json(result))
    predictions = result.evaluation.predictions
    predictions.to_csv(folder / "predictions_internal.csv", index=False)
    predictions[predictions["repeat"] == 0].to_csv(folder / "predictions.csv", index=False)
    for name, table in named_tables(result).items():
        table.to_csv(folder / f"{name}.csv")
    if result.molecular is not None:
        write_correlates(result.molecular, folder / "molecular")
