"""A word that is sent in every way in which a client can send one is found nowhere afterwards."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from features.ledger import Ledger
from tests.end_to_end.started import ADMIN, TOKEN, Started, started
from tests.serving.registered import NAME, rows_like_training

CANARY = "canary-7c1f93"
# As a value, a canary is a number; it must be found neither in digits nor in scientific notation.
VALUE = 7193.0042761
GOOD = rows_like_training(1)[0]
WAYS = [CANARY, base64.b64encode(CANARY.encode()).decode().rstrip("="), CANARY.encode().hex(), str(VALUE), f"{VALUE:e}"[:8]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started(tmp_path_factory.mktemp("canary"), "--workers", "2", HYPOXIA_RATE_LIMIT="0") as running:
        yield running


def bodies() -> list[bytes]:
    """Bodies with the canary as key, value, identifier and text; good ones and bad ones."""
    features = [
        GOOD,
        GOOD | {"CA9": VALUE},
        GOOD | {"CA9": -VALUE * 1e6},
        GOOD | {CANARY: 1.0},
        GOOD | {"CA9": CANARY},
        GOOD | {"CA9": [VALUE]},
        GOOD | {"CA9": 1e300},
        GOOD | {"CA9": None},
        {CANARY: VALUE},
    ]
    rows = [[{"id": CANARY, "features": one}] for one in features]
    made = [{"rows": row, **options} for row in rows for options in ({}, *OPTIONS)]
    texts = [json.dumps(one) for one in [*made, {CANARY: CANARY}, {"rows": CANARY}, CANARY, [CANARY]]]
    raw = [CANARY, "{" + CANARY, f'{{"rows": [{{"id": "{CANARY}", "features": {{"CA9": {VALUE}e999}}}}]}}', f"[{VALUE}, NaN]"]
    return [text.encode() for text in texts + raw]


OPTIONS = [
    {"explain": True},
    {"out_of_distribution": "refuse"},
    {"invalid_rows": "report"},
    {"explain": CANARY},
    {"out_of_distribution": CANARY},
    {CANARY: VALUE},
]
INFER = [
    {"id": CANARY, "inputs": [{"name": CANARY, "shape": [1], "datatype": "FP64", "data": [VALUE]}]},
    {
        "id": CANARY,
        "parameters": {CANARY: CANARY},
        "inputs": [{"name": "CA9", "shape": [1], "datatype": CANARY, "data": [CANARY]}],
    },
    {"inputs": [{"name": "rows", "shape": [1, 4], "datatype": "FP64", "data": [VALUE] * 4, "parameters": {"id": CANARY}}]},
]


def send_everywhere(server: Started) -> dict[int, int]:
    """Ask in every way; returns how often each status was answered."""
    statuses: dict[int, int] = {}

    def ask(method: str, path: str, **request: object) -> None:
        status = server.ask(method, path, **request).status_code
        statuses[status] = statuses.get(status, 0) + 1

    json_type = {"content-type": "application/json"}
    for body in bodies():
        for action in ("predict", "explain"):
            ask("POST", f"/v1/models/{NAME}/{action}", content=body, headers=json_type)
        ask("POST", f"/v2/models/{NAME}/infer", content=body, headers=json_type)
    for infer in INFER:
        ask("POST", f"/v2/models/{NAME}/infer", json=infer)
    for path in paths():
        for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", CANARY.upper()):
            ask(method, path, headers=json_type, content=json.dumps({CANARY: VALUE}) if method == "POST" else None)
    good = json.dumps({"rows": [{"features": GOOD}]})
    for headers in headers_of_every_kind():
        ask("POST", f"/v1/models/{NAME}/predict", content=good, headers=json_type | headers)
        ask("GET", "/v1/models", headers=headers)
        ask("GET", "/metrics", headers=headers)
        ask("GET", "/readyz", headers=headers)
    ask("POST", "/v1/admin/reload", params={CANARY: CANARY}, headers={"authorization": f"Bearer {ADMIN}"}, content=b"")
    ask("POST", f"/v1/models/{NAME}/predict", files={CANARY: (CANARY, CANARY * 100_000, CANARY)})
    return statuses


def paths() -> list[str]:
    under = [
        "/",
        "/v1/",
        "/v1/models/",
        f"/v1/models/{NAME}/",
        "/v2/models/",
        f"/v2/models/{NAME}/versions/",
        "/v1/admin/",
        "/page/",
    ]
    found = [f"{start}{CANARY}{end}" for start in under for end in ("", "/predict", "/infer", "?q=1")]
    return [
        *found,
        f"/v1/models?{CANARY}={CANARY}",
        f"/?token={CANARY}",
        f"/livez?{CANARY}",
        f"/metrics?{CANARY}",
        f"/%0a{CANARY}%00",
    ]


def headers_of_every_kind() -> list[dict[str, str]]:
    names = [
        "accept", "accept-encoding", "accept-language", "b3", "content-encoding", "content-type", "cookie", "forwarded", "from",
        "host", "if-none-match", "origin", "proxy-authorization", "range", "referer", "sec-fetch-site", "traceparent",
        "tracestate",
        "user-agent", "via", "x-bentoml-request-id", "x-forwarded-for",
        "x-forwarded-host", "x-request-id", f"x-{CANARY}",
    ]  # fmt: skip
    tokens = [f"Bearer {CANARY}", f"Basic {base64.b64encode(f'{CANARY}:{CANARY}'.encode()).decode()}", CANARY]
    tokens.append(f"Basic {base64.b64encode(f'{CANARY}:{TOKEN}'.encode()).decode()}")
    trace = {"traceparent": f"00-{CANARY.encode().hex():0<32}-{'1' * 16}-01", "baggage": f"patient={CANARY}"}
    return [trace, *({name: CANARY} for name in names), *({"authorization": token} for token in tokens)]


def send_what_is_no_http(server: Started) -> None:
    address = urlsplit(server.url)
    for text in (f"{CANARY}\r\n\r\n", f"GET /{CANARY} HTTP/{CANARY}\r\n\r\n", f"GET / HTTP/1.1\r\n{CANARY}\r\n\r\n",
                 f"GET /{CANARY} HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: {CANARY}\r\n\r\n",
                 f"GET /{CANARY} HTTP/1.1\r\nconnection: upgrade\r\nupgrade: {CANARY}\r\nhost: {CANARY}\r\n\r\n"):  # fmt: skip
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
            connection.sendall(text.encode())
            connection.recv(65_536)


def files_with(folder: Path, words: list[str]) -> list[str]:
    """Files under a folder, of any kind, that hold one of some words (in UTF-8 or UTF-16)."""
    needles = [word.encode(kind) for word in words for kind in ("utf-8", "utf-16-le")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in needles)]


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """A test that finds nothing must be able to find something."""
    for number in range(6):
        (tmp_path / f"{number}").write_bytes(b"\0\1" + WAYS[number % 2].encode() if number < 2 else b"")
    (tmp_path / "6").write_bytes(CANARY.encode("utf-16-le"))
    assert {Path(path).name for path in files_with(tmp_path, WAYS)} == {"0", "1", "6"}


def test_the_canary_is_in_no_log_audit_line_metric_store_or_temporary_file(server: Started) -> None:
    statuses = send_everywhere(server)
    send_what_is_no_http(server)
    assert statuses[200] >= 10
    for refusal in (400, 401, 404, 415, 422):
        assert statuses[refusal] >= 1
    assert 500 not in statuses

    metrics = server.ask("GET", "/metrics").text
    assert "hypoxia_requests_total" in metrics
    assert not [word for word in WAYS if word in metrics]
    assert not [word for word in WAYS if word in server.output()]
    log = server.folder / "requests.jsonl"
    assert Ledger(log).verify() > sum(statuses.values()) / 2
    # The store, the home and the folder for temporary files of the server all lie in this one.
    assert files_with(server.folder, WAYS) == []


def test_nothing_in_the_memory_that_processes_show_to_others(server: Started) -> None:
    """What `ps` shows: no argument of a process holds a token."""
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert TOKEN not in shown
    assert ADMIN not in shown


def test_the_log_of_requests_holds_no_more_than_it_says(server: Started) -> None:
    lines = [json.loads(line) for line in (server.folder / "requests.jsonl").read_text().splitlines()]
    assert {line.get("token") for line in lines} <= {None, "environment", "environment-admin"}
    assert {line.get("model") for line in lines} <= {None, NAME}
    scored = [line for line in lines if line.get("status") == 200 and line["route"].endswith("/predict")]
    assert scored
    assert all(line["model"] == NAME and line["version"] == "1" and line["rows"] >= 1 for line in scored)
