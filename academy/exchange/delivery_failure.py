"""What to tell of a message that was not delivered."""

from __future__ import annotations

from academy.exception import (
    DeliveryError,
    ExchangeError,
    Executed,
    FencedError,
    MailboxTerminatedError,
    MessageTooLargeError,
    PeerLostError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.exchange.parcel import GiveUp, Refuse
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


def no_way(dest: EntityId, effect: GiveUp | Refuse, limit: int) -> ExchangeError:
    """Return the error for a message that an outbox could not send.

    Args:
        dest: The mailbox it was for.
        effect: What the outbox said.
        limit: Bytes of the largest message that the queue takes.
    """
    parcel = effect.parcel
    if isinstance(effect, Refuse):
        return too_large(parcel.size, limit, "maybe" if parcel.inc else "no")
    detail = "neither the process nor the Redis server answers"
    return PeerUnreachableError(dest, "no" if parcel.fresh else "maybe", detail)


def too_large(size: int, limit: int, executed: Executed = "no") -> MessageTooLargeError:
    """Return the error for a message that the queue does not take."""
    detail = "for the queue on the server, and its destination is not reached directly"
    return MessageTooLargeError(size, limit, executed, detail)
