"""From a study of a composite to a recorded, registered model: load, run, record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from features.bundle import RESEARCH_USE_ONLY
from features.cohort import load_cohort
from training.components import ComponentScores, component_scores
from training.composite.biomarkers import MODALITIES, MeasuredBiomarkers, biomarkers_of, complete_cases
from training.composite.record import composite_json, record_composite
from training.composite.report import HEADINGS, findings, rule_rows, warnings_of
from training.composite.run import CompositeResult, refuse_what_cannot_be_joined, run_composite
from training.composite.study import ColumnBiomarker, CompositeStudy, HypoxicFractionBiomarker, ModelBiomarker
from training.console import say, stderr_console
from training.terminal import TerminalProgress, print_recorded
from training.tracking import open_existing, open_store, plain, run_json, started_run


def train_composite(study: CompositeStudy, uri: str) -> dict[str, Any]:
    """Run a study of a composite and record it; returns what ``hypoxia train --json`` prints."""
    console = stderr_console()
    measured = load_biomarkers(study, uri)
    refuse_what_cannot_be_joined(study, measured)
    store = open_store(uri)
    tags = {"data_hash": measured.cohort.data_hash, "composite": study.composite.kind}
    with started_run(store, study, tags) as run_id, TerminalProgress(console, 1) as progress:
        result = run_composite(study, measured, progress)
        progress.stage("recording the run")
        recorded = record_composite(store, run_id, result)
    print_composite(console, result)
    print_recorded(console, recorded, store.uri)
    console.print(RESEARCH_USE_ONLY, style="bold")
    return plain(
        {
            **run_json(study, result.cohort, recorded, uri),
            **composite_json(result),
            "warnings": list(warnings_of(result)),
            "seconds": round(result.seconds, 2),
            "research_use_only": RESEARCH_USE_ONLY,
        }
    )


def load_biomarkers(study: CompositeStudy, uri: str) -> MeasuredBiomarkers:
    """The patients of a study with both biomarkers; scores of registered models are looked up in the store.

    Raises
    ------
    InputError
        Anything that a user must mend, before a run is started.
    """
    components = components_of(study, uri)
    scores = {component.name: component.scores for component in components.values()}
    settings = study.cohort
    columns = tuple(one.name for one in study.biomarkers if isinstance(one, ColumnBiomarker | HypoxicFractionBiomarker))
    if settings.features is None and len(columns) + len(scores) == len(MODALITIES):
        settings = settings.model_copy(update={"features": columns})  # nothing else of the table is looked at
    cohort = load_cohort(settings, study.folder, scores)
    if study.missing == "refuse":
        cohort, left_out = complete_cases(cohort, study.names)
        cohort = replace(cohort, notes=(*cohort.notes, left_out)) if left_out else cohort
    return biomarkers_of(study, cohort, components)


def components_of(study: CompositeStudy, uri: str) -> dict[str, ComponentScores]:
    """Out-of-sample scores of the registered models among the biomarkers, by modality."""
    wanted = {
        modality: one.model for modality, one in zip(MODALITIES, study.biomarkers, strict=True) if isinstance(one, ModelBiomarker)
    }
    if not wanted:
        return {}
    store = open_existing(uri, next(iter(wanted.values())))
    return {modality: component_scores(store, reference) for modality, reference in wanted.items()}


def print_composite(console: Console, result: CompositeResult) -> None:
    """Rules side by side, honest numbers first, then what else was found."""
    cohort = result.cohort
    size = f"n={len(cohort.samples)}, {int(cohort.y.sum())} events by {cohort.horizon:g} {cohort.time_unit}"
    table = Table(title=f"{result.study.model}: two biomarkers as one ({size})", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for row in rule_rows(result):
        table.add_row(*row)
    console.print()
    console.print(table)
    for title, words in findings(result):
        say(console, title, words)
    for warning in warnings_of(result):
        say(console, "Warning", warning, "yellow")
