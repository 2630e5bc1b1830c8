from __future__ import annotations

import base64
import pathlib
import pickle
import uuid
from typing import Any

import msgspec
import numpy as np
import pytest

from academy.body import (
    BODIES,
    AcademyErrorResponse,
    ActionRequest,
    ActionResponse,
    Body,
    CancelRequest,
    ErrorCode,
    ErrorResponse,
    PingRequest,
    Request,
    Response,
    ShutdownRequest,
    SuccessResponse,
    UserErrorResponse,
    head_decoder,
)
from academy.exception import (
    AcademyRemoteError,
    ActionCancelledError,
    ActionInvalidStateError,
    AgentTerminatedError,
    DeserializationError,
    DeserializationMethodProhibitedError,
    ForbiddenError,
    IncompatibleNetworkProtocolError,
    PeerLostError,
    PeerUnreachableError,
    PingCancelledError,
    RequestLostError,
    SerializationError,
    UserTerminatedError,
)
from academy.identifier import AgentId, UserId
from academy.serialize import SerializationStrategy, allowing, join, pack

PICKLE, JSON = SerializationStrategy.PICKLE, SerializationStrategy.JSON
AGENT: AgentId[Any] = AgentId.new("bob")
USER = UserId.new("ann")
TAG = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")

SAMPLES: list[Body] = [
    ActionRequest(action="sq", serialization=PICKLE, pargs=(1,), kargs={"x": {2}}),
    ActionRequest(
        action="sq",
        serialization=JSON,
        result_serialization=PICKLE,
        exception_serialization=JSON,
        pargs=(1, "a"),
    ),
    PingRequest(),
    CancelRequest(target_tag=TAG),
    ShutdownRequest(),
    ShutdownRequest(terminate=False),
    ActionResponse(result={1: 2}, serialization=PICKLE),
    ActionResponse(result=None, serialization=JSON),
    SuccessResponse(),
    UserErrorResponse(exception=KeyError("k"), serialization=PICKLE),
    AcademyErrorResponse(error_code=ErrorCode.PING_CANCELLED),
    AcademyErrorResponse(
        error_code=ErrorCode.PEER_LOST, mailbox_id=USER, executed="no", detail="killed"
    ),
]
each_body = pytest.mark.parametrize("body", SAMPLES, ids=lambda b: type(b).__name__)


def received(body: Body) -> Body:
    """The body as it is on the other side."""
    head = head_decoder(type(body)).decode(msgspec.msgpack.encode(body.head()))
    return type(body).from_head(head, body.segments())


def content(body: Body) -> Any:
    """What a program can get out of a body."""
    if isinstance(body, ActionRequest):
        return *body.head(), body.get_args(), body.get_kwargs()
    if isinstance(body, ActionResponse):
        return *body.head(), body.get_result()
    if isinstance(body, UserErrorResponse):
        return *body.head(), repr(body.get_exception())
    return body.head()


def test_all_bodies_are_known_by_their_kinds() -> None:
    assert {type(body) for body in SAMPLES} == set(BODIES.values())
    assert all(cls.kind == kind for kind, cls in BODIES.items())


@each_body
def test_request_or_response(body: Body) -> None:
    assert isinstance(body, Request) == body.kind.endswith("request")
    assert isinstance(body, Response) == body.kind.endswith("response")
    assert isinstance(body, ErrorResponse) == ("error" in body.kind)


@each_body
def test_wire(body: Body) -> None:
    again = received(body)
    assert type(again) is type(body)
    assert content(again) == content(body)


@each_body
def test_forwarded_undecoded(body: Body) -> None:
    again = received(body)
    assert again.segments() == body.segments()


@each_body
@pytest.mark.parametrize("mode", ["python", "json"])
def test_dump(body: Body, mode: Any) -> None:
    dump = body.model_dump(mode=mode)
    assert dump["kind"] == body.kind
    assert content(type(body).model_validate(dump)) == content(body)


@each_body
def test_json(body: Body) -> None:
    again = type(body).model_validate_json(body.model_dump_json())
    assert content(again) == content(body)
    assert type(body).model_validate(body) is body


