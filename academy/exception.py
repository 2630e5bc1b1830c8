"""Everything that can go wrong, named for what the caller can do about it.

```
Exception
├─ ExchangeError                       a message or a mailbox
│  ├─ BadEntityIdError                 nobody has registered that identifier
│  ├─ MailboxTerminatedError           the mailbox is closed for good
│  │  ├─ AgentTerminatedError
│  │  └─ UserTerminatedError
│  ├─ FencedError                      a newer owner has taken over this mailbox
│  ├─ DeliveryError                    the call has no answer; see `executed`
│  │  ├─ PeerLostError                 the process that had the request is gone
│  │  ├─ PeerUnreachableError          nobody can reach it, nobody can prove it gone
│  │  ├─ RequestLostError              the agent lives but knows nothing of it
│  │  ├─ MailboxFullError              its queue is full, and it is offline
│  │  └─ BackpressureTimeout           it did not keep up until the deadline
│  ├─ MessageTooLargeError
│  ├─ AuthenticationError              a link was refused
│  ├─ ForbiddenError                   not this client's to do
│  │  └─ UnauthorizedActionError       the agent does not run that for the caller
│  └─ UnauthorizedError                no valid credentials
├─ SerializationError                  an argument or a result cannot travel
│  └─ ExceptionSerializationError
├─ DeserializationError                data arrived that cannot be read here
├─ DeserializationMethodProhibitedError
├─ IncompatibleNetworkProtocolError
├─ AcademyRemoteError                  a remote exception that lost its type
├─ ActionCancelledError, ActionInvalidStateError, PingCancelledError
├─ AgentInactiveError, AgentNotInitializedError, ExchangeClientNotFoundError
└─ AgentStartError, WorkerMismatchError, ShutdownTimeoutError    launching agents
```

All can be pickled and keep their attributes, text and notes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from academy.identifier import AgentId, EntityId

Executed = Literal["no", "maybe"]
"""Whether the request of a failed call ran: certainly not, or nobody can tell."""


class _FromAttributes:
    """Pickles an exception as its class and the arguments named in `_fields`."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> Any:
        values = {f: getattr(self, f) for f in self._fields}
        return functools.partial(type(self), **values), (), self.__dict__


class ExchangeError(Exception):
    """An operation on the exchange failed."""


class BadEntityIdError(_FromAttributes, ExchangeError):
    """No entity with this identifier was ever registered in this namespace."""

    _fields = ("uid",)

    def __init__(self, uid: EntityId) -> None:
        super().__init__(
            f"Unknown identifier {uid}: no mailbox of that identifier is registered "
            "here. Check that both sides use the same server and namespace."
        )
        self.uid = uid


class ForbiddenError(ExchangeError):
    """This client is not allowed to do that."""


class UnauthorizedActionError(_FromAttributes, ForbiddenError):
    """The agent does not run this action for the caller, and has not run it.

    Attributes:
        uid: The agent.
        action: Name of the action; `'shutdown'` for a request to end the agent.
        executed: Always `'no'`.
    """

    _fields = ("uid", "action")
    executed: Executed = "no"

    def __init__(self, uid: EntityId, action: str) -> None:
        super().__init__(
            f"{uid} does not permit the action {action!r} to this caller. It was not "
            "executed. Call as somebody who may, or ask whoever runs the agent to "
            "permit it in the `authorize` hook of its RuntimeConfig."
        )
        self.uid = uid
        self.action = action


class UnauthorizedError(ExchangeError):
    """The exchange did not accept the credentials."""


class AuthenticationError(ExchangeError):
    """A peer could not prove that it belongs to the namespace."""


class MailboxTerminatedError(_FromAttributes, ExchangeError):
    """The mailbox is closed for good and neither sends nor receives.

    Making one gives an `AgentTerminatedError` or a `UserTerminatedError`, by the
    kind of identifier.

    Attributes:
        uid: Whose mailbox it was.
        reason: Why it was closed, when that is known.
        executed: `'no'` when the request was certainly not executed.
    """

    _fields = ("uid", "reason", "executed")

    def __new__(
        cls, uid: EntityId, reason: str | None = None, executed: Executed = "maybe"
    ) -> MailboxTerminatedError:
        """Make the error of the kind of entity that `uid` names."""
        kind = AgentTerminatedError if isinstance(uid, AgentId) else UserTerminatedError
        return Exception.__new__(kind if cls is MailboxTerminatedError else cls)

    def __init__(
        self, uid: EntityId, reason: str | None = None, executed: Executed = "maybe"
    ) -> None:
        why = f": {reason}" if reason else "."
        super().__init__(f"Mailbox for {uid} has been terminated{why}")
        self.uid = uid
        self.reason = reason
        self.executed: Executed = executed


