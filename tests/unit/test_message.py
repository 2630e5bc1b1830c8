from __future__ import annotations

import json
import pathlib
import pickle
import uuid
from operator import ne
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from academy.exception import (
    DeserializationError,
    IncompatibleNetworkProtocolError,
    SerializationError,
)
from academy.identifier import AgentId, UserId
from academy.message import (
    PROTOCOL_VERSION,
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    CancelRequest,
    ErrorCode,
    Header,
    Message,
    PingRequest,
    ShutdownRequest,
    SuccessResponse,
    UserErrorResponse,
    check_version,
    decode,
    encode,
)
from academy.segment import detach
from academy.serialize import SerializationStrategy, join, split

PICKLE, JSON = SerializationStrategy.PICKLE, SerializationStrategy.JSON
AGENT: AgentId[Any] = AgentId.new("bob")
USER = UserId.new()
TAG = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
LABEL = uuid.uuid4()

REQUESTS = [
    ActionRequest(action="sq", serialization=JSON, pargs=(1, "ä"), kargs={"x": [2]}),
    PingRequest(),
    CancelRequest(target_tag=TAG),
    ShutdownRequest(terminate=True),
]
RESPONSES = [
    ActionResponse(result={"a": 1}, serialization=PICKLE),
    SuccessResponse(),
    UserErrorResponse(exception=KeyError("k"), serialization=PICKLE),
    AcademyErrorResponse(error_code=ErrorCode.PEER_LOST, mailbox_id=AGENT),
]
each_body = pytest.mark.parametrize(
    "body", REQUESTS + RESPONSES, ids=lambda b: type(b).__name__
)


def ping(**kwargs: Any) -> Message[PingRequest]:
    return Message.create(USER, AGENT, PingRequest(), **kwargs)


def same(one: Message[Any], other: Message[Any]) -> bool:
    """Whether headers and bodies are equal, decoded or not."""
    return one == other and one.get_body().model_dump() == other.get_body().model_dump()


