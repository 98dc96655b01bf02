"""What is recorded and registered: listing, and (to come) comparison and promotion."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from training.console import console_on
from training.tracking import TAG, Store

NEWEST_RUNS = 50


def list_runs(store: Store) -> list[dict[str, Any]]:
    """The newest runs with status, fingerprint, and held-out and internal ROC AUC or concordance."""
    experiments = store.client.search_experiments()
    names = {experiment.experiment_id: experiment.name for experiment in experiments}
    found = store.client.search_runs(list(names), order_by=["attributes.start_time DESC"], max_results=NEWEST_RUNS)
    return [
        {
            "run_id": run.info.run_id,
            "study": names[run.info.experiment_id],
            "sequence": run.data.tags.get(TAG + "sequence"),
            "status": run.info.status,
            "started": datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds"),
            "seconds": run.data.metrics.get("seconds"),
            "fingerprint": run.data.tags.get(TAG + "fingerprint"),
            "data_hash": run.data.tags.get(TAG + "data_hash"),
            "held_out_roc_auc": _interval(run.data.metrics, "held_out_roc_auc"),
            "internal_roc_auc": _interval(run.data.metrics, "internal_roc_auc"),
            "held_out_c_index": _interval(run.data.metrics, "held_out_c_index"),
            "internal_c_index": _interval(run.data.metrics, "internal_c_index"),
        }
        for run in found
    ]


def list_models(store: Store) -> list[dict[str, Any]]:
    """Every version of every registered model, the newest version of each first."""
    models = sorted(store.client.search_registered_models(), key=lambda one: one.name)
    return [version for model in models for version in _versions(store, model.name)]


def _versions(store: Store, name: str) -> list[dict[str, Any]]:
    aliases: dict[str, list[str]] = {}
    # search_model_versions leaves aliases out
    for alias, number in store.client.get_registered_model(name).aliases.items():
        aliases.setdefault(str(number), []).append(alias)
    versions = store.client.search_model_versions(f"name = '{name}'")
    return [
        {
            "name": name,
            "version": str(version.version),
            "aliases": sorted(aliases.get(str(version.version), [])),
            "run_id": version.run_id,
            "registered": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            "pipeline": version.description,
            **version.tags,
        }
        for version in sorted(versions, key=lambda one: -int(one.version))
    ]


def print_runs(found: list[dict[str, Any]], uri: str) -> None:
    """Runs as a table on stdout."""
    table = _table("started", "study", "sequence", "status", "held out", "internal", "run")
    for run in found:
        table.add_row(
            run["started"],
            run["study"],
            run["sequence"] or "",
            run["status"],
            *(_headline(run, where) for where in ("held_out", "internal")),
            run["run_id"],
        )
    _print(table, f"No run is recorded in {uri} yet; `hypoxia train configs/demo.yaml` makes the first.", bool(found))


def print_models(found: list[dict[str, Any]], uri: str) -> None:
    """Model versions as a table on stdout."""
    table = _table("model", "version", "aliases", "held out", "registered", "pipeline")
    for model in found:
        table.add_row(
            model["name"],
            model["version"],
            ", ".join(model["aliases"]),
            _of_version(model),
            model["registered"],
            model["pipeline"],
        )
    _print(table, f"No model is registered in {uri} yet; `hypoxia train configs/demo.yaml` makes the first.", bool(found))


def _headline(run: dict[str, Any], where: str) -> str:
    """The measure of a run that stands for all."""
    area, concordance = run[f"{where}_roc_auc"], run[f"{where}_c_index"]
    return f"AUC {_shown(area)}" if area else f"C {_shown(concordance)}" if concordance else ""


def _of_version(model: dict[str, Any]) -> str:
    """The measure that stands for all; of a model without held-out patients it is out of fold."""
    for where, note in (("held_out", ""), ("internal", ", out of fold")):
        area, concordance = model.get(f"{where}_roc_auc"), model.get(f"{where}_c_index")
        if area or concordance:
            return f"AUC {area}{note}" if area else f"C {concordance}{note}"
    return ""


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table, otherwise: str, found: bool) -> None:
    console_on(sys.stdout).print(table if found else otherwise)


def _interval(metrics: dict[str, float], name: str) -> dict[str, float] | None:
    if name not in metrics:
        return None
    return {
        "value": metrics[name],
        "lower": metrics.get(f"{name}_lower", metrics[name]),
        "upper": metrics.get(f"{name}_upper", metrics[name]),
    }


def _shown(interval: dict[str, float] | None) -> str:
    return "" if interval is None else f"{interval['value']:.3f} ({interval['lower']:.3f} to {interval['upper']:.3f})"
