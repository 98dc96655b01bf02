"""Rates, turns and depth."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.limits import DEEPEST, MOST_BYTES, Admission, SaturatedError, TokenBucket, too_deep


def bucket_at(rate: float, burst: float) -> tuple[TokenBucket, list[float]]:
    now = [0.0]
    return TokenBucket(rate, burst, clock=lambda: now[0]), now


def test_a_rate_holds_on_average_and_allows_a_burst() -> None:
    bucket, now = bucket_at(rate=10, burst=20)
    taken = 0
    for step in range(1000):
        now[0] = step * 0.01
        taken += sum(bucket.take() for _ in range(5))
    assert 20 + 99 <= taken <= 20 + 100


def test_who_is_refused_is_told_when_to_come_again() -> None:
    bucket, now = bucket_at(rate=0.5, burst=1)
    assert bucket.take()
    assert not bucket.take()
    now[0] += bucket.wait_s
    assert bucket.wait_s == pytest.approx(2.0)
    assert bucket.take()


def test_no_rate_is_no_limit() -> None:
    bucket, _ = bucket_at(rate=0, burst=0)
    assert all(bucket.take() for _ in range(1000))
    assert bucket.wait_s == 0


def test_no_more_work_at_once_than_may_and_no_more_wait_than_may() -> None:
    async def run() -> tuple[int, int, int]:
        admission, release = Admission(at_once=3, waiting=2), asyncio.Event()
        at_once = most = refused = answered = 0

        async def work() -> None:
            nonlocal at_once, most, refused, answered
            try:
                await admission.enter()
            except SaturatedError:
                refused += 1
                return
            at_once += 1
            most = max(most, at_once)
            await release.wait()
            at_once -= 1
            answered += 1
            admission.leave()

        tasks = [asyncio.create_task(work()) for _ in range(9)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
        await asyncio.gather(*(asyncio.create_task(work()) for _ in range(3)))  # all turns were given back
        return most, refused, answered

    assert asyncio.run(run()) == (3, 4, 8)


def test_who_gives_up_waiting_takes_no_turn_with_them() -> None:
    async def run() -> int:
        admission = Admission(at_once=1, waiting=1)
        await admission.enter()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await admission.enter()
        admission.leave()
        async with asyncio.timeout(1):
            await admission.enter()
        return admission.waiting

    assert asyncio.run(run()) == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text('[]{}"\\a', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\a', max_size=4), inner, max_size=4),
    max_leaves=40,
)


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(json_values)
def test_no_json_of_modest_depth_is_refused_whatever_its_texts_hold(value: object) -> None:
    body = json.dumps(value, indent=2).encode()
    assert depth(value) > DEEPEST or not too_deep(body)


@pytest.mark.parametrize("level", ["[", '{"a":', '[{"a":'])
def test_json_is_refused_from_twice_the_depth_on(level: str) -> None:
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[level]
    assert too_deep((level * (2 * DEEPEST + 1) + "1" + closing * (2 * DEEPEST + 1)).encode())
    assert not too_deep((level * (DEEPEST // 2) + "1" + closing * (DEEPEST // 2)).encode())


@pytest.mark.parametrize("part", [b"[", b'{"a":', b'"', b"\\", b'"\\', b'["\\"', b"[],", b"[1,", b'"\\"['])
def test_no_body_takes_long_to_look_at(part: bytes) -> None:
    body = part * (MOST_BYTES // len(part))
    started = time.perf_counter()
    too_deep(body)
    assert time.perf_counter() - started < 0.5
