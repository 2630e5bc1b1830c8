from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from academy.link.address import Endpoint
from academy.link.reader import Body
from tests.fuzz import harness
from tests.fuzz.__main__ import main
from tests.fuzz.harness import Finding, corpus, fuzz, replay
from tests.fuzz.mutation import mutate, pieces
from tests.fuzz.seeds import all_seeds
from tests.fuzz.targets import TARGETS

SECONDS = 3.0
PATIENCE = 5.0
"""Seconds after which a finding that must come has not."""
GROWTH = 20 << 20


def error(*_: object) -> None:
    raise IndexError("out of range")


def nothing(*_: object) -> None:
    pass


def always(*_: object) -> bool:
    return True


class Hoarder:
    """Stands for a reader of frames that keeps all it is given."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pending = 0

    def feed(self, data: bytes) -> list[Body]:
        self.pending += len(data)
        return []


def test_every_target_has_a_corpus() -> None:
    folders = {path.name for path in harness.CORPUS.iterdir()}
    assert folders == set(TARGETS) == set(all_seeds())


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_valid(target: str) -> None:
    """If a format changes, run `python -m tests.fuzz --write-corpus`."""
    for name, data in corpus(target).items():
        valid, _ = replay(target, data)
        assert valid, name


@pytest.mark.parametrize("target", TARGETS)
def test_only_documented_outcomes(target: str) -> None:
    report = fuzz(target, SECONDS / len(TARGETS), seed=random.randrange(1 << 32))
    assert report.inputs > 0
    assert report.valid < report.inputs
    assert report.growth < GROWTH


def test_findings_can_be_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> bool:
        raise KeyError(data)

    monkeypatch.setitem(TARGETS, "marks", broken)
    with pytest.raises(Finding, match=r"marks: KeyError: .*\n.*\n6162"):
        replay("marks", b"ab")


@pytest.mark.parametrize(
    ("target", "parser"),
    [
        ("link_of_peer", "academy.link.protocol.parse"),
        ("sessions", "academy.link.session.Session.receive"),
        ("handshake_server", "academy.link.handshake.Handshake.receive"),
        ("endpoints", "academy.link.address.Endpoint.parse"),
    ],
)
def test_any_other_error_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, target: str, parser: str
) -> None:
    """A parser that raises what it does not name fails the run."""

    monkeypatch.setattr(parser, error)
    with pytest.raises(Finding, match=f"{target}: IndexError: out of range"):
        fuzz(target, PATIENCE, seed=1)


@pytest.mark.parametrize("target", ["door", "door_in_tls"])
@pytest.mark.parametrize(
    ("broken", "by", "finding"),
    [
        ("academy.link.protocol.LinkProtocol.receive_data", error, "out of range"),
        ("academy.link.gate.Gate._first_byte", error, "out of range"),
        ("academy.link.protocol.LinkProtocol.handle_timer", nothing, "lingers"),
        ("academy.link.gate.Gate.leave", nothing, "kept in mind"),
        ("academy.link.tally.Tally.count", nothing, "not one reason for each"),
        ("academy.link.handshake.hmac.compare_digest", always, "is linked"),
        ("academy.link.protocol.FrameReader", Hoarder, "kept"),
    ],
)
def test_a_door_that_is_not_kept_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, target: str, broken: str, by: Any, finding: str
) -> None:
    monkeypatch.setattr(broken, by)
    with pytest.raises(Finding, match=f"(?s){target}: .*{finding}"):
        fuzz(target, PATIENCE, seed=1)


def test_rare_error_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus does not show it, only the damage."""
    parse = Endpoint.parse
    corpus_texts = {data.decode() for data in corpus("endpoints").values()}

    def broken(text: str) -> Endpoint:
        if "/" not in text and text not in corpus_texts:
            raise IndexError("out of range")
        return parse(text)

    monkeypatch.setattr(Endpoint, "parse", broken)
    with pytest.raises(Finding, match="endpoints: IndexError: out of range"):
        fuzz("endpoints", PATIENCE, seed=1)


def test_slow_parser_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, harness.SLOW + 0.5])
    monkeypatch.setattr(harness.time, "process_time", lambda: next(times))
    with pytest.raises(Finding, match=r"marks: it took 1\.5 s"):
        replay("marks", b"1-1")


def test_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
        main()
        return capsys.readouterr().out

    table = run("--seconds", "0.02", "--target", "marks", "--seed", "5")
    assert "seed 5" in table
    assert table.splitlines()[-1].startswith("| marks | ")
    assert run("--target", "endpoints", "--replay", "ff") == "endpoints refused\n"


def test_damage_is_that_of_the_seed() -> None:
    seeds = [b"first input", b"second input", b""]
    one, two = random.Random(5), random.Random(5)
    found = [mutate(one, seeds) for _ in range(1000)]
    assert found == [mutate(two, seeds) for _ in range(1000)]
    assert len(set(found)) > 500


def test_pieces_add_up() -> None:
    data = bytes(range(256)) * 9
    assert b"".join(pieces(data)) == data
    assert pieces(data) == pieces(data)
    assert pieces(b"") == []
