"""Bodies of messages: the requests and responses that entities exchange.

A body has plain fields, which travel in the head of the message, and may carry
serialized objects: arguments, a result, or an exception. Reading the plain fields runs
no code; what is carried stays undecoded until `get_args`, `get_result` or
`get_exception` asks for it, and is decoded once.
"""

from __future__ import annotations

import base64
import functools
import uuid
from collections.abc import Sequence
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeAlias,
    get_type_hints,
    runtime_checkable,
)

import msgspec
from msgspec import Struct

from academy.error_code import ErrorCode, exception_of
from academy.exception import DeserializationError, Executed
from academy.identifier import AgentId, UserId
from academy.segment import Segment
from academy.serialize import SerializationStrategy, join, pack, split, unpack
from academy.value import Value


class Body(Value, Struct, kw_only=True):
    """What all bodies share: plain fields, which travel in the head of the message.

    Attributes:
        kind: Name of the body on the wire; the same for all instances of a class.
    """

    hidden_fields = frozenset({"kind", "packed"})

    kind: ClassVar[str]
    plain: ClassVar[tuple[str, ...]] = ()

    def head(self) -> tuple[Any, ...]:
        """Return the plain fields, in the order of `plain`."""
        return tuple(getattr(self, name) for name in self.plain)

    def segments(self) -> Sequence[Segment]:
        """Return what the body carries beside its plain fields, serialized."""
        return []

    @classmethod
    def from_head(cls, head: Sequence[Any], segments: Sequence[Segment]) -> Self:
        """Build a received body; what it carries stays undecoded."""
        return cls(**dict(zip(cls.plain, head, strict=True)))

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> Any:
        """Return the body as builtin objects; what it carries becomes base64 text."""
        fields = dict(zip(self.plain, self.head(), strict=True))
        kept = (uuid.UUID,) if mode == "python" else None
        dump = msgspec.to_builtins(fields, builtin_types=kept)
        packed = self.segments()
        if packed:
            dump["packed"] = base64.b64encode(join(packed)).decode()
        return dump | {"kind": self.kind}

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Build a body from what `model_dump` gave; raises as `Value` does."""
        if isinstance(obj, cls):
            return obj
        try:
            fields = dict(obj)
            if fields.pop("kind", cls.kind) != cls.kind:
                raise ValueError(f"its kind is {obj['kind']!r}")
            segments = split(base64.b64decode(fields.pop("packed", _NOTHING)))
            head = msgspec.convert(
                [fields.pop(name) for name in cls.plain], head_type(cls), strict=False
            )
            if fields:
                raise ValueError(f"it has no field {', '.join(sorted(fields))}")
        except (ValueError, TypeError, KeyError) as e:
            raise ValueError(f"Not a valid {cls.__name__}: {e}.") from e
        return cls.from_head(head, segments)


_NOTHING = base64.b64encode(join([]))


@functools.cache
def head_type(cls: Any) -> Any:
    """Return the type of a body's head, a tuple of the types of its plain fields."""
    hints = get_type_hints(cls)
    return tuple[tuple(hints[name] for name in cls.plain)]  # type: ignore[misc]