class AgentTerminatedError(MailboxTerminatedError):
    """The agent's mailbox is closed for good: it has ended, or was ended."""


class UserTerminatedError(MailboxTerminatedError):
    """The user's mailbox is closed for good: its client was closed."""


class FencedError(_FromAttributes, ExchangeError):
    """Another client has bound the same mailbox since; this one receives no more."""

    _fields = ("uid",)

    def __init__(self, uid: EntityId) -> None:
        super().__init__(
            f"{uid} was taken over by a newer client of the same mailbox. Close this "
            "one; an agent should run in one place at a time."
        )
        self.uid = uid


class DeliveryError(_FromAttributes, ExchangeError):
    """A message was not delivered, or a call will get no answer.

    Attributes:
        uid: The mailbox the message was for.
        executed: `'no'` when the request was certainly not executed and can be sent
            again, `'maybe'` when nobody can tell.
        detail: What was seen.
    """

    _fields = ("uid", "executed", "detail")
    _summary: ClassVar[str] = "A message to {uid} was not delivered"

    def __init__(
        self, uid: EntityId, executed: Executed = "maybe", detail: str = ""
    ) -> None:
        outcome = (
            "It was not executed; it is safe to call again."
            if executed == "no"
            else "It may have been executed; call again only if that is harmless."
        )
        what = self._summary.format(uid=uid)
        super().__init__(f"{what}{': ' + detail if detail else ''}. {outcome}")
        self.uid = uid
        self.executed: Executed = executed
        self.detail = detail


class PeerLostError(DeliveryError):
    """The process that had taken the request ended before it answered."""

    _summary = "The process that ran {uid} is gone"


class PeerUnreachableError(DeliveryError):
    """Nobody can reach the destination and nobody can prove that it is gone."""

    _summary = "{uid} cannot be reached"


class RequestLostError(DeliveryError):
    """The destination is alive but does not know the request, nor does the queue."""

    _summary = "A request to {uid} was lost"


class MailboxFullError(DeliveryError):
    """The queue of the destination is full, and nobody is there to take from it."""

    _summary = "The mailbox of {uid} is full"


class BackpressureTimeout(DeliveryError):
    """The way to the destination, or its queue, stayed full until the deadline."""

    _summary = "{uid} does not keep up with its messages"


class MessageTooLargeError(_FromAttributes, ExchangeError):
    """The message exceeds a size limit.

    Attributes:
        size: Its size in bytes.
        limit: The limit.
        executed: `'no'` when it was certainly not executed, as where it was never
            sent; `'maybe'` when nobody can tell.
        detail: Whose limit that is, where there are several.
    """

    _fields = ("size", "limit", "executed", "detail")

    def __init__(
        self, size: int, limit: int, executed: Executed = "no", detail: str = ""
    ) -> None:
        doubt = "" if executed == "no" else " It may have been executed."
        super().__init__(
            f"Message of {size} bytes is larger than the limit of {limit} bytes"
            f"{' ' + detail if detail else ''}.{doubt} "
            "Send it in parts, or pass a reference to shared storage."
        )
        self.size = size
        self.limit = limit
        self.executed: Executed = executed
        self.detail = detail


class SerializationError(_FromAttributes, Exception):
    """An argument, a result, or an exception cannot be sent between processes.

    Attributes:
        what: `'arguments'`, `'result'`, or `'exception'`.
        type_name: Type of the object.
        serializer: The strategy that failed.
        detail: What the serializer said.
    """

    _fields: ClassVar[tuple[str, ...]] = ("what", "type_name", "serializer", "detail")

    def __init__(
        self, what: str, type_name: str, serializer: str, detail: str = ""
    ) -> None:
        super().__init__(
            f"The {what} ({type_name}) could not be serialized with {serializer}"
            f"{': ' + detail if detail else ''}. Send plain data, or choose "
            "another serializer."
        )
        self.what = what
        self.type_name = type_name
        self.serializer = serializer
        self.detail = detail


class ExceptionSerializationError(SerializationError):
    """The action raised an exception that cannot be sent; its text is in `detail`."""

    _fields = ("exception_name", "serializer", "detail")

    def __init__(self, exception_name: str, serializer: str, detail: str = "") -> None:
        super().__init__("exception", exception_name, serializer, detail)
        self.exception_name = exception_name


class DeserializationError(_FromAttributes, Exception):
    """Data arrived whole but could not be turned into an object here.

    The usual cause is a class or a package that this side does not have.
    """

    _fields = ("what", "serializer", "detail")

    def __init__(self, what: str, serializer: str, detail: str) -> None:
        super().__init__(
            f"The {what} could not be read with {serializer}: {detail}. Check that "
            "both sides have the same packages and class definitions."
        )
        self.what = what
        self.serializer = serializer
        self.detail = detail


