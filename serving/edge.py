"""The outermost layer of the endpoint: nothing reaches a model, a parser or a log before it was let through here.

In this order: a request's own number, who asks, from which site, what is sent and how much of it, how often, how many at a time,
until when. Whoever has no token learns nothing but that, however busy the server is. What is answered is first written to the
audit log: no answer leaves without its line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from features.errors import InputError
from serving.limits import MOST_BYTES, Admission, SaturatedError, TokenBucket, too_deep
from serving.request_audit import RequestAudit
from serving.safety import AUDIT_LOG, BEHIND_PROXY, NO_AUDIT, RATE_LIMIT, TLS
from serving.telemetry import CONTENT_TYPE, FACTS, Reason, RequestFacts, Telemetry, shared_telemetry
from serving.tokens import Scope as TokenScope
from serving.tokens import Token, Tokens, tokens_from_environment

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WORKERS = "HYPOXIA_WORKERS"

# Requests a second of one token, if nothing else is said; whoever is on this machine and needs no token has no limit.
USUAL_RATE = 2000.0
MOST_VALUES = 150_000
MOST_DRAINED = 64 * MOST_BYTES
DRAIN_S = 2.0

OPEN = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
READY = frozenset({"/readyz", "/v2/health/ready"})
# What BentoML would answer by itself: the same as /livez, and descriptions that are not ours.
NOT_OURS = frozenset({"/healthz", "/schema.json", "/docs.json"})
_FIXED = OPEN | {"/", "/metrics", "/openapi.json", "/v1/models", "/v1/admin/reload", "/v2"}
_ACTIONS = {
    "v1": frozenset({"schema", "card", "predict", "explain"}),
    "v2": frozenset({"ready", "infer"}),
}
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_THIS_MACHINE = frozenset({b"localhost", b"127.0.0.1", b"[::1]", b"::1"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")
_CHALLENGES = (
    (b"www-authenticate", b'Bearer realm="hypoxia"'),
    (b"www-authenticate", b'Basic realm="hypoxia", charset="UTF-8"'),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EdgeSettings:
    """What the edge asks for and allows.

    Attributes
    ----------
    tokens : Tokens
        Who may ask; none: everyone, which only suits a loopback address.
    audit_log : Path or None
        File of the log of requests; None for no log.
    rate : float
        Requests a second of one token (in this process); 0 for no limit.
    at_once, waiting : int
        Requests that are worked on, and that wait for it.
    deadline_s, body_within_s : float
        Time for an answer, and for a body to arrive.
    """

    tokens: Tokens = field(default_factory=Tokens)
    audit_log: Path | None = None
    behind_proxy: bool = False
    tls: bool = False
    rate: float = 0.0
    at_once: int = 64
    waiting: int = 256
    deadline_s: float = 30.0
    body_within_s: float = 10.0
    most_held: int = 64 * MOST_BYTES

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> EdgeSettings:
        """Settings that ``hypoxia serve`` put into the environment; a rate is shared out among the workers.

        Raises
        ------
        InputError
            A token is no secret, its file cannot be read, or the rate is no number.
        """
        given = os.environ if environment is None else environment
        tokens = tokens_from_environment(given)
        log = given.get(AUDIT_LOG, "")
        return cls(
            tokens=tokens,
            audit_log=Path(log) if log and log != NO_AUDIT else None,
            behind_proxy=_is_true(given.get(BEHIND_PROXY, "")),
            tls=_is_true(given.get(TLS, "")),
            rate=_rate(given.get(RATE_LIMIT), USUAL_RATE if tokens else 0.0) / int(given.get(WORKERS, "1")),
        )


class RefusedError(Exception):
    """A request that is not let through: what is answered, without a word of the client's."""

    def __init__(self, status: int, reason: Reason, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.headers = status, reason, detail, tuple(headers)


class DisconnectedError(Exception):
    """The client went away before its request was whole."""


class Edge:
    """ASGI layer around the whole endpoint.

    Parameters
    ----------
    app : ASGI application
    settings : EdgeSettings, optional
        Default: those of the environment.
    telemetry : Telemetry, optional
        Where requests are counted; what ``/metrics`` shows. Default: that of the process.
    inner : ASGI application, optional
        Where requests go that were let through; default: `app`, which then answers health checks only.

    Notes
    -----
    The application finds a `serving.telemetry.RequestFacts` in the request's scope and adds to it with `note_scored` and
    `note_refused`.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: EdgeSettings | None = None,
        telemetry: Telemetry | None = None,
        inner: ASGIApp | None = None,
    ) -> None:
        self.app, self.inner = app, inner or app
        self.settings = settings = settings or EdgeSettings.from_environment()
        self.telemetry = telemetry or shared_telemetry()
        self.audit = RequestAudit(settings.audit_log) if settings.audit_log else None
        self.audit_fails = False
        self.headers = (*_HEADERS, _TLS_ONLY) if settings.tls else _HEADERS
        self._rates: dict[str | None, TokenBucket] = {}
        self._admission = Admission(settings.at_once, settings.waiting)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._answer_other(scope, receive, send)
            return
        if FACTS in scope:  # another edge let it through
            await self.app(scope, receive, send)
            return
        asked = _Asked(scope)
        facts = RequestFacts(request=asked.own_number(), route=route_of(scope["path"]))
        scope[FACTS] = facts
        answer = _Answer(self, facts, send)
        try:
            await self._let_through(asked, receive, answer)
        except RefusedError as refused:
            await answer.refuse(refused, asked, receive)
        except DisconnectedError:
            facts.status, facts.reason = 499, "slow"
        except Exception as error:  # noqa: BLE001 - the edge: uncaught, the server would log the text
            await self._answer_failure(error, answer, asked, receive)
        finally:
            if facts.status:
                self.telemetry.count(facts)

    async def _let_through(self, asked: _Asked, receive: Receive, answer: _Answer) -> None:
        path, scope = asked.path, asked.scope
        if path in OPEN:
            asked.require_method("GET", "HEAD")
            self._require_ready(path)
            await self.app(scope, receive, answer)
            return
        token = self._authenticated(asked)
        answer.facts.token = token.name if token else None
        self._require_own_site(asked)
        if token is not None:
            _require_scope(token, path)
        if path in NOT_OURS:
            raise RefusedError(404, "not_found", "There is nothing here.")
        asked.require_readable()
        self._take_from_rate(token)
        if path == "/metrics":
            await self._answer_metrics(asked, answer)
        else:
            await self._pass_on(asked, receive, answer)

    async def _pass_on(self, asked: _Asked, receive: Receive, answer: _Answer) -> None:
        reserved = asked.most_to_come()
        if self._held + reserved > self.settings.most_held:
            raise _saturated()
        self._held += reserved
        try:
            receive = await self._bounded_body(asked, receive) if reserved else receive
            await self._in_turn(asked.scope, receive, answer)
        finally:
            self._held -= reserved

    async def _bounded_body(self, asked: _Asked, receive: Receive) -> Receive:
        """Read the whole body; give it on as if it just arrived."""
        try:
            async with asyncio.timeout(self.settings.body_within_s):
                body = await _read(receive)
        except TimeoutError as cause:
            detail = f"The body did not arrive within {self.settings.body_within_s:g} s."
            raise RefusedError(408, "slow", detail) from cause
        asked.is_read = True
        if too_deep(body):
            raise RefusedError(400, "nesting", "The body is nested too deeply, or is not closed.")
        if body.count(b",") > MOST_VALUES:
            raise RefusedError(
                413, "too_many_values", f"The body holds more than {MOST_VALUES} values; send fewer rows at a time."
            )
        return _again(body, receive)

    async def _in_turn(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        timeout = asyncio.timeout(self.settings.deadline_s)
        try:
            async with timeout:
                await self._admission.enter()
                try:
                    await self.inner(scope, receive, answer)
                finally:
                    self._admission.leave()
        except SaturatedError as cause:
            raise _saturated() from cause
        except TimeoutError as cause:
            if not timeout.expired():
                raise
            detail = f"There was no answer within {self.settings.deadline_s:g} s; send fewer rows at a time, or try later."
            raise RefusedError(504, "deadline", detail) from cause

    def _require_ready(self, path: str) -> None:
        """Whoever asks whether we are ready has a log that fails tried once more: no other request comes to mend it."""
        if path not in READY or not self.audit_fails or self.audit is None:
            return
        try:
            self.audit.check()
            self.audit_fails = False
        except OSError as cause:
            raise _no_audit() from cause

    def _authenticated(self, asked: _Asked) -> Token | None:
        tokens = self.settings.tokens
        if not tokens:
            return None
        token = tokens.owner(asked.only(b"authorization"))
        if token is None:
            detail = "Send a token of this server: as `Authorization: Bearer TOKEN`, or as the password of Basic."
            raise RefusedError(401, "authentication", detail, _CHALLENGES)
        return token

    def _require_own_site(self, asked: _Asked) -> None:
        """A page of another site must not ask with a browser's rights to this machine, whatever name it gave our address."""
        if not self.settings.tokens and not asked.is_at_own_address():
            raise RefusedError(
                403, "host", "Without tokens this server answers only on this machine; give it some (HYPOXIA_TOKEN)."
            )
        if not self.settings.tokens and not self.settings.behind_proxy and not asked.is_for(_THIS_MACHINE):
            raise RefusedError(421, "host", "This server answers only to localhost and 127.0.0.1; ask it by that name.")
        if asked.is_from_another_site(trust_host=not self.settings.behind_proxy):
            raise RefusedError(403, "cross_site", "Pages of other sites may not ask this server.")

    def _take_from_rate(self, token: Token | None) -> None:
        name = token.name if token else None
        bucket = self._rates.get(name)
        if bucket is None:
            bucket = self._rates[name] = TokenBucket(self.settings.rate, burst=2 * self.settings.rate)
        if not bucket.take():
            wait = str(max(1, math.ceil(bucket.wait_s))).encode()
            raise RefusedError(
                429, "rate", f"More than {self.settings.rate:g} requests a second of this token.", [(b"retry-after", wait)]
            )

    async def _answer_metrics(self, asked: _Asked, answer: _Answer) -> None:
        asked.require_method("GET", "HEAD")
        text = await asyncio.to_thread(self.telemetry.render)
        await answer.whole(200, CONTENT_TYPE.encode(), text, is_head=asked.scope["method"] == "HEAD")

    async def _answer_failure(self, error: Exception, answer: _Answer, asked: _Asked, receive: Receive) -> None:
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s in request %s, raised at:\n%s", type(error).__name__, answer.facts.request, where)
        await answer.refuse(RefusedError(500, "failure", "The server failed; its log says where."), asked, receive)

    async def _answer_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        self.telemetry.count(RequestFacts(request="", route="other", status=403, reason="websocket"))
        await send({"type": "websocket.close", "code": 1008, "reason": ""})

    def record(self, facts: RequestFacts) -> bool:
        """Write a request's line; whether it could be."""
        if self.audit is None or facts.route in OPEN or facts.route == "/metrics":
            return True
        try:
            self.audit.record(facts)
        except OSError as error:
            if not self.audit_fails:
                logger.error("The audit log cannot be written (errno %s): requests are refused until it can.", error.errno)
            self.audit_fails = True
            self.telemetry.count_audit_failure()
            return False
        self.audit_fails = False
        return True


class _Answer:
    """Sends an answer with our headers on it, once its line is in the log; without one, sends a refusal in its place."""

    __slots__ = ("_edge", "_is_replaced", "_send", "_started", "facts")

    def __init__(self, edge: Edge, facts: RequestFacts, send: Send) -> None:
        self._edge, self.facts, self._send = edge, facts, send
        self._started = self._is_replaced = False

    async def __call__(self, message: Message) -> None:
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            self.facts.status = message["status"]
            if not self._edge.record(self.facts):
                self._is_replaced = True
                await self._send_problem(_no_audit())
                return
            message = {**message, "headers": self._with_ours(message.get("headers", ()))}
            self._started = True
        await self._send(message)

    async def whole(self, status: int, kind: bytes, body: bytes, *, is_head: bool = False) -> None:
        """Send a whole answer of our own."""
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": b"" if is_head else body})

    async def refuse(self, refused: RefusedError, asked: _Asked, receive: Receive) -> None:
        """Send a refusal, unless an answer has begun."""
        if self._started or self._is_replaced:
            return
        self.facts.status, self.facts.reason = refused.status, refused.reason
        # Who has no token learns nothing but that, not even that the log is full; such lines may be left out anyway.
        if not self._edge.record(self.facts) and refused.reason not in {"audit", "authentication"}:
            refused = _no_audit()
        self._is_replaced = True
        lingers = asked.is_endless() and not asked.is_read
        await self._send_problem(refused, more=lingers, is_head=asked.scope["method"] == "HEAD")
        if lingers:
            # The client still sends: closing at once would take the answer from it before it was read.
            await _drain(receive)
            await self._send({"type": "http.response.body", "body": b""})

    async def _send_problem(self, refused: RefusedError, *, more: bool = False, is_head: bool = False) -> None:
        self.facts.status, self.facts.reason = refused.status, refused.reason
        body = problem_body(refused.status, refused.detail)
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()), *refused.headers]
        if more:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": refused.status, "headers": self._with_ours(headers)})
        await self._send({"type": "http.response.body", "body": b"" if is_head else body, "more_body": more})

    def _with_ours(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        ours = self._edge.headers
        names = _OUR_NAMES
        kept = [(name, value) for name, value in headers if name not in names]
        return [*kept, *ours, (b"x-request-id", self.facts.request.encode())]


_OUR_NAMES = frozenset({*(name for name, _ in _HEADERS), _TLS_ONLY[0], b"server", b"x-request-id"})


class _Asked:
    """The headers of a request, as far as they decide anything."""

    __slots__ = ("headers", "is_read", "length", "path", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope, self.path = scope, scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.is_read = False
        self.length = self._declared_length()

    def only(self, name: bytes) -> bytes | None:
        """A header's value; None if it is not there or there twice, since two readers could each believe another."""
        found = None
        for key, value in self.headers:
            if key == name:
                if found is not None:
                    return None
                found = value
        return found

    def own_number(self) -> str:
        """A number for this request: a proxy's, if it is a plain UUID (anything else could be an identifier), else a new one."""
        given = self.only(b"x-request-id")
        return given.decode() if given and _UUID.fullmatch(given) else str(uuid4())

    def most_to_come(self) -> int:
        """Upper limit of the body's bytes."""
        return MOST_BYTES if self.length is None else self.length

    def is_endless(self) -> bool:
        """Whether more may come than we would ever read."""
        return self.length is None or self.length > MOST_BYTES

    def require_readable(self) -> None:
        """Raise RefusedError if the body is too large, compressed, or not said to be JSON."""
        if self.length == 0:
            return
        if self.length is not None and self.length > MOST_BYTES:
            raise _too_large()
        for name, value in self.headers:
            # What is compressed may be a thousand times as large when it is not.
            if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
                raise RefusedError(
                    415, "media_type", "Send the body as it is, not compressed.", [(b"accept-encoding", b"identity")]
                )
        if (self.only(b"content-type") or b"").partition(b";")[0].strip().lower() != b"application/json":
            raise RefusedError(415, "media_type", "Send the body as application/json.")

    def require_method(self, *allowed: str) -> None:
        """Raise RefusedError for another method."""
        if self.scope["method"] not in allowed:
            shown = ", ".join(allowed)
            raise RefusedError(405, "method", f"Only {shown} is answered here.", [(b"allow", shown.encode())])

    def is_for(self, hosts: frozenset[bytes]) -> bool:
        """Whether the request names one of these hosts, or none."""
        named = [value.strip().lower() for name, value in self.headers if name == b"host"]
        return all(value in hosts or value.rpartition(b":")[0] in hosts for value in named)

    def is_at_own_address(self) -> bool:
        """Whether the request came in at an address that only this machine can reach."""
        server = self.scope.get("server")
        return server is None or _is_loopback(server[0])

    def is_from_another_site(self, *, trust_host: bool) -> bool:
        """Whether a browser sends this for a page that is not ours; following a link to us is no such thing."""
        site = self.only(b"sec-fetch-site")
        if site is not None:
            follows = self.only(b"sec-fetch-mode") == b"navigate" and self.scope["method"] == "GET"
            return site not in {b"same-origin", b"none"} and not follows
        origin = self.only(b"origin")
        return origin is not None and trust_host and origin.partition(b"://")[2] != self.only(b"host")

    def _declared_length(self) -> int | None:
        """0 if there is no body, None if its length is not known."""
        length = 0
        for name, value in self.headers:
            if name == b"transfer-encoding":
                return None
            if name == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 19 else 2 * MOST_BYTES
        return length


def route_of(path: str) -> str:
    """Route that a path belongs to, with the model's name left out; "other" for what is no route of ours.

    Examples
    --------
    >>> route_of("/v1/models/song2020/predict")
    '/v1/models/{name}/predict'
    >>> route_of("/v1/patients/7")
    'other'
    """
    if path in _FIXED:
        return path
    if path.startswith("/page/"):
        return "/page"
    parts = path.split("/", 7)
    if len(parts) < 4 or parts[1] not in _ACTIONS or parts[2] != "models":
        return "other"
    base, rest = f"/{parts[1]}/models/{{name}}", parts[4:]
    if parts[1] == "v2" and rest[:1] == ["versions"]:
        base, rest = f"{base}/versions/{{version}}", rest[2:]
    if not rest:
        return base
    return f"{base}/{rest[0]}" if len(rest) == 1 and rest[0] in _ACTIONS[parts[1]] else "other"


@lru_cache(maxsize=64)
def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # the name of a test's client: no socket has one
        return True


def problem_body(status: int, detail: str) -> bytes:
    """A problem (RFC 9457) as JSON."""
    return json.dumps({"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}).encode()


def _require_scope(token: Token, path: str) -> None:
    needed: TokenScope | None = (
        "admin" if path.startswith("/v1/admin") else "predict" if path.startswith(("/v1", "/v2")) else None
    )
    if needed is not None and needed not in token.scopes:
        raise RefusedError(403, "scope", f"This token may not do that; it needs the scope {needed}.")


async def _read(receive: Receive) -> bytes:
    """Body of a request, counted while it arrives, since a declared length may be missing or wrong."""
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > MOST_BYTES:
            raise _too_large()
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        if size > MOST_BYTES:
            raise _too_large()
        message = await _next(receive)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if size > MOST_BYTES:
        raise _too_large()
    return b"".join(parts)


async def _next(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _drain(receive: Receive) -> None:
    """Take what a client still sends, for a while and up to a size."""
    drained = 0
    with suppress(TimeoutError, DisconnectedError):
        async with asyncio.timeout(DRAIN_S):
            while drained < MOST_DRAINED:
                message = await _next(receive)
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _too_large() -> RefusedError:
    return RefusedError(413, "too_large", f"The body is larger than {MOST_BYTES} bytes; send the rows in several requests.")


def _saturated() -> RefusedError:
    return RefusedError(503, "saturated", "The server is working on as much as it can; try again.", [(b"retry-after", b"1")])


def _no_audit() -> RefusedError:
    detail = "The server cannot write its audit log, and answers nothing without it; its operator must make room."
    return RefusedError(503, "audit", detail, [(b"retry-after", b"10")])


def _is_true(text: str) -> bool:
    return text.strip().lower() in {"1", "true", "yes", "on"}


def _rate(text: str | None, usual: float) -> float:
    if not text:
        return usual
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise InputError(f"{text!r} ({RATE_LIMIT}) is no rate; give requests a second, 0 for no limit.")
    return rate
