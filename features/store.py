"""Where runs and models are kept, for training and serving alike (neither MLflow nor anything heavy is imported here)."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_FOLDER = "mlruns"


def tracking_uri(given: str | None = None) -> str:
    """Address of the MLflow store: the one given, else ``MLFLOW_TRACKING_URI``, else sqlite under ``./mlruns``.

    Examples
    --------
    >>> tracking_uri("http://127.0.0.1:5000")
    'http://127.0.0.1:5000'
    """
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(DEFAULT_FOLDER).resolve() / 'mlflow.db'}"


def state_folder(uri: str) -> Path:
    """Folder for the logs that belong to a store: beside a store in a local file, else among the user's own state.

    Examples
    --------
    >>> str(state_folder("sqlite:////srv/hypoxia/mlflow.db"))
    '/srv/hypoxia'
    """
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).resolve().parent
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "hypoxia"


def switch_telemetry_off() -> None:
    """Tell the dependencies not to report usage nor to look for updates; call it before they are imported."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "BENTOML_DO_NOT_TRACK"):
        os.environ[name] = "True" if name.startswith("BENTOML") else "true"
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # it would write into what a command says on stderr
