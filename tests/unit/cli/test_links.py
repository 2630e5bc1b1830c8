from __future__ import annotations

import json

import pytest

from academy.cli.links import Answer, as_object, show
from academy.exchange.link_info import LinkInfo, ProcessInfo
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.identifier import AgentId

A, B, C = "a" * 32, "b" * 32, "c" * 32


def agents(*names: str) -> list[AgentInfo]:
    return [AgentInfo(AgentId.new(name=n), MailboxStatus.ACTIVE) for n in names]


def process(name: str, pid: int, *links: LinkInfo) -> ProcessInfo:
    return ProcessInfo(name, "host", pid, links)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    direct = LinkInfo(B, path="uds", rtt=0.00123, rate=12.34, unacked=5, queued=6)
    relayed = LinkInfo(C, path="relay", reason="idle")
    sealed = LinkInfo(C, path="tcp", encrypted=True)
    unknown = LinkInfo("", reason="nobody")
    answers = [
        Answer(
            "host", 1, agents("x", "y"), process(A, 1, direct, sealed, relayed, unknown)
        ),
        Answer("host", 2, agents("p", "q", "r", "s", "t"), process(B, 2)),
    ]
    assert show(answers) == 0
    out, err = capsys.readouterr()
    head, *rows = lines(out)
    assert err == ""
    assert " ".join(head) == ("PROCESS AGENTS PEER PATH REASON RTT RATE UNACKED QUEUE")
    assert [" ".join(row) for row in rows] == [
        "host:1 x, y host:2 uds - 1.23 ms 12.3/s 5 6",
        "cccccccc tcp+tls - - 0.0/s 0 0",
        "cccccccc relay idle - 0.0/s 0 0",
        "- relay nobody - 0.0/s 0 0",
        "host:2 p, q, r, +2 - - no links - - - -",
    ]


def test_a_peer_has_the_name_that_somebody_knows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may be no process that was asked."""
    answers = [
        Answer("host", 1, agents("x"), process(A, 1, LinkInfo(C))),
        Answer("host", 2, agents("y"), process(B, 2, LinkInfo(C, "far", 9))),
    ]
    show(answers)
    _, first, second = lines(capsys.readouterr().out)
    assert first[2] == second[2] == "far:9"


def test_a_process_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([Answer("host", 1, agents("x"), None)]) == 1
    out, err = capsys.readouterr()
    assert " ".join(lines(out)[1]) == "host:1 x - - no answer within 5 s - - - -"
    assert err == "academy: host:1 did not answer within 5 s.\n"


def test_objects() -> None:
    (agent,) = agents("x")
    known = as_object(Answer("host", 1, [agent], process(A, 1, LinkInfo(B))))
    assert json.loads(json.dumps(known)) == {
        "process": A,
        "host": "host",
        "pid": 1,
        "agents": [{"id": str(agent.agent_id.uid), "name": "x"}],
        "links": [LinkInfo(B).model_dump(mode="json")],
        "dead_letters": 0,
        "refused": 0,
        "settled": 0,
        "refusals": {},
    }
    silent = as_object(Answer("host", 1, [agent], None))
    assert (silent["process"], silent["links"], silent["pid"]) == (None, None, 1)
