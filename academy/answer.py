"""Answers to requests: how results and errors become the bodies of responses."""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any

from academy.exception import (
    DeserializationMethodProhibitedError,
    ExceptionSerializationError,
    SerializationError,
    UnauthorizedActionError,
)
from academy.identifier import EntityId
from academy.message import (
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    ErrorCode,
    SuccessResponse,
    UserErrorResponse,
)
from academy.segment import Segment
from academy.serialize import SerializationStrategy, pack

SUCCESS = SuccessResponse()
ACTION_CANCELLED = AcademyErrorResponse(error_code=ErrorCode.ACTION_CANCELLED)
ACTION_INVALID_STATE = AcademyErrorResponse(error_code=ErrorCode.ACTION_INVALID_STATE)
PING_CANCELLED = AcademyErrorResponse(
    error_code=ErrorCode.PING_CANCELLED, executed="no"
)


def wanted_strategies(
    request: ActionRequest,
) -> tuple[SerializationStrategy, SerializationStrategy]:
    """Return the strategies that a request wants for its result and an exception."""
    result = request.result_serialization or request.serialization
    return result, request.exception_serialization or result


def exception_strategy(request: Any) -> SerializationStrategy:
    """Return the strategy that any request wants for an exception."""
    if isinstance(request, ActionRequest):
        return wanted_strategies(request)[1]
    return SerializationStrategy.JSON


def result_body(result: Any, strategy: SerializationStrategy) -> ActionResponse:
    """Return the response that carries a result, serialized already.

    Raises:
        SerializationError: The strategy cannot carry the result.
    """
    packed = pack(result, strategy, what="result")
    return ActionResponse(serialization=strategy, packed=packed)


def error_body(
    error: Exception,
    strategy: SerializationStrategy,
    *,
    raised_in: TracebackType | None = None,
) -> UserErrorResponse:
    """Return the response that carries an exception, serialized already.

    An exception that cannot travel is replaced by an `ExceptionSerializationError`
    with its type and text. The exception itself is left as it is.

    Args:
        error: The exception.
        strategy: Strategy that the caller wants.
        raised_in: Innermost part of its traceback that the caller should see, as a
            note; JSON carries only the text of an exception, so there it is left out.
    """
    note = None
    if raised_in is not None and strategy is SerializationStrategy.PICKLE:
        note = _note(error, raised_in)
    try:
        packed = _pack_exception(error, strategy, note)
    except SerializationError:
        text = "".join(traceback.format_exception_only(error)).strip()
        substitute = ExceptionSerializationError(
            type(error).__name__, strategy.value, text
        )
        packed = pack(substitute, strategy, what="exception")
    return UserErrorResponse(serialization=strategy, packed=packed)


def refusal_body(
    uid: EntityId,
    error: UnauthorizedActionError | DeserializationMethodProhibitedError,
) -> AcademyErrorResponse:
    """Return the response to a request that an agent does not accept.

    It carries nothing serialized: what the caller wants may be what is refused.
    """
    if isinstance(error, UnauthorizedActionError):
        code, detail = ErrorCode.UNAUTHORIZED_ACTION, error.action
    else:
        code = ErrorCode.SERIALIZATION_PROHIBITED
        detail = " ".join((error.serializer, *error.allowed))
    return AcademyErrorResponse(
        error_code=code, mailbox_id=uid, executed="no", detail=detail
    )


def fatal_error(name: str, action: str, error: BaseException) -> RuntimeError:
    """Return the error that ends an agent in the place of one that must not pass."""
    text = f"Action {action!r} of {name} raised {type(error).__name__}"
    if str(error):
        text += f": {error}"
    failure = RuntimeError(f"{text}. The agent ends.")
    failure.__cause__ = error
    return failure


def outside(error: Exception) -> TracebackType | None:
    """Return the part of a traceback that lies in the agent's code, if there is one."""
    part = error.__traceback__
    while part is not None and part.tb_frame.f_globals.get("__name__") in _OURS:
        part = part.tb_next
    return part


_OURS = frozenset({"academy.responder", "academy.agent", "academy.runtime"})


def damage_body(error: Exception) -> UserErrorResponse:
    """Return the response to a request that cannot be read.

    What the caller wants is unknown, so it is in JSON, which everybody reads.
    """
    if not isinstance(error, ValueError):
        error = ValueError(f"A request is damaged: {type(error).__name__}: {error}")
    return error_body(error, SerializationStrategy.JSON)


def _pack_exception(
    error: Exception, strategy: SerializationStrategy, note: str | None
) -> list[Segment]:
    """Serialize an exception, with a note that it does not keep.

    Raises:
        SerializationError: The strategy cannot carry it, or what it carried would
            not become the exception again.
    """
    noted = note is not None and _add_note(error, note)
    try:
        packed = pack(error, strategy, what="exception")
    finally:
        # The agent may raise the same object again.
        if noted:
            error.__notes__.pop()
    if strategy is SerializationStrategy.PICKLE:
        _check_unpickles(packed, error)
    return packed


def _check_unpickles(packed: list[Segment], error: Exception) -> None:
    """Find exceptions that pickle but do not unpickle, a common fault of theirs.

    A constructor with required arguments that `args` does not have is enough; the
    caller would learn neither the type nor the text.
    """
    try:
        copy = pickle.loads(packed[0], buffers=packed[1:])
        fault = f"it comes back as a {type(copy).__name__}"
        intact = isinstance(copy, Exception)
    except Exception as e:
        fault, intact = f"{type(e).__name__}: {e}", False
    if not intact:
        raise SerializationError("exception", type(error).__name__, "pickle", fault)


def _add_note(error: Exception, note: str) -> bool:
    """Return whether the exception has taken the note; a frozen one does not."""
    try:
        error.add_note(note)
    except Exception:
        return False
    return True


def _note(error: Exception, raised_in: TracebackType) -> str:
    report = traceback.TracebackException(type(error), error, raised_in)
    # Notes travel by themselves; with them inside, the text would double per hop.
    report.__notes__ = None
    return "".join(["Remote traceback:\n", *report.format()]).rstrip()
