"""From a request for an action to its answer, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from academy.answer import (
    ACTION_CANCELLED,
    error_body,
    fatal_error,
    outside,
    refusal_body,
    result_body,
    wanted_strategies,
)
from academy.authorization import Authorization
from academy.exception import (
    AcademyRemoteError,
    DeserializationMethodProhibitedError,
    SerializationError,
)
from academy.identifier import EntityId
from academy.message import AcademyErrorResponse, ActionRequest, Message, Response
from academy.serialize import ALL_SERIALIZERS, allowed_deserializers, check_allowed

Invoke: TypeAlias = Callable[
    [str, EntityId, tuple[Any, ...], dict[str, Any]], Awaitable[Any]
]
"""Runs an action: its name, who asks, and its arguments."""


class Responder:
    """Runs actions, and makes answers of what they return or raise.

    Args:
        name: Name of the agent, for errors.
        invoke: Runs an action.
        on_failure: Called when an action raised what must end the agent.
        authorization: Asked before an action runs; `None` permits everything.
    """

    def __init__(
        self,
        name: str,
        invoke: Invoke,
        on_failure: Callable[[Exception], None],
        authorization: Authorization | None = None,
    ) -> None:
        self._name = name
        self._invoke = invoke
        self._on_failure = on_failure
        self._authorization = authorization

    async def respond(self, message: Message[Any], request: ActionRequest) -> Response:
        """Run an action and return the answer, whatever happens."""
        for_result, for_exception = wanted_strategies(request)
        try:
            if self._authorization is not None:
                refusal = await self._authorization.refusal(request.action, message)
                if refusal is not None:
                    return refusal
            if allowed_deserializers.get() is not ALL_SERIALIZERS:
                check_allowed(for_result, for_exception)
            args, kwargs = request.take_arguments()
        except asyncio.CancelledError:
            return _cancelled()
        except DeserializationMethodProhibitedError as e:
            return refusal_body(message.dest, e)
        except Exception as e:
            return error_body(e, for_exception)
        try:
            result = await self._invoke(request.action, message.src, args, kwargs)
        except asyncio.CancelledError:
            return _cancelled()
        except Exception as e:
            return error_body(e, for_exception, raised_in=outside(e))
        except GeneratorExit:
            raise
        except BaseException as e:
            return error_body(self._fatal(request.action, e), for_exception)
        try:
            return result_body(result, for_result)
        except SerializationError as e:
            return error_body(e, for_exception)

    def _fatal(self, action: str, error: BaseException) -> Exception:
        """End the agent for an error that must not pass through the event loop."""
        failure = fatal_error(self._name, action, error)
        self._on_failure(failure)
        return AcademyRemoteError(str(failure))


def _cancelled() -> AcademyErrorResponse:
    """Return the answer of an action that was cancelled, which must go out."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
    return ACTION_CANCELLED
