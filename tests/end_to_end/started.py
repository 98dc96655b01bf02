"""A real server, started as a user starts it, with what tests need to know of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.registered import NAME, Registered, register, small_bundle

READY_WITHIN_S = 180
STOPPED_WITHIN_S = 45
TOKEN = "predict-token-0123456789abcdefghijkl"
ADMIN = "administrator-token-0123456789abcdef"


@dataclass(frozen=True)
class Started:
    """A server that answers, and the folder with its store, its home and its output."""

    process: subprocess.Popen[bytes]
    registered: Registered
    url: str
    folder: Path
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {TOKEN}"})
    # One for all requests: making one costs more than a request.
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, verify=False))

    @property
    def predict(self) -> str:
        return f"{self.url}/v1/models/{NAME}/predict"

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = self.headers | dict(request.pop("headers", {}))
        return self.client.request(method, f"{self.url}{path}", headers=headers, **request)

    def output(self) -> str:
        return (self.folder / "stdout").read_text() + (self.folder / "stderr").read_text()

    def processes(self) -> list[int]:
        """The server's process and all that it started."""
        found, pending = [], [self.process.pid]
        while pending:
            found.append(pending.pop())
            children = Path(f"/proc/{found[-1]}/task/{found[-1]}/children")
            pending += [int(child) for child in children.read_text().split()] if children.exists() else []
        return found

    def memory_mb(self, name: str = "VmRSS") -> float:
        """Of the largest of the processes."""
        sizes = [Path(f"/proc/{process}/status").read_text().partition(f"{name}:")[2].split()[0] for process in self.processes()]
        return max(int(size) for size in sizes) / 1024


@contextmanager
def started(folder: Path, *arguments: str, scheme: str = "http", **variables: str) -> Iterator[Started]:
    """Register the small model in a folder, serve it there with two tokens, and stop it again."""
    registered = register(small_bundle(), folder, alias="champion")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-P",
        "-m",
        "features.cli",
        "serve",
        "--model",
        f"{NAME}@champion",
        "--port",
        str(port),
        *arguments,
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"},
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "MLFLOW_TRACKING_URI": registered.uri,
        "HYPOXIA_TOKEN": TOKEN,
        "HYPOXIA_ADMIN_TOKEN": ADMIN,
        **variables,
    }
    (folder / "tmp").mkdir()
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, start_new_session=True)
    server = Started(process, registered, f"{scheme}://127.0.0.1:{port}", folder)
    try:
        wait_until_ready(process, server.url, server.output)
        yield server
    finally:
        server.client.close()
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server as a user would; if it does not, end it and its workers."""
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], url: str, output: Callable[[], str]) -> None:
    """Wait until a server is ready; what it wrote is shown if it never is."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5, verify=False).status_code == 200:
                return
        time.sleep(0.2)
    pytest.fail(f"The server was not ready within {READY_WITHIN_S} s:\n{output()}")
