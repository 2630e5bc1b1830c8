from __future__ import annotations

from typing import Any

import pytest

from academy.exchange.ledger import Ledger
from academy.identifier import AgentId, UserId
from academy.message import Header, Message, PingRequest
from academy.stats import AgentStats

ME: AgentId[Any] = AgentId.new("me")
PEER: AgentId[Any] = AgentId.new("peer")
OTHER = UserId.new("other")


def request(src: Any = PEER, dest: Any = ME) -> Header:
    return Message.create(src, dest, PingRequest()).header


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_empty(ledger: Ledger) -> None:
    assert ledger.stats(0) == AgentStats()
    assert ledger.awaiting(PEER) == []


def test_request_is_open_until_answered(ledger: Ledger) -> None:
    header = request()
    assert ledger.took(header)
    assert list(ledger.open) == [header.tag.int]
    assert ledger.stats(3) == AgentStats(incoming=1, in_progress=1, queued=3)
    ledger.sending(header.create_response_header())
    assert not ledger.open
    assert ledger.stats(0) == AgentStats(incoming=1, completed=1)


def test_second_answer_counts_nothing(ledger: Ledger) -> None:
    header = request()
    ledger.took(header)
    for _ in range(2):
        ledger.sending(header.create_response_header())
    assert ledger.stats(0).completed == 1


def test_answer_to_what_was_never_taken(ledger: Ledger) -> None:
    ledger.sending(request().create_response_header())
    assert ledger.stats(0) == AgentStats()


def test_request_is_awaited_until_its_answer(ledger: Ledger) -> None:
    header = request(ME, PEER)
    ledger.sending(header)
    assert [a.header for a in ledger.awaiting(PEER)] == [header]
    assert ledger.stats(0) == AgentStats(outgoing=1)
    assert ledger.took(header.create_response_header())
    assert ledger.awaiting(PEER) == []
    assert ledger.stats(0) == AgentStats(outgoing=1)


def test_duplicate_late_and_stray_responses_are_of_no_use(ledger: Ledger) -> None:
    first, second = request(ME, PEER), request(ME, PEER)
    ledger.sending(first)
    ledger.sending(second)
    assert ledger.took(first.create_response_header())
    assert not ledger.took(first.create_response_header())
    ledger.forget(second.tag)
    assert not ledger.took(second.create_response_header())
    assert not ledger.took(request(ME, PEER).create_response_header())
    assert ledger.stats(0) == AgentStats(outgoing=2)


def test_forgetting_twice_is_harmless(ledger: Ledger) -> None:
    header = request(ME, PEER)
    ledger.sending(header)
    ledger.forget(header.tag)
    ledger.forget(header.tag)
    assert ledger.awaiting(PEER) == []


def test_awaiting_is_by_destination(ledger: Ledger) -> None:
    to_peer = [request(ME, PEER), request(ME, PEER)]
    to_other = request(ME, OTHER)
    for header in (to_peer[0], to_other, to_peer[1]):
        ledger.sending(header)
    assert [a.header for a in ledger.awaiting(PEER)] == to_peer
    assert [a.header for a in ledger.awaiting(OTHER)] == [to_other]
