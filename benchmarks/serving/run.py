"""Throughput of ``hypoxia serve`` against ``mlflow models serve`` and against a bare FastAPI with the same model.

Run: ``python benchmarks/serving/run.py`` (about 6 minutes). Single rows of 20 features, one worker each, all three up at once,
loaded in turn within each round. Ours with everything on: token, contract, distance from training, audit log, metrics. What
counts is the ratio of the same round; the median over rounds is printed, with the slowest half and hundredth of answers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from features.bundle import Estimate, ModelBundle, ModelCard, save_bundle
from features.contract import ContractSettings, contract_of
from features.store import switch_telemetry_off
from features.table import FeatureSchema

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = [f"original_feature_{number}" for number in range(20)]
MODELS: dict[str, ClassifierMixin] = {
    "linear": LogisticRegression(),
    "forest": RandomForestClassifier(n_estimators=200, random_state=0),
}
TARGETS = {("mlflow", 16): 5.0, ("bare", 16): 0.6, ("bare", 1): 0.4}
START_S = 120


@dataclass(frozen=True)
class Server:
    """Where a server listens and the one request that it is sent."""

    name: str
    port: int
    request: Path


def fitted(kind: str) -> tuple[Pipeline, pd.DataFrame]:
    """A model of the kind, and the samples that it learnt from."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, len(NAMES)))
    y = (X[:, 0] - X[:, 1] + rng.normal(size=200) > 0).astype(int)
    return make_pipeline(SimpleImputer(), StandardScaler(), MODELS[kind]).fit(X, y), pd.DataFrame(X, columns=NAMES)


def register(pipeline: Pipeline, samples: pd.DataFrame, folder: Path) -> None:
    """Put a model into a store of its own, as training does."""
    from mlflow import MlflowClient

    card = ModelCard(
        name="benchmark", study="benchmark", created="2026-01-01T00:00:00Z", endpoint="made up", samples=200, events=100,
        patients=200, held_out_patients=0, threshold=0.5, threshold_origin="fixed", pipeline="made up",
        held_out={"roc_auc": Estimate(value=None, reason="no held-out patients")}, fingerprint="0" * 64, data_hash="0" * 64,
        versions={},
    )  # fmt: skip
    rows = samples.to_numpy()[:24]
    contract = contract_of(samples, ContractSettings())
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    run = client.create_run(client.create_experiment("benchmark", (folder / "artifacts").as_uri()))
    place = Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"
    save_bundle(ModelBundle(pipeline, FeatureSchema.of(NAMES), card, contract, rows), place, golden=rows[:3])
    client.create_registered_model("benchmark")
    client.create_model_version("benchmark", source=f"{run.info.artifact_uri}/bundle", run_id=run.info.run_id)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def request(path: str, body: object, folder: Path, name: str, token: str | None = None) -> Path:
    """The bytes of one request, in a file."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    file = folder / f"{name}.http"
    file.write_bytes(head.encode() + b"\r\n" + content)
    return file


@contextmanager
def started(command: list[str], environment: dict[str, str], url: str, log: Path) -> Iterator[None]:
    """A server in the background, up when the block begins and gone after it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                urlopen(url, timeout=5).close()
                break
            except (URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{' '.join(command)} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.3)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def all_three(kind: str, folder: Path) -> Iterator[list[Server]]:
    """The three servers over one model."""
    import mlflow.sklearn

    pipeline, samples = fitted(kind)
    row = samples.iloc[100].tolist()
    mlflow.sklearn.save_model(
        pipeline, str(folder / "mlflow"), serialization_format="cloudpickle", pip_requirements=["scikit-learn"]
    )
    (folder / "model.pkl").write_bytes(pickle.dumps(pipeline))
    register(pipeline, samples, folder)
    ports, token = [free_port() for _ in range(3)], secrets.token_urlsafe(32)
    python = sys.executable
    ours_command = [
        python,
        "-P",
        "-m",
        "features.cli",
        "serve",
        "--model",
        "benchmark",
        "--port",
        str(ports[0]),
        "--rate-limit",
        "0",
    ]
    ours_environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "HYPOXIA_TOKEN": token}
    bare_command = [python, "-m", "uvicorn", "bare:app", "--app-dir", str(HERE), "--port", str(ports[1]), "--no-access-log"]
    mlflow_command = [python, "-m", "mlflow", "models", "serve", "-m", str(folder / "mlflow"), "--env-manager", "local"]
    mlflow_command += ["--port", str(ports[2]), "--workers", "1"]
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    with ExitStack() as stack:
        stack.enter_context(started(ours_command, ours_environment, f"{addresses[0]}/readyz", folder / "ours.log"))
        bare = {"BARE_MODEL": str(folder / "model.pkl")}
        stack.enter_context(started(bare_command, bare, f"{addresses[1]}/openapi.json", folder / "bare.log"))
        beside = {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}  # it starts uvicorn by its name
        stack.enter_context(started(mlflow_command, beside, f"{addresses[2]}/ping", folder / "mlflow.log"))
        named = {"rows": [{"features": dict(zip(NAMES, row, strict=True))}]}
        split = {"dataframe_split": {"columns": NAMES, "data": [row]}}
        yield [
            Server("ours", ports[0], request("/v1/models/benchmark/predict", named, folder, "ours", token)),
            Server("bare", ports[1], request("/predict", {"rows": [row]}, folder, "bare")),
            Server("mlflow", ports[2], request("/invocations", split, folder, "mlflow")),
        ]


def loaded(server: Server, connections: int, seconds: float) -> dict[str, float]:
    """What the load generator says of one server."""
    command = [sys.executable, str(HERE / "load.py"), str(server.port), str(server.request), str(connections), str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=seconds + 60)
    found: dict[str, float] = json.loads(done.stdout)
    if found["failed"]:
        sys.exit(f"{server.name}: {found['failed']:.0f} of its answers were no 200.")
    return found


def report(kind: str, connections: int, rounds: list[dict[str, dict[str, float]]]) -> bool:
    """Print ratios with the target beside; returns whether every target is met."""
    print(f"\n{kind}, {connections} connection{'s' if connections > 1 else ''}, median of {len(rounds)} rounds")
    for name in rounds[0]:
        figures = {key: statistics.median(one[name][key] for one in rounds) for key in ("rate", "p50", "p99")}
        print(f"  {name:7} {figures['rate']:7.0f} requests/s   p50 {figures['p50']:7.2f} ms   p99 {figures['p99']:7.2f} ms")
    met = True
    for other in ("mlflow", "bare"):
        ratios = [one["ours"]["rate"] / one[other]["rate"] for one in rounds]
        target = TARGETS.get((other, connections))
        met = met and (target is None or statistics.median(ratios) >= target)
        wanted = "" if target is None else f", wanted {target:g}: {'met' if statistics.median(ratios) >= target else 'MISSED'}"
        print(f"  ours / {other:7} {statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f}){wanted}")
    return met


def main() -> None:
    """Print the ratios; exit code 1 if one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="load of one server in one round")
    parser.add_argument("--model", choices=MODELS, action="append", help="default: both")
    asked = parser.parse_args()
    switch_telemetry_off()
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    met = True
    for kind in asked.model or MODELS:
        with tempfile.TemporaryDirectory() as temporary, all_three(kind, Path(temporary)) as servers:
            for server in servers:
                loaded(server, 4, 1.0)  # what is done once, at the first requests
            for connections in (16, 1):
                rounds = [{one.name: loaded(one, connections, asked.seconds) for one in servers} for _ in range(asked.rounds)]
                met = report(kind, connections, rounds) and met
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