def head_of(*fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


class TestMessage:
    def test_create(self) -> None:
        message = ping(tag=TAG, label=LABEL)
        assert (message.src, message.dest) == (USER, AGENT)
        assert (message.tag, message.label) == (TAG, LABEL)
        assert message.protocol_version == PROTOCOL_VERSION
        assert message.academy_version
        assert ping().tag != ping().tag
        assert ping().label is None

    @each_body
    def test_kind_follows_from_the_body(self, body: Any) -> None:
        message = Message.create(USER, AGENT, body)
        assert message.is_request() == (body in REQUESTS)
        assert message.is_response() == (body in RESPONSES)
        assert message.get_body() is body

    @pytest.mark.parametrize("body", [None, {"kind": "ping-request"}, PingRequest])
    def test_no_body(self, body: Any) -> None:
        with pytest.raises(TypeError, match=r"is no message body; use one of Action"):
            Message.create(USER, AGENT, body)

    def test_response(self) -> None:
        request = ping(label=LABEL)
        response = request.create_response(SuccessResponse())
        assert (response.src, response.dest) == (AGENT, USER)
        assert (response.tag, response.label) == (request.tag, LABEL)
        assert response.is_response()
        with pytest.raises(ValueError, match="A response cannot be answered"):
            response.create_response(SuccessResponse())

    def test_equality_is_that_of_headers(self) -> None:
        message = ping(tag=TAG)
        assert message == ping(tag=TAG)
        assert hash(message) == hash(ping(tag=TAG))
        assert message != ping()
        assert message != "message"
        assert not ne(message, decode(encode(message)))
        assert message != message.create_response(SuccessResponse())

    def test_log_extra_shows_nothing_that_is_carried(self) -> None:
        request = Message.create(
            USER, AGENT, ActionRequest(action="f", serialization=JSON, pargs=("pw",))
        )
        for message in (request, decode(encode(request))):
            extra = message.log_extra()
            assert extra["academy.message_type"] == "action-request"
            assert extra["academy.message_tag"] == request.tag
            assert (extra["academy.src"], extra["academy.dest"]) == (USER, AGENT)
            assert "pw" not in repr(extra)

    def test_repr_of_an_undecoded_message_runs_no_code(self) -> None:
        message = decode(encode(ping()))
        assert repr(message).startswith("Message(header=Header(src=UserId(")

    def test_generic_at_run_time(self) -> None:
        assert Message[PingRequest].create(USER, AGENT, PingRequest()).is_request()


class TestWire:
    @each_body
    def test_round_trip(self, body: Any) -> None:
        message = Message.create(USER, AGENT, body, label=LABEL)
        assert same(Message.model_deserialize(message.model_serialize()), message)
        assert same(decode(encode(message)), message)

    @each_body
    def test_forwarded_undecoded(self, body: Any) -> None:
        message = Message.create(USER, AGENT, body)
        received = decode(detach(encode(message)))
        assert encode(received) == detach(encode(message))
        forwarded = decode(encode(received))
        assert same(forwarded, message)

    def test_names_travel(self) -> None:
        again = decode(encode(ping()))
        assert again.dest.name == "bob"
        assert again.src.name is None
        assert isinstance(again.dest, AgentId)
        assert isinstance(again.src, UserId)

    def test_body_is_built_once(self) -> None:
        message = decode(encode(ping()))
        assert message.get_body() is message.get_body()

    def test_arrays_travel_out_of_band_and_arrive_writable(self) -> None:
        array = np.arange(10_000.0)
        body = ActionResponse(result={"a": array}, serialization=PICKLE)
        message = ping().create_response(body)
        head, stream, buffer = encode(message)
        assert len(head) + len(stream) < 1000
        assert np.shares_memory(np.frombuffer(buffer), array)
        received = Message[ActionResponse].model_deserialize(message.model_serialize())
        result = received.get_body().get_result()["a"]
        result += 1
        assert np.array_equal(result, array + 1)

    def test_what_cannot_travel(self) -> None:
        body = ActionResponse(result={1}, serialization=JSON)
        with pytest.raises(SerializationError, match="The result"):
            encode(ping().create_response(body))

    def test_damaged_object_is_an_error_of_its_reader_only(self) -> None:
        head, stream = encode(ping().create_response(RESPONSES[0]))
        message = decode([head, b"\x80\x05garbage"])
        assert message.is_response()
        with pytest.raises(DeserializationError):
            message.get_body().get_result()
        assert stream


class TestDamage:
    def test_no_head(self) -> None:
        with pytest.raises(ValueError, match="has no head"):
            decode([])

    @given(segments=st.lists(st.binary(), min_size=1))
    @example(segments=[b""])
    @example(segments=[b"\x91" * 100_000])
    @example(segments=[b"\x99" + b"\x91" * 100_000])
    @example(segments=[b"\xdd\xff\xff\xff\xff"])
    def test_random_segments(self, segments: list[bytes]) -> None:
        with pytest.raises((ValueError, IncompatibleNetworkProtocolError)):
            decode(segments)

    @given(block=st.binary())
    def test_random_blocks(self, block: bytes) -> None:
        with pytest.raises((ValueError, IncompatibleNetworkProtocolError)):
            Message.model_deserialize(block)

    @given(data=st.data())
    def test_flipped_bytes(self, data: st.DataObject) -> None:
        """A changed message is refused, or is another well-formed one."""
        body = data.draw(st.sampled_from([*REQUESTS, RESPONSES[1], RESPONSES[3]]))
        block = bytearray(Message.create(USER, AGENT, body).model_serialize())
        for _ in range(data.draw(st.integers(1, 4))):
            block[data.draw(st.integers(0, len(block) - 1))] = data.draw(
                st.integers(0, 255)
            )
        try:
            message: Message[Any] = Message.model_deserialize(bytes(block))
            decoded = message.get_body()
        except (ValueError, IncompatibleNetworkProtocolError):
            return
        assert type(decoded).__name__ in repr(message)

    def test_deep_nesting_in_a_valid_head(self) -> None:
        head = msgspec.msgpack.decode(encode(ping())[0], type=list[msgspec.Raw])
        head[-1] = msgspec.Raw(b"\x91" * 100_000 + b"\x90")
        with pytest.raises(ValueError, match="head of a message is damaged"):
            decode([msgspec.msgpack.encode(head)])

    @pytest.mark.parametrize("version", ["1.1", "3.0", "", "x"])
    def test_foreign_version(self, version: str) -> None:
        message = ping()
        head = msgspec.msgpack.decode(encode(message)[0])
        for foreign in (head_of(version, *head[1:]), head_of(version, {"other": 1})):
            with pytest.raises(IncompatibleNetworkProtocolError) as caught:
                decode([foreign])
            assert caught.value.version == version
            assert caught.value.cur_version == PROTOCOL_VERSION

    def test_no_version(self) -> None:
        head = msgspec.msgpack.decode(encode(ping())[0])
        with pytest.raises(IncompatibleNetworkProtocolError, match="version None"):
            decode([head_of(None, *head[1:])])

    @pytest.mark.parametrize(
        "head",
        [
            head_of(PROTOCOL_VERSION, 1, 2),
            head_of(),
            head_of(7),
            head_of(None),
            b"\x80",
        ],
    )
    def test_no_head_of_ours(self, head: bytes) -> None:
        with pytest.raises(ValueError, match="head of a message is damaged"):
            decode([head])

    @pytest.mark.parametrize(
        ("kind", "plain", "message"),
        [
            ("party-request", [], "a body of unknown kind 'party-request'"),
            ("cancel-request", ["x"], "a damaged cancel-request body: .*UUID"),
            ("cancel-request", [], "a damaged cancel-request body"),
            ("action-request", [1, 2, 3, 4], "a damaged action-request body"),
            ("academy-error-response", [99, None, "no", ""], "Invalid enum value 99"),
        ],
    )
    def test_damaged_bodies_leave_the_header(
        self, kind: str, plain: Any, message: str
    ) -> None:
        """So that the sender can be told."""
        request = ping()
        head = msgspec.msgpack.decode(encode(request)[0], type=list[msgspec.Raw])
        head[-2:] = [msgspec.Raw(msgspec.msgpack.encode(v)) for v in (kind, plain)]
        received = decode([msgspec.msgpack.encode(head)])
        assert received == request
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                received.get_body()
        assert received.create_response(SuccessResponse()).dest == USER


@pytest.mark.parametrize(
    ("version", "known"),
    [
        (PROTOCOL_VERSION, True),
        ("2", True),
        ("2.99", True),
        ("1.1", False),
        ("20.0", False),
        ("", False),
        (None, False),
    ],
)
def test_check_version(version: str | None, known: bool) -> None:
    assert check_version(version) is known


class TestJson:
    @each_body
    def test_round_trip(self, body: Any) -> None:
        message = Message.create(USER, AGENT, body, label=LABEL)
        for received in (message, decode(encode(message))):
            text = received.model_dump_json()
            assert same(Message.model_validate_json(text), message)
            assert json.loads(text)["body"]["kind"] == body.kind
            assert same(Message.model_validate(received.model_dump()), message)
            dump = received.model_dump(mode="json")
            assert json.loads(json.dumps(dump)) == dump

    def test_parts_may_be_values(self) -> None:
        message = ping()
        assert Message.model_validate(message) is message
        parts = {"header": message.header, "body": message.get_body()}
        assert same(Message.model_validate(parts), message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"header": None}, "Header"),
            ({"body": None}, "Not a valid Message: TypeError"),
            ({"body": {}}, "Not a valid Message: KeyError: 'kind'"),
            ({"body": {"kind": "party"}}, "Not a valid Message: KeyError: 'party'"),
            ({"body": {"kind": []}}, "Not a valid Message: TypeError"),
            ({"body": {"kind": "ping-request", "x": 1}}, "has no field x"),
        ],
    )
    def test_invalid(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Message.model_validate(ping().model_dump() | change)

    @pytest.mark.parametrize("obj", [None, 7, [], {}, {"header": {}}])
    def test_no_message(self, obj: Any) -> None:
        with pytest.raises(ValueError, match="Not a valid"):
            Message.model_validate(obj)

    def test_field_of_a_pydantic_model(self) -> None:
        class Model(pydantic.BaseModel):
            message: Message[Any]

        model = Model(message=ping())
        assert same(
            Model.model_validate_json(model.model_dump_json()).message, model.message
        )

    def test_reading_json_runs_no_code(self, tmp_path: pathlib.Path) -> None:
        class Pest:
            def __reduce__(self) -> Any:
                return pathlib.Path.touch, (tmp_path / "trace",)

        body = ActionResponse(result=Pest(), serialization=PICKLE)
        text = ping().create_response(body).model_dump_json()
        message = Message[ActionResponse].model_validate_json(text)
        assert Message.model_deserialize(message.model_serialize()) == message
        assert not (tmp_path / "trace").exists()
        message.get_body().get_result()
        assert (tmp_path / "trace").exists()


class TestHeader:
    def test_round_trip(self) -> None:
        header = ping(label=LABEL).header
        assert Header.model_validate_json(header.model_dump_json()) == header
        assert hash(Header.model_validate(header.model_dump())) == hash(header)

    def test_response_header(self) -> None:
        header = ping(tag=TAG).header.create_response_header()
        assert (header.src, header.dest, header.tag) == (AGENT, USER, TAG)
        with pytest.raises(ValueError, match="header of a response"):
            header.create_response_header()

    def test_frozen(self) -> None:
        with pytest.raises(AttributeError):
            ping().header.kind = "response"  # type: ignore[misc]


def test_messages_pickle() -> None:
    message = ping()
    assert same(pickle.loads(pickle.dumps(message)), message)


def test_block_is_one_of_segments() -> None:
    message = ping()
    block = message.model_serialize()
    assert split(block) == encode(message)
    assert join(encode(message)) == block
