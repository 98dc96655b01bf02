"""The page at ``/``: a few files that the endpoint gives as they are, and that a browser needs nothing else for.

The page asks the same routes as any client and keeps nothing. It is written by hand, without a build step, so that what is
reviewed is what runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

FOLDER = "page"
# A browser must not guess, and under "nosniff" runs a script only as what it is said to be.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
# Where each file is found. The page asks for the others relative to itself, and so works behind a proxy's path too.
PATHS = {
    "/": "index.html",
    "/page/page.css": "page.css",
    "/page/page.js": "page.js",
    "/page/table.js": "table.js",
    "/page/ask.js": "ask.js",
    "/page/draw.js": "draw.js",
}
# The edge sends the same; said here too, so that the page is never without it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # A page of yesterday's server must not ask today's.
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page, and what a browser is told that it is."""

    content_type: str
    body: bytes


def page_files() -> dict[str, PageFile]:
    """The files of the page, by the path at which they are served.

    Examples
    --------
    >>> page_files()["/"].body.startswith(b"<!doctype html>")
    True
    """
    folder = files("serving") / FOLDER
    return {path: PageFile(_content_type(name), (folder / name).read_bytes()) for path, name in PATHS.items()}


def page_routes() -> list[Route]:
    """Routes of the page, to be put among an application's own; the files are read once, now."""
    return [Route(path, _answers(file), methods=["GET"], include_in_schema=False) for path, file in page_files().items()]


def _answers(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(file.body, headers=HEADERS, media_type=file.content_type)

    return answer


def _content_type(name: str) -> str:
    return CONTENT_TYPES[name[name.rindex(".") :]]
