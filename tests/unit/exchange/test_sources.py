from __future__ import annotations

import uuid
from typing import Any

import pytest

from academy.exception import ExchangeError
from academy.exchange import sources as sources_module
from academy.exchange.directory import Owner
from academy.exchange.sources import Sources
from academy.link.channel import ChannelKey
from academy.link.refusal import Refusal

ME, PEER, OTHER = b"m" * 16, b"p" * 16, b"o" * 16


def key(src: int, inc: int = 5) -> ChannelKey:
    return ChannelKey(uuid.UUID(int=src), inc, uuid.UUID(int=99), 0)


class Book:
    """Stands for the directory."""

    def __init__(self) -> None:
        self.owners: dict[int, Owner] = {}
        self.away = False
        self.fails = False
        self.asked = 0

    async def owner(self, uid: uuid.UUID, process: str) -> Owner | None:
        assert bytes.fromhex(process) == ME
        self.asked += 1
        if self.fails:
            raise ExchangeError("it does not answer")
        return self.owners.get(uid.int)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def here() -> dict[int, Any]:
    return {}


@pytest.fixture
def sources(book: Book, here: dict[int, Any]) -> Sources:
    return Sources(book, ME, here)  # type: ignore[arg-type]


async def test_the_owner_may_send(sources: Sources, book: Book) -> None:
    book.owners[1] = Owner(5, PEER)
    assert not sources.is_known(key(1), PEER)
    assert await sources.check(key(1), PEER) is None
    assert sources.is_known(key(1), PEER)
    assert not sources.is_known(key(1), OTHER)
    assert not sources.is_known(key(1, inc=6), PEER)


async def test_nobody_else_may(sources: Sources, book: Book) -> None:
    book.owners[1] = Owner(5, OTHER)
    assert await sources.check(key(1), PEER) is Refusal.FOREIGN_SOURCE
    assert await sources.check(key(1, inc=7), PEER) is Refusal.FOREIGN_SOURCE
    assert not sources.is_known(key(1), PEER)


async def test_a_former_incarnation_may_not(sources: Sources, book: Book) -> None:
    book.owners[1] = Owner(6, PEER)
    assert await sources.check(key(1), PEER) is Refusal.OLD_INCARNATION


async def test_a_directory_that_was_set_back(sources: Sources, book: Book) -> None:
    book.owners[1] = Owner(4, PEER)
    assert await sources.check(key(1), PEER) is None


@pytest.mark.parametrize("why", ["nobody", "away", "fails"])
@pytest.mark.parametrize("bound_here", [False, True])
async def test_where_the_directory_cannot_tell(
    sources: Sources, book: Book, here: dict[int, Any], why: str, bound_here: bool
) -> None:
    book.away, book.fails = why == "away", why == "fails"
    if bound_here:
        here[1] = "box"
    expected = Refusal.FOREIGN_SOURCE if bound_here else None
    assert await sources.check(key(1), PEER) is expected
    assert not sources.is_known(key(1), PEER)
    assert book.asked == (why != "away")


async def test_asked_anew_when_it_has_moved(sources: Sources, book: Book) -> None:
    book.owners[1] = Owner(5, PEER)
    await sources.check(key(1), PEER)
    sources.forget(key(1).src)
    sources.forget(key(2).src)
    book.owners[1] = Owner(6, OTHER)
    assert not sources.is_known(key(1), PEER)
    assert await sources.check(key(1), PEER) is Refusal.FOREIGN_SOURCE


async def test_what_is_kept_is_bounded(
    sources: Sources, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "KNOWN", 3)
    for n in range(10):
        book.owners[n] = Owner(5, PEER)
        assert await sources.check(key(n), PEER) is None
        assert sources.is_known(key(n), PEER)
        assert len(sources._owners) <= 3