class DeserializationMethodProhibitedError(_FromAttributes, Exception):
    """Data arrived in a serialization that this side does not accept.

    It was not decoded.
    """

    _fields = ("serializer", "allowed")

    def __init__(self, serializer: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"Data serialized with {serializer} is not accepted here; accepted: "
            f"{', '.join(allowed) or 'nothing'}."
        )
        self.serializer = serializer
        self.allowed = tuple(allowed)


class IncompatibleNetworkProtocolError(_FromAttributes, Exception):
    """A message of a protocol version that this release does not speak."""

    _fields = ("version", "cur_version")

    def __init__(
        self, version: str | None = None, cur_version: str | None = None
    ) -> None:
        super().__init__(
            f"A message has protocol version {version}, but this side speaks "
            f"{cur_version}. Install the same release of academy on both sides."
        )
        self.version = version
        self.cur_version = cur_version


class AcademyRemoteError(Exception):
    """A remote exception that travelled as JSON and so lost its type.

    Its text is that of the original. Choose `exception_serializer=` `PICKLE` on the
    handle to receive the original exception.
    """


class ActionCancelledError(_FromAttributes, Exception):
    """The agent cancelled the action, usually because it is shutting down."""

    def __init__(self) -> None:
        super().__init__("Action was cancelled by the agent.")


class ActionInvalidStateError(_FromAttributes, Exception):
    """The action cannot be cancelled: it has ended, or was never there."""

    def __init__(self) -> None:
        super().__init__("Action is not running, so it cannot be cancelled.")


class PingCancelledError(_FromAttributes, Exception):
    """The agent ended before it had started far enough to answer a ping."""

    def __init__(self) -> None:
        super().__init__("Ping was cancelled: the agent ended before it was running.")


class AgentInactiveError(_FromAttributes, Exception):
    """No live process runs the agent, and the handle rejects calls in that case."""

    _fields = ("uid",)

    def __init__(self, uid: AgentId[Any]) -> None:
        super().__init__(
            f"{uid} is registered but no live process runs it, and this handle "
            "rejects calls to inactive agents (reject_on_inactive=True, or "
            "options(offline='fail'))."
        )
        self.uid = uid


class AgentNotInitializedError(_FromAttributes, Exception):
    """The agent is not running, so it has no identifier and no exchange client."""

    def __init__(self) -> None:
        super().__init__(
            "The agent has not been started: its context exists only while a Runtime "
            "or a Manager runs it."
        )


class ExchangeClientNotFoundError(_FromAttributes, Exception):
    """A handle is used where no exchange client is in reach."""

    _fields = ("aid",)

    def __init__(self, aid: AgentId[Any] | None) -> None:
        super().__init__(
            f"The handle to {aid} has no exchange client to send with. Use it inside "
            "`async with` a Manager or an exchange client, inside a running agent, or "
            "pass exchange=."
        )
        self.aid = aid


class AgentStartError(_FromAttributes, Exception):
    """A launched agent could not be started on its worker.

    Attributes:
        detail: The cause on the worker, as text.
    """

    _fields = ("uid", "detail")

    def __init__(self, uid: AgentId[Any], detail: str) -> None:
        super().__init__(f"{uid} could not be started: {detail}")
        self.uid = uid
        self.detail = detail


class WorkerMismatchError(_FromAttributes, Exception):
    """The worker's Python or packages are not those of the launching process."""

    _fields = ("detail",)

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The worker cannot run what was launched: {detail}. Use the same "
            "environment on the worker as where the manager runs."
        )
        self.detail = detail


class ShutdownTimeoutError(_FromAttributes, TimeoutError):
    """Agents did not end before the deadline, not even when they were cancelled."""

    _fields = ("uids", "timeout")

    def __init__(self, uids: Iterable[AgentId[Any]], timeout: float) -> None:
        self.uids = tuple(uids)
        self.timeout = timeout
        names = ", ".join(map(str, self.uids))
        super().__init__(
            f"Still running {timeout:g} s after shutdown was requested: {names}. "
            "An agent that blocks its event loop (time.sleep, a long computation) "
            "cannot be stopped from outside; use agent_run_sync for such work."
        )


def raise_exceptions(
    exceptions: Iterable[BaseException], *, message: str | None = None
) -> None:
    """Raise the exceptions: one as it is, several as a group, none not at all.

    Args:
        exceptions: What to raise.
        message: Text of the group.

    Raises:
        BaseExceptionGroup: There is more than one (an `ExceptionGroup` when all are
            ordinary exceptions).
    """
    found = tuple(exceptions)
    if len(found) == 1:
        raise found[0]
    if found:
        raise BaseExceptionGroup(message or "Several errors occurred.", found)
