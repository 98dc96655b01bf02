"""A load generator that is light enough to share two cores with the server: keep-alive connections, one request each.

Started by ``run.py`` as a process of its own: ``python load.py PORT REQUEST_FILE CONNECTIONS SECONDS``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np
import uvloop


class Connection(asyncio.Protocol):
    """Sends the request, waits for the whole answer, sends it again."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self.request, self.until, self.done = request, until, done
        self.seconds: list[float] = []
        self.failed = 0
        self._buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        if not blank or len(body) < _length(head):
            return
        now = time.perf_counter()
        self.seconds.append(now - self._sent)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        if now >= self.until:
            self.transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self.failed += time.perf_counter() < self.until
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._buffer = b""
        self._sent = time.perf_counter()
        self.transport.write(self.request)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise ValueError("an answer without a length")


async def load(port: int, request: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies in milliseconds of the given number of connections."""
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    opened = []
    for _ in range(connections):
        done = loop.create_future()
        _, connection = await loop.create_connection(
            lambda done=done: Connection(request, start + seconds, done), "127.0.0.1", port
        )
        opened.append(connection)
    await asyncio.gather(*(connection.done for connection in opened))
    latencies = np.concatenate([connection.seconds for connection in opened]) * 1000
    return {
        "rate": len(latencies) / (time.perf_counter() - start),
        "p50": float(np.quantile(latencies, 0.5)),
        "p99": float(np.quantile(latencies, 0.99)),
        "failed": sum(connection.failed for connection in opened),
    }


if __name__ == "__main__":
    number, file, count, duration = sys.argv[1:]
    print(json.dumps(uvloop.run(load(int(number), Path(file).read_bytes(), int(count), float(duration)))))
