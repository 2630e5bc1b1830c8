"""Errors that travel by a number, and the exceptions that stand for them."""

from __future__ import annotations

import enum

from academy.exception import (
    ActionCancelledError,
    ActionInvalidStateError,
    DeserializationMethodProhibitedError,
    Executed,
    ForbiddenError,
    IncompatibleNetworkProtocolError,
    MailboxTerminatedError,
    PeerLostError,
    PeerUnreachableError,
    PingCancelledError,
    RequestLostError,
    UnauthorizedActionError,
)
from academy.header import PROTOCOL_VERSION
from academy.identifier import EntityId


class ErrorCode(enum.IntEnum):
    """Errors that the exchange and the runtime report without serializing them."""

    MAILBOX_TERMINATED = 0
    PING_CANCELLED = 1
    ACTION_INVALID_STATE = 2
    ACTION_CANCELLED = 3
    INVALID_CLIENT = 4
    INCOMPATIBLE_PROTOCOL = 5
    PEER_LOST = 6
    PEER_UNREACHABLE = 7
    REQUEST_LOST = 8
    DEADLINE_PASSED = 9
    UNAUTHORIZED_ACTION = 10
    SERIALIZATION_PROHIBITED = 11


_SIMPLE: dict[ErrorCode, type[Exception]] = {
    ErrorCode.PING_CANCELLED: PingCancelledError,
    ErrorCode.ACTION_INVALID_STATE: ActionInvalidStateError,
    ErrorCode.ACTION_CANCELLED: ActionCancelledError,
}
_DELIVERY: dict[
    ErrorCode, type[PeerLostError | PeerUnreachableError | RequestLostError]
] = {
    ErrorCode.PEER_LOST: PeerLostError,
    ErrorCode.PEER_UNREACHABLE: PeerUnreachableError,
    ErrorCode.REQUEST_LOST: RequestLostError,
}


def exception_of(
    code: ErrorCode, uid: EntityId | None, executed: Executed, detail: str
) -> Exception:
    """Return the exception that stands for an error.

    Args:
        code: The error.
        uid: The mailbox it is about, where one is.
        executed: Whether the request may have run.
        detail: What was seen.

    Raises:
        ValueError: The error is about a mailbox, and none is given.
    """
    simple = _SIMPLE.get(code)
    if simple is not None:
        return simple()
    if code is ErrorCode.INVALID_CLIENT:
        return ForbiddenError(detail or "The request was refused.")
    if code is ErrorCode.INCOMPATIBLE_PROTOCOL:
        return IncompatibleNetworkProtocolError(detail or None, PROTOCOL_VERSION)
    if code is ErrorCode.DEADLINE_PASSED:
        return TimeoutError(detail)
    if code is ErrorCode.SERIALIZATION_PROHIBITED:
        refused, *accepted = detail.split()
        return DeserializationMethodProhibitedError(refused, tuple(accepted))
    if uid is None:
        raise ValueError(f"An error response {code.name} names nobody.")
    if code is ErrorCode.MAILBOX_TERMINATED:
        return MailboxTerminatedError(uid, detail or None, executed)
    if code is ErrorCode.UNAUTHORIZED_ACTION:
        return UnauthorizedActionError(uid, detail)
    return _DELIVERY[code](uid, executed, detail)
