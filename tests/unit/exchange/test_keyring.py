from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
import redis.asyncio

from academy.exchange import keyring as keyring_module
from academy.exchange.keyring import OVERLAP, Keyring
from academy.exchange.keys import Keys
from academy.exchange.mailbox import PROBE, Entry, make_entry
from academy.exchange.secret import NamespaceSecret
from academy.exchange.server import Server
from tests.unit.exchange.conftest import NewEngine
from tests.unit.exchange.mail import bind_agent, bind_user, connect, send, take, until

OLD, NEW, NEWER = b"the old secret, 32 bytes long...", b"n" * 32, b"m" * 32


@pytest.fixture(autouse=True)
def bare(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    return environment


class Clock:
    """The event loop's, as far as a keyring looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keyring(commands: Server, clock: Clock) -> Keyring:
    made = Keyring(commands)
    made._loop = clock  # type: ignore[assignment]
    return made


def secrets(*values: bytes) -> list[NamespaceSecret]:
    return [NamespaceSecret(value) for value in values]


async def test_the_list_stays_the_same(keyring: Keyring) -> None:
    held = keyring.secrets
    await keyring.agree()
    await keyring.rotate()
    assert held is keyring.secrets
    assert len(held) == 2
    assert keyring.stored() == [secret.stored() for secret in held]


async def test_rotated(
    keyring: Keyring, commands: Server, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    await keyring.agree()
    (old,) = keyring.secrets
    assert await keyring.rotate()
    new = NamespaceSecret(await raw.get(keys.secret))
    assert new != old
    assert keyring.secrets == [new, old]
    left = await raw.pttl(keys.secret + ":former")
    assert (OVERLAP - 5) * 1000 < left <= OVERLAP * 1000
    # Others find both, and one that comes later, too.
    other = Keyring(commands)
    await other.agree()
    assert other.secrets == [new, old]
    # When its time is over, nobody accepts it any more.
    await raw.delete(keys.secret + ":former")
    for ring in (keyring, other):
        await ring.agree()
        assert ring.secrets == [new]


async def test_not_twice_within_the_overlap(
    keyring: Keyring, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """The secret before would be forgotten while it is still in use."""
    await keyring.agree()
    assert await keyring.rotate()
    before = list(keyring.secrets)
    assert not await keyring.rotate()
    assert keyring.secrets == before
    await raw.delete(keys.secret + ":former")
    assert await keyring.rotate()
    assert keyring.secrets[1] == before[0]


async def test_one_that_nobody_replaced_stays_for_a_time(
    keyring: Keyring, clock: Clock, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    """The server was emptied, and another member was the first to come back."""
    await raw.set(keys.secret, OLD)
    await keyring.agree()
    await raw.set(keys.secret, NEW)
    await keyring.agree()
    clock.now = OVERLAP - 1
    await keyring.agree()
    assert keyring.secrets == secrets(NEW, OLD)
    await raw.set(keys.secret, NEWER)
    await keyring.agree()
    assert keyring.secrets == secrets(NEWER, NEW, OLD)
    clock.now = OVERLAP
    await keyring.agree()
    assert keyring.secrets == secrets(NEWER, NEW)
    clock.now = 2 * OVERLAP
    await keyring.agree()
    assert keyring.secrets == secrets(NEWER)


class File:
    """The file with the secrets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(0o600)

    def write(self, *lines: bytes) -> None:
        self._path.write_bytes(b"\n".join(lines))


@pytest.fixture
def file(tmp_path: Path, bare: pytest.MonkeyPatch) -> File:
    file = File(tmp_path / "secret")
    file.write(OLD)
    bare.setenv("ACADEMY_SECRET_FILE", str(tmp_path / "secret"))
    return file


async def test_rotated_in_a_file(
    keyring: Keyring, file: File, raw: redis.asyncio.Redis, keys: Keys
) -> None:
    steps = [OLD], [OLD, NEW], [NEW, OLD], [NEW]
    for lines in steps:
        file.write(*lines)
        await keyring.agree()
        assert keyring.secrets == secrets(*lines)
    assert not await raw.exists(keys.secret)


async def test_replaced_in_a_file_without_a_word(
    keyring: Keyring, clock: Clock, file: File
) -> None:
    await keyring.agree()
    file.write(NEW)
    await keyring.agree()
    assert keyring.secrets == secrets(NEW, OLD)
    clock.now = OVERLAP
    await keyring.agree()
    assert keyring.secrets == secrets(NEW)


async def test_the_server_does_not_rotate_what_is_in_a_file(
    keyring: Keyring, file: File
) -> None:
    with pytest.raises(ValueError, match="first line of the file"):
        await keyring.rotate()


async def test_renewed(keyring: Keyring, clock: Clock, file: File) -> None:
    await keyring.agree()
    file.write(NEW)
    clock.now = 2.0
    assert await keyring.renew()
    assert keyring.secrets == secrets(NEW, OLD)
    clock.now = 4.0
    assert not await keyring.renew()


async def test_many_who_want_it_renewed(
    keyring: Keyring, clock: Clock, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look is enough for all, and it is not one that was before they asked."""
    looks = 0
    agree = keyring.agree

    async def counted() -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        clock.now += 0.5
        await agree()

    monkeypatch.setattr(keyring, "agree", counted)
    await keyring.agree()
    file.write(NEW)
    found = await asyncio.gather(*(keyring.renew() for _ in range(10)))
    assert found == [True] * 10
    assert looks == 2


async def test_a_file_that_is_damaged_meanwhile(
    keyring: Keyring, clock: Clock, file: File, caplog: pytest.LogCaptureFixture
) -> None:
    await keyring.agree()
    clock.now = 2.0
    file.write(b"")
    with caplog.at_level(logging.WARNING):
        assert not await keyring.renew()
    assert "There is no secret in" in caplog.text
    assert keyring.secrets == secrets(OLD)


async def test_looks_now_and_then(
    keyring: Keyring, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "REFRESH", 0.01)
    monkeypatch.setattr(keyring_module, "PAUSE", 0.0)
    await keyring.agree()
    file.write(NEW)
    running = asyncio.create_task(keyring.run())
    await until(lambda: keyring.secrets == secrets(NEW, OLD))
    running.cancel()


async def test_nothing_is_lost_while_members_change_over(
    new_engine: NewEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the queue, in both directions, and on links."""
    monkeypatch.setattr(keyring_module, "PAUSE", 0.0)
    early, late = await new_engine(direct=True), await new_engine(direct=True)
    user, agent = await bind_user(early), await bind_agent(late)
    idle = await bind_agent(late)
    assert await early.keyring.rotate()
    assert len(late.keyring.secrets) == 1
    # Who knows the new one signs with it; who does not looks for it.
    await early.queues.append(user, idle.uid, entry(user.key))
    taking = asyncio.create_task(idle.recv(5))
    await until(lambda: len(late.keyring.secrets) == 2)
    taking.cancel()
    assert late.queues.dead_letters == 0
    await connect(early, user, agent)
    newcomer = await new_engine(direct=True)
    other = await bind_user(newcomer)
    await connect(newcomer, other, agent)
    await send(early, user, agent.uid, 7)
    assert await take(agent) == [7]
    for engine in (early, late, newcomer):
        assert engine.links is not None
        assert engine.links.node.refused == 0
        assert engine.queues.dead_letters == 0


def entry(key: str) -> Entry:
    return make_entry("p" + key, 1, PROBE, b"t" * 16, [b""])


async def test_a_private_secret_comes_from_the_environment_only(
    commands: Server,
    keys: Keys,
    raw: redis.asyncio.Redis,
    environment: pytest.MonkeyPatch,
) -> None:
    keyring = Keyring(commands, private=True)
    with pytest.raises(ValueError, match="set ACADEMY_SECRET_FILE"):
        await keyring.agree()
    environment.setenv("ACADEMY_SECRET", "a secret of some length")
    await keyring.agree()
    assert keyring.stored() == [b"a secret of some length"]
    assert await raw.exists(keys.secret) == 0
