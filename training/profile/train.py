"""From a study of profiles to a recorded, registered model: load, run, record."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from features.bundle import RESEARCH_USE_ONLY
from training.console import say, stderr_console
from training.profile.record import PAGE, record_profile
from training.profile.report import cluster_table, findings, warnings_of
from training.profile.run import ProfileResult, load_profile_data, refuse_what_cannot_be_clustered, run_profile
from training.profile.study import ProfileStudy
from training.profile.tables import profile_json
from training.terminal import TerminalProgress, print_recorded
from training.tracking import open_store, place_of, plain, run_json, started_run


def train_profile(study: ProfileStudy, uri: str) -> dict[str, Any]:
    """Run a study of profiles and record it; returns what ``hypoxia train --json`` prints."""
    console, data = stderr_console(), load_profile_data(study)
    with TerminalProgress(console, 1) as progress:
        fitted = refuse_what_cannot_be_clustered(study, data, progress)
    store = open_store(uri)
    tags = {"data_hash": data.cohort.data_hash, "profile": study.clustering.method}
    with started_run(store, study, tags) as run_id, TerminalProgress(console, 1) as progress:
        result = run_profile(study, data, progress, fitted)
        progress.stage("drawing the pictures and recording the run")
        recorded = record_profile(store, run_id, result)
    print_profile(console, result)
    print_recorded(console, recorded, store.uri)
    say(console, "Report", place_of(store, recorded.run_id, PAGE))
    console.print(RESEARCH_USE_ONLY, style="bold")
    return plain(
        {
            **run_json(study, result.cohort, recorded, uri),
            **profile_json(result),
            "warnings": list(warnings_of(result)),
            "seconds": round(result.seconds, 2),
            "research_use_only": RESEARCH_USE_ONLY,
        }
    )


def print_profile(console: Console, result: ProfileResult) -> None:
    """The clusters side by side, then what was found of them."""
    console.print()
    console.print(cluster_table(result))
    for title, words in findings(result):
        say(console, title, words)
    for warning in warnings_of(result):
        say(console, "Warning", warning, "yellow")
