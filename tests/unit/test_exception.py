from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from academy import exception
from academy.exception import (
    AcademyRemoteError,
    ActionCancelledError,
    ActionInvalidStateError,
    AgentInactiveError,
    AgentNotInitializedError,
    AgentStartError,
    AgentTerminatedError,
    AuthenticationError,
    BackpressureTimeout,
    BadEntityIdError,
    DeliveryError,
    DeserializationError,
    DeserializationMethodProhibitedError,
    ExceptionSerializationError,
    ExchangeClientNotFoundError,
    ExchangeError,
    FencedError,
    ForbiddenError,
    IncompatibleNetworkProtocolError,
    MailboxFullError,
    MailboxTerminatedError,
    MessageTooLargeError,
    PeerLostError,
    PeerUnreachableError,
    PingCancelledError,
    RequestLostError,
    SerializationError,
    ShutdownTimeoutError,
    UnauthorizedActionError,
    UnauthorizedError,
    UserTerminatedError,
    WorkerMismatchError,
    raise_exceptions,
)
from academy.identifier import AgentId, UserId

AGENT: AgentId[Any] = AgentId.new("bob")
USER = UserId.new("ann")

# Each error with the words its text must have.
ERRORS: list[tuple[Exception, str]] = [
    (ExchangeError("broken"), "^broken$"),
    (BadEntityIdError(AGENT), "AgentId<bob>.*same server and namespace"),
    (ForbiddenError("not yours"), "not yours"),
    (UnauthorizedError("who?"), "who?"),
    (
        UnauthorizedActionError(AGENT, "drop"),
        "AgentId<bob> does not permit the action 'drop' .* not executed. Call as",
    ),
    (AuthenticationError("liar"), "liar"),
    (MailboxTerminatedError(AGENT), "^Mailbox for AgentId<bob> has been terminated.$"),
    (AgentTerminatedError(AGENT, "crashed", "no"), "has been terminated: crashed$"),
    (UserTerminatedError(USER, executed="no"), "UserId<ann> has been terminated.$"),
    (FencedError(AGENT), "AgentId<bob> was taken over by a newer client"),
    (DeliveryError(AGENT), "AgentId<bob> was not delivered. It may have been executed"),
    (PeerLostError(AGENT, "no", "killed"), "is gone: killed. It was not executed"),
    (PeerUnreachableError(AGENT), "AgentId<bob> cannot be reached. It may have"),
    (RequestLostError(AGENT), "request to AgentId<bob> was lost"),
    (MailboxFullError(AGENT, "no"), "mailbox of AgentId<bob> is full"),
    (BackpressureTimeout(AGENT, "no"), "AgentId<bob> does not keep up"),
    (MessageTooLargeError(3, 2), "3 bytes is larger than the limit of 2 bytes"),
    (
        SerializationError("result", "Lock", "json", "TypeError: no"),
        r"The result \(Lock\) could not be serialized with json: TypeError: no. Send",
    ),
    (
        SerializationError("arguments", "Lock", "pickle"),
        r"The arguments \(Lock\) could not be serialized with pickle. Send",
    ),
    (ExceptionSerializationError("E", "json", "d"), r"The exception \(E\) could .*: d"),
    (DeserializationError("result", "pickle", "no numpy"), "result could .*: no numpy"),
    (
        DeserializationMethodProhibitedError("pickle", ("json",)),
        "with pickle is not accepted here; accepted: json.",
    ),
    (DeserializationMethodProhibitedError("json"), "accepted: nothing."),
    (IncompatibleNetworkProtocolError("1.1", "2.0"), "version 1.1, .* speaks 2.0"),
    (IncompatibleNetworkProtocolError(), "version None"),
    (AcademyRemoteError("ValueError: x"), "^ValueError: x$"),
    (ActionCancelledError(), "cancelled by the agent"),
    (ActionInvalidStateError(), "not running, so it cannot be cancelled"),
    (PingCancelledError(), "before it was running"),
    (AgentInactiveError(AGENT), "AgentId<bob> is registered but .*reject_on_inactive"),
    (AgentNotInitializedError(), "not been started"),
    (ExchangeClientNotFoundError(AGENT), "handle to AgentId<bob> has no exchange"),
    (ExchangeClientNotFoundError(None), "has no exchange client"),
    (AgentStartError(AGENT, "no module"), "AgentId<bob> could not be .*: no module"),
    (WorkerMismatchError("Python 3.9"), "Python 3.9. Use the same environment"),
    (ShutdownTimeoutError([AGENT, AGENT], 2.5), "2.5 s .*: AgentId<bob>, AgentId<bob>"),
]
each_error = pytest.mark.parametrize(
    ("error", "text"), ERRORS, ids=lambda v: type(v).__name__
)


