from __future__ import annotations

import asyncio
import pickle
from collections import Counter

import pytest

from academy.demo.calls import Calls


async def answer(value: int) -> int:
    return value


async def fail(error: Exception) -> int:
    raise error


async def test_answers_and_failures_are_counted() -> None:
    calls = Calls()
    assert await calls.wait(answer(3)) == 3
    assert await calls.wait(answer(4)) == 4
    for error in (ValueError(), ValueError(), TimeoutError()):
        with pytest.raises(type(error)):
            await calls.wait(fail(error))
    assert (calls.made, calls.answered, calls.unanswered) == (5, 2, 0)
    assert calls.failed == {"ValueError": 2, "TimeoutError": 1}


async def test_call_without_an_answer() -> None:
    calls = Calls()
    with pytest.raises(TimeoutError, match=r"A call has no answer after 0\.01 s"):
        await calls.wait(asyncio.Event().wait(), deadline=0.01)
    assert (calls.made, calls.unanswered) == (1, 1)
    assert not calls.failed


async def test_call_that_is_still_waited_for() -> None:
    calls = Calls()
    release = asyncio.Event()
    task = asyncio.create_task(calls.wait(release.wait()))
    await asyncio.sleep(0)
    assert calls.unanswered == 1
    release.set()
    await task
    assert calls.unanswered == 0


def test_sum_and_pickle() -> None:
    first = Calls(3, 1, Counter(ValueError=1))
    second = Calls(2, 1, Counter(ValueError=1))
    total = sum([second], first)
    assert total == Calls(5, 2, Counter(ValueError=2))
    assert total.unanswered == 1
    assert first == Calls(3, 1, Counter(ValueError=1))
    assert pickle.loads(pickle.dumps(total)) == total
