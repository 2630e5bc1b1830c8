from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import redis.asyncio

from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    FencedError,
    MailboxFullError,
    MailboxTerminatedError,
    PeerUnreachableError,
)
from academy.exchange import queues as queues_module
from academy.exchange.bound import BoundMailbox, Delivery
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.directory import Directory
from academy.exchange.flight import OVERHEAD, QUEUE_LIMIT, Room
from academy.exchange.keys import Keys, entity_key
from academy.exchange.mailbox import PROBE, REQUEST, RESPONSE, Entry, make_entry
from academy.exchange.queues import (
    NoRoomError,
    NotRegisteredError,
    Queues,
    entry_of,
)
from academy.exchange.secret import NamespaceSecret, new_secret
from academy.exchange.server import Server, ServerUnavailableError
from academy.exchange.stream import Mark, Offer, Received
from academy.identifier import AgentId, EntityId, UserId
from academy.message import Message, PingRequest, SuccessResponse, encode
from tests.proxy import Proxy

PROCESS = "p1"
SECRET = NamespaceSecret(b"a secret of some length")


class Post:
    """The queues of a process, its directory, and what mailboxes need to be bound."""

    def __init__(self, server: Server, keys: Keys, process: str = PROCESS) -> None:
        self.server = server
        self.keys = keys
        self.process = process
        self.directory = Directory(server)
        self.secrets = [SECRET]
        self.new_secrets: list[NamespaceSecret] = []
        self.renewed = 0
        self.queues = Queues(server, process, self.secrets, self.renew)
        self.private = Queues(server, process, self.secrets, self.renew, encrypt=True)

    async def renew(self) -> bool:
        self.renewed += 1
        new, self.new_secrets = self.new_secrets, []
        self.secrets += new
        return bool(new)

    async def live(self) -> None:
        await self.server.call("renew", self.process, "60000", b"{}", timeout=5)

    async def bind(self, uid: EntityId | None = None) -> BoundMailbox:
        """Bind a mailbox, or that of a new agent."""
        if uid is None:
            uid = AgentId.new()
            await self.directory.register([(uid, ("m.A",))])
        inc, marks, mro, _, _ = await self.directory.bind(uid, self.process)
        return BoundMailbox(uid, mro, inc, Received(inc, marks), lambda box: None)

    async def send(self, source: BoundMailbox, dest: EntityId, *seqs: int) -> None:
        for seq in seqs:
            await self.queues.append(source, dest, self.entry(source, seq))

    def entry(self, source: BoundMailbox, seq: int, kind: str = REQUEST) -> Entry:
        name = source.open_outlet(AgentId.new(), 0).stream.name
        return make_entry(name, seq, kind, b"t" * 16, [b"head%d" % seq, b"rest"])

    async def length(self, dest: EntityId, part: str = "q") -> int:
        return await self.raw.xlen(f"{self.keys.prefix}{part}:{entity_key(dest)}")

    raw: redis.asyncio.Redis


@pytest.fixture
async def post(commands: Server, keys: Keys, raw: redis.asyncio.Redis) -> Post:
    made = Post(commands, keys)
    made.raw = raw
    await made.live()
    return made


@pytest.fixture
async def user(post: Post) -> BoundMailbox:
    """A mailbox that sends."""
    uid = UserId.new()
    await post.directory.register([(uid, ())])
    return await post.bind(uid)


@pytest.fixture
async def box(post: Post) -> BoundMailbox:
    """A mailbox that receives."""
    return await post.bind()


