"""The body of a request, read without the liberties that JSON parsers take."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from serving.limits import MOST_BYTES

# Bounds on what a body makes of us, well above what any model here takes: refusing each of a hundred thousand wrong values by
# itself would cost a hundred megabytes.
MOST_KEYS = 20_000
MOST_KEYS_OF_FORM = 64
MOST_TEXTS = 20_000
FEATURES = "features"
COMPONENTS = "components"


class JsonRefusedError(ValueError):
    """A body that some parsers read as JSON and that we do not; the message repeats no value."""


def parse_strictly(body: bytes) -> Any:
    """Parse JSON; refuse NaN, Infinity, numbers that overflow to it, a key that is there twice, and far too much of it all.

    Raises
    ------
    JsonRefusedError

    Examples
    --------
    >>> parse_strictly(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        parsed = _decoder.decode(body.decode("utf-8"))
    except JsonRefusedError:
        raise
    except RecursionError as cause:
        raise JsonRefusedError("The body is nested too deeply.") from cause
    except ValueError as cause:
        raise JsonRefusedError("The body is not JSON in UTF-8.") from cause
    if len(body) > MOST_TEXTS:  # a shorter one cannot hold too much
        _require_bounded(parsed)
    return parsed


def _require_bounded(parsed: Any) -> None:
    """Only the features of a row, or of its components, may have many keys, and only numbers may come in great numbers."""
    others = 0
    pending: list[tuple[Any, str]] = [(parsed, "")]  # with the key under which it stands
    while pending:
        node, under = pending.pop()
        if isinstance(node, dict):
            if len(node) > MOST_KEYS_OF_FORM and under != FEATURES:
                raise JsonRefusedError(
                    "An object in the body has far more keys than it may have; features belong under 'features'."
                )
            # What stands under a component's name is its features.
            pending += [
                (value, FEATURES if under == COMPONENTS else key) for key, value in node.items() if type(value) in _CONTAINERS
            ]
            others += sum(type(value) not in _NUMBERS for value in node.values())
        else:
            items = node if isinstance(node, list) else [node]
            pending += [(item, "") for item in items if type(item) in _CONTAINERS]
            others += sum(type(item) not in _NUMBERS for item in items)
        if others > MOST_TEXTS:
            raise JsonRefusedError(f"The body holds more than {MOST_TEXTS} values that are no numbers.")


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
    if len(pairs) > MOST_KEYS:
        raise JsonRefusedError(f"An object in the body has more than {MOST_KEYS} keys.")
    read = dict(pairs)
    if len(read) != len(pairs):
        raise JsonRefusedError("An object in the body has the same key twice.")
    return read


_CONTAINERS = (dict, list)
_NUMBERS = (float, int, type(None))
# Made once: making one costs as much as reading a row with it.
_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys)
