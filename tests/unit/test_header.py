from __future__ import annotations

import math
import uuid
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from academy.header import Header, decode_head, encode_head
from academy.identifier import AgentId, UserId

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def header(**fields: Any) -> Header:
    return Header(src=UserId.new(), dest=AgentId.new("b"), tag=uuid.uuid4(), **fields)


def request(**fields: Any) -> Header:
    return header(kind="request", **fields)


class FormerHead(Struct, array_like=True):
    """What releases before deadlines and traces read."""

    protocol: str | None
    academy: str
    kind: Literal["request", "response"]
    src: tuple[str, bytes, str | None]
    dest: tuple[str, bytes, str | None]
    tag: bytes
    label: bytes | None
    body_kind: str
    body: msgspec.Raw


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"deadline": 2.5},
        {"deadline": 0.0},
        {"traceparent": PARENT},
        {"deadline": 1.0, "traceparent": PARENT, "label": uuid.uuid4()},
    ],
)
def test_round_trip(fields: dict[str, Any]) -> None:
    h = request(**fields)
    head = encode_head(h, "ping-request", (1, "x"))
    again, kind, body = decode_head(head)
    assert (again, kind) == (h, "ping-request")
    assert msgspec.msgpack.decode(body) == [1, "x"]
    assert encode_head(again, kind, body) == head
    assert Header.model_validate_json(h.model_dump_json()) == h


def test_fields_that_are_absent_cost_nothing() -> None:
    h = request()
    head = encode_head(h, "ping-request", ())
    assert len(msgspec.msgpack.decode(head)) == len(FormerHead.__struct_fields__)


def test_former_releases_read_the_new_fields_over() -> None:
    h = request(deadline=1.5, traceparent=PARENT)
    head = msgspec.msgpack.decode(encode_head(h, "k", ("a",)), type=FormerHead)
    assert (head.body_kind, head.tag) == ("k", h.tag.bytes)
    assert msgspec.msgpack.decode(head.body) == ["a"]


@given(extra=st.lists(st.integers() | st.text(), max_size=3))
def test_what_later_releases_append_is_read_over(extra: list[Any]) -> None:
    h = request(deadline=1.5, traceparent=PARENT)
    fields = msgspec.msgpack.decode(encode_head(h, "k", ()), type=list[msgspec.Raw])
    extra = [x for x in extra if not isinstance(x, int) or abs(x) < 2**63]
    head = msgspec.msgpack.encode([*fields, *extra])
    assert decode_head(head)[0] == h


@pytest.mark.parametrize("deadline", [-1.0, math.nan, "soon", True])
def test_deadlines_that_are_none(deadline: Any) -> None:
    fields = msgspec.msgpack.decode(
        encode_head(request(deadline=1.5), "k", ()), type=list[msgspec.Raw]
    )
    fields[9] = msgspec.Raw(msgspec.msgpack.encode(deadline))
    with pytest.raises(ValueError, match="head of a message is damaged"):
        decode_head(msgspec.msgpack.encode(fields))
    with pytest.raises(ValueError, match="Not a valid Header"):
        Header.model_validate(request().model_dump() | {"deadline": deadline})


def test_responses_have_neither() -> None:
    response = request(deadline=1.5, traceparent=PARENT).create_response_header()
    assert (response.deadline, response.traceparent) == (None, None)
