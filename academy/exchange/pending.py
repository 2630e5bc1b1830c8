"""The requests of one client that wait for their responses."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from academy.exception import ExchangeError
from academy.identifier import EntityId
from academy.message import Message

Answer = asyncio.Future[Message[Any]]
"""Gets the response to a request, or the error that takes its place."""


class Pending:
    """Requests that wait, by their tags. Belongs to one event loop.

    A request whose response has come is forgotten; after an error, or when nobody waits
    any more, `remove` is to be called.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Message[Any], Answer]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Message[Any], loop: asyncio.AbstractEventLoop) -> Answer:
        """Enter a request, and return what its response goes to.

        Raises:
            ExchangeError: A request with that tag waits already.
        """
        tag = request.header.tag.int
        if tag in self._waiting:
            raise ExchangeError(
                f"A request to {request.dest} with the tag {request.tag} waits for "
                "its response already. Make a new message for each request."
            )
        answer: Answer = loop.create_future()
        self._waiting[tag] = request, answer
        return answer

    def remove(self, tag: uuid.UUID) -> None:
        """Forget a request, if it waits: a response that comes later is dropped."""
        waiting = self._waiting.pop(tag.int, None)
        if waiting is not None:
            # Also keeps asyncio from complaining of an error that nobody looked at.
            waiting[1].cancel()

    def resolve(self, response: Message[Any]) -> None:
        """Hand out a response. One that nobody waits for (any more) is dropped."""
        waiting = self._waiting.pop(response.header.tag.int, None)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(response)

    def fail(self, error: Exception, uid: EntityId | None = None) -> list[uuid.UUID]:
        """Fail the requests to an entity, or all, and return their tags."""
        failed = []
        for request, answer in self._waiting.values():
            if uid in (None, request.dest) and not answer.done():
                answer.set_exception(error)
                failed.append(request.tag)
        return failed
