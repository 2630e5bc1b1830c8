"""Members of the namespace send what nobody asked for, or what nobody can read."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from academy.body import ActionRequest, ActionResponse, PingRequest
from academy.exchange.keys import Keys, entity_key
from academy.exchange.mailbox import REQUEST, make_entry
from academy.exchange.secret import NamespaceSecret
from academy.message import Message, encode
from academy.segment import Segment
from academy.serialize import SerializationStrategy
from tests.fault.harness import Scene

FULL = pytest.mark.fault
PICKLE = SerializationStrategy.PICKLE


@pytest.mark.parametrize("calls", [200, pytest.param(1_000, marks=FULL)])
async def test_wrong_answers(redis_url: str, tmp_path: Path, calls: int) -> None:
    """Only the one right answer to a call counts."""
    name = f"{calls:,} duplicate, unknown, late, wrongly labelled answers each"
    async with Scene(redis_url, tmp_path, "34", name) as scene:
        registration = await scene.register()
        agent = await scene.spawn_consumer(registration, noise=True, hold=0.05)
        results = await asyncio.gather(*scene.call_many(agent.handle, calls))
        assert "wrong" not in results
        assert not scene.oracle.errors()
        # The answers to these come when nobody waits any more.
        await asyncio.gather(*scene.call_many(agent.handle, calls, timeout=0.02))
        await asyncio.sleep(0.2)
        results = await asyncio.gather(*scene.call_many(agent.handle, 100))
        assert "wrong" not in results
        assert not scene.oracle.errors()


async def test_answers_to_an_agent(redis_url: str, tmp_path: Path) -> None:
    """An agent that gets answers to nothing goes on."""
    name = "1,000 answers to an agent that has asked nothing"
    async with Scene(redis_url, tmp_path, "34b", name) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        for _ in range(1_000):
            body = ActionResponse(result=1, serialization=PICKLE)
            message = Message.create(
                scene.client.client_id, agent.registration.agent_id, body
            )
            await scene.client.send(message)
        await asyncio.gather(*scene.call_many(agent.handle, 100))
        assert not scene.oracle.errors()


class Martian(PingRequest, kw_only=True):
    """A body of a kind that nobody knows."""

    kind = "martian"


@pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=FULL)])
async def test_malformed_bodies(redis_url: str, tmp_path: Path, count: int) -> None:
    """Who sends nonsense is told so; others notice nothing."""
    name = f"{count:,} requests each with damaged arguments, unknown kinds"
    async with Scene(redis_url, tmp_path, "35", name) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 8, 0.005)
        chance = random.Random(35)
        refused = []
        for _ in range(count):
            for body in (_damaged(chance), Martian()):
                message = Message.create(
                    scene.client.client_id, agent.registration.agent_id, body
                )
                answer = await asyncio.wait_for(scene.client.request(message), 5)
                refused.append(type(answer.get_body()).__name__)
        assert len(refused) == 2 * count
        assert "ActionResponse" not in refused
        await scene.settled(10)
        assert not scene.oracle.errors()


def _damaged(chance: random.Random) -> ActionRequest:
    garbage: list[Segment] = [
        chance.randbytes(chance.randrange(100)) for _ in range(chance.randrange(1, 4))
    ]
    return ActionRequest(action="record", serialization=PICKLE, packed=garbage)


@pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=FULL)])
async def test_garbage_in_the_queue(redis_url: str, tmp_path: Path, count: int) -> None:
    """Entries that no member has signed, or that none can read, are dropped."""
    name = f"{count:,} garbage entries in a mailbox, signed and not"
    async with Scene(redis_url, tmp_path, "35b", name) as scene:
        agent = await scene.spawn()
        await scene.direct(agent.handle)
        scene.load(agent.handle, 8, 0.005)
        keys = Keys(scene.namespace)
        own = entity_key(scene.client.client_id)
        async with redis.asyncio.Redis.from_url(redis_url) as admin:
            secret = NamespaceSecret(await admin.get(keys.secret))
            for dest in (entity_key(agent.registration.agent_id), own):
                entries = _garbage(scene, dest, secret, count)
                await _add(admin, keys.prefix, dest, entries)
        # What waits behind the garbage is taken.
        late = await scene.spawn_caller("late", [agent.registration], tasks=8)
        await scene.answered(200)
        await scene.collect(late)
        await scene.settled(10)
        assert not scene.oracle.errors()


def _garbage(
    scene: Scene, dest: str, secret: NamespaceSecret, count: int
) -> list[dict[str, Any]]:
    """Return random fields, damaged entries, and nonsense with a good signature."""
    chance = random.Random(count)
    entries: list[dict[str, Any]] = []
    for n in range(count):
        src = f"{uuid.uuid4().hex}:1:0"
        body = ActionRequest(action="record", serialization=PICKLE, pargs=("no",))
        agent_id = scene.client.client_id
        segments: Sequence[Segment] = encode(Message.create(agent_id, agent_id, body))
        if n % 3 == 0:
            segments = [chance.randbytes(40)]
        entry = make_entry(src, 1, REQUEST, uuid.uuid4().bytes, segments)
        names = ("s", "q", "k", "g", "m", "b", "h", "x")
        fields = dict(zip(names, entry.sealed(secret, dest), strict=True))
        if n % 3 == 1:
            fields["m"] = chance.randbytes(40)
        elif n % 3 == 2:
            del fields[chance.choice(names)]
        entries.append(fields)
    return entries


async def _add(
    admin: redis.asyncio.Redis, prefix: str, dest: str, entries: list[dict[str, Any]]
) -> None:
    async with admin.pipeline(transaction=False) as pipeline:
        for fields in entries:
            pipeline.xadd(f"{prefix}q:{dest}", fields)
        await pipeline.execute()
    owner = await admin.hget(f"{prefix}mb:{dest}", "uid")
    news = {"t": "m", "e": dest, "i": "", "r": ""}
    await admin.xadd(f"{prefix}wake:{owner.decode()}", news)
