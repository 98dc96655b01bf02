"""``hypoxia predict`` and ``hypoxia serve``; each parses its options and calls one function."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from features.errors import InputError
from features.store import switch_telemetry_off, tracking_uri

if TYPE_CHECKING:
    import pandas as pd

    from serving.loader import LoadedModel
    from serving.predictor import Predictor

_model = click.option("--model", required=True, metavar="NAME[@ALIAS|:VERSION]", help="The registered model.")
_store = click.option("--tracking-uri", "uri", metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, else ./mlruns.")
_machine = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@_model
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CSV to write; default: stdout.")
@click.option("--sample", metavar="COLUMN", help="Column that names a row; default: the first that can, else the row's number.")
@_store
@_machine
def predict(table: Path, model: str, output: Path | None, sample: str | None, uri: str | None, as_json: bool) -> None:
    """Score TABLE (CSV, TSV or Parquet) with a registered model, as the endpoint would.

    Writes sample, probability, label, threshold, model and version. Columns that are no feature of the model are left
    out; a missing feature or value is refused.
    """
    from serving.predictor import Predictor

    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; name the file to write.")
    predictor = Predictor(_load(model, uri))
    scored = score_file(predictor, table, sample)
    if output is not None:
        write_whole(output, scored.to_csv(index=False))
    elif not as_json:
        click.echo(scored.to_csv(index=False), nl=False)
    summary = _summary(predictor, scored, output)
    if as_json:
        click.echo(json.dumps(summary))
    click.echo(_in_words(summary), err=True)


@click.command()
@_model
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Processes that answer.")
@click.option(
    "--behind-proxy",
    is_flag=True,
    envvar="HYPOXIA_BEHIND_PROXY",
    help="Allow an address that other machines reach, because something in front (a container's port, a proxy) decides who may.",
)
@_store
@_machine
def serve(model: str, host: str, port: int, workers: int, behind_proxy: bool, uri: str | None, as_json: bool) -> None:
    """Serve a registered model over HTTP on this machine, until interrupted."""
    address = allowed_address(host, behind_proxy)
    loaded = _load(model, uri)
    require_free(address, port)
    url = _url(address, port)
    if as_json:
        click.echo(json.dumps({"url": url, "model": loaded.name, "version": loaded.version}))
    click.echo(_welcome(loaded, url), err=True)
    _become_server(loaded, address, port, workers, uri)


def score_file(predictor: Predictor, table: Path, sample: str | None) -> pd.DataFrame:
    """Score a table; one row per sample.

    Returns
    -------
    DataFrame of shape (n_samples, 6)
        Columns ``sample, probability, label, threshold, model, version``.
    """
    from features.sources import read_table

    frame = read_table(table, text_columns=(sample,) if sample else ())
    column = _sample_column(frame, predictor.features, sample)
    if column is not None and sample is None:
        frame = read_table(table, text_columns=(column,))  # once more, so that a sample called 007 stays that
    scored = predictor.predict_table(frame)
    scored.insert(0, "sample", range(1, len(frame) + 1) if column is None else frame[column])
    return scored


def _sample_column(frame: pd.DataFrame, features: tuple[str, ...], sample: str | None) -> str | None:
    """Column that names the rows: the one given, else the first of text or whole numbers, no feature, all different."""
    from features.table import did_you_mean

    if sample is not None and sample not in frame.columns:
        raise InputError(f"Column {sample!r} (--sample) is not in the table{did_you_mean(sample, list(frame.columns))}.")
    named = (
        str(name)
        for name in frame.columns
        if name not in features and frame[name].dtype.kind in "iuOUT" and frame[name].notna().all() and frame[name].is_unique
    )
    return sample or next(named, None)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was."""
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        stage.write_text(text, encoding="utf-8")
        stage.replace(path)
    except OSError as cause:
        stage.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({cause.strerror}); name a file in a folder that exists and is yours."
        ) from cause


