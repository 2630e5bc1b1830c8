from __future__ import annotations

import random

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import Finding, corpus, fuzz, replay
from tests.fuzz.mutation import mutate, pieces
from tests.fuzz.seeds import all_seeds
from tests.fuzz.targets import TARGETS

SECONDS = 3.0
GROWTH = 20 << 20


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
