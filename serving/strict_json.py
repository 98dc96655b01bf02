"""The body of a request, read without the liberties that JSON parsers take."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

MOST_BYTES = 1024 * 1024


class JsonRefusedError(ValueError):
    """A body that some parsers read as JSON and that we do not; the message repeats no value."""


def parse_strictly(body: bytes) -> Any:
    """Parse JSON; refuse NaN, Infinity, numbers that overflow to it, and an object that has a key twice.

    Raises
    ------
    JsonRefusedError

    Examples
    --------
    >>> parse_strictly(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        text = body.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys)
    except JsonRefusedError:
        raise
    except RecursionError as cause:
        raise JsonRefusedError("The body is nested too deeply.") from cause
    except ValueError as cause:
        raise JsonRefusedError("The body is not JSON in UTF-8.") from cause


class StrictRequest(Request):
    """A request whose body is JSON, of bounded size, and is read by `parse_strictly`."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._require_json()
            self._body = await self._read()
        return self._body

    async def json(self) -> Any:
        try:
            return parse_strictly(await self.body())
        except JsonRefusedError as cause:
            raise HTTPException(400, str(cause)) from cause

    def _require_json(self) -> None:
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "Send the body as application/json.")

    async def _read(self) -> bytes:
        """Counted while it arrives, since a declared length may be missing or wrong."""
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"The body is larger than {MOST_BYTES} bytes; send the rows in several requests.")
        if not body:
            raise HTTPException(400, "The body is empty.")
        return bytes(body)


class StrictRoute(APIRoute):
    """A route that hands its endpoint a `StrictRequest` (the pattern of FastAPI's manual for a request class of one's own)."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            response: Response = await handle(StrictRequest(request.scope, request.receive))
            return response

        return handle_strictly


def _refuse_constant(_: str) -> NoReturn:
    raise JsonRefusedError("The body holds NaN or Infinity, which are not JSON; send finite numbers.")


def _finite_float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise JsonRefusedError("The body holds a number that is too large for a double.")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise JsonRefusedError("An object in the body has the same key twice.")
    return read
