"""From a study to recorded, registered models: load, run, record, for one table or for one per sequence."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from features.bundle import RESEARCH_USE_ONLY
from features.cohort import Cohort
from features.store import DEFAULT_FOLDER
from training.baselines import Baseline, measured_against, with_features
from training.components import component_scores
from training.composite.stacked import Stacked
from training.composite.stacked_study import stacked_study
from training.composite.study import CompositeStudy
from training.composite.train import train_composite
from training.config import Study, StudyBase
from training.console import stderr_console
from training.extracting import ensure_extracted
from training.profile.study import ProfileStudy
from training.profile.train import train_profile
from training.report import warnings_of
from training.resume import UnfinishedRun
from training.run import StudyResult, draw_held_out, load_cohorts, run, with_probes_of_development
from training.terminal import TerminalProgress, print_baselines, print_result, print_sequences
from training.tracking import Recorded, Store, estimates_json, open_existing, open_store, plain, record, run_json, started_run
from training.workers import Workers


def train_study(study: StudyBase, uri: str, workers: int | None = None) -> dict[str, Any]:
    """Run a study of whatever kind and record it; returns what ``hypoxia train --json`` prints."""
    if isinstance(study, CompositeStudy):
        return train_stacked(study, uri, workers) if isinstance(study.composite, Stacked) else train_composite(study, uri)
    if isinstance(study, ProfileStudy):
        return train_profile(study, uri)
    assert isinstance(study, Study)  # noqa: S101 - there are no other kinds
    return _train_models(study, uri, workers)


def _train_models(study: Study, uri: str, workers: int | None) -> dict[str, Any]:
    """Everything that a user can have got wrong is found before a run is started, so that none is left half written."""
    start, console = time.monotonic(), stderr_console()
    ensure_extracted(study, workers)
    scores = scores_of(study, uri)
    cohorts = load_cohorts(study, scores)
    held_out = draw_held_out(study, cohorts)
    cohorts = with_probes_of_development(study, cohorts, held_out, scores)
    store = open_store(uri)
    with Workers(workers or study.compute.workers) as pool:
        if not study.cohort.sequences:
            result, recorded = _train_one(study, cohorts[""], held_out, store, pool, console)
            return described(result, recorded, uri)
        parent, results = _train_sequences(study, cohorts, held_out, store, pool, console)
    print_sequences(console, results)
    return {
        "run_id": parent,
        "study": study.name,
        "fingerprint": study.fingerprint,
        "tracking_uri": uri,
        "sequences": {name: described(result, recorded, uri) for name, (result, recorded) in results.items()},
        "seconds": round(time.monotonic() - start, 2),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def train_stacked(study: CompositeStudy, uri: str, workers: int | None = None) -> dict[str, Any]:
    """A composite that is searched for: an ordinary study of both modalities, then each alone in the same resamples."""
    start, console = time.monotonic(), stderr_console()
    single, cohort, columns = stacked_study(study, uri)
    held_out = draw_held_out(single, {"": cohort})
    store = open_store(uri)
    with Workers(workers or study.compute.workers) as pool:
        result, recorded = _train_one(single, cohort, held_out, store, pool, console)
        internal = single.evaluation.internal
        searches = 2 * internal.folds * internal.repeats if internal else 0
        with TerminalProgress(console, searches) as progress:
            found = each_alone(result, columns, pool, progress)
    alone = plain({modality: one.as_json() for modality, one in found.items()})
    if result.internal:
        store.client.log_text(recorded.run_id, json.dumps(alone, indent=1), "alone.json")
        print_baselines(console, "Both modalities, and each alone in the same folds", result.internal, found, "both")
    return {**described(result, recorded, uri), "alone": alone, "seconds": round(time.monotonic() - start, 2)}


def each_alone(
    result: StudyResult, columns: Mapping[str, list[str]], workers: Workers, progress: TerminalProgress
) -> dict[str, Baseline]:
    """Each modality alone, in the folds in which both were judged."""
    if result.internal is None:
        return {}
    study, development, found = result.study, result.cohort.subset(result.split.train), {}
    for modality, names in columns.items():
        progress.stage(f"{modality} alone, in the same folds")
        part = with_features(development, names)
        found[modality] = measured_against(study, study.recipe, part, result.internal, workers, progress)
    return found


def scores_of(study: StudyBase, uri: str) -> dict[str, pd.Series]:
    """Out-of-sample scores that the study takes from registered models, by the feature's name."""
    if not study.scores:
        return {}
    store = open_existing(uri, next(iter(study.scores.values())))
    return {name: component_scores(store, reference).scores for name, reference in study.scores.items()}


