"""Whether an agent runs an action, or ends, for the one who asks."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from academy.answer import refusal_body
from academy.exception import UnauthorizedActionError
from academy.identifier import EntityId
from academy.message import AcademyErrorResponse, Message
from academy.runtime_config import Authorizer, RuntimeConfig

logger = logging.getLogger(__name__)

SHUTDOWN = "shutdown"
"""Name under which the hook is asked about a request to end the agent."""


def authorization(name: str, config: RuntimeConfig) -> Authorization | None:
    """Return what asks the hook of a configuration; `None` if there is no hook."""
    hook = config.authorize
    return None if hook is None else Authorization(name, hook)


class Authorization:
    """Asks the hook of a runtime, and logs what is refused.

    Args:
        name: Name of the agent, for the log.
        hook: The hook.
    """

    def __init__(self, name: str, hook: Authorizer) -> None:
        self._name = name
        self._hook = hook
        self.refused = 0
        """How many requests were refused."""

    async def refusal(
        self, action: str, message: Message[Any]
    ) -> AcademyErrorResponse | None:
        """Return the answer to a request that its sender may not make, else `None`.

        A hook that raises permits nothing.

        Args:
            action: The action, or `SHUTDOWN`.
            message: The request; nothing that it carries is decoded.
        """
        if await self._permits(action, message.src):
            return None
        self._note(action, message.src)
        return refusal_body(message.dest, UnauthorizedActionError(message.dest, action))

    async def _permits(self, action: str, source: EntityId) -> bool:
        try:
            answer = self._hook(action, source)
            if inspect.isawaitable(answer):
                answer = await answer
            return bool(answer)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            # Also what would end the process: a hook that fails permits nothing.
            what = "%s: the authorize hook failed for action %r of %s, so it is refused"
            logger.exception(what, self._name, action, source)
            return False

    def _note(self, action: str, source: EntityId) -> None:
        self.refused += 1
        if self.refused.bit_count() == 1:
            # Powers of two: the log tells, and cannot be flooded.
            logger.warning(
                "%s: %s is not permitted the action %r (%d refused so far)",
                self._name,
                source,
                action,
                self.refused,
            )
