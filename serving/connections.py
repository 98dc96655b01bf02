"""Connections that send their headers slowly, without end, or in great numbers: closed below the level of requests.

uvicorn waits for a request's headers for ever and takes any amount of them; it has no setting for either. It takes its
protocol from one place, and BentoML leaves that choice alone.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import uvicorn.protocols.http.auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_WITHIN_S = 10.0
MOST_HEADER_BYTES = 64 * 1024
MOST_CONNECTIONS = 2000


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's protocol, with limits on how long and how large a request's headers are, and on how many clients there are."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._guard: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
        else:
            self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._guard is None:
            return
        self._header_bytes += len(data)
        if self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._stop_waiting()
        self._header_bytes = 0
        self._guard = self.loop.call_later(HEADERS_WITHIN_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def most_connections() -> int:
    """How many clients may be connected to one worker; half of the files that it may open leaves room for its own."""
    return min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def guard_connections() -> None:
    """Have uvicorn use `GuardedHttp` in this process, before it is started."""
    uvicorn.protocols.http.auto.AutoHTTPProtocol = GuardedHttp
