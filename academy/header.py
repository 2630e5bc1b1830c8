"""Headers of messages: who a message is from and for, and how that travels.

The head, the first segment of a message, is the header with the kind of the body and
its plain fields, in MessagePack.
"""

from __future__ import annotations

import functools
import uuid
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from academy import __version__
from academy.exception import IncompatibleNetworkProtocolError
from academy.identifier import AgentId, EntityId, UserId
from academy.value import Value

PROTOCOL_VERSION = "2.0"
"""Version of the message format; equal major versions understand each other."""

Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
Buffer: TypeAlias = bytes | bytearray | memoryview


def check_version(version: str | None) -> bool:
    """Return whether messages of that protocol version are understood here."""
    if not isinstance(version, str):
        return False
    return version.partition(".")[0] == PROTOCOL_VERSION.partition(".")[0]


class Header(Value, Struct, frozen=True, kw_only=True, gc=False):
    """Who a message is from and for, and what it belongs to.

    Attributes:
        src: The sender.
        dest: The mailbox it is for.
        tag: Pairs a response with its request.
        label: Optional second tag of the sender's own; responses repeat it.
        kind: `'request'` or `'response'`.
        protocol_version: Version of the message format.
        academy_version: Release of the sender.
        deadline: Seconds after which nobody waits for the answer to a request;
            `None` for no limit. They count from its arrival, and before that while it
            waits in a queue.
        traceparent: The span in whose course it was sent, as W3C Trace Context
            writes it.
    """

    src: AgentId[Any] | UserId
    dest: AgentId[Any] | UserId
    tag: uuid.UUID
    label: uuid.UUID | None = None
    kind: Literal["request", "response"]
    protocol_version: str | None = PROTOCOL_VERSION
    academy_version: str = __version__
    deadline: Seconds | None = None
    traceparent: str | None = None

    def create_response_header(self) -> Header:
        """Return the header of the answer to this request.

        Raises:
            ValueError: This is the header of a response.
        """
        if self.kind == "response":
            raise ValueError(
                "A response cannot be answered: this is the header of a response."
            )
        return Header(
            src=self.dest,
            dest=self.src,
            tag=self.tag,
            label=self.label,
            kind="response",
        )


class _Entity(Struct, array_like=True, frozen=True):
    role: Literal["agent", "user"]
    uid: uuid.UUID
    name: str | None


class _Head(Struct, array_like=True, frozen=True):
    """The head of most messages. Readers skip what newer releases append to it."""

    protocol: str | None
    academy: str
    kind: Literal["request", "response"]
    src: msgspec.Raw  # an `_Entity`
    dest: msgspec.Raw
    tag: uuid.UUID
    label: uuid.UUID | None
    body_kind: str
    body: msgspec.Raw  # its plain fields


class _LongHead(_Head, array_like=True, frozen=True):
    """The head of a message that has one of these."""

    deadline: Seconds | None = None
    traceparent: str | None = None


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder = msgspec.msgpack.Decoder(_LongHead)
_entity_decoder = msgspec.msgpack.Decoder(_Entity)
_version_decoder = msgspec.msgpack.Decoder(list[Any])
# Data that is nested too deep is damage, too.
_DAMAGED = (msgspec.DecodeError, RecursionError)


def encode_head(h: Header, body_kind: str, body: Any) -> bytes:
    """Return the head of a message.

    Args:
        h: Its header.
        body_kind: Kind of its body.
        body: The plain fields of the body, or what `decode_head` gave for them.
    """
    src, dest = h.src, h.dest
    # A tuple is written like a struct, and made faster.
    fields: tuple[Any, ...] = (
        h.protocol_version,
        h.academy_version,
        h.kind,
        (src.role, src.uid, src.name),
        (dest.role, dest.uid, dest.name),
        h.tag,
        h.label,
        body_kind,
        body,
    )
    if h.deadline is not None or h.traceparent is not None:
        fields += h.deadline, h.traceparent
    return _encoder.encode(fields)


def decode_head(head: Buffer) -> tuple[Header, str, msgspec.Raw]:
    """Return the header, the kind of the body and its plain fields, undecoded.

    Raises:
        IncompatibleNetworkProtocolError: It is of another protocol version.
        ValueError: The head is damaged.
    """
    try:
        h = _decoder.decode(head)
        known = h.protocol == PROTOCOL_VERSION or check_version(h.protocol)
        src, dest = _identifier(bytes(h.src)), _identifier(bytes(h.dest))
    except _DAMAGED as e:
        _check_foreign(head)
        raise ValueError(f"The head of a message is damaged: {e}") from e
    if not known:
        raise IncompatibleNetworkProtocolError(h.protocol, PROTOCOL_VERSION)
    header = Header(
        src=src,
        dest=dest,
        tag=h.tag,
        label=h.label,
        kind=h.kind,
        protocol_version=h.protocol,
        academy_version=h.academy,
        deadline=h.deadline,
        traceparent=h.traceparent,
    )
    return header, h.body_kind, h.body


@functools.lru_cache(maxsize=4096)
def _identifier(data: bytes) -> EntityId:
    entity = _entity_decoder.decode(data)
    if entity.role == "agent":
        return AgentId(uid=entity.uid, name=entity.name)
    return UserId(uid=entity.uid, name=entity.name)


def _check_foreign(head: Buffer) -> None:
    """Tell a head of another version, laid out otherwise, from a damaged one."""
    try:
        fields = _version_decoder.decode(head)
    except _DAMAGED:
        return
    if fields and isinstance(fields[0], str) and not check_version(fields[0]):
        raise IncompatibleNetworkProtocolError(fields[0], PROTOCOL_VERSION)
