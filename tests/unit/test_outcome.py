from __future__ import annotations

from typing import Any

import pytest

from academy.exception import AgentTerminatedError
from academy.identifier import AgentId
from academy.outcome import Outcome
from academy.runtime_config import RuntimeConfig


def outcome(**config: Any) -> Outcome:
    return Outcome(RuntimeConfig(**config))


class TestTerminates:
    @pytest.mark.parametrize("told", [True, False])
    def test_on_success(self, told: bool) -> None:
        assert outcome(terminate_on_success=told).terminates() is told

    @pytest.mark.parametrize("told", [True, False])
    def test_on_error(self, told: bool) -> None:
        unexpected = outcome(terminate_on_error=told, terminate_on_success=not told)
        unexpected.expected = False
        assert unexpected.terminates() is told
        failed = outcome(terminate_on_error=told, terminate_on_success=not told)
        failed.errors.append(ValueError())
        assert failed.terminates() is told

    def test_errors_of_loops_and_children_alone_are_no_failure(self) -> None:
        one = outcome(terminate_on_error=False)
        one.loop_errors.append(ValueError())
        one.child_errors.append(ValueError())
        assert one.terminates()

    @pytest.mark.parametrize("told", [True, False])
    def test_what_was_said_overrides(self, told: bool) -> None:
        one = outcome(terminate_on_success=not told, terminate_on_error=not told)
        one.terminate = told
        assert one.terminates() is told

    def test_never_the_mailbox_of_another(self) -> None:
        one = outcome()
        one.terminate = True
        one.owns_mailbox = False
        assert not one.terminates()


class TestReason:
    def test_none_for_success(self) -> None:
        one = outcome()
        one.loop_errors.append(ValueError("in a loop"))
        assert one.reason() is None

    def test_first_error(self) -> None:
        one = outcome()
        one.errors += [ValueError("first"), KeyError("second")]
        assert one.reason() == "ValueError: first"

    def test_loop_error(self) -> None:
        one = outcome()
        one.expected = False
        one.loop_errors.append(ValueError("in a loop"))
        assert one.reason() == "ValueError: in a loop"

    def test_unknown_error(self) -> None:
        one = outcome()
        one.expected = False
        assert one.reason() == "it ended because of an error"


def test_refusal_carries_the_reason() -> None:
    one = outcome()
    one.errors.append(ValueError("no disk"))
    refusal = one.refusal(AgentId.new(name="a"))
    assert refusal is not None
    error = refusal.get_exception()
    assert isinstance(error, AgentTerminatedError)
    assert "AgentId<a> has been terminated: ValueError: no disk" in str(error)
    assert error.executed == "no"


def test_no_refusal_of_its_own_when_the_mailbox_stays() -> None:
    assert outcome(terminate_on_success=False).refusal(AgentId.new()) is None


class TestRaise:
    def test_nothing(self) -> None:
        outcome().raise_errors("x")

    def test_one_as_it_is(self) -> None:
        one = outcome()
        one.errors.append(KeyError("k"))
        with pytest.raises(KeyError):
            one.raise_errors("x")

    def test_several_as_a_group(self) -> None:
        one = outcome()
        one.errors.append(KeyError("k"))
        one.child_errors.append(ValueError("c"))
        one.loop_errors.append(OSError("l"))
        with pytest.raises(ExceptionGroup, match="several") as caught:
            one.raise_errors("several")
        assert [type(e) for e in caught.value.exceptions] == [
            KeyError,
            ValueError,
            OSError,
        ]

    def test_loop_errors_can_be_left_out(self) -> None:
        one = outcome(raise_loop_errors_on_shutdown=False)
        one.loop_errors.append(OSError("l"))
        one.raise_errors("x")
