"""How much one client, and all of them together, may ask for at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

MOST_BYTES = 1024 * 1024
DEEPEST = 16
# Below this number of brackets nothing is deep, and the body need not be looked at.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class TokenBucket:
    """So many a second on average, and so many at once.

    Parameters
    ----------
    rate : float
        Per second; 0 for no limit.
    burst : float
        How many may come at once after a while of silence.

    Examples
    --------
    >>> seconds = iter([0.0, 0.0, 0.0, 0.0, 1.0])
    >>> bucket = TokenBucket(rate=1.0, burst=2.0, clock=lambda: next(seconds))
    >>> [bucket.take() for _ in range(4)]
    [True, True, False, True]
    """

    __slots__ = ("_at", "_clock", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = monotonic) -> None:
        self.rate, self.burst = rate, max(burst, 1.0)
        self._clock = clock
        self._left, self._at = self.burst, clock()

    def take(self) -> bool:
        """Whether one more may come now."""
        if self.rate <= 0:
            return True
        now = self._clock()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @property
    def wait_s(self) -> float:
        """Time until the next may come."""
        return max(0.0, (1 - self._left) / self.rate) if self.rate > 0 else 0.0


class SaturatedError(Exception):
    """As many requests are worked on and wait as may."""


class Admission:
    """At most so many requests at a time, and so many waiting for their turn.

    Parameters
    ----------
    at_once, waiting : int
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._most_waiting = waiting
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and give it back.

        Raises
        ------
        SaturatedError
            Too many wait already.
        """
        await self.enter()
        try:
            yield
        finally:
            self.leave()

    async def enter(self) -> None:
        """Wait for a turn; `leave` gives it back."""
        if not self._turns.locked():
            await self._turns.acquire()
            return
        if self.waiting >= self._most_waiting:
            raise SaturatedError
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Give a turn back."""
        self._turns.release()


def too_deep(body: bytes) -> bool:
    """Whether JSON is nested deeper than `DEEPEST` (to twice that), without parsing it.

    Examples
    --------
    >>> too_deep(b'{"rows": [{"features": {"a": 1.0}}]}')
    False
    >>> too_deep(b"[" * 40 + b"]" * 40)
    True
    >>> too_deep(b'["' + b"[" * 40 + b'"]')
    False
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    brackets = _TEXT.sub(b"", body).translate(None, _ALL_BUT_BRACKETS)
    for _ in range(DEEPEST):
        # Each turn takes the innermost level away, or two where lists and objects alternate.
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return True