@functools.cache
def head_decoder(cls: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of a body's head."""
    return msgspec.msgpack.Decoder(head_type(cls))


class Carrier(Body, kw_only=True):
    """A body that carries a serialized object, undecoded while `packed` is set.

    Attributes:
        serialization: Strategy of what it carries.
        packed: What it carries, as it came in.
    """

    what: ClassVar[str]
    """What it carries: the attribute of that name."""

    serialization: SerializationStrategy
    packed: Sequence[Segment] | None = None

    def __post_init__(self) -> None:
        if type(self.serialization) is not SerializationStrategy:
            self.serialization = SerializationStrategy(self.serialization)

    def segments(self) -> Sequence[Segment]:
        """Return what the body carries, serialized.

        Raises:
            SerializationError: The strategy cannot carry the objects.
        """
        if self.packed is not None:
            return self.packed
        return pack(getattr(self, self.what), self.serialization, what=self.what)

    @classmethod
    def from_head(cls, head: Sequence[Any], segments: Sequence[Segment]) -> Self:
        """Build a received body; what it carries stays undecoded."""
        return cls(**dict(zip(cls.plain, head, strict=True)), packed=segments)

    def _unpack(self) -> Any:
        """Return what came in serialized, and forget that."""
        assert self.packed is not None
        obj = unpack(self.packed, self.serialization, what=self.what)
        self.packed = None
        return obj


class ActionRequest(Carrier, kw_only=True):
    """Asks an agent to run one of its actions.

    Attributes:
        action: Name of the action.
        serialization: Strategy of the arguments.
        result_serialization: Strategy wanted for the result; `None` for the same.
        exception_serialization: Strategy wanted for an exception; `None` for that
            of the result.
        pargs: Positional arguments; use `get_args` on a received request.
        kargs: Keyword arguments; use `get_kwargs` on a received request.
    """

    action: str
    result_serialization: SerializationStrategy | None = None
    exception_serialization: SerializationStrategy | None = None
    pargs: Any = ()
    kargs: Any = msgspec.field(default_factory=dict)
    kind = "action-request"
    what = "arguments"
    plain = (
        "action",
        "serialization",
        "result_serialization",
        "exception_serialization",
    )

    def __post_init__(self) -> None:
        if type(self.serialization) is not SerializationStrategy:
            self.serialization = SerializationStrategy(self.serialization)
        if self.result_serialization is not None:
            self.result_serialization = SerializationStrategy(self.result_serialization)
        if self.exception_serialization is not None:
            strategy = SerializationStrategy(self.exception_serialization)
            self.exception_serialization = strategy

    def segments(self) -> Sequence[Segment]:
        """Return the arguments, serialized; raises as `Carrier.segments` does."""
        if self.packed is not None:
            return self.packed
        return pack((self.pargs, self.kargs), self.serialization, what=self.what)

    def get_args(self) -> tuple[Any, ...]:
        """Return the positional arguments, decoding them once.

        Raises:
            DeserializationMethodProhibitedError: Not an accepted strategy here.
            DeserializationError: They cannot be decoded here.
        """
        self._decode()
        return tuple(self.pargs)

    def get_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments; decodes and raises as `get_args` does."""
        self._decode()
        return dict(self.kargs)

    def take_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return both kinds of arguments, and keep none; raises as `get_args` does.

        They live as long as the action wants then, and not until it is answered.
        """
        self._decode()
        arguments = tuple(self.pargs), dict(self.kargs)
        self.pargs, self.kargs = (), {}
        return arguments

    def _decode(self) -> None:
        if self.packed is None:
            return
        packed, arguments = self.packed, self._unpack()
        try:
            pargs, kargs = arguments
            self.pargs, self.kargs = tuple(pargs), dict(kargs)
        except (TypeError, ValueError) as e:
            self.packed = packed
            raise DeserializationError(
                self.what, self.serialization.value, f"they are no arguments: {e}"
            ) from e

    def head(self) -> tuple[Any, ...]:
        """Return the plain fields, as `Body.head` does."""
        return (
            self.action,
            self.serialization,
            self.result_serialization,
            self.exception_serialization,
        )

    @classmethod
    def from_head(cls, head: Sequence[Any], segments: Sequence[Segment]) -> Self:
        """Build a received request, as `Carrier.from_head` does."""
        action, arguments, result, exception = head
        return cls(
            action=action,
            serialization=arguments,
            result_serialization=result,
            exception_serialization=exception,
            packed=segments,
        )


class PingRequest(Body, kw_only=True):
    """Asks whether the entity is there."""

    kind = "ping-request"


class CancelRequest(Body, kw_only=True):
    """Asks an agent to cancel the action that the sender requested with a tag."""

    target_tag: uuid.UUID
    kind = "cancel-request"
    plain = ("target_tag",)


class ShutdownRequest(Body, kw_only=True):
    """Asks an agent to end.

    Attributes:
        terminate: Whether its mailbox is closed for good; `None` leaves that to the
            agent's configuration.
    """

    terminate: bool | None = None
    kind = "shutdown-request"
    plain = ("terminate",)


class ActionResponse(Carrier, kw_only=True):
    """The result of an action.

    Attributes:
        result: The result; use `get_result` on a received response.
        serialization: Its strategy.
    """

    result: Any = None
    kind = "action-response"
    what = "result"
    plain = ("serialization",)

    def head(self) -> tuple[Any, ...]:
        """Return the plain fields, as `Body.head` does."""
        return (self.serialization,)

    @classmethod
    def from_head(cls, head: Sequence[Any], segments: Sequence[Segment]) -> Self:
        """Build a received response, as `Carrier.from_head` does."""
        return cls(serialization=head[0], packed=segments)

    def get_result(self) -> Any:
        """Return the result, decoding it once; raises as `ActionRequest.get_args`."""
        if self.packed is not None:
            self.result = self._unpack()
        return self.result


class SuccessResponse(Body, kw_only=True):
    """The request was carried out and has no result."""

    kind = "success-response"


class UserErrorResponse(Carrier, kw_only=True):
    """The exception that an action raised.

    Attributes:
        serialization: Its strategy.
        exception: The exception; use `get_exception` on a received response.
    """

    exception: Any = None
    kind = "user-error-response"
    what = "exception"
    plain = ("serialization",)

    def get_exception(self) -> Exception:
        """Return the exception, decoding it once; raises as `ActionRequest.get_args`.

        Raises:
            TypeError: The response carries something that is no exception.
        """
        if self.packed is not None:
            self.exception = self._unpack()
        if not isinstance(self.exception, Exception):
            raise TypeError(
                f"An error response carries a {type(self.exception).__name__}, "
                "which is no exception."
            )
        return self.exception


class AcademyErrorResponse(Body, kw_only=True):
    """An error that the exchange or the runtime reports by its code.

    Attributes:
        error_code: Which error.
        mailbox_id: The mailbox it is about, where one is.
        executed: Whether the request may have run, where that is known.
        detail: What was seen, as text.
    """

    error_code: ErrorCode
    mailbox_id: AgentId[Any] | UserId | None = None
    executed: Executed = "maybe"
    detail: str = ""
    kind = "academy-error-response"
    plain = ("error_code", "mailbox_id", "executed", "detail")

    def get_exception(self) -> Exception:
        """Return the exception that stands for the error."""
        uid, executed = self.mailbox_id, self.executed
        return exception_of(self.error_code, uid, executed, self.detail)


@runtime_checkable
class ErrorResponse(Protocol):
    """A response that stands for an exception."""

    def get_exception(self) -> Exception:
        """Return the exception."""
        ...


Request: TypeAlias = ActionRequest | PingRequest | CancelRequest | ShutdownRequest
Response: TypeAlias = (
    ActionResponse | SuccessResponse | UserErrorResponse | AcademyErrorResponse
)

BODIES: dict[str, type[Body]] = {
    cls.kind: cls
    for cls in (
        ActionRequest,
        PingRequest,
        CancelRequest,
        ShutdownRequest,
        ActionResponse,
        SuccessResponse,
        UserErrorResponse,
        AcademyErrorResponse,
    )
}
"""All bodies by the name they have on the wire."""
