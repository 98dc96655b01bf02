"""A server under load while its models are promoted, broken, rolled back, its workers killed, and it is told to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from tests.end_to_end.started import end as end_process
from tests.end_to_end.started import wait_until_ready
from tests.serving.registered import NAME, Registered, register, rows_like_training, small_bundle

SERVED_WITHIN_S = 60
BACK_WITHIN_S = 10
STOPPED_WITHIN_S = 30
ROW = rows_like_training(1)[0]
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of a server in /proc")


@dataclass
class Server:
    """A server that answers, and where its models are registered."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path
    versions: dict[str, Registered]

    def promote(self, version: str, name: str = NAME) -> None:
        MlflowClient(self.uri, self.uri).set_registered_model_alias(name, "champion", version)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", timeout=30).json()

    def served(self, name: str = NAME) -> dict[str, Any]:
        return next(model for model in self.get("/v1/models")["models"] if model["name"] == name)

    def score(self, name: str = NAME) -> tuple[str, float]:
        answer = httpx.post(f"{self.url}/v1/models/{name}/predict", json={"rows": [{"features": ROW}]}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["model"]["version"], answer.json()["predictions"][0]["probability"]

    def children(self) -> set[int]:
        pid = self.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def workers(self) -> set[int]:
        """Children that answer: those with the listening socket (what follows the registry has closed it)."""
        return {pid for pid in self.children() if _listens(pid, int(self.url.rpartition(":")[2]))}


@dataclass
class Load:
    """What clients that never pause were answered: version and score, or what went wrong."""

    url: str
    answers: list[tuple[float, str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post(f"{self.url}/v1/models/{NAME}/predict", json={"rows": [{"features": ROW}]})
                except httpx.ConnectError:
                    return  # it no longer listens: this request was never taken on
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code != 200:
                    self.failures.append(f"{answer.status_code} {answer.text}")
                    continue
                body = answer.json()
                self.answers.append((time.monotonic(), body["model"]["version"], body["predictions"][0]["probability"]))
                time.sleep(0.002)


@contextmanager
def load(url: str, clients: int = 4) -> Iterator[Load]:
    made = Load(url)
    threads = [threading.Thread(target=made.ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        for thread in threads:
            thread.join()


def eventually(holds: Callable[[], bool], within_s: float) -> float:
    """Seconds until something holds; fails if that takes longer than it may."""
    started = time.monotonic()
    while time.monotonic() - started < within_s:
        if holds():
            return time.monotonic() - started
        time.sleep(0.1)
    pytest.fail(f"It did not hold within {within_s} s.")


def start(folder: Path, *options: str) -> Server:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-m", "features.cli", "serve", "--port", str(port), "--json", *options]
    environment = {**os.environ, "HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    environment.pop("XDG_CACHE_HOME", None)
    with (folder / f"stdout-{port}").open("wb") as stdout, (folder / f"stderr-{port}").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, start_new_session=True)
    return _ready(Server(process, f"http://127.0.0.1:{port}", folder, {}))


def start_bento(folder: Path, bento: Path) -> Server:
    """BentoML's own server over a Bento, where there is neither a registry nor a key but what is in it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {name: value for name, value in os.environ.items() if not name.startswith(("HYPOXIA_", "MLFLOW_"))}
    environment = {**given, "HOME": str(folder / "home"), "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-P", "-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / f"stderr-{port}").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)
    return _ready(Server(process, f"http://127.0.0.1:{port}", folder, {}))


def _ready(server: Server) -> Server:
    try:
        wait_until_ready(server.process, server.url, lambda: log(server))
    except BaseException:
        end(server)
        raise
    return server


def end(server: Server) -> None:
    end_process(server.process)


def log(server: Server) -> str:
    return (server.folder / f"stderr-{server.url.rpartition(':')[2]}").read_text()


def _is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _listens(pid: int, port: int) -> bool:
    try:
        inodes = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return False
    listening = {f"socket:[{line.split()[9]}]" for line in lines if line.split()[1].endswith(f":{port:04X}")}
    return bool(inodes & listening)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers over two champions; the first model has two more versions and a third that was changed on disk."""
    folder = tmp_path_factory.mktemp("operated")
    versions = {
        "1": register(small_bundle(0), folder, alias="champion"),
        "2": register(small_bundle(1), folder, alias="challenger"),
        "3": register(small_bundle(2), folder),
    }
    register(small_bundle(3), folder, name="other", alias="champion")
    pipeline = versions["3"].folder / "pipeline.skops"
    content = bytearray(pipeline.read_bytes())
    content[len(content) // 2] ^= 1
    pipeline.write_bytes(bytes(content))
    server = start(folder, "--all-champions", "--workers", "2", "--follow", "1", "--shadow", f"{NAME}@challenger")
    server.versions = versions
    yield server
    end(server)


def test_the_command_says_which_versions_it_serves(server: Server) -> None:
    printed = json.loads((server.folder / f"stdout-{server.url.rpartition(':')[2]}").read_text())
    assert printed == {
        "url": server.url,
        "models": [{"name": "other", "version": "1"}, {"name": NAME, "version": "1"}],
    }


def test_every_champion_is_served_with_its_own_score(server: Server) -> None:
    assert server.score() == ("1", pytest.approx(server.versions["1"].probabilities([ROW])[0], abs=1e-9))
    assert server.score("other")[1] != server.score()[1]


def test_a_challenger_is_compared_out_of_sight(server: Server) -> None:
    assert server.score()[0] == "1"
    compared = f'hypoxia_shadow_rows_total{{model="{NAME}",version="2"}}'
    eventually(lambda: compared in httpx.get(f"{server.url}/metrics").text, 10)
    text = httpx.get(f"{server.url}/metrics").text
    assert f'hypoxia_shadow_difference_count{{model="{NAME}",version="2"}}' in text
    assert [model["name"] for model in server.get("/v1/models")["models"]] == ["other", NAME]


def test_a_promotion_under_load_fails_no_request_and_every_answer_is_of_one_version(server: Server) -> None:
    expected = {version: server.versions[version].probabilities([ROW])[0] for version in ("1", "2")}
    with load(server.url) as made:
        eventually(lambda: len(made.answers) > 50, 20)
        server.promote("2")
        promoted = time.monotonic()
        eventually(lambda: {answer[1] for answer in made.answers[-50:]} == {"2"}, SERVED_WITHIN_S)
    assert made.failures == []
    assert {answer[1] for answer in made.answers} == {"1", "2"}
    assert all(score == pytest.approx(expected[version], abs=1e-9) for _, version, score in made.answers)
    assert max(moment for moment, version, _ in made.answers if version == "1") - promoted < SERVED_WITHIN_S


def test_a_broken_version_never_serves_and_the_old_one_goes_on(server: Server) -> None:
    with load(server.url) as made:
        server.promote("3")
        eventually(lambda: server.served()["pending_problem"] is not None, SERVED_WITHIN_S)
        answer = httpx.post(f"{server.url}/v1/admin/reload", timeout=40)
    assert made.failures == []
    assert {version for _, version, _ in made.answers} == {"2"}
    problem = {"version": "3", "kind": "unverified", "error": "BundleError"}
    eventually(lambda: server.served()["pending_problem"] == problem, SERVED_WITHIN_S)  # of whichever worker answers
    reloaded = {model["name"]: model for model in answer.json()["models"]}
    assert reloaded[NAME] == {"name": NAME, "version": "2", "pending_problem": problem}
    assert f'hypoxia_versions_not_taken_total{{model="{NAME}",reason="unverified"}}' in httpx.get(f"{server.url}/metrics").text
    assert f"Model {NAME}: version 3 is not served (unverified, BundleError); version 2 goes on." in log(server)


def test_a_rollback_is_served_when_the_reload_is_answered(server: Server) -> None:
    with load(server.url) as made:
        server.promote("1")
        answer = httpx.post(f"{server.url}/v1/admin/reload", timeout=40)
        assert answer.status_code == 200
        eventually(lambda: {answer[1] for answer in made.answers[-20:]} == {"1"}, SERVED_WITHIN_S)
    assert made.failures == []
    assert {"name": NAME, "version": "1", "pending_problem": None} in answer.json()["models"]


@LINUX
def test_a_killed_worker_is_back_within_ten_seconds_with_the_version_that_is_served_now(server: Server) -> None:
    server.promote("2")
    assert httpx.post(f"{server.url}/v1/admin/reload", timeout=40).status_code == 200
    before = server.workers()
    assert len(before) == 2
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(server.workers() - {killed}) == 2, BACK_WITHIN_S)
    os.kill(max(before), signal.SIGKILL)  # so that only the new one is left to answer
    eventually(lambda: server.score()[0] == "2", BACK_WITHIN_S)
    eventually(lambda: len(server.workers()) == 2, BACK_WITHIN_S)


@LINUX
def test_the_fast_event_loop_is_in_use_and_workers_never_import_the_registrys_client(server: Server) -> None:
    for worker in server.workers():
        loaded = Path(f"/proc/{worker}/maps").read_text()
        assert "/uvloop/loop." in loaded
        assert "/httptools/parser/" in loaded
        assert "mlflow" not in loaded


def test_sigterm_under_load_loses_no_request(server: Server) -> None:
    """The last to use this server."""
    with load(server.url, clients=8) as made:
        eventually(lambda: len(made.answers) > 100, 20)
        server.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert server.process.wait(STOPPED_WITHIN_S) == 0
    assert made.failures == []
    assert any(moment > told for moment, _, _ in made.answers)
    assert "Traceback" not in log(server)
    assert not _is_ready(server)


@LINUX
def test_a_worker_starts_again_without_a_registry_and_ends_with_its_supervisor(tmp_path: Path) -> None:
    registered = register(small_bundle(), tmp_path, alias="champion")
    server = start(tmp_path, "--model", f"{NAME}@champion", "--follow", "1")
    try:
        (tmp_path / "mlflow.db").rename(tmp_path / "away.db")
        eventually(lambda: (server.served()["pending_problem"] or {}).get("kind") == "registry", 30)
        [worker] = server.workers()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: server.workers() not in (set(), {worker}) and _is_ready(server), BACK_WITHIN_S)
        assert server.score() == ("1", pytest.approx(registered.probabilities([ROW])[0], abs=1e-9))
        children = server.children()
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(alive(pid) for pid in children), 15)
    finally:
        end(server)


def test_a_bento_answers_the_same_without_a_registry(tmp_path: Path) -> None:
    registered = register(small_bundle(), tmp_path, alias="champion")
    package = [sys.executable, "-P", "-m", "features.cli", "package", f"{NAME}@champion", "-o", "bento"]
    subprocess.run([*package, "--tracking-uri", registered.uri], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "mlflow.db").unlink()
    server = start_bento(tmp_path, tmp_path / "bento")
    try:
        assert server.score() == ("1", pytest.approx(registered.probabilities([ROW])[0], abs=1e-9))
        assert httpx.post(f"{server.url}/v1/admin/reload").status_code == 409
    finally:
        end(server)
