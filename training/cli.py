"""The commands that need training: each reads its arguments and calls one function."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from features.store import tracking_uri

STUDY = click.argument("study", type=click.Path(path_type=Path, dir_okay=False))
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
URI = click.option("--tracking-uri", help="MLflow store. Default: MLFLOW_TRACKING_URI, else sqlite under ./mlruns.")


@click.command()
@STUDY
@URI
@JSON
def check(study: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Read STUDY and its data, and report what is there and what looks wrong. Trains nothing; measures images, where they are
    the source, if that was not done before.

    Reported: samples, events, patients, missing values, constant and duplicate columns, columns that look like an
    identifier or like the outcome (AUC above 0.99), and rows that are copies of another patient's. Where the study names site
    or acquisition: whether they can be predicted from the features, and the outcome from them alone. Of a composite: both
    biomarkers, and how many splits of the patients would be searched. Of profiles: how many clusters each criterion finds.
    """
    from training.composite.study import CompositeStudy
    from training.profile.study import ProfileStudy
    from training.studies import read_study

    loaded = read_study(study)
    address = _store_address(tracking_uri)
    if isinstance(loaded, CompositeStudy):
        from training.composite.check import check_composite

        checked = check_composite(loaded, address)
    elif isinstance(loaded, ProfileStudy):
        from training.profile.check import check_profile

        checked = check_profile(loaded)
    else:
        checked = _check_models(loaded, address)
    if as_json:
        _print_json({"study": loaded.name, "fingerprint": loaded.fingerprint, **checked})
    click.echo(f"The study can be trained: hypoxia train {study}", err=True)


def _check_models(loaded: Any, address: str) -> dict[str, Any]:
    from features.audit import audit, few_held_out
    from training.confounding import confounding
    from training.console import say, stderr_console
    from training.extracting import ensure_extracted
    from training.run import draw_held_out, load_cohorts
    from training.signature_recipe import coverage_words
    from training.terminal import print_audit, print_confounding
    from training.train import scores_of

    ensure_extracted(loaded)
    cohorts = load_cohorts(loaded, scores_of(loaded, address))
    found = {name: audit(cohort) for name, cohort in cohorts.items()}
    acquired = {name: confounding(cohort, loaded.rng("confounding")) for name, cohort in cohorts.items()}
    console = stderr_console()
    for name, one in found.items():
        print_audit(console, name or loaded.name, one)
        print_confounding(console, acquired[name])
    described = {
        name: {
            **one.model_dump(mode="json"),
            "warnings": [*one.warnings, *acquired[name].warnings],
            "confounding": acquired[name].model_dump(mode="json"),
        }
        for name, one in found.items()
    }
    if loaded.recipe.signature:
        for cohort in cohorts.values():
            words, warning = coverage_words(loaded.recipe.signature, cohort.features)
            say(console, loaded.recipe.signature.signature, words)
            if warning:
                say(console, "Warning", warning, "yellow")
    held_out = draw_held_out(loaded, cohorts)
    for cohort in cohorts.values():
        labels = cohort.patient_labels
        for warning in few_held_out(labels[labels.index.isin(held_out)]):
            say(console, "Warning", warning, "yellow")
    return {"sequences": described} if loaded.cohort.sequences else described[""]


@click.command()
@STUDY
@URI
@click.option("--workers", type=click.IntRange(min=1), help="Processes; overrides compute.workers and changes no result.")
@JSON
def train(study: Path, tracking_uri: str | None, workers: int | None, as_json: bool) -> None:
    """Make a model from STUDY, judge it, record the run in MLflow and register the model.

    \b
    What happens: held-out patients are set aside; the whole recipe (impute, select, search, refit) is repeated in every
    internal resample; it is run once more on all development patients; the held-out patients are opened once. A study of a
    composite score or of profiles (kind: composite, kind: profile) is judged by repeated cross-validation alone.
    """
    from training.studies import read_study
    from training.train import train_study

    try:
        trained = train_study(read_study(study), _store_address(tracking_uri), workers)
    except KeyboardInterrupt:
        click.echo(
            "Interrupted. The run is marked as killed; the same command goes on after the folds that are finished.", err=True
        )
        sys.exit(130)
    if as_json:
        _print_json(trained)


@click.command()
@URI
@JSON
def runs(tracking_uri: str | None, as_json: bool) -> None:
    """List the recorded runs, the newest first, with their held-out ROC AUC or concordance (C)."""
    from training.registry import list_runs, print_runs
    from training.tracking import open_store, store_exists

    address = _store_address(tracking_uri)
    found = list_runs(open_store(address)) if store_exists(address) else []
    _print_json({"runs": found}) if as_json else print_runs(found, address)


@click.command()
@URI
@JSON
def models(tracking_uri: str | None, as_json: bool) -> None:
    """List the registered models and their versions, with aliases and held-out estimates."""
    from training.registry import list_models, print_models
    from training.tracking import open_store, store_exists

    address = _store_address(tracking_uri)
    found = list_models(open_store(address)) if store_exists(address) else []
    _print_json({"models": found}) if as_json else print_models(found, address)


@click.command()
@JSON
def schema(as_json: bool) -> None:
    """Print the JSON schema of a study file (an editor that knows it completes keys and marks mistakes)."""
    from training.studies import json_schema

    _print_json(json_schema())


def _store_address(given: str | None) -> str:
    return tracking_uri(given)


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content, indent=1))
