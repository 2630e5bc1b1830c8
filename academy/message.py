"""Messages between entities: a header, and a body that is decoded when asked for.

On the wire a message is a list of segments: the head (header, kind of body and its
plain fields, in MessagePack), then the segments of what the body carries. A received
body is built when `get_body` is first called, so that a message whose body is damaged
can still be answered.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, Self, TypeVar

import msgspec
from msgspec import Struct

from academy.body import (
    BODIES,
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    Body,
    CancelRequest,
    ErrorResponse,
    PingRequest,
    Request,
    Response,
    ShutdownRequest,
    SuccessResponse,
    UserErrorResponse,
    head_decoder,
)
from academy.error_code import ErrorCode
from academy.header import (
    PROTOCOL_VERSION,
    Header,
    check_version,
    decode_head,
    encode_head,
)
from academy.identifier import EntityId
from academy.segment import Segment
from academy.serialize import join, split
from academy.tag import new_tag
from academy.value import Value

__all__ = [
    "PROTOCOL_VERSION",
    "AcademyErrorResponse",
    "ActionRequest",
    "ActionResponse",
    "Body",
    "BodyT",
    "CancelRequest",
    "ErrorCode",
    "ErrorResponse",
    "Header",
    "Message",
    "PingRequest",
    "Request",
    "RequestT",
    "RequestT_co",
    "Response",
    "ResponseT",
    "ResponseT_co",
    "ShutdownRequest",
    "SuccessResponse",
    "UserErrorResponse",
    "check_version",
]

BodyT = TypeVar("BodyT")
RequestT = TypeVar("RequestT")
RequestT_co = TypeVar("RequestT_co", covariant=True)
ResponseT = TypeVar("ResponseT")
ResponseT_co = TypeVar("ResponseT_co", covariant=True)


class _Received(Struct, gc=False):
    """A body as it came in: its kind, its plain fields, and what it carries."""

    kind: str
    head: msgspec.Raw
    segments: Sequence[Segment]

    def build(self) -> Body:
        decode_plain, build = _builder(self.kind)
        try:
            return build(decode_plain(self.head), self.segments)
        except ValueError as e:
            raise ValueError(f"A message has a damaged {self.kind} body: {e}") from e


@functools.cache
def _builder(kind: str) -> tuple[Callable[[Any], Any], Callable[..., Body]]:
    """Return what decodes the plain fields of a body, and what makes it of them."""
    cls = BODIES.get(kind)
    if cls is None:
        raise ValueError(f"A message has a body of unknown kind {kind!r}.")
    return head_decoder(cls).decode, cls.from_head


class Message(Value, Struct, Generic[BodyT], kw_only=True, eq=False):
    """A header with a body.

    Messages are equal when their headers are: the body may not be decoded yet.

    Attributes:
        header: Who the message is from and for.
        body: The body; use `get_body` on a received message.
    """

    header: Header
    body: Any

    @classmethod
    def create(
        cls,
        src: EntityId,
        dest: EntityId,
        body: BodyT,
        *,
        label: uuid.UUID | None = None,
        tag: uuid.UUID | None = None,
        deadline: float | None = None,
        traceparent: str | None = None,
    ) -> Message[BodyT]:
        """Make a message; whether it is a request follows from the body.

        Args:
            src: The sender.
            dest: The mailbox it is for.
            body: A request or a response.
            label: Optional second tag, which responses repeat.
            tag: Tag that pairs request and response; a new one by default.
            deadline: Seconds from now after which nobody waits for the answer.
            traceparent: The span in whose course it is sent.

        Raises:
            TypeError: The body is neither a request nor a response.
        """
        if isinstance(body, Request):
            kind: Literal["request", "response"] = "request"
        elif isinstance(body, Response):
            kind = "response"
        else:
            raise TypeError(
                f"{type(body).__name__} is no message body; use one of "
                f"{', '.join(b.__name__ for b in BODIES.values())}."
            )
        header = Header(
            src=src,
            dest=dest,
            tag=tag or new_tag(),
            label=label,
            kind=kind,
            deadline=deadline,
            traceparent=traceparent,
        )
        return Message(header=header, body=body)

    def create_response(self, body: ResponseT) -> Message[ResponseT]:
        """Make the answer to this request.

        Raises:
            ValueError: This message is a response itself.
        """
        return Message(header=self.header.create_response_header(), body=body)

    @property
    def src(self) -> EntityId:
        """The sender."""
        return self.header.src

    @property
    def dest(self) -> EntityId:
        """The mailbox it is for."""
        return self.header.dest

    @property
    def tag(self) -> uuid.UUID:
        """Pairs a response with its request."""
        return self.header.tag

    @property
    def label(self) -> uuid.UUID | None:
        """Optional second tag of the sender's own."""
        return self.header.label

    @property
    def protocol_version(self) -> str | None:
        """Version of the message format."""
        return self.header.protocol_version

    @property
    def academy_version(self) -> str:
        """Release of the sender."""
        return self.header.academy_version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self.header == other.header

    def __ne__(self, other: object) -> bool:
        # A struct's own `!=` does not ask `__eq__`.
        return not self == other

    def __hash__(self) -> int:
        return hash((self.header.src, self.header.dest, self.header.tag))

    def is_request(self) -> bool:
        """Return whether the message asks for something."""
        return self.header.kind == "request"

    def is_response(self) -> bool:
        """Return whether the message answers a request."""
        return self.header.kind == "response"

    def get_body(self) -> BodyT:
        """Return the body, built once.

        Raises:
            ValueError: The body is damaged, or of an unknown kind.
        """
        body: Any = self.body
        if type(body) is _Received:
            self.body = body = body.build()
        return body  # type: ignore[no-any-return]

    def age(self, seconds: float) -> None:
        """Take from its deadline, if it has one, the time that it has waited."""
        deadline = self.header.deadline
        if deadline is not None:
            left = max(deadline - seconds, 0.0)
            self.header = msgspec.structs.replace(self.header, deadline=left)

    def log_extra(self) -> dict[str, object]:
        """Return what may be logged about the message: never what it carries."""
        return {
            "academy.message_type": self.body.kind,
            "academy.message_tag": self.tag,
            "academy.src": self.src,
            "academy.dest": self.dest,
        }

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> Any:
        """Return the message as builtin objects."""
        body: Any = self.get_body()
        return {
            "header": self.header.model_dump(mode=mode),
            "body": body.model_dump(mode=mode),
        }

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Build a message from what `model_dump` gave; raises as `Value` does."""
        if isinstance(obj, cls):
            return obj
        try:
            header = Header.model_validate(obj["header"])
            body = obj["body"]
            if not isinstance(body, Body):
                body = BODIES[body["kind"]].model_validate(body)
        except (KeyError, TypeError) as e:
            raise ValueError(f"Not a valid Message: {type(e).__name__}: {e}.") from e
        return cls(header=header, body=body)

    def model_serialize(self) -> bytes:
        """Return the message in its wire format, as one block."""
        return join(encode(self))

    @classmethod
    def model_deserialize(cls, data: Segment) -> Message[BodyT]:
        """Return the message of a block made by `model_serialize`.

        Raises:
            IncompatibleNetworkProtocolError: It is of another protocol version.
            ValueError: The block is damaged.
        """
        return decode(split(data))


def encode(message: Message[Any]) -> list[Segment]:
    """Return the segments of a message: its head, then what its body carries.

    Raises:
        SerializationError: The body carries something that its strategy cannot.
    """
    body = message.body
    if type(body) is _Received:
        head = encode_head(message.header, body.kind, body.head)
        return [head, *body.segments]
    return [encode_head(message.header, body.kind, body.head()), *body.segments()]


def decode(segments: Sequence[Segment]) -> Message[Any]:
    """Return the message of segments made by `encode`; its body is built later.

    Raises:
        IncompatibleNetworkProtocolError: It is of another protocol version.
        ValueError: The head is damaged.
    """
    if not segments:
        raise ValueError("A message has no head.")
    header, kind, plain = decode_head(segments[0])
    return Message(header=header, body=_Received(kind, plain, segments[1:]))
