"""Configuration of a runtime."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from academy.identifier import EntityId
from academy.serialize import SerializationStrategy
from academy.value import Value, coerce_fields


@runtime_checkable
class Authorizer(Protocol):
    """Tells whether an agent runs an action for somebody; see `RuntimeConfig`."""

    def __call__(self, action: str, source: EntityId, /) -> bool | Awaitable[bool]:
        """Return whether `source` may have `action`."""
        ...


class RuntimeConfig(Value, Struct, kw_only=True, forbid_unknown_fields=True):
    """How an agent runs and ends.

    Attributes:
        cancel_actions_on_shutdown: Cancel running actions when the agent ends;
            otherwise it waits, as long as it takes, until they have ended.
        max_sync_concurrency: Number of threads for
            [`agent_run_sync`][academy.agent.Agent.agent_run_sync]; `None` for the
            default of [`ThreadPoolExecutor`][concurrent.futures.ThreadPoolExecutor].
        raise_loop_errors_on_shutdown: Raise the errors of control loops when the
            agent has ended; they are logged in any case.
        shutdown_on_loop_error: End the agent when a control loop raises an error.
        terminate_on_error: Close the mailbox for good when the agent ends because of
            an error. Otherwise requests wait in it for another run of the agent.
        terminate_on_success: Close the mailbox for good when it ends without one.
        default_serializer: Strategy of handles in the agent that do not name one;
            `None` for that of the surrounding context.
        allowed_deserializers: Strategies in which the agent accepts data and sends
            results; `None` for those of the surrounding context. What comes in
            another one is refused undecoded. Where the default serializer is not
            among them, the handles in the agent use one that is.
        authorize: Called with the name of an action and who asks for it, before the
            arguments are decoded: whether the agent runs it. It may be a coroutine
            function. What it refuses is an
            [`UnauthorizedActionError`][academy.exception.UnauthorizedActionError] at
            the caller, and so is everything for which it raises; that is logged.
            Requests to end the agent, also those of its manager, are asked about as
            action `'shutdown'`; pings are always answered. Agents launched alongside
            have the same hook. Compare identifiers, not names, which anybody may
            choose. A configuration that travels to a worker is pickled:
            there a function of a module serves best.

    Raises:
        TypeError: There is no field of that name.
        ValueError: A value has the wrong type or is out of range.
    """

    cancel_actions_on_shutdown: bool = True
    max_sync_concurrency: int | None = None
    raise_loop_errors_on_shutdown: bool = True
    shutdown_on_loop_error: bool = True
    terminate_on_error: bool = True
    terminate_on_success: bool = True
    default_serializer: SerializationStrategy | None = None
    allowed_deserializers: set[SerializationStrategy] | None = None
    authorize: Authorizer | None = None

    def __post_init__(self) -> None:
        coerce_fields(self)
        threads = self.max_sync_concurrency
        if threads is not None and threads < 1:
            raise ValueError(
                f"RuntimeConfig(max_sync_concurrency={threads}): it takes at least one "
                "thread."
            )

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> Any:
        """Return the configuration as builtin objects.

        Raises:
            TypeError: It has an `authorize` hook, which only a pickle can carry.
        """
        if self.authorize is not None:
            raise TypeError(
                "RuntimeConfig(authorize=...) is a function, and has no notation in "
                "JSON. Send the configuration as a pickle, or set authorize where the "
                "agent runs."
            )
        return super().model_dump(mode=mode)