def _summary(predictor: Predictor, scored: pd.DataFrame, output: Path | None) -> dict[str, Any]:
    from features.bundle import RESEARCH_USE_ONLY

    model = predictor.loaded
    columns = (scored[name].tolist() for name in ("sample", "probability", "label"))
    return {
        "model": model.name,
        "version": model.version,
        "threshold": predictor.threshold,
        "rows": len(scored),
        "positive": int((scored["label"] == model.bundle.card.positive_label).sum()),
        "positive_label": model.bundle.card.positive_label,
        "output": None if output is None else str(output),
        "research_use_only": RESEARCH_USE_ONLY,
        "predictions": [
            {"sample": str(sample), "probability": probability, "label": label}
            for sample, probability, label in zip(*columns, strict=True)
        ],
    }


def _in_words(summary: dict[str, Any]) -> str:
    return (
        f"{summary['rows']} rows scored with {summary['model']}:{summary['version']}, {summary['positive']} of them "
        f"{summary['positive_label']} (probability at or above {summary['threshold']:.3g})."
        + (f" Written to {summary['output']}." if summary["output"] else "")
        + f"\n{summary['research_use_only']}"
    )


def _load(model: str, uri: str | None) -> LoadedModel:
    from serving.loader import load_registered, parse_reference

    return load_registered(parse_reference(model), tracking_uri(uri))


def allowed_address(host: str, behind_proxy: bool) -> str:
    """Address to listen on, as a number: one of this machine only, unless something in front decides who may ask.

    Raises
    ------
    InputError
        The host is no address, or other machines could reach it.
    """
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as cause:
        raise InputError(f"{host!r} is no address to listen on; give a number such as 127.0.0.1.") from cause
    if not address.is_loopback and not behind_proxy:
        raise InputError(
            f"Other machines could reach {host}, and there is no authentication yet; listen on 127.0.0.1, or pass --behind-proxy "
            "if a proxy or a container decides who may ask."
        )
    return str(address)


def require_free(address: str, port: int) -> None:
    """Raise an InputError if something listens there already."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as cause:
            raise InputError(f"Cannot listen on {address} port {port} ({cause.strerror}); choose another with --port.") from cause


def _url(address: str, port: int) -> str:
    """Where to ask from this machine; "every address" is one to listen on, not one to ask."""
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not listened on
    return f"http://{f'[{asked}]' if ':' in asked else asked}:{port}"


def _welcome(loaded: LoadedModel, url: str) -> str:
    from features.bundle import RESEARCH_USE_ONLY

    features = dict.fromkeys(loaded.bundle.schema.names, 0.0)
    body = shlex.quote(json.dumps({"rows": [{"id": "a", "features": features}]}))
    model = f"{url}/v1/models/{quote(loaded.name)}"
    return (
        f"Serving {loaded.name}:{loaded.version} ({len(features)} features) at {model} until Ctrl-C. Try, with values of yours:\n"
        f"  curl {model}/predict -H 'content-type: application/json' -d {body}\n{RESEARCH_USE_ONLY}"
    )


def _become_server(loaded: LoadedModel, address: str, port: int, workers: int, uri: str | None) -> None:
    """Replace this process by the server, so that a signal to it reaches the server and nothing is left between them."""
    switch_telemetry_off()
    root = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        # The version that was just verified, even if the alias moves while workers start.
        "HYPOXIA_MODELS": f"{loaded.name}:{loaded.version}",
        "HYPOXIA_TRACKING_URI": _absolute(tracking_uri(uri)),
        "HYPOXIA_WORKERS": str(workers),
        "BENTOML_HOME": str(_server_folder(port)),
        # A folder called `serving` or `features` where the command is typed must not be imported instead of ours.
        "PYTHONSAFEPATH": "1",
    }
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Hypoxia"]
    command += ["--working-dir", str(root), "--host", address, "--port", str(port)]
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # BentoML logs on stdout, which is for the answer to --json
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is what is wanted


def _absolute(uri: str) -> str:
    """Address of the store from any folder: the server's is not the one in which the command was typed."""
    relative = uri.removeprefix("sqlite:///")
    return f"sqlite:///{Path(relative).absolute()}" if relative != uri else uri


def _server_folder(port: int) -> Path:
    """Folder for BentoML's own files, one per port: a second server on the same folder would delete the first one's metrics."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypoxia" / f"serve-{port}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # not writable, or (in a container) a user without a home
        return Path(tempfile.mkdtemp(prefix="hypoxia-serve-"))
    return folder