@each_body
def test_repr_shows_no_kind(body: Body) -> None:
    assert repr(body).startswith(f"{type(body).__name__}(")
    assert "kind=" not in repr(body)
    assert "packed" not in repr(body)


class TestValidate:
    @pytest.mark.parametrize(
        ("cls", "obj", "message"),
        [
            (CancelRequest, {}, "Not a valid CancelRequest: 'target_tag'"),
            (CancelRequest, {"target_tag": "x"}, "Not a valid CancelRequest: .*UUID"),
            (PingRequest, {"kind": "cancel-request"}, "its kind is 'cancel-request'"),
            (PingRequest, {"size": 1, "age": 2}, "it has no field age, size"),
            (PingRequest, 7, "Not a valid PingRequest"),
            (ShutdownRequest, {"terminate": "maybe"}, "Not a valid ShutdownRequest"),
            (ActionResponse, {"serialization": "yaml"}, "Not a valid ActionResponse"),
            (
                ActionResponse,
                {"serialization": "json", "packed": "AAAAAQ=="},
                "Not a valid ActionResponse: .*cut off",
            ),
            (AcademyErrorResponse, {"error_code": 99}, "AcademyErrorResponse: "),
        ],
    )
    def test_invalid(self, cls: type[Body], obj: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            cls.model_validate(obj)

    def test_reading_json_runs_no_code(self, tmp_path: pathlib.Path) -> None:
        trace = tmp_path / "trace"
        stream = pickle.dumps(_Call(pathlib.Path.touch, trace))
        packed = base64.b64encode(join([stream])).decode()
        body = ActionResponse.model_validate(
            {"serialization": "pickle", "packed": packed}
        )
        assert not trace.exists()
        body.get_result()
        assert trace.exists()


class _Call:
    """Unpickling it is a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class TestActionRequest:
    def test_strategies_by_name(self) -> None:
        request = ActionRequest(
            action="f",
            serialization="json",
            result_serialization="pickle",
            exception_serialization="json",
        )
        assert request.serialization is JSON
        assert request.result_serialization is PICKLE
        assert request.exception_serialization is JSON
        with pytest.raises(ValueError, match="yaml"):
            ActionRequest(action="f", serialization="yaml")

    def test_arguments_are_decoded_once(self) -> None:
        request = received(
            ActionRequest(action="f", serialization=PICKLE, pargs=([1],), kargs={})
        )
        assert isinstance(request, ActionRequest)
        [argument] = request.get_args()
        argument.append(2)
        assert request.get_kwargs() == {}
        assert request.get_args() == ([1, 2],)
        assert request.packed is None

    @pytest.mark.parametrize("strategy", [PICKLE, JSON])
    @pytest.mark.parametrize(
        "arguments", [5, None, [1], [[1], 2], [1, {}], "ab", [[], {}, []]]
    )
    def test_carries_something_else(
        self, strategy: SerializationStrategy, arguments: Any
    ) -> None:
        request = ActionRequest(
            action="f",
            serialization=strategy,
            packed=pack(arguments, strategy, what="result"),
        )
        with pytest.raises(DeserializationError, match="they are no arguments"):
            request.get_args()
        with pytest.raises(DeserializationError, match="they are no arguments"):
            request.get_kwargs()

    def test_arguments_that_cannot_travel(self) -> None:
        request = ActionRequest(action="f", serialization=JSON, pargs=({1},))
        with pytest.raises(SerializationError, match=r"The arguments \(set\) could"):
            request.segments()


class TestCarried:
    """Decoding is the reader's choice, and obeys the reader's policy."""

    @pytest.mark.parametrize(
        "body",
        [
            ActionRequest(action="f", serialization=PICKLE),
            ActionResponse(serialization=PICKLE),
            UserErrorResponse(exception=ValueError(), serialization=PICKLE),
        ],
        ids=lambda body: body.kind,
    )
    def test_policy(self, body: Body) -> None:
        again = received(body)
        with allowing({JSON}), pytest.raises(DeserializationMethodProhibitedError):
            content(again)
        assert content(again) == content(body)

    def test_nothing_arrived(self) -> None:
        with pytest.raises(DeserializationError):
            ActionResponse(serialization=PICKLE, packed=[]).get_result()

    def test_array_is_writable_and_apart(self) -> None:
        array = np.zeros(100)
        body = ActionResponse(result=array, serialization=PICKLE)
        again = ActionResponse.model_validate(body.model_dump())
        again.get_result()[0] = 1
        assert again.get_result()[0] == 1
        assert array[0] == 0

    def test_exception_as_json_loses_its_type(self) -> None:
        body = UserErrorResponse(exception=KeyError("k"), serialization=JSON)
        again = received(body)
        assert isinstance(again, UserErrorResponse)
        assert isinstance(again.get_exception(), AcademyRemoteError)
        assert again.get_exception() is again.get_exception()

    @pytest.mark.parametrize("thing", [None, "text", KeyboardInterrupt()])
    def test_no_exception(self, thing: Any) -> None:
        body = received(UserErrorResponse(exception=thing, serialization=PICKLE))
        assert isinstance(body, UserErrorResponse)
        with pytest.raises(TypeError, match="which is no exception"):
            body.get_exception()


class TestAcademyError:
    @pytest.mark.parametrize(
        ("code", "mailbox_id", "error"),
        [
            (ErrorCode.MAILBOX_TERMINATED, AGENT, AgentTerminatedError),
            (ErrorCode.MAILBOX_TERMINATED, USER, UserTerminatedError),
            (ErrorCode.PING_CANCELLED, None, PingCancelledError),
            (ErrorCode.ACTION_INVALID_STATE, None, ActionInvalidStateError),
            (ErrorCode.ACTION_CANCELLED, None, ActionCancelledError),
            (ErrorCode.INVALID_CLIENT, None, ForbiddenError),
            (ErrorCode.INCOMPATIBLE_PROTOCOL, None, IncompatibleNetworkProtocolError),
            (ErrorCode.PEER_LOST, AGENT, PeerLostError),
            (ErrorCode.PEER_UNREACHABLE, AGENT, PeerUnreachableError),
            (ErrorCode.REQUEST_LOST, AGENT, RequestLostError),
        ],
    )
    def test_exception_of_each_code(
        self, code: ErrorCode, mailbox_id: Any, error: type[Exception]
    ) -> None:
        body = received(AcademyErrorResponse(error_code=code, mailbox_id=mailbox_id))
        assert isinstance(body, AcademyErrorResponse)
        exception = body.get_exception()
        assert type(exception) is error
        assert getattr(exception, "uid", None) == mailbox_id

    def test_every_code_has_an_exception(self) -> None:
        for code in ErrorCode:
            body = AcademyErrorResponse(error_code=code, mailbox_id=AGENT, detail="d")
            assert isinstance(body.get_exception(), Exception)

    @pytest.mark.parametrize(
        "code", [ErrorCode.PEER_LOST, ErrorCode.MAILBOX_TERMINATED]
    )
    def test_details_are_kept(self, code: ErrorCode) -> None:
        body = AcademyErrorResponse(
            error_code=code, mailbox_id=AGENT, executed="no", detail="killed"
        )
        exception: Any = body.get_exception()
        assert exception.executed == "no"
        assert "killed" in str(exception)

    def test_refusal_in_words(self) -> None:
        code = ErrorCode.INVALID_CLIENT
        said = AcademyErrorResponse(error_code=code, detail="users do not answer")
        assert str(said.get_exception()) == "users do not answer"
        silent = AcademyErrorResponse(error_code=code)
        assert str(silent.get_exception()) == "The request was refused."

    def test_foreign_version(self) -> None:
        body = AcademyErrorResponse(
            error_code=ErrorCode.INCOMPATIBLE_PROTOCOL, detail="9.1"
        )
        error = body.get_exception()
        assert isinstance(error, IncompatibleNetworkProtocolError)
        assert (error.version, error.cur_version) == ("9.1", "2.0")

    def test_names_nobody(self) -> None:
        body = AcademyErrorResponse(error_code=ErrorCode.PEER_LOST)
        with pytest.raises(ValueError, match="PEER_LOST names nobody"):
            body.get_exception()
