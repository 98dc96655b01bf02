"""The real server, started as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.started import STOPPED_WITHIN_S, end, wait_until_ready
from tests.serving.registered import NAME, Registered, register, rows_like_training, small_bundle

CANARY = "canary-7c1f"


@dataclass(frozen=True)
class Running:
    """A server that answers, and the files that its output goes to."""

    process: subprocess.Popen[bytes]
    registered: Registered
    url: str
    folder: Path

    def output(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    registered = register(small_bundle(), folder, alias="champion")
    # Folders of these names where the command is typed must not get in the way.
    for name in ("features", "serving"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('not this one')")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hypoxia = [sys.executable, "-P", "-m", "features.cli"]
    command = [*hypoxia, "serve", "--model", f"{NAME}@champion", "--port", str(port), "--json"]
    # A relative address, as a user would write it; and a home of its own, to see what is written there.
    environment = {**os.environ, "HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    environment.pop("XDG_CACHE_HOME", None)
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, start_new_session=True)
    server = Running(process, registered, f"http://127.0.0.1:{port}", folder)
    try:
        wait_until_ready(process, server.url, lambda: server.output("stderr"))
        yield server
    finally:
        end(process)


def test_the_served_probability_equals_the_pipelines_in_any_order_of_keys(running: Running) -> None:
    rows = rows_like_training(8)
    for order in (list, reversed):
        asked = [{"id": f"s{number}", "features": dict(order(list(row.items())))} for number, row in enumerate(rows)]
        answer = httpx.post(f"{running.url}/v1/models/{NAME}/predict", json={"rows": asked})
        assert answer.status_code == 200
        served = [prediction["probability"] for prediction in answer.json()["predictions"]]
        assert served == pytest.approx(running.registered.probabilities(rows), abs=1e-9)


def test_the_server_refuses_what_it_must_and_logs_nothing_of_it(running: Running) -> None:
    url = f"{running.url}/v1/models/{NAME}/predict"
    row = json.dumps({"rows": [{"id": CANARY, "features": rows_like_training(1)[0]}]}).encode()
    json_type = {"content-type": "application/json"}
    answers = {
        httpx.post(url, content=row.replace(b'"CA9": ', b'"CA9": 1e999, "x": '), headers=json_type): 400,
        httpx.post(url, content=row.replace(b"CA9", CANARY.encode()), headers=json_type): 422,
        httpx.post(url, content=row, headers={"content-type": f"text/{CANARY}"}): 415,
        httpx.post(url, content=row.ljust(1_200_000), headers=json_type): 413,
        httpx.post(url.replace(NAME, "other"), content=row, headers=json_type): 404,
        httpx.get(f"{running.url}/docs.json"): 404,
    }
    for answer, status in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert CANARY not in running.output("stderr") + running.output("stdout") + httpx.get(f"{running.url}/metrics").text


def test_the_command_says_where_it_serves_and_how_to_ask(running: Running) -> None:
    assert json.loads(running.output("stdout")) == {"url": running.url, "models": [{"name": NAME, "version": "1"}]}
    said = running.output("stderr")
    assert "Research use only" in said
    example = next(line for line in said.splitlines() if line.startswith("  curl"))
    answer = subprocess.run(["bash", "-c", f"{example} --silent --fail"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith('{"model":')


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what a process has loaded from /proc")
def test_the_fast_event_loop_and_parser_are_in_use(running: Running) -> None:
    server = running.process.pid
    workers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    loaded = "".join(Path(f"/proc/{worker}/maps").read_text() for worker in workers)
    assert "/uvloop/loop." in loaded
    assert "/httptools/parser/" in loaded


def test_nothing_is_written_but_the_servers_own_folder(running: Running) -> None:
    written = {path.relative_to(running.folder).parts[:4] for path in (running.folder / "home").rglob("*")}
    port = running.url.rpartition(":")[2]
    assert {parts for parts in written if len(parts) == 4} == {("home", ".cache", "hypoxia", f"serve-{port}")}
    assert not (running.folder / "mlruns").exists()


def test_sigterm_ends_the_server_cleanly(running: Running) -> None:
    """Last: there is no server after it."""
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(STOPPED_WITHIN_S) == 0
    assert "Traceback" not in running.output("stderr")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/livez")
