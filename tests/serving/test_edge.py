"""What is let through to the application, and what every answer carries."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from features.errors import InputError
from features.ledger import FIRST, Ledger, LedgerError
from serving.edge import Edge, EdgeSettings, route_of
from serving.limits import MOST_BYTES
from serving.request_audit import RequestAudit
from serving.telemetry import Telemetry, note_scored
from serving.tokens import Token, Tokens

CANARY = "canary-7c1f"
PREDICT = "/v1/models/small/predict"
JSON = {"content-type": "application/json"}
CLINIC = "clinic-token-0123456789abcdefghijkl"
OPERATOR = "operator-token-0123456789abcdefghij"
ADMIN_ONLY = "admin-only-token-0123456789abcdefgh"
TOKENS = Tokens(
    (
        Token.of("clinic", ("predict",), CLINIC),
        Token.of("operator", ("predict", "admin"), OPERATOR),
        Token.of("reloader", ("admin",), ADMIN_ONLY),
    )
)
OPEN = ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"]
CLOSED = [
    "/", "/metrics", "/openapi.json", "/healthz", "/schema.json", "/docs.json", "/v1/models", "/v1/models/small",
    PREDICT, "/v1/admin/reload", "/v2", "/v2/models/small/infer", "/v2/health", f"/{CANARY}", "//livez", "/livez/", "/LIVEZ",
    "/v1/%2e%2e/livez", "/livez%2f",
]  # fmt: skip

Work = Callable[[Scope], Awaitable[None]]


class Application:
    """Reads a body and says how long it was; remembers who came through."""

    def __init__(self, work: Work | None = None, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.came: list[str] = []
        self.work, self.headers = work, headers or []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.came.append(scope["path"])
        size, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        if self.work is not None:
            await self.work(scope)
        if scope["method"] == "POST":
            note_scored(scope, model="small", version="3", rows=1, flagged=0, probabilities=[0.5])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), *self.headers]})
        await send({"type": "http.response.body", "body": str(size).encode()})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def edge(app: Any = None, **settings: Any) -> Edge:
    return Edge(app or Application(), EdgeSettings(**settings), Telemetry())


async def ask_now(app: Edge, method: str, path: str, **request: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3000") as client:
        return await client.request(method, path, **request)


def ask(app: Edge, method: str, path: str, **request: Any) -> httpx.Response:
    return asyncio.run(ask_now(app, method, path, **request))


def post(app: Edge, body: Any = b"{}", headers: dict[str, str] | None = None, token: str | None = None) -> httpx.Response:
    return ask(app, "POST", PREDICT, content=body, headers={**JSON, **(bearer(token) if token else {}), **(headers or {})})


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert CANARY not in answer.text
    return problem


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Bearer {CLINIC}x", "Basic Og==", CANARY])
def test_every_route_but_live_and_ready_is_401_without_a_token(method: str, path: str, header: str | None) -> None:
    app = Application()
    answer = ask(edge(app, tokens=TOKENS), method, path, headers={"authorization": header} if header else {}, content=b"{}")
    assert answer.status_code == 401
    assert [one.split()[0] for one in answer.headers.get_list("www-authenticate")] == ["Bearer", "Basic"]
    if method != "HEAD":
        assert_problem(answer, 401)
    assert app.came == []


@pytest.mark.parametrize("path", OPEN)
def test_live_and_ready_need_no_token_and_are_only_read(path: str) -> None:
    app = edge(tokens=TOKENS)
    assert ask(app, "GET", path).status_code == 200
    assert_problem(ask(app, "POST", path), 405)


def test_two_authorization_headers_are_none() -> None:
    headers = [("authorization", f"Bearer {CLINIC}"), ("authorization", "Bearer other")]
    assert_problem(ask(edge(tokens=TOKENS), "GET", "/v1/models", headers=headers), 401)


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (CLINIC, PREDICT, 200),
        (CLINIC, "/v1/admin/reload", 403),
        (CLINIC, "/v1/admin", 403),
        (CLINIC, "/v1/administration", 403),
        (CLINIC, "/metrics", 200),
        (OPERATOR, "/v1/admin/reload", 200),
        (OPERATOR, PREDICT, 200),
        (ADMIN_ONLY, "/v1/admin/reload", 200),
        (ADMIN_ONLY, PREDICT, 403),
        (ADMIN_ONLY, "/v2/models/small/infer", 403),
        (ADMIN_ONLY, "/", 200),
    ],
)
def test_a_token_opens_what_its_scopes_say(token: str, path: str, status: int) -> None:
    assert ask(edge(tokens=TOKENS), "GET", path, headers=bearer(token)).status_code == status


def test_a_browser_may_send_the_token_as_a_password() -> None:
    carried = base64.b64encode(f"me:{CLINIC}".encode()).decode()
    assert ask(edge(tokens=TOKENS), "GET", "/", headers={"authorization": f"Basic {carried}"}).status_code == 200


def test_saturation_is_503_for_who_has_a_token_and_401_for_who_has_none() -> None:
    release: list[asyncio.Event] = []

    async def wait(_: Scope) -> None:
        await release[0].wait()

    async def run() -> list[httpx.Response]:
        release.append(asyncio.Event())
        app = edge(Application(wait), tokens=TOKENS, at_once=2, waiting=1)
        request = {"content": b"{}", "headers": {**JSON, **bearer(CLINIC)}}
        busy = [asyncio.create_task(ask_now(app, "POST", PREDICT, **request)) for _ in range(3)]
        await asyncio.sleep(0.05)
        refused = await ask_now(app, "POST", PREDICT, **request)
        unknown = await ask_now(app, "POST", PREDICT, content=b"{}", headers=JSON)
        alive = await asyncio.gather(*(ask_now(app, "GET", "/metrics", headers=bearer(CLINIC)) for _ in range(2)))
        release[0].set()
        return [refused, unknown, *alive, *await asyncio.gather(*busy)]

    refused, unknown, *others = asyncio.run(run())
    assert_problem(refused, 503)
    assert refused.headers["retry-after"] == "1"
    assert_problem(unknown, 401)
    assert [answer.status_code for answer in others] == [200] * 5


def test_a_rate_is_per_token_and_says_when_to_come_again() -> None:
    app = edge(tokens=TOKENS, rate=2.0)
    statuses = [post(app, token=CLINIC).status_code for _ in range(8)]
    refused = post(app, token=CLINIC)
    assert statuses[:4] == [200] * 4
    assert_problem(refused, 429)
    assert refused.headers["retry-after"] == "1"
    assert post(app, token=OPERATOR).status_code == 200
    assert_problem(post(app), 401)


def test_a_deadline_is_a_504_and_gives_the_turn_back() -> None:
    async def sleep(scope: Scope) -> None:
        if scope["path"].endswith("slow"):
            await asyncio.sleep(5)

    app = edge(Application(sleep), deadline_s=0.05, at_once=1, waiting=0)
    for _ in range(3):
        assert_problem(ask(app, "GET", "/v1/slow"), 504)
    assert ask(app, "GET", "/v1/models").status_code == 200


def test_a_timeout_of_the_application_is_not_taken_for_the_deadline() -> None:
    async def fail(_: Scope) -> None:
        raise TimeoutError(CANARY)

    assert_problem(post(edge(Application(fail))), 500)


def test_a_failure_is_an_opaque_500_and_the_log_says_where_but_not_what(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Scope) -> None:
        raise ValueError(CANARY)

    with caplog.at_level(logging.DEBUG):
        assert_problem(post(edge(Application(fail))), 500)
    assert "ValueError" in caplog.text
    assert "test_edge.py" in caplog.text
    assert CANARY not in caplog.text


async def in_chunks(size: int, chunk: int = 100_000) -> Any:
    for _ in range(size // chunk):
        yield b" " * chunk


@pytest.mark.parametrize("body", [b" " * (MOST_BYTES + 1), b"[" * (2 * MOST_BYTES)])
def test_a_declared_body_of_more_than_a_mebibyte_is_refused_unread(body: bytes) -> None:
    app = Application()
    assert_problem(post(edge(app), body), 413)
    assert app.came == []


def test_an_undeclared_body_is_counted_and_given_up() -> None:
    app = Application()
    assert_problem(post(edge(app), in_chunks(50 * MOST_BYTES)), 413)
    assert app.came == []
    assert post(edge(app), in_chunks(1_000_000)).text == "1000000"


def test_a_mebibyte_is_let_through_whole() -> None:
    assert post(edge(), b"[" + b" " * (MOST_BYTES - 2) + b"]").text == str(MOST_BYTES)


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "0x10", ""])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    app = Application()
    assert ask(edge(app), "POST", PREDICT, headers={**JSON, "content-length": length}).status_code == 413
    assert app.came == []


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", CANARY,
     "application/vnd.bentoml+pickle", "application/octet-stream"],
)  # fmt: skip
def test_only_json_is_taken(kind: str) -> None:
    app = Application()
    assert_problem(post(edge(app), headers={"content-type": kind}), 415)
    assert app.came == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "deflate, gzip", "identity, gzip", CANARY])
def test_nothing_compressed_is_taken(encoding: str) -> None:
    app = Application()
    answer = post(edge(app), gzip.compress(b" " * 100_000_000), headers={"content-encoding": encoding})
    assert_problem(answer, 415)
    assert app.came == []


def test_what_is_deep_or_holds_far_too_much_is_refused_before_it_is_parsed() -> None:
    app = Application()
    assert_problem(post(edge(app), b"[" * 1000 + b"]" * 1000), 400)
    assert_problem(post(edge(app), b"[" * 500_000), 400)
    assert_problem(post(edge(app), b"[" + b"0," * 200_000 + b"0]"), 413)
    assert app.came == []


def test_requests_without_a_body_need_no_content_type() -> None:
    assert ask(edge(), "POST", "/v1/admin/reload").status_code == 200
    assert ask(edge(), "GET", "/v1/models").status_code == 200


def raw_scope(**changes: Any) -> Scope:
    return {
        "type": "http", "method": "POST", "path": PREDICT, "query_string": b"", "server": ("127.0.0.1", 3000),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
        **changes,
    }  # fmt: skip


def run_raw(app: Edge, receive: Receive, scope: Scope | None = None) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope or raw_scope(), receive, send))  # type: ignore[arg-type]
    return sent


def test_a_body_that_does_not_come_is_a_408() -> None:
    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    started = time.perf_counter()
    sent = run_raw(edge(body_within_s=0.05), never)
    assert sent[0]["status"] == 408
    assert time.perf_counter() - started < 5


def test_who_goes_away_is_answered_nothing() -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    app = Application()
    assert run_raw(edge(app), gone) == []
    assert app.came == []


def test_bodies_that_are_held_at_once_are_bounded() -> None:
    async def wait(_: Scope) -> None:
        await asyncio.sleep(0.1)

    async def run() -> list[int]:
        app = edge(Application(wait), most_held=3 * MOST_BYTES)
        body = b" " * MOST_BYTES
        answers = await asyncio.gather(*(ask_now(app, "POST", PREDICT, content=body, headers=JSON) for _ in range(5)))
        again = await ask_now(app, "POST", PREDICT, content=body, headers=JSON)
        return sorted(answer.status_code for answer in [*answers, again])

    assert asyncio.run(run()) == [200] * 4 + [503] * 2


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.5", ""]
)
def test_a_name_that_is_not_this_machines_is_refused_where_no_token_is_asked_for(host: str) -> None:
    assert_problem(ask(edge(), "GET", "/v1/models", headers={"host": host}), 421)
    assert ask(edge(tokens=TOKENS), "GET", "/v1/models", headers={"host": host, **bearer(CLINIC)}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "[::1]", "[::1]:3000"])
def test_this_machines_names_are_answered(host: str) -> None:
    assert ask(edge(), "GET", "/v1/models", headers={"host": host}).status_code == 200


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(("address", "status"), [("172.17.0.2", 403), ("::", 403), ("127.0.0.1", 200), ("::1", 200)])
def test_without_tokens_nothing_is_answered_at_an_address_that_others_reach(address: str, status: int) -> None:
    scope = raw_scope(method="GET", server=(address, 3000), headers=[(b"host", b"localhost")])
    assert run_raw(edge(), no_body, scope)[0]["status"] == status


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3001"},
    ],
)
@pytest.mark.parametrize("tokens", [Tokens(), TOKENS])
def test_pages_of_other_sites_may_not_ask(headers: dict[str, str], tokens: Tokens) -> None:
    assert_problem(post(edge(tokens=tokens), headers=headers, token=CLINIC), 403)


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "http://127.0.0.1:3000"}, {"user-agent": "curl"}],
)
def test_our_own_page_and_programs_may_ask(headers: dict[str, str]) -> None:
    assert post(edge(), headers=headers).status_code == 200


def test_a_link_to_the_page_may_be_followed() -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert ask(edge(), "GET", "/", headers=headers).status_code == 200


def test_behind_a_proxy_the_host_may_be_another_and_the_browser_is_believed() -> None:
    app = edge(behind_proxy=True, tokens=TOKENS)
    assert post(app, headers={"host": "inside:3000", "origin": "https://hypoxia.example"}, token=CLINIC).status_code == 200
    assert post(app, headers={"host": "inside:3000", "sec-fetch-site": "cross-site"}, token=CLINIC).status_code == 403


@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/healthz", "/metrics"])
def test_every_answer_carries_the_headers_that_keep_browsers_from_harm(path: str) -> None:
    app = edge(Application(headers=[(b"server", b"BentoML"), (b"cache-control", b"public"), (b"x-request-id", b"x")]))
    headers = ask(app, "GET", path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert {
        name: headers[name] for name in ("x-content-type-options", "x-frame-options", "referrer-policy", "cache-control")
    } == {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    assert not {"server", "access-control-allow-origin", "strict-transport-security"} & set(headers)
    assert len(headers.get_list("x-request-id")) == 1


def test_encrypted_answers_ask_to_stay_encrypted() -> None:
    assert "max-age" in ask(edge(tls=True), "GET", "/v1/models").headers["strict-transport-security"]


def test_a_request_has_a_number_of_its_own_and_only_a_plain_uuid_is_taken_from_outside() -> None:
    given = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    assert ask(edge(), "GET", "/v1/models", headers={"x-request-id": given}).headers["x-request-id"] == given
    for other in (CANARY, f"{given}-{CANARY}", "1.2.840.113619.2.55.3.604688119", ""):
        number = ask(edge(), "GET", "/v1/models", headers={"x-request-id": other}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f-]{36}", number)


@pytest.mark.parametrize("path", ["/healthz", "/schema.json", "/docs.json"])
def test_bentomls_own_pages_are_not_there(path: str) -> None:
    app = Application()
    assert_problem(ask(edge(app), "GET", path), 404)
    assert app.came == []


def test_metrics_are_ours_and_only_read() -> None:
    app = edge()
    post(app)
    assert 'hypoxia_rows_total{model="small",version="3"} 1.0' in ask(app, "GET", "/metrics").text
    assert_problem(ask(app, "POST", "/metrics"), 405)


def test_a_websocket_is_closed() -> None:
    scope = {"type": "websocket", "path": "/v1/models", "headers": []}
    app = Application()
    assert [message["type"] for message in run_raw(edge(app), no_body, scope)] == ["websocket.close"]
    assert app.came == []


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/v1/models", "/v1/models"),
        (f"/v1/models/{CANARY}", "/v1/models/{name}"),
        (f"/v1/models/{CANARY}/predict", "/v1/models/{name}/predict"),
        (f"/v1/models/{CANARY}/explain", "/v1/models/{name}/explain"),
        (f"/v1/models/small/{CANARY}", "other"),
        (f"/v1/models/small/predict/{CANARY}", "other"),
        (f"/v2/models/{CANARY}/infer", "/v2/models/{name}/infer"),
        (f"/v2/models/{CANARY}/versions/{CANARY}/infer", "/v2/models/{name}/versions/{version}/infer"),
        (f"/v2/models/{CANARY}/versions/{CANARY}", "/v2/models/{name}/versions/{version}"),
        (f"/v2/models/small/versions/1/{CANARY}", "other"),
        (f"/page/{CANARY}", "/page"),
        (f"/{CANARY}", "other"),
        (CANARY, "other"),
        ("", "other"),
        ("/" * 100_000, "other"),
    ],
)
def test_a_route_never_holds_what_the_client_wrote(path: str, route: str) -> None:
    assert route_of(path) == route


# The log of requests.


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_request_but_probes_leaves_one_chained_line_without_a_word_of_the_clients(tmp_path: Path) -> None:
    log = tmp_path / "new" / "requests.jsonl"
    app = edge(tokens=TOKENS, audit_log=log)
    body = json.dumps({"rows": [{"id": CANARY, CANARY: 1}]})
    post(app, body, token=CLINIC, headers={"user-agent": CANARY, "cookie": CANARY, "x-request-id": CANARY})
    ask(app, "GET", f"/v1/models/{CANARY}", params={CANARY: CANARY}, headers=bearer(CLINIC))
    ask(app, "GET", "/v1/models", headers=bearer(CANARY))
    for path in ("/livez", "/readyz"):
        ask(app, "GET", path)
    ask(app, "GET", "/metrics", headers=bearer(CLINIC))
    written = lines(log)
    assert Ledger(log).verify() == 3
    assert CANARY not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert set(written[0]) == {
        "time", "request", "token", "route", "model", "version", "rows", "status", "reason", "ms", "previous",
    }  # fmt: skip
    assert [(line["token"], line["route"], line["model"], line["version"], line["rows"], line["status"], line["reason"])
            for line in written] == [
        ("clinic", "/v1/models/{name}/predict", "small", "3", 1, 200, None),
        ("clinic", "/v1/models/{name}", None, None, 0, 200, None),
        (None, "/v1/models", None, None, 0, 401, "authentication"),
    ]  # fmt: skip


def test_a_changed_line_breaks_the_chain(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    app = edge(audit_log=log)
    for _ in range(5):
        post(app)
    log.write_text(log.read_text().replace('"rows":1', '"rows":2', 1))
    with pytest.raises(LedgerError, match="Line 2"):
        Ledger(log).verify()


def test_half_a_line_of_a_killed_writer_is_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    post(edge(audit_log=log))
    with log.open("a") as file:
        file.write('{"time": "2026-')
    post(edge(audit_log=log))
    assert Ledger(log).verify() == 2


def test_a_log_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    app = edge(audit_log=log)
    post(app)
    log.rename(tmp_path / "old")
    post(app)
    assert (Ledger(log).verify(), Ledger(tmp_path / "old").verify()) == (1, 1)
    assert lines(log)[0]["previous"] == FIRST


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    write = (
        "import sys; from pathlib import Path; from serving.request_audit import *;"
        "log = RequestAudit(Path(sys.argv[1]));"
        "[log.record(RequestFacts(request='r', route='other', status=200)) for _ in range(300)]"
    )
    command = [sys.executable, "-c", write, str(log)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for process in [subprocess.Popen(command, env=environment) for _ in range(3)]:
        assert process.wait(60) == 0
    assert Ledger(log).verify() == 900


def test_who_has_no_token_cannot_fill_the_disk(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    app = edge(tokens=TOKENS, audit_log=log)
    for _ in range(60):
        post(app)
    post(app, token=CLINIC)
    written = lines(log)
    assert len(written) < 40
    assert sum(line.get("left_out", 0) for line in written) + len(written) == 61


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_whoever_has_no_token_is_not_told_that_the_log_is_full() -> None:
    answer = ask(edge(tokens=TOKENS, audit_log=Path("/dev/full")), "GET", "/v1/models")
    assert answer.status_code == 401
    assert "audit" not in answer.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_without_its_log_nothing_is_answered_and_the_server_is_not_ready(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    app = edge(audit_log=Path("/dev/full"))
    for _ in range(3):
        answer = post(app)
        assert_problem(answer, 503)
        assert "audit log" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "10"
    assert ask(app, "GET", "/readyz").status_code == 503
    assert ask(app, "GET", "/livez").status_code == 200
    assert "hypoxia_audit_failures_total 3.0" in ask(app, "GET", "/metrics").text
    assert 'hypoxia_rejections_total{reason="audit"}' in ask(app, "GET", "/metrics").text
    assert "hypoxia_rows_total{" not in ask(app, "GET", "/metrics").text
    assert caplog.text.count("cannot be written") == 1
    app.audit = RequestAudit(tmp_path / "requests.jsonl")  # its operator made room
    assert ask(app, "GET", "/readyz").status_code == 200
    assert post(app).status_code == 200
    assert [line.get("event") for line in lines(tmp_path / "requests.jsonl")] == ["the log is written", None]


# Settings.


def test_settings_come_from_the_environment_and_a_rate_is_shared_by_the_workers() -> None:
    given = {
        "HYPOXIA_TOKEN": CLINIC, "HYPOXIA_TLS": "True", "HYPOXIA_BEHIND_PROXY": "true", "HYPOXIA_AUDIT_LOG": "/var/log/r.jsonl",
        "HYPOXIA_RATE_LIMIT": "100", "HYPOXIA_WORKERS": "4",
    }  # fmt: skip
    settings = EdgeSettings.from_environment(given)
    assert (settings.tls, settings.behind_proxy, settings.rate) == (True, True, 25.0)
    assert settings.audit_log == Path("/var/log/r.jsonl")
    assert [token.name for token in settings.tokens.accepted] == ["environment"]
    assert EdgeSettings.from_environment({"HYPOXIA_AUDIT_LOG": "off"}) == EdgeSettings()
    assert EdgeSettings.from_environment({"HYPOXIA_TOKEN": CLINIC}).rate == 2000


@pytest.mark.parametrize("rate", ["many", "-1", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(InputError, match="no rate"):
        EdgeSettings.from_environment({"HYPOXIA_RATE_LIMIT": rate})
