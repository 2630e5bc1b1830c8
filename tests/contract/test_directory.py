"""Who there is, and how they are."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from academy.embedded import EmbeddedServer
from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.exchange.factory import ExchangeFactory
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId, UserId
from academy.message import Message, PingRequest, SuccessResponse
from tests.contract.conftest import make_factory
from tests.contract.office import (
    Camera,
    Clock,
    Here,
    Office,
    Sensor,
    eventually,
    numbered,
    office,
)
from tests.restricted import allow


async def test_register_gives_a_new_identifier_each_time(mail: Office) -> None:
    user = await mail.user()
    first = await user.register_agent(Sensor, name="s")
    second = await user.register_agent(Sensor, name="s")
    assert first.agent_id != second.agent_id
    assert first.agent_id.name == "s"


async def test_a_registration_names_its_exchange(kind: str, mail: Office) -> None:
    registration = await (await mail.user()).register_agent(Sensor)
    assert registration.exchange_type == kind
    assert pickle.loads(pickle.dumps(registration)) == registration


async def test_register_many_keeps_their_order(mail: Office) -> None:
    user = await mail.user()
    made = await user.register_agents([(Sensor, "a"), (Clock, "b"), (Camera, None)])
    assert [r.agent_id.name for r in made] == ["a", "b", None]
    clocks = await user.discover(Clock)
    assert clocks == (made[1].agent_id,)


async def test_registering_what_is_no_agent_registers_nothing(mail: Office) -> None:
    user = await mail.user()
    with pytest.raises(TypeError, match="not an agent class"):
        await user.register_agents([(Sensor, None), (int, None)])
    assert await user.discover(Sensor) == ()


async def test_discover_by_class_or_name(mail: Office) -> None:
    user = await mail.user()
    sensor = (await user.register_agent(Sensor, name="s")).agent_id
    camera = (await user.register_agent(Camera)).agent_id
    await user.register_agent(Clock)
    path = f"{Sensor.__module__}.{Sensor.__qualname__}"
    for what in (Sensor, path):
        assert set(await user.discover(what)) == {sensor, camera}
        assert await user.discover(what, allow_subclasses=False) == (sensor,)
    assert await user.discover(Camera) == (camera,)
    assert len(await user.discover("academy.agent.Agent")) == 3
    assert (await user.discover(Sensor, allow_subclasses=False))[0].name == "s"


async def test_discover_finds_neither_strangers_nor_users(mail: Office) -> None:
    user = await mail.user()
    assert await user.discover("no.such.Class") == ()
    assert await user.discover(Sensor) == ()
    with pytest.raises(TypeError, match="not an agent class"):
        await user.discover(int)


async def test_discover_forgets_the_terminated(mail: Office) -> None:
    user = await mail.user()
    gone = (await user.register_agent(Camera)).agent_id
    kept = (await user.register_agent(Camera)).agent_id
    await user.terminate(gone)
    for what in (Sensor, Camera):
        assert await user.discover(what) == (kept,)


async def test_the_life_of_a_mailbox(mail: Office) -> None:
    user = await mail.user()
    assert await user.status(AgentId.new()) is MailboxStatus.MISSING
    assert await user.status(user.client_id) is MailboxStatus.ACTIVE
    registration = await mail.register()
    uid = registration.agent_id
    assert await user.status(uid) is MailboxStatus.INACTIVE
    desk = await mail.desk(registration)
    assert await user.status(uid) is MailboxStatus.ACTIVE
    await desk.close()
    assert await user.status(uid) is MailboxStatus.INACTIVE
    desk = await mail.desk(registration)
    assert await user.status(uid) is MailboxStatus.ACTIVE
    await user.terminate(uid)
    assert await user.status(uid) is MailboxStatus.TERMINATED


async def test_closing_a_user_terminates_it(mail: Office) -> None:
    watcher, user = await mail.user(), await mail.user()
    uid = user.client_id
    assert await watcher.status(uid) is MailboxStatus.ACTIVE
    await user.close()
    assert await watcher.status(uid) is MailboxStatus.TERMINATED


async def test_heartbeats(mail: Office) -> None:
    user = await mail.user()
    registration = await mail.register()
    uid = registration.agent_id
    assert await user.heartbeat_status(uid) is None
    box = await mail.box(uid)
    assert 0 <= await user.heartbeat_status(uid) < 4
    await box._place.run(box.transport.update_heartbeat())
    assert 0 <= await user.heartbeat_status(uid) < 4
    await box.close()
    assert 0 <= await user.heartbeat_status(uid) < 4
    await user.update_heartbeat()
    assert 0 <= await user.heartbeat_status(user.client_id) < 4


async def test_heartbeats_of_nobody(mail: Office) -> None:
    user = await mail.user()
    for stranger in (AgentId.new(), UserId.new()):
        with pytest.raises(BadEntityIdError) as caught:
            await user.heartbeat_status(stranger)
        assert caught.value.uid == stranger
    gone = (await mail.register()).agent_id
    await user.terminate(gone)
    with pytest.raises(MailboxTerminatedError):
        await user.heartbeat_status(gone)


async def test_counts_of_an_agent(mail: Office) -> None:
    def answer(message: Message[Any]) -> SuccessResponse | None:
        ping = isinstance(message.get_body(), PingRequest)
        return SuccessResponse() if ping else None

    user, desk = await mail.user(), await mail.desk(answer=answer)
    for _ in range(3):
        await user.request(Message.create(user.client_id, desk.uid, PingRequest()))
    await user.send(numbered(user.client_id, desk.uid, 1))
    await eventually(lambda: len(desk.taken) == 4)
    stats = await user.agent_stats(desk.uid)
    assert (stats.incoming, stats.completed, stats.in_progress) == (4, 3, 1)
    assert (stats.outgoing, stats.queued) == (0, 0)


async def test_an_agent_that_is_asked_for_its_own_counts(mail: Office) -> None:
    desk = await mail.desk()
    other = (await mail.user()).client_id
    await desk._place.run(desk.client.send(numbered(desk.uid, other, 1)))
    stats = await desk._place.run(desk.client.agent_stats(desk.uid))
    assert (stats.incoming, stats.outgoing) == (0, 1)


async def test_counts_of_an_agent_that_is_not_running(mail: Office) -> None:
    user, sender = await mail.user(), await mail.sender()
    uid = (await mail.register()).agent_id
    await sender.post(uid, 1, 2, 3)
    assert (await user.agent_stats(uid)).queued == 3
    with pytest.raises(BadEntityIdError):
        await user.agent_stats(AgentId.new())


@pytest.mark.parametrize("kind", ["redis", "hybrid"])
async def test_namespaces_keep_apart(
    kind: str, server: EmbeddedServer, namespace: str
) -> None:
    allow(server, namespace + "x")
    here = make_factory(kind, server, namespace)
    there = make_factory(kind, server, namespace + "x")
    async with office(here, Here()) as ours, office(there, Here()) as theirs:
        us, them = await ours.user(), await theirs.user()
        mine = (await us.register_agent(Sensor)).agent_id
        assert await them.discover(Sensor) == ()
        assert await them.status(mine) is MailboxStatus.MISSING
        with pytest.raises(BadEntityIdError, match="same server and namespace"):
            await them.send(numbered(them.client_id, mine, 1))
        with pytest.raises(BadEntityIdError):
            await theirs.desk(await ours.register())
        await them.terminate(mine)
        assert await us.status(mine) is MailboxStatus.INACTIVE


@pytest.mark.admin
async def test_a_random_namespace_is_a_new_one(server: EmbeddedServer) -> None:
    factories = [
        HybridExchangeFactory.from_url(server.url, namespace=None) for _ in range(2)
    ]
    assert factories[0].namespace != factories[1].namespace
    async with office(factories[0], Here()) as ours, office(factories[1], Here()) as x:
        registration = await ours.register()
        user = await ours.user()
        assert await user.discover(Sensor) == (registration.agent_id,)
        assert await (await x.user()).discover(Sensor) == ()


async def test_a_factory_of_a_client_reaches_the_same_exchange(mail: Office) -> None:
    user = await mail.user()
    registration = await user.register_agent(Sensor)
    async with await user.factory().create_user_client() as second:
        assert await second.discover(Sensor) == (registration.agent_id,)


@pytest.mark.parametrize("kind", ["redis", "hybrid"])
async def test_a_pickled_factory_reaches_the_same_exchange(
    kind: str, factory: ExchangeFactory[Any], mail: Office
) -> None:
    registration = await mail.register()
    copy = pickle.loads(pickle.dumps(factory))
    async with await copy.create_user_client() as user:
        assert await user.discover(Sensor) == (registration.agent_id,)


async def test_what_lives_in_a_process_is_not_pickled(mail: Office) -> None:
    box = await mail.sender()
    with pytest.raises(pickle.PicklingError, match="cannot be pickled"):
        pickle.dumps(box.transport)


async def test_an_agent_client_needs_an_open_mailbox(mail: Office) -> None:
    user = await mail.user()
    registration = await mail.register()
    stranger = type(registration)(AgentId.new())
    with pytest.raises(BadEntityIdError) as caught:
        await mail.desk(stranger)
    assert caught.value.uid == stranger.agent_id
    await user.terminate(registration.agent_id, reason="it was old")
    with pytest.raises(MailboxTerminatedError, match="it was old"):
        await mail.desk(registration)
