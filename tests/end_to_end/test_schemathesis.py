"""The real server against its own description: generated requests, good and bad, find nothing that it does not say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.started import ADMIN, Started, started

EXAMPLES = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started(tmp_path_factory.mktemp("described"), HYPOXIA_RATE_LIMIT="0") as running:
        yield running


def schemathesis(server: Started, *arguments: str) -> subprocess.CompletedProcess[str]:
    program, settings = Path(sys.executable).with_name("schemathesis"), Path(__file__).with_name("schemathesis.toml")
    command = [str(program), "--config-file", str(settings), "run", f"{server.url}/openapi.json", "--no-color"]
    command += [
        "--header",
        f"Authorization: Bearer {ADMIN}",
        "--generation-database",
        "none",
        "--seed",
        "7",
        "--request-timeout",
        "30",
        *arguments,
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("schemathesis_hooks.py"))}
    return subprocess.run(command, capture_output=True, text=True, cwd=server.folder, env=environment, check=False)


def test_the_description_is_there_and_valid(server: Started) -> None:
    document = server.ask("GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/models/{name}/predict" in document["paths"]


def test_no_generated_request_is_answered_otherwise_than_described(server: Started) -> None:
    result = schemathesis(server, "--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES))
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert "Traceback" not in server.output()
