from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from academy.answer import (
    damage_body,
    error_body,
    result_body,
    wanted_strategies,
)
from academy.exception import (
    AcademyRemoteError,
    BadEntityIdError,
    ExceptionSerializationError,
    SerializationError,
)
from academy.identifier import AgentId
from academy.message import ActionRequest
from academy.serialize import SerializationStrategy

JSON, PICKLE = SerializationStrategy.JSON, SerializationStrategy.PICKLE


class Stubborn(Exception):
    """Pickles, but its constructor cannot be called with its args."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first}, {second}")


class Impostor(Exception):
    def __reduce__(self) -> Any:
        return str, ("not an exception",)


class Closed(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"cannot set {name}")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as e:
        return e


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((PICKLE, None, None), (PICKLE, PICKLE)),
        ((JSON, None, None), (JSON, JSON)),
        ((PICKLE, JSON, None), (JSON, JSON)),
        ((PICKLE, None, JSON), (PICKLE, JSON)),
        ((JSON, JSON, PICKLE), (JSON, PICKLE)),
    ],
)
def test_wanted_strategies(given: Any, expected: Any) -> None:
    arguments, result, exception = given
    request = ActionRequest(
        action="f",
        serialization=arguments,
        result_serialization=result,
        exception_serialization=exception,
    )
    assert wanted_strategies(request) == expected


@pytest.mark.parametrize("strategy", [JSON, PICKLE])
def test_result(strategy: SerializationStrategy) -> None:
    body = result_body({"a": [1]}, strategy)
    assert body.serialization is strategy
    assert body.result is None
    assert body.get_result() == {"a": [1]}


@pytest.mark.parametrize("strategy", [JSON, PICKLE])
def test_result_that_cannot_travel(strategy: SerializationStrategy) -> None:
    with pytest.raises(SerializationError, match=r"The result .*lock.* could not be"):
        result_body(threading.Lock(), strategy)


def test_exception_keeps_its_type() -> None:
    error = error_body(BadEntityIdError(AgentId.new()), PICKLE).get_exception()
    assert type(error) is BadEntityIdError


def test_exception_as_json() -> None:
    error = error_body(ValueError("no"), JSON).get_exception()
    assert type(error) is AcademyRemoteError
    assert str(error) == "ValueError: no\n"


class TestNote:
    def test_shows_where_it_was_raised(self) -> None:
        original = raised(ValueError("no"))
        body = error_body(original, PICKLE, raised_in=original.__traceback__)
        [note] = body.get_exception().__notes__
        assert note.startswith("Remote traceback:\nTraceback (most recent call last)")
        assert "in raised" in note
        assert note.endswith("ValueError: no")

    def test_the_original_does_not_keep_it(self) -> None:
        original = raised(ValueError("no"))
        original.add_note("mine")
        for _ in range(2):
            body = error_body(original, PICKLE, raised_in=original.__traceback__)
            notes = body.get_exception().__notes__
            assert len(notes) == 2
            assert notes[0] == "mine"
            assert "mine" not in notes[1]
        assert original.__notes__ == ["mine"]

    def test_not_in_json(self) -> None:
        original = raised(ValueError("no"))
        body = error_body(original, JSON, raised_in=original.__traceback__)
        assert str(body.get_exception()) == "ValueError: no\n"

    def test_not_without_a_traceback(self) -> None:
        body = error_body(raised(ValueError("no")), PICKLE)
        assert not hasattr(body.get_exception(), "__notes__")

    def test_an_exception_that_takes_none(self) -> None:
        original = Closed("no")
        traceback = raised(ValueError()).__traceback__
        error = error_body(original, PICKLE, raised_in=traceback).get_exception()
        assert type(error) is Closed
        assert error.args == ("no",)
        assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (Stubborn("one", "two"), "Stubborn", "Stubborn: one, two"),
        (ValueError("no", threading.Lock()), "ValueError", "ValueError: ('no', <unl"),
        (Impostor("me"), "Impostor", "Impostor: me"),
    ],
)
def test_exception_that_cannot_travel(error: Exception, name: str, text: str) -> None:
    arrived = error_body(error, PICKLE).get_exception()
    assert type(arrived) is ExceptionSerializationError
    assert arrived.exception_name == name
    assert text in arrived.detail


def test_damage_is_readable_for_everybody() -> None:
    body = damage_body(ValueError("cut off"))
    assert body.serialization is JSON
    assert str(body.get_exception()) == "ValueError: cut off\n"


def test_damage_of_another_kind_becomes_a_value_error() -> None:
    error = damage_body(asyncio.QueueFull("odd")).get_exception()
    assert str(error) == "ValueError: A request is damaged: QueueFull: odd\n"
