"""What to tell of a message that was not delivered."""

from __future__ import annotations

from academy.exception import (
    DeliveryError,
    ExchangeError,
    Executed,
    FencedError,
    MailboxTerminatedError,
    PeerLostError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.identifier import EntityId
from academy.message import AcademyErrorResponse, ErrorCode


def failure_body(dest: EntityId, error: ExchangeError) -> AcademyErrorResponse:
    """Return the answer that takes the place of the one that will not come."""
    match error:
        case PeerLostError():
            code = ErrorCode.PEER_LOST
        case PeerUnreachableError():
            code = ErrorCode.PEER_UNREACHABLE
        case MailboxTerminatedError():
            code = ErrorCode.MAILBOX_TERMINATED
        case _:
            code = ErrorCode.REQUEST_LOST
    detail = error.detail if isinstance(error, DeliveryError) else str(error)
    executed: Executed = getattr(error, "executed", "maybe")
    return AcademyErrorResponse(
        error_code=code, mailbox_id=dest, executed=executed, detail=detail
    )


def doubtful(dest: EntityId, error: ExchangeError) -> ExchangeError:
    """Return the error for a message that somebody may have nevertheless."""
    match error:
        case FencedError():
            return error
        case MailboxTerminatedError():
            return type(error)(error.uid, error.reason, "maybe")
        case DeliveryError():
            return type(error)(error.uid, "maybe", error.detail)
    return RequestLostError(dest, "maybe", str(error))
