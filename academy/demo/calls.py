"""Counts what became of calls, for nobody may wait for an answer in vain."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

ResultT = TypeVar("ResultT")

DEADLINE = 60.0
"""Seconds after which a call counts as unanswered."""


@dataclass
class Calls:
    """What became of the calls that went through `wait`.

    Attributes:
        made: How many were made.
        answered: How many returned a result.
        failed: How many ended with an error, by its name.
    """

    made: int = 0
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def unanswered(self) -> int:
        """How many have ended neither with a result nor with an error, so far."""
        return self.made - self.answered - self.failed.total()

    def __add__(self, other: Calls) -> Calls:
        return Calls(
            self.made + other.made,
            self.answered + other.answered,
            self.failed + other.failed,
        )

    async def wait(
        self, call: Awaitable[ResultT], *, deadline: float = DEADLINE
    ) -> ResultT:
        """Await a call and count how it ends; it returns and raises as the call does.

        Args:
            call: The call.
            deadline: Seconds to wait for its end.

        Raises:
            TimeoutError: It had not ended at the deadline.
        """
        self.made += 1
        try:
            async with asyncio.timeout(deadline) as patience:
                result = await call
        except Exception as e:
            if patience.expired():
                raise TimeoutError(f"A call has no answer after {deadline:g} s.") from e
            self.failed[type(e).__name__] += 1
            raise
        self.answered += 1
        return result