def seqs(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


# Appending


def ageless(entries: list[Entry]) -> list[Entry]:
    return [entry._replace(age=0.0) for entry in entries]


async def test_the_age_of_what_is_taken_is_told(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, 1)
    await asyncio.sleep(0.2)
    await post.send(user, box.uid, 2)
    old, new = [*await post.queues.take(box), *await post.queues.take(box)]
    assert 0.2 <= old.age < 5
    assert new.age < old.age


async def test_what_is_appended_is_taken(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, 1)
    (entry,) = await post.queues.take(box)
    assert ageless([entry]) == [post.entry(user, 1)]
    assert [bytes(s) for s in entry.segments()] == [b"head1", b"rest"]


async def test_appending_again_changes_nothing(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """As when a reply was lost."""
    await post.send(user, box.uid, 1, 1, 2, 1, 2, 2)
    assert await post.length(box.uid) == 2
    box.batch = 10
    assert seqs(await post.queues.take(box)) == [1, 2]
    await post.send(user, box.uid, 1, 2, 3)
    assert seqs(await post.queues.take(box)) == [3]


async def test_each_stream_is_counted_by_itself(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    other = await post.bind()
    await post.send(user, box.uid, 1, 2)
    await post.send(other, box.uid, 1, 2)
    assert await post.length(box.uid) == 4


async def test_appends_wake_the_owner(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, 1)
    ((_, fields),) = await post.raw.xrange(post.keys.wake(PROCESS))
    assert (fields[b"t"], fields[b"e"]) == (b"m", box.key.encode())
    watchers = await post.raw.smembers(f"{post.keys.prefix}watch:{box.key}")
    assert watchers == {PROCESS.encode()}


async def test_a_full_mailbox_takes_no_requests(
    post: Post,
    user: BoundMailbox,
    box: BoundMailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", 3)
    await post.send(user, box.uid, 1, 2, 3)
    with pytest.raises(
        MailboxFullError, match=r"3 requests with 0\.0 MiB wait"
    ) as caught:
        await post.send(user, box.uid, 4)
    assert caught.value.executed == "no"
    assert caught.value.uid == box.uid
    # What is there already is no news, and answers always pass.
    await post.send(user, box.uid, 3)
    await post.queues.append(user, box.uid, post.entry(user, 5, RESPONSE))
    box.batch = 10
    assert seqs(await post.queues.take(box)) == [1, 2, 3, 5]
    assert seqs(await post.queues.take(box)) == []
    await post.send(user, box.uid, 6)
    assert seqs(await post.queues.take(box)) == [6]


async def test_who_may_not_be_sent_to(post: Post, user: BoundMailbox) -> None:
    stranger: AgentId[Any] = AgentId.new()
    with pytest.raises(BadEntityIdError) as unknown:
        await post.send(user, stranger, 1)
    assert unknown.value.uid == stranger
    box = await post.bind()
    await post.directory.terminate(box.uid, "it was old")
    with pytest.raises(AgentTerminatedError, match="it was old") as gone:
        await post.send(user, box.uid, 1)
    assert gone.value.executed == "no"


async def test_who_may_not_send(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.bind(user.uid)
    with pytest.raises(FencedError) as fenced:
        await post.send(user, box.uid, 1)
    assert fenced.value.uid == user.uid
    await post.raw.delete(f"{post.keys.prefix}mb:{user.key}")
    with pytest.raises(NotRegisteredError):
        await post.send(user, box.uid, 1)
    await post.directory.register([(user.uid, ())])
    await post.directory.terminate(user.uid, "it left")
    with pytest.raises(MailboxTerminatedError, match="it left") as gone:
        await post.send(user, box.uid, 1)
    assert gone.value.uid == user.uid
    assert await post.length(box.uid) == 0


async def test_a_process_sends_in_its_own_name_while_it_lives(
    post: Post, box: BoundMailbox
) -> None:
    entry = make_entry("pP:0:1", 1, PROBE, b"t" * 16, [b"head"])
    await post.queues.append(None, box.uid, entry)
    assert ageless(await post.queues.take(box)) == [entry]
    await post.raw.delete(post.keys.lease(PROCESS))
    with pytest.raises(NotRegisteredError, match="does not know the sender"):
        await post.queues.append(None, box.uid, entry._replace(seq=2))


async def test_a_server_that_is_away(
    proxy: Proxy, proxied: RedisConnectionInfo, post: Post, box: BoundMailbox
) -> None:
    server = Server(proxied, post.keys.prefix)
    await server.open()
    away = Post(server, post.keys)
    user = await away.bind(box.uid)
    await proxy.cut()
    with pytest.raises(PeerUnreachableError, match="Redis server is away") as caught:
        await away.queues.append(user, box.uid, away.entry(user, 1), timeout=0.2)
    assert caught.value.uid == box.uid
    with pytest.raises(ServerUnavailableError):
        await away.queues.give_back(user, [], stall=0.1)
    await server.close()
    with pytest.raises(PeerUnreachableError) as closed:
        await away.queues.append(user, box.uid, away.entry(user, 1))
    assert closed.value.executed == "no"


async def test_streams_of_senders_that_are_gone_are_forgotten(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    appended = f"{post.keys.prefix}ap:{box.key}"
    taken = f"{post.keys.prefix}tk:{box.key}"
    live = await post.bind()
    mine = live.open_outlet(box.uid, 0).stream.name
    gone = {f"{entity_key(UserId.new())}:5:0": "1" for _ in range(4096)}
    await post.raw.hset(appended, mapping={**gone, mine: "7"})
    await post.raw.hset(taken, mapping=dict.fromkeys(gone, "1:1:0") | {mine: "7:1:0"})
    await post.send(user, box.uid, 1)
    kept = {mine.encode(), user.open_outlet(box.uid, 0).stream.name.encode()}
    assert set(await post.raw.hkeys(appended)) == kept
    assert await post.raw.hkeys(taken) == [mine.encode()]


async def test_nothing_is_forgotten_while_messages_wait(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    appended = f"{post.keys.prefix}ap:{box.key}"
    await post.send(user, box.uid, 1)
    gone = {f"{entity_key(UserId.new())}:5:0": "1" for _ in range(4096)}
    await post.raw.hset(appended, mapping=gone)
    await post.send(user, box.uid, 2)
    assert await post.raw.hlen(appended) == 4097


def large(post: Post, user: BoundMailbox, seq: int, size: int) -> Entry:
    return post.entry(user, seq)._replace(rest=bytes(size))


async def counted(post: Post, box: BoundMailbox) -> int:
    return int(await post.raw.hget(f"{post.keys.prefix}mb:{box.key}", "qb") or 0)


async def test_a_mailbox_takes_so_many_bytes_of_requests(
    post: Post,
    user: BoundMailbox,
    box: BoundMailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_BYTES", 100_000)
    for seq in (1, 2, 3):
        await post.queues.append(user, box.uid, large(post, user, seq, 30_000))
    with pytest.raises(MailboxFullError, match=r"with 0\.1 MiB wait") as caught:
        await post.queues.append(user, box.uid, large(post, user, 4, 30_000))
    assert caught.value.executed == "no"
    # Asked again, it is still refused, though a smaller one behind it finds room.
    await post.queues.append(user, box.uid, large(post, user, 5, 1000))
    with pytest.raises(MailboxFullError):
        await post.queues.append(user, box.uid, large(post, user, 4, 30_000))
    # Answers always pass, and take no room from requests.
    answer = large(post, user, 6, 200_000)._replace(kind=RESPONSE)
    await post.queues.append(user, box.uid, answer)
    await post.queues.append(user, box.uid, large(post, user, 7, 1000))


async def test_who_lives_may_soon_make_room(
    post: Post, user: BoundMailbox, box: BoundMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", 2)
    assert await post.queues.room(box.uid) == Room(2, QUEUE_LIMIT + OVERHEAD)
    await post.send(user, box.uid, 1, 2)
    with pytest.raises(NoRoomError) as caught:
        await post.send(user, box.uid, 3)
    assert isinstance(caught.value, MailboxFullError)
    size = await counted(post, box)
    room = await post.queues.room(box.uid)
    assert room == Room(0, queues_module.QUEUE_BYTES - size)
    await post.queues.take(box)
    await post.queues.take(box)
    room = await post.queues.room(box.uid)
    assert room is not None
    assert room.messages == 1
    await post.send(user, box.uid, 3)
    # What was let in is not refused when it is asked for again.
    await post.send(user, box.uid, 3)
    await post.queues.give_back(box, [], stall=1.0)
    with pytest.raises(MailboxFullError) as offline:
        await post.send(user, box.uid, 4, 5, 6)
    assert not isinstance(offline.value, NoRoomError)
    assert await post.queues.room(box.uid) is None
    assert await post.queues.room(AgentId.new()) is None


async def test_what_is_refused_is_not_overtaken(
    post: Post, user: BoundMailbox, box: BoundMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", 1)

    async def append(seq: int, ahead: int) -> None:
        entry = post.entry(user, seq)
        command = post.queues.post(user, box.uid, entry, ahead=ahead)
        await post.queues.accepted(user, box.uid, command)

    await append(1, 0)
    with pytest.raises(NoRoomError):
        await append(2, 1)
    await post.queues.take(box)
    await post.queues.take(box)
    # Now there is room, but not for what was in line behind that.
    for seq in (3, 4):
        with pytest.raises(NoRoomError):
            await append(seq, seq - 1)
    await append(2, 0)
    assert seqs(await post.queues.take(box)) == [2]
    await post.queues.take(box)
    await append(3, 2)
    assert seqs(await post.queues.take(box)) == [3]


async def test_what_is_given_back_was_not_refused(
    post: Post, user: BoundMailbox, box: BoundMailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused first, and came directly then."""
    monkeypatch.setattr(queues_module, "QUEUE_CAPACITY", 1)
    await post.send(user, box.uid, 1)
    with pytest.raises(NoRoomError):
        await post.send(user, box.uid, 2)
    stream = user.open_outlet(box.uid, 0).stream.name
    message: Message[Any] = Message.create(user.uid, box.uid, PingRequest())
    back = Delivery(message, stream, 2, encode(message))
    await post.queues.give_back(box, [back], stall=1.0)
    await post.send(user, box.uid, 2)
    assert await post.length(box.uid, "r") == 1


async def test_there_is_no_use_to_wait_for_a_server_that_is_away(
    proxy: Proxy, proxied: RedisConnectionInfo, post: Post, box: BoundMailbox
) -> None:
    server = Server(proxied, post.keys.prefix)
    await server.open()
    await server.close()
    assert await Post(server, post.keys).queues.room(box.uid) is None


async def test_a_single_message_is_let_in_whatever_its_size(
    post: Post,
    user: BoundMailbox,
    box: BoundMailbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues_module, "QUEUE_BYTES", 1000)
    await post.queues.append(user, box.uid, large(post, user, 1, 5000))
    with pytest.raises(MailboxFullError):
        await post.send(user, box.uid, 2)
    assert len(await post.queues.take(box)) == 1
    with pytest.raises(MailboxFullError):  # It has not arrived yet for certain.
        await post.send(user, box.uid, 3)
    assert await post.queues.take(box) == []
    await post.queues.append(user, box.uid, large(post, user, 4, 5000))


async def test_the_largest_message_fits_into_an_empty_queue() -> None:
    assert queues_module.QUEUE_BYTES >= QUEUE_LIMIT


async def test_bytes_are_counted_off_when_they_have_arrived(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """Also when replies are lost, and when owners change."""
    await post.send(user, box.uid, *range(1, 10))
    each = await counted(post, box) // 9
    assert each * 9 == await counted(post, box) > 0
    answer = post.entry(user, 10, RESPONSE)
    await post.queues.append(user, box.uid, answer)
    box.batch = 3
    await post.queues.take(box)
    assert await counted(post, box) == 9 * each
    box.batch, after = 2, dict(box.after)
    await post.queues.take(box)
    assert await counted(post, box) == 6 * each
    box.batch, box.after = 2, after  # The reply was lost; the same take once more.
    await post.queues.take(box)
    assert await counted(post, box) == 6 * each
    second = await post.bind(box.uid)  # It finds the two that were not confirmed.
    second.batch = 4
    await post.queues.take(second)
    await post.queues.give_back(second, [], stall=2)
    assert await counted(post, box) == 2 * each
    third = await post.bind(box.uid)
    third.batch = 100
    assert len(await post.queues.take(third)) == 3
    await post.queues.take(third)
    assert await counted(post, box) == 0


async def test_an_empty_queue_counts_from_the_beginning(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """Whatever is on record, as when somebody has deleted the queue."""
    await post.send(user, box.uid, 1)
    each = await counted(post, box)
    await post.send(user, box.uid, 2, 3)
    await post.raw.delete(f"{post.keys.prefix}q:{box.key}")
    await post.send(user, box.uid, 4)
    assert await counted(post, box) == each


async def test_what_is_encrypted_is_counted_and_understood_by_all(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.private.append(user, box.uid, post.entry(user, 1))
    await post.queues.append(user, box.uid, post.entry(user, 2))
    assert await counted(post, box) > 0
    ((_, fields), _) = await post.raw.xrange(f"{post.keys.prefix}q:{box.key}")
    assert b"head1" not in b"".join(fields.values())
    box.batch = 2
    taken = ageless(await post.queues.take(box))
    assert taken == [post.entry(user, n) for n in (1, 2)]
    await post.private.take(box)
    assert await counted(post, box) == 0


async def test_what_is_given_back_is_encrypted(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    local = delivered(post.entry(user, 1), local=True)
    await post.private.give_back(box, [local], stall=2)
    ((_, fields),) = await post.raw.xrange(f"{post.keys.prefix}r:{box.key}")
    assert fields[b"k"] == b"q+"
    second = await post.bind(box.uid)
    (entry,) = await post.queues.take(second)
    assert entry.segments() == local.segments


async def test_heads_of_what_waited_in_a_terminated_mailbox(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.queues.append(user, box.uid, post.entry(user, 1))
    await post.private.append(user, box.uid, post.entry(user, 2))
    ((_, _), (_, fields)) = await post.raw.xrange(f"{post.keys.prefix}q:{box.key}")
    await post.raw.xadd(f"{post.keys.prefix}q:{box.key}", fields | {b"q": b"9"})
    waiting = await post.directory.terminate(box.uid, "")
    heads = list(post.queues.heads(box.uid, waiting))
    assert heads == [(b"head1", False), (b"head2", False)]
    assert post.queues.dead_letters == 1


# Taking


async def test_large_messages_are_taken_few_at_a_time(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    for seq in range(1, 9):
        await post.queues.append(user, box.uid, large(post, user, seq, 3 << 20))
    box.batch = 4
    sizes = []
    while entries := await post.queues.take(box):
        sizes.append(len(entries))
    assert sizes == [4, 2, 1, 1]


async def test_a_take_asks_for_more_the_longer_the_consumer_keeps_up(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, *range(1, 201))
    sizes = []
    got: list[int] = []
    while entries := await post.queues.take(box):
        sizes.append(len(entries))
        got += seqs(entries)
    assert got == list(range(1, 201))
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64, 9]
    assert box.batch == 1


async def test_a_lost_reply_loses_nothing(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """The same take gives the same messages again."""
    await post.send(user, box.uid, 1, 2, 3, 4)
    box.batch = 2
    after, batch = dict(box.after), box.batch
    first = await post.queues.take(box)
    box.after, box.batch = dict(after), batch
    assert ageless(await post.queues.take(box)) == ageless(first)
    assert seqs(first) == [1, 2]
    assert await post.length(box.uid) == 4
    assert seqs(await post.queues.take(box)) == [3, 4]
    assert await post.length(box.uid) == 2
    assert await post.queues.take(box) == []
    assert await post.length(box.uid) == 0


async def test_what_was_taken_is_on_record(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    stream = user.open_outlet(box.uid, 0).stream.name
    await post.send(user, box.uid, 1, 2)
    await post.queues.take(box)
    books = await post.directory.audit(box.uid, stream)
    assert (books.appended, books.taken) == (2, Mark(1, box.inc, 0))
    second = await post.bind(box.uid)
    second.batch = 10
    offers = {
        e.seq: second.received.offer(e.stream, e.seq)
        for e in await post.queues.take(second)
    }
    assert offers == {1: Offer.FORMER, 2: Offer.NEW}
    books = await post.directory.audit(box.uid, stream)
    assert books.taken == Mark(2, second.inc, 1)


async def test_who_may_not_take(post: Post, box: BoundMailbox) -> None:
    await post.bind(box.uid)
    with pytest.raises(FencedError) as fenced:
        await post.queues.take(box)
    assert fenced.value.uid == box.uid
    await post.raw.delete(f"{post.keys.prefix}mb:{box.key}")
    with pytest.raises(NotRegisteredError):
        await post.queues.take(box)
    await post.directory.register([(box.uid, ())])
    await post.directory.terminate(box.uid, "enough")
    with pytest.raises(AgentTerminatedError, match="enough"):
        await post.queues.take(box)


async def test_an_old_secret_is_still_understood(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, 1)
    post.queues._secrets.insert(0, new_secret())
    await post.send(user, box.uid, 2)
    box.batch = 10
    assert seqs(await post.queues.take(box)) == [1, 2]
    del post.queues._secrets[0]
    assert await post.queues.take(box) == []


async def test_garbage_is_dropped_undecoded(
    post: Post,
    user: BoundMailbox,
    box: BoundMailbox,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    queue = f"{post.keys.prefix}q:{box.key}"
    await post.send(user, box.uid, 1)
    forged = dict(
        zip("sqkgmbhx", post.entry(user, 9).sealed(new_secret(), box.key), strict=True)
    )
    for fields in (
        {"x": "y"},
        forged,
        forged | {"q": "many"},
        forged | {"s": b"\xff"},
        {**forged, "h": ""},
    ):
        await post.raw.xadd(queue, fields)
    await post.queues.append(user, box.uid, post.entry(user, 2))
    got: list[int] = []
    for _ in range(10):
        got += seqs(await post.queues.take(box))
    assert got == [1, 2]
    assert post.queues.dead_letters == 5
    assert await post.length(box.uid) == 0
    # The first, the second, and the fourth are logged.
    assert caplog.text.count("dropped unread") == 3
    assert "head9" not in caplog.text


async def test_an_entry_that_was_signed_with_a_new_secret(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """It is looked for before anything is refused; the order stays."""
    new = new_secret()
    await post.send(user, box.uid, 1)
    post.secrets.insert(0, new)
    await post.send(user, box.uid, 2)
    post.secrets.remove(new)
    await post.send(user, box.uid, 3)
    post.new_secrets = [new]
    assert seqs(await take_all(post, box)) == [1, 2, 3]
    assert (post.renewed, post.queues.dead_letters) == (1, 0)


async def test_an_entry_for_somebody_else_is_refused(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """An entry that is copied from one queue into another."""
    other = await post.bind()
    await post.send(user, other.uid, 1)
    ((_, fields),) = await post.raw.xrange(f"{post.keys.prefix}q:{other.key}")
    await post.raw.xadd(f"{post.keys.prefix}q:{box.key}", fields)
    assert await post.queues.take(box) == []
    assert post.queues.dead_letters == 1


# Giving back


def delivered(entry: Entry, *, local: bool = False) -> Delivery:
    message = Message.create(UserId.new(), AgentId.new(), PingRequest())
    return Delivery(message, entry.stream, entry.seq, encode(message), local)


async def take_all(post: Post, box: BoundMailbox) -> list[Entry]:
    box.batch = 100
    return await post.queues.take(box)


async def test_what_was_not_consumed_goes_first(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, 1, 2, 3, 4, 5)
    box.batch = 4
    taken = await post.queues.take(box)
    for entry in taken:
        box.received.offer(entry.stream, entry.seq)
    box.received.consumed(taken[0].stream, 1)
    await post.queues.give_back(box, [delivered(e) for e in taken[1:]], stall=2)
    await post.send(user, box.uid, 6)
    assert (await post.length(box.uid, "r"), await post.length(box.uid)) == (3, 2)
    second = await post.bind(box.uid)
    found = [*await take_all(post, second), *await take_all(post, second)]
    assert seqs(found) == [2, 3, 4, 5, 6]
    assert {second.received.offer(e.stream, e.seq) for e in found} == {Offer.NEW}
    assert await take_all(post, second) == []
    assert (await post.length(box.uid, "r"), await post.length(box.uid)) == (0, 0)


async def test_a_take_fills_up_from_both_parts(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    await post.send(user, box.uid, 1, 2, 3)
    box.batch = 2
    taken = await post.queues.take(box)
    for entry in taken:
        box.received.offer(entry.stream, entry.seq)
    await post.queues.give_back(box, [delivered(e) for e in taken], stall=2)
    second = await post.bind(box.uid)
    assert seqs(await take_all(post, second)) == [1, 2, 3]


async def test_giving_back_twice_changes_nothing(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """As when a reply was lost."""
    await post.send(user, box.uid, 1)
    taken = await post.queues.take(box)
    box.received.offer(taken[0].stream, 1)
    for _ in range(2):
        await post.queues.give_back(box, [delivered(taken[0])], stall=2)
    assert await post.length(box.uid, "r") == 1
    (record,) = await post.directory.lookup([box.uid])
    assert not record.live


async def test_what_never_was_in_the_queue_is_given_back_too(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    local = [delivered(post.entry(user, seq), local=True) for seq in (1, 2)]
    for delivery in local:
        box.received.offer(delivery.stream, delivery.seq)
    stranger = Delivery(Message.create(UserId.new(), box.uid, PingRequest()))
    await post.queues.give_back(box, [*local, stranger], stall=2)
    await post.send(user, box.uid, 1, 2, 3)
    second = await post.bind(box.uid)
    found = await take_all(post, second)
    assert seqs(found) == [1, 2, 3]
    assert {second.received.offer(e.stream, e.seq) for e in found} == {Offer.NEW}


async def test_what_was_given_back_and_not_taken_stays_in_order(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """Owners that take some, consume none, and leave."""
    await post.send(user, box.uid, 1, 2, 3, 4, 5, 6)
    for count in (4, 2, 3, 1):
        box.batch = count
        taken = await post.queues.take(box)
        assert seqs(taken) == list(range(1, count + 1))
        for entry in taken:
            assert box.received.offer(entry.stream, entry.seq) is Offer.NEW
        await post.queues.give_back(box, [delivered(e) for e in taken], stall=2)
        box = await post.bind(box.uid)
    found = [*await take_all(post, box), *await take_all(post, box)]
    assert seqs(found) == [1, 2, 3, 4, 5, 6]


async def test_who_may_not_give_back(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    delivery = delivered(post.entry(user, 1), local=True)
    second = await post.bind(box.uid)
    with pytest.raises(FencedError):
        await post.queues.give_back(box, [delivery], stall=2)
    await post.raw.delete(f"{post.keys.prefix}mb:{box.key}")
    with pytest.raises(NotRegisteredError):
        await post.queues.give_back(second, [delivery], stall=2)
    await post.directory.register([(box.uid, ())])
    await post.directory.terminate(box.uid, "enough")
    with pytest.raises(AgentTerminatedError, match="enough"):
        await post.queues.give_back(second, [delivery], stall=2)
    assert await post.length(box.uid, "r") == 0


def test_the_entry_of_a_delivery() -> None:
    request = Message.create(UserId.new(), AgentId.new(), PingRequest())
    response = request.create_response(SuccessResponse())
    for message, kind in ((request, REQUEST), (response, RESPONSE)):
        segments = encode(message)
        entry = entry_of(Delivery(message, "s", 5, segments))
        assert (entry.stream, entry.seq, entry.kind) == ("s", 5, kind)
        assert entry.tag == message.tag.bytes
        assert entry.segments() == segments


async def test_posts_keep_their_order(
    post: Post, user: BoundMailbox, box: BoundMailbox
) -> None:
    """A post counts from the moment at which it is made."""
    replies = [
        post.queues.post(user, box.uid, post.entry(user, n)) for n in range(1, 6)
    ]
    last = asyncio.create_task(post.send(user, box.uid, 6))
    for reply in reversed(replies):
        await post.queues.accepted(user, box.uid, reply)
    await last
    assert seqs(await take_all(post, box)) == [1, 2, 3, 4, 5, 6]
