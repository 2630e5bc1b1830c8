"""The deadlines of the calls that an agent has taken, by the agent's own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from academy.exception import Executed
from academy.message import AcademyErrorResponse, ErrorCode, Message

KeyT = TypeVar("KeyT", bound=Hashable)


class Deadlines(Generic[KeyT]):
    """Tells when nobody waits for a call any more. Belongs to one event loop.

    Args:
        on_passed: Called with the key of a call whose deadline passes.
    """

    def __init__(self, on_passed: Callable[[KeyT], None]) -> None:
        self._on_passed = on_passed
        self._timers: dict[KeyT, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def start(self, key: KeyT, seconds: float | None) -> None:
        """Note a call that ends so many seconds from now; `None` for never."""
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(seconds, self._on_passed, key)

    def passed(self, key: KeyT) -> bool:
        """Return whether a call should have ended, told of or not."""
        timer = self._timers.get(key)
        return timer is not None and timer.when() <= asyncio.get_running_loop().time()

    def stop(self, key: KeyT) -> None:
        """Forget a call. One that is not known is none the worse."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def clear(self) -> None:
        """Forget all calls."""
        for key in list(self._timers):
            self.stop(key)


def deadline_body(request: Message[Any], executed: Executed) -> AcademyErrorResponse:
    """Return the answer to a call whose deadline has passed.

    Args:
        request: The call.
        executed: `'no'` if the action had not begun.
    """
    action = request.get_body().action
    if executed == "no":
        detail = (
            f"{request.dest} had not begun the action {action!r} when the deadline of "
            "the call passed. It was not executed."
        )
    else:
        detail = (
            f"{request.dest} cancelled the action {action!r} when the deadline of the "
            "call passed. It was executed in part."
        )
    return AcademyErrorResponse(
        error_code=ErrorCode.DEADLINE_PASSED,
        mailbox_id=request.dest,
        executed=executed,
        detail=detail,
    )
