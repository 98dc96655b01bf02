"""Starts the workers, starts one again that dies, and ends them without losing a request.

BentoML's own supervisor notices a dead worker up to ten seconds late, starts none again inside a container, imports
everything anew for each, and listens on a port through which any user of the machine may have it run commands. This one
imports once and forks, so that a new worker is there in a second, and listens to nothing but signals.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess
    from multiprocessing.synchronize import Event

    import uvicorn

logger = logging.getLogger("serving.supervisor")  # not __name__: run as a program, that is __main__

SHELF = "HYPOXIA_SHELF"
TRACKING_URI = "HYPOXIA_TRACKING_URI"
FOLLOW = "HYPOXIA_FOLLOW"
WORKERS = "HYPOXIA_WORKERS"

BACKLOG = 2048
SO_ATTACH_FILTER = 26  # linux/socket.h; Python's socket module does not name it
# After being told to end, a worker still answers for this long, and tells every client that asks to connect anew.
STILL_ANSWERS_S = 1.0
# What is being answered by then may take as long as a request may take at all.
DRAINED_WITHIN_S = 35.0
LONGEST_PAUSE_S = 30.0
# What every worker needs; together it takes seconds to import, and memory that forked processes share.
PRELOADED = (
    "_bentoml_impl.server.app",
    "bentoml._internal.log",
    "httptools",
    "model_signing.verifying",
    "serving.app",
    "serving.served",
    "serving.service",
    "skops.io",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)


@dataclass
class Place:
    """A process that is to run, and is started again when it ends."""

    name: str
    run: Callable[[Event], None]
    essential: bool = True
    process: ForkProcess | None = None
    ready: Event | None = None
    failures: int = 0
    not_before: float = 0.0


@dataclass
class Supervisor:
    """Keeps a process running in every place until it is told to end.

    Parameters
    ----------
    listener : socket
        What the workers accept connections from.
    """

    listener: socket.socket
    places: list[Place]
    _ending: list[int] = field(default_factory=list)
    _begun: bool = False

    def run(self) -> int:
        """Run until a signal asks to end, or until no worker can be started at all; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        while not self._ending:
            for place in self.places:
                self._keep(place)
            self._begun = self._begun or any(place.essential and place.ready and place.ready.is_set() for place in self.places)
            if not self._begun and any(place.essential and place.failures for place in self.places):
                logger.error("No worker can start; the server ends.")
                self._stop()
                return 1
            wait([place.process.sentinel for place in self.places if place.process], timeout=0.2)
        self._stop()
        return 0

    def _keep(self, place: Place) -> None:
        process = place.process
        if process is not None and not process.is_alive():
            self._bury(place, process)
        if place.process is None and time.monotonic() >= place.not_before and not self._ending:
            self._start(place)

    def _start(self, place: Place) -> None:
        context = multiprocessing.get_context("fork")
        place.ready = context.Event()
        place.process = context.Process(target=_begin, args=(place.run, place.ready), name=place.name)
        place.process.start()

    def _bury(self, place: Place, process: ForkProcess) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        process.join()
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        lived = place.ready is not None and place.ready.is_set()
        place.failures = 0 if lived else place.failures + 1
        place.process, place.ready = None, None
        place.not_before = time.monotonic() + min(LONGEST_PAUSE_S, 2.0**place.failures - 1)
        logger.error("%s ended (exit code %s); it is started again.", place.name, process.exitcode)

    def _end(self, number: int, _: FrameType | None) -> None:
        self._ending.append(number)

    def _stop(self) -> None:
        """No connection more is taken on by the kernel, while those that it has taken on are still accepted by workers."""
        take_on_no_more(self.listener)
        running = [place.process for place in self.places if place.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STILL_ANSWERS_S + DRAINED_WITHIN_S
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self.listener.close()


def _begin(run: Callable[[Event], None], ready: Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    run(ready)


def answer(listener: socket.socket, tls: dict[str, Any], ready: Event) -> None:
    """A worker: serve the application on a socket that the supervisor opened, as BentoML's own worker would."""
    import uvicorn
    from bentoml._internal.context import server_context

    from serving.service import edge_first, service

    log_to_stderr()
    server_context.service_name = server_context.bento_name = service.name
    server_context.bento_version = "not available"
    server_context.service_type = "entry_service"
    config = uvicorn.Config(
        edge_first(),
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(DRAINED_WITHIN_S),
        **tls,
    )
    server(config, ready).run(sockets=[listener])


def server(config: uvicorn.Config, ready: Event) -> uvicorn.Server:
    """A server that goes on answering for a moment after it is told to end, closing each connection with its answer."""
    import uvicorn

    class Draining(uvicorn.Server):
        leave_at: float | None = None

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready.set()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.leave_at = self.leave_at or time.monotonic() + STILL_ANSWERS_S

        async def on_tick(self, counter: int) -> bool:
            ends = await super().on_tick(counter)
            if self.leave_at is None:
                return ends
            close = (b"connection", b"close")
            if close not in self.server_state.default_headers:
                self.server_state.default_headers = [*self.server_state.default_headers, close]
            return ends or time.monotonic() >= self.leave_at

    return Draining(config)


def preload() -> None:
    """Import once, before the first fork, what every worker needs."""
    for module in PRELOADED:
        import_module(module)
    from serving.explainer import load_shap

    load_shap()


def take_on_no_more(listener: socket.socket) -> None:
    """Have the kernel take on no connection more, without losing those that it has taken on.

    Closing a listening socket resets the connections in its queue, and workers close theirs one after the other. On Linux a
    filter that lets nothing in (one instruction: return 0) stops new ones first; elsewhere a queue of no length nearly does.
    """
    if not sys.platform.startswith("linux"):
        listener.listen(0)
        return
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    filters = struct.pack("HP", 1, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


def log_to_stderr() -> None:
    """BentoML's way of logging, in which ours, made before it, are heard too."""
    from bentoml._internal.log import configure_server_logging

    configure_server_logging()  # type: ignore[no-untyped-call]
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("serving", "features")):
            logging.getLogger(name).disabled = False
    logging.getLogger("serving").setLevel(logging.INFO)


def listen(address: str, port: int) -> socket.socket:
    """Open the socket that all workers accept from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=BACKLOG)


def follower(listener: socket.socket, ready: Event) -> None:
    """The process that follows the registry, and accepts nothing."""
    from serving.follower import follow
    from serving.shelf import Shelf

    listener.close()
    log_to_stderr()
    ready.set()
    follow(Shelf(Path(os.environ[SHELF])), os.environ[TRACKING_URI], float(os.environ[FOLLOW]), os.getppid())


@click.command()
@click.option("--host", required=True)
@click.option("--port", required=True, type=int)
@click.option("--ssl-certfile")
@click.option("--ssl-keyfile")
def main(host: str, port: int, ssl_certfile: str | None, ssl_keyfile: str | None) -> None:
    """Started by `hypoxia serve`, which has checked everything and set the environment."""
    from bentoml.serving import ensure_prometheus_dir

    # Before anything imports prometheus_client, which decides at its import whether processes count together.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = ensure_prometheus_dir()
    listener = listen(host, port)
    preload()
    log_to_stderr()
    tls = {"ssl_certfile": ssl_certfile, "ssl_keyfile": ssl_keyfile} if ssl_certfile else {}
    places = [Place(f"Worker {number + 1}", partial(answer, listener, tls)) for number in range(int(os.environ[WORKERS]))]
    if float(os.environ.get(FOLLOW, "0")) > 0:
        places.append(Place("The follower of the registry", partial(follower, listener), essential=False))
    sys.exit(Supervisor(listener, places).run())


if __name__ == "__main__":
    main()