def described(result: StudyResult, recorded: Recorded, uri: str) -> dict[str, Any]:
    """A result as one JSON object."""
    fitted = result.fitted
    return {
        **run_json(result.study, result.cohort, recorded, uri),
        **estimates_json(result),
        "selected_features": list(fitted.selection.selected),
        "votes_used": fitted.selection.votes_used,
        "pipeline": fitted.search.winner.candidate.words,
        "threshold": fitted.threshold,
        "shap": {
            "base_value": result.explanation.base_value,
            "mean_absolute": result.explanation.importance().round(6).to_dict(),
        },
        "candidates": {"tried": len(fitted.search.trials), "failed": len(fitted.search.failures)},
        "repeatable": result.repeatable,
        "prognosis": plain({name: one.as_json() for name, one in result.prognosis.items()}),
        "baselines": plain({name: one.as_json() for name, one in result.baselines.items()}),
        "warnings": list(warnings_of(result)),
        "seconds": round(result.seconds, 2),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _train_one(
    study: Study,
    cohort: Cohort,
    held_out: pd.Index,
    store: Store,
    pool: Workers,
    console: Console,
    *,
    sequence: str | None = None,
    parent: str | None = None,
) -> tuple[StudyResult, Recorded]:
    model = f"{study.model}-{sequence}" if sequence else study.model
    tags = {"data_hash": cohort.data_hash, **({"sequence": sequence} if sequence else {})}
    if study.recipe.robust:
        tags["replicates_hash"] = study.recipe.robust.digest()
    internal = study.evaluation.internal
    searches = 1 + (internal.folds * internal.repeats if internal else 0)
    unfinished = UnfinishedRun((store.folder or Path(DEFAULT_FOLDER)) / "unfinished", study, cohort, held_out)
    with started_run(store, study, tags, parent) as run_id, TerminalProgress(console, searches) as progress:
        result = run(study, cohort, held_out, pool, progress, unfinished)
        progress.stage("recording the run")
        recorded = record(store, run_id, result, model, sequence)
    unfinished.forget()
    print_result(console, result, recorded, store.uri)
    return result, recorded


def _train_sequences(
    study: Study, cohorts: dict[str, Cohort], held_out: pd.Index, store: Store, pool: Workers, console: Console
) -> tuple[str, dict[str, tuple[StudyResult, Recorded]]]:
    results = {}
    with ExitStack() as stack:
        parent = stack.enter_context(started_run(store, study, {"sequences": ", ".join(cohorts)}))
        for name, cohort in cohorts.items():
            console.print(f"\nSequence {name}", style="bold")
            results[name] = _train_one(study, cohort, held_out, store, pool, console, sequence=name, parent=parent)
        _record_table(store, parent, results)
    return parent, results


def _record_table(store: Store, parent: str, results: dict[str, tuple[StudyResult, Recorded]]) -> None:
    """All sequences as one table in the parent run."""
    rows = {
        name: {
            "train": len(result.split.train),
            "test": len(result.split.test),
            **{metric: estimate.value for metric, estimate in result.held_out.estimates.items()},
            f"{result.held_out.headline}_lower": result.held_out.estimates[result.held_out.headline].lower,
            f"{result.held_out.headline}_upper": result.held_out.estimates[result.held_out.headline].upper,
            "p_value": result.held_out.p_value,
        }
        for name, (result, _) in results.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("sequence")
    store.client.log_text(parent, table.to_csv(), "sequences.csv")
    for name, (result, _) in results.items():
        headline = result.held_out.headline
        value = result.held_out.estimates[headline].value
        if value is not None:
            store.client.log_metric(parent, f"held_out_{headline}_{name}", value)