def classes() -> dict[str, type[Exception]]:
    return {
        name: value
        for name, value in vars(exception).items()
        if inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == exception.__name__
    }


def test_every_class_is_in_the_table() -> None:
    # Making a MailboxTerminatedError gives one of its subclasses.
    made = {type(error).__name__ for error, _ in ERRORS} | {"MailboxTerminatedError"}
    assert made == set(classes())


@each_error
def test_text(error: Exception, text: str) -> None:
    assert re.search(text, str(error))


@each_error
@pytest.mark.parametrize("copied", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_pickle_keeps_it_all(error: Exception, text: str, copied: Any) -> None:
    noted = copy.copy(error)
    noted.add_note("a note")
    again = copied(noted)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert again.__dict__ == {**error.__dict__, "__notes__": ["a note"]}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(protocol: int) -> None:
    error = PeerLostError(AGENT, "no", "killed")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert (again.uid, again.executed, again.detail) == (AGENT, "no", "killed")


def test_tree_of_the_docstring() -> None:
    """The drawing names every class, below the one it derives from."""
    assert exception.__doc__ is not None
    drawing = exception.__doc__.split("```")[1].strip().splitlines()
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in drawing:
        match = re.match(r"([│├└─ ]*)(\w+(?:, \w+)*)(?:  .*)?$", line)
        assert match is not None, line
        depth = len(match[1]) // 3
        for name in match[2].split(", "):
            path[depth:] = [name]
            drawn[name] = path[depth - 1] if depth else "object"
    real = {
        name: next(
            (base.__name__ for base in cls.__mro__[1:] if base.__name__ in classes()),
            "Exception",
        )
        for name, cls in classes().items()
    }
    assert drawn == {"Exception": "object"} | real


def test_terminated_by_kind_of_identifier() -> None:
    agent, user = MailboxTerminatedError(AGENT), MailboxTerminatedError(USER, "left")
    assert type(agent) is AgentTerminatedError
    assert type(user) is UserTerminatedError
    assert (agent.uid, agent.reason, agent.executed) == (AGENT, None, "maybe")
    assert (user.uid, user.reason, user.executed) == (USER, "left", "maybe")


def test_attributes() -> None:
    assert MessageTooLargeError(3, 2).limit == 2
    failed = ExceptionSerializationError("E", "json")
    assert (failed.exception_name, failed.type_name, failed.what) == (
        "E",
        "E",
        "exception",
    )
    late = ShutdownTimeoutError(iter([AGENT]), 1)
    assert late.uids == (AGENT,)
    assert isinstance(late, TimeoutError)


class TestRaiseExceptions:
    def test_none(self) -> None:
        raise_exceptions([])

    def test_one_as_it_is(self) -> None:
        error = ValueError("x")
        with pytest.raises(ValueError, match="x") as caught:
            raise_exceptions(iter([error]), message="unused")
        assert caught.value is error

    def test_several_as_a_group(self) -> None:
        errors = [ValueError("x"), KeyError("y")]
        with pytest.raises(ExceptionGroup, match="two of them") as caught:
            raise_exceptions(errors, message="two of them")
        assert list(caught.value.exceptions) == errors

    def test_base_exceptions_and_default_text(self) -> None:
        errors = [ValueError("x"), KeyboardInterrupt()]
        with pytest.raises(BaseExceptionGroup, match="Several errors") as caught:
            raise_exceptions(errors)
        assert not isinstance(caught.value, ExceptionGroup)
