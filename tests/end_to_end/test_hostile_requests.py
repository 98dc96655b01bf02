"""Requests that mean harm, or are badly wrong, against the real server: refused in a second, and nothing piles up."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from itertools import product
from string import ascii_letters
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.end_to_end.started import ADMIN, TOKEN, Started, started
from tests.serving.registered import NAME, rows_like_training

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
GOOD = rows_like_training(1)[0]
MOST_GROWTH_MB = 50
MOST_SECONDS = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started(tmp_path_factory.mktemp("hostile"), HYPOXIA_RATE_LIMIT="0") as running:
        for _ in range(20):
            assert running.ask("POST", f"/v1/models/{NAME}/predict", json={"rows": [{"features": GOOD}] * 256}).status_code == 200
        yield running


def body(**features: Any) -> bytes:
    return json.dumps({"rows": [{"id": "a", "features": GOOD | features}]}).encode()


def literal(text: str) -> bytes:
    return body(CA9="LITERAL").replace(b'"LITERAL"', text.encode())


def without(name: str) -> bytes:
    return json.dumps({"rows": [{"features": {key: value for key, value in GOOD.items() if key != name}}]}).encode()


def many(value: str, number: int, around: str = '{"rows":[{"features":{%s}}]}') -> bytes:
    """As many different keys as fit into a mebibyte."""
    keys = ("".join(letters) for letters in product(ascii_letters, repeat=4))
    return (around % ",".join(f'"{key}":{value}' for key, _ in zip(keys, range(number), strict=False))).encode()


BODIES = {
    "NaN": literal("NaN"),
    "Infinity": literal("Infinity"),
    "minus Infinity": literal("-Infinity"),
    "NaN as a text": literal('"NaN"'),
    "1e999": literal("1e999"),
    "400 digits": literal("1" * 400),
    "100 000 digits": literal("1" * 100_000),
    "100 000 decimals e": literal("0." + "1" * 100_000 + "e308"),
    "true": literal("true"),
    "a number as a text": literal('"1.5"'),
    "null": literal("null"),
    "a list": literal("[1]"),
    "a key twice": body().replace(b'"CA9"', b'"volume"'),
    "a missing feature": without("CA9"),
    "an extra feature": body(extra=1.0),
    "a renamed feature": body().replace(b'"CA9"', b'"CA-9"'),
    "a feature in capitals": body().replace(b'"volume"', b'"VOLUME"'),
    "no features": b'{"rows":[{"features":{}}]}',
    "no rows": b'{"rows":[]}',
    "257 rows": json.dumps({"rows": [{"features": GOOD}] * 257}).encode(),
    "20 000 rows": json.dumps({"rows": [{"features": {}}] * 20_000}).encode(),
    "nothing": b"",
    "a number": b"1",
    "null alone": b"null",
    "half a body": body()[:-5],
    "two bodies": body() + body(),
    "UTF-16": body().decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + body(),
    "half a surrogate": body(**{"\ud800": 1.0}),
    "a null byte in a key": body(**{"\0": 1.0}),
    "prototype": body(__proto__=1.0),
    "1 000 levels": b"[" * 1000 + b"]" * 1000,
    "a mebibyte of brackets": b"[" * MIB,
    "a mebibyte of braces": b'{"a":' * (MIB // 5),
    "deep features": literal('{"a":' * 15 + "1" + "}" * 15),
    "100 000 features": many("1", 80_000),
    "100 000 wrong features": many('""', 80_000),
    "100 000 nulls": many("null", 70_000),
    "100 000 empty lists": many("[]", 80_000),
    "20 000 wrong features": many('""', 19_990),
    "20 000 unknown features": many("1", 19_990),
    "100 000 keys of a row": many("1", 80_000, '{"rows":[{%s}]}'),
    "19 000 keys of a row": many("1", 19_000, '{"rows":[{%s}]}'),
    "100 000 keys of the body": many("1", 80_000, '{%s,"rows":[]}'),
    "100 000 equal keys": b'{"rows":[{"features":{' + b'"a":1,' * 100_000 + b'"a":1}}]}',
    "300 000 values": b'{"rows":[' + b"0," * 300_000 + b"0]}",
    "100 000 texts as rows": b'{"rows":[' + b'"",' * 100_000 + b'""]}',
    "256 rows of unknown features": json.dumps({"rows": [json.loads(many("1", 300))["rows"][0]] * 256}).encode(),
    "256 rows of wrong features": json.dumps({"rows": [json.loads(many("true", 200))["rows"][0]] * 256}).encode(),
    "a long key": body(**{"k" * 900_000: 1.0}),
    "a long id": json.dumps({"rows": [{"id": "i" * 900_000, "features": GOOD}]}).encode(),
    "a mebibyte and one": body().ljust(MIB + 1),
    "two mebibytes": body().ljust(2 * MIB),
    "ten mebibytes of numbers": b'{"rows":[' + b"0," * (5 * MIB) + b"0]}",
}

KINDS: dict[str, tuple[bytes, dict[str, str]]] = {
    "text": (body(), {"content-type": "text/plain"}),
    "no type": (body(), {"content-type": ""}),
    "a form": (b"rows=1", {"content-type": "application/x-www-form-urlencoded"}),
    "multipart": (b"--x\r\n\r\n" + body() + b"\r\n--x--", {"content-type": "multipart/form-data; boundary=x"}),
    "a pickle": (b"\x80\x04N.", {"content-type": "application/vnd.bentoml+pickle"}),
    "a gzip bomb": (gzip.compress(b" " * 200_000_000), JSON | {"content-encoding": "gzip"}),
    "a gzip bomb that says nothing": (gzip.compress(b" " * 200_000_000), JSON),
    "brotli": (body(), JSON | {"content-encoding": "br"}),
}


def refused(server: Started, content: Any, headers: dict[str, str]) -> httpx.Response:
    answer = server.ask("POST", f"/v1/models/{NAME}/predict", content=content, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    assert len(answer.content) < 200_000
    return answer


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_refused_within_a_second_and_leaves_no_memory_behind(server: Started, name: str) -> None:
    before = server.memory_mb()
    seconds = []
    for _ in range(3):
        started_at = time.perf_counter()
        refused(server, BODIES[name], JSON)
        seconds.append(time.perf_counter() - started_at)
    # The quickest of three: a machine that is busy with other tests says nothing about the server.
    assert min(seconds) < MOST_SECONDS
    assert server.memory_mb() - before < MOST_GROWTH_MB


@pytest.mark.parametrize("name", KINDS)
def test_a_body_of_another_kind_is_refused_unread(server: Started, name: str) -> None:
    before = server.memory_mb()
    started_at = time.perf_counter()
    refused(server, *KINDS[name])
    assert time.perf_counter() - started_at < 3 * MOST_SECONDS  # made once, on a machine that may be busy
    assert server.memory_mb() - before < MOST_GROWTH_MB


@pytest.mark.parametrize(("chunks", "status"), [(5, 422), (40, 413), (400, 413)])
def test_a_body_in_chunks_is_read_and_counted(server: Started, chunks: int, status: int) -> None:
    def chunked() -> Iterator[bytes]:
        yield b'{"rows":[],"padding":"'
        for _ in range(chunks):
            yield b"x" * 65_536
        yield b'"}'

    assert refused(server, chunked(), JSON).status_code == status


def test_good_rows_are_still_scored_as_before(server: Started) -> None:
    """After all of the above, in the order of this file."""
    rows = rows_like_training(8)
    answer = server.ask("POST", f"/v1/models/{NAME}/predict", json={"rows": [{"features": row} for row in rows]})
    served = [row["probability"] for row in answer.json()["predictions"]]
    assert served == pytest.approx(server.registered.probabilities(rows), abs=1e-9)


def test_memory_has_not_grown_over_all_of_it(server: Started) -> None:
    before = server.memory_mb()
    for name in list(BODIES) * 2:
        server.ask("POST", f"/v1/models/{NAME}/predict", content=BODIES[name], headers=JSON)
    assert server.memory_mb() - before < MOST_GROWTH_MB


def connect(server: Started) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


def received(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_headers_that_never_end_cost_a_connection_for_a_few_seconds(server: Started) -> None:
    started_at = time.perf_counter()
    with connect(server) as slow, connect(server) as silent:
        slow.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ")
        assert received(slow) == b""
        assert received(silent) == b""
    assert time.perf_counter() - started_at < 20


def test_headers_without_end_are_cut_off(server: Started) -> None:
    with connect(server) as connection, pytest.raises((ConnectionError, BrokenPipeError)):
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        for number in range(10_000):
            connection.sendall(b"x-%d: %s\r\n" % (number, b"y" * 1000))


def test_a_body_that_comes_too_slowly_is_a_408(server: Started) -> None:
    with connect(server) as connection:
        head = f"POST /v1/models/{NAME}/predict HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"\0" * 100,
    ],
)
def test_what_is_no_http_is_refused(server: Started, request_line: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(request_line)
        assert connection.recv(65_536).split(b" ")[1:2] in ([b"400"], [b"401"])


def test_a_websocket_is_refused(server: Started) -> None:
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "x" * 22 + "==",
    }
    # A connection of its own: it is closed after the refusal, and another request might already be on its way in it.
    assert httpx.get(f"{server.url}/v1/models", headers=server.headers | upgrade, timeout=30).status_code == 403


CLOSED = [
    "/", "/metrics", "/openapi.json", "/healthz", "/schema.json", "/docs.json", "/v1/models", f"/v1/models/{NAME}",
    f"/v1/models/{NAME}/predict", f"/v1/models/{NAME}/schema", f"/v1/models/{NAME}/card", "/v1/admin/reload",
    f"/v2/models/{NAME}/infer", "/v2", "/nowhere", "/static_content/index.css", "/assets/x", "/docs", "/score",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_every_route_but_live_and_ready_is_401_without_a_token(server: Started, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        answer = server.client.request(method, server.url + path, content=b"{}" if method == "POST" else None)
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert "server" not in answer.headers
    for path_open in ("/livez", "/readyz"):
        assert server.client.get(server.url + path_open).status_code == 200


def test_only_an_administrator_reloads(server: Started) -> None:
    assert server.ask("POST", "/v1/admin/reload").status_code == 403
    assert server.ask("POST", "/v1/admin/reload", headers={"authorization": f"Bearer {ADMIN}"}).status_code == 200


def test_nothing_of_all_this_left_a_traceback(server: Started) -> None:
    assert "Traceback" not in server.output()
    assert server.process.poll() is None
