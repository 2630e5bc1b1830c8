from __future__ import annotations

import pytest

from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeError,
    FencedError,
    MailboxFullError,
    PeerLostError,
    PeerUnreachableError,
    RequestLostError,
)
from academy.exchange.delivery_failure import doubtful, failure_body
from academy.identifier import AgentId

DEST: AgentId[None] = AgentId.new(name="dest")


@pytest.mark.parametrize(
    ("error", "kind", "executed"),
    [
        (PeerLostError(DEST, "maybe", "why"), PeerLostError, "maybe"),
        (PeerUnreachableError(DEST, "no", "why"), PeerUnreachableError, "no"),
        (AgentTerminatedError(DEST, "why", "no"), AgentTerminatedError, "no"),
        (MailboxFullError(DEST, "no", "why"), RequestLostError, "no"),
        (ExchangeError("why"), RequestLostError, "maybe"),
    ],
)
def test_an_answer_in_place_of_the_one_that_will_not_come(
    error: ExchangeError, kind: type[Exception], executed: str
) -> None:
    told = failure_body(DEST, error).get_exception()
    assert type(told) is kind
    assert getattr(told, "executed", None) == executed
    assert "why" in str(told)
    assert "dest" in str(told)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MailboxFullError(DEST, "no", "why"), MailboxFullError),
        (PeerUnreachableError(DEST, "no", "why"), PeerUnreachableError),
        (AgentTerminatedError(DEST, "why", "no"), AgentTerminatedError),
        (BadEntityIdError(DEST), RequestLostError),
        (ExchangeError("why"), RequestLostError),
    ],
)
def test_what_somebody_may_have_may_have_been_executed(
    error: ExchangeError, kind: type[Exception]
) -> None:
    found = doubtful(DEST, error)
    assert type(found) is kind
    assert getattr(found, "executed", None) == "maybe"


def test_who_is_fenced_hears_that() -> None:
    error = FencedError(DEST)
    assert doubtful(DEST, error) is error
