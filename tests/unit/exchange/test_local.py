from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from academy.exception import (
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeError,
    FencedError,
    ForbiddenError,
    MailboxTerminatedError,
    PeerLostError,
    UserTerminatedError,
)
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.local import (
    LocalAgentRegistration,
    LocalExchangeFactory,
    LocalExchangeState,
    LocalExchangeTransport,
)
from academy.exchange.transport import ExchangeTransport, MailboxStatus
from academy.identifier import AgentId, UserId
from academy.message import (
    ActionResponse,
    Message,
    PingRequest,
    SuccessResponse,
)
from academy.serialize import SerializationStrategy
from academy.stats import AgentStats
from tests.unit.exchange.foreign import BetterCalc, Calc


@pytest.fixture
def state() -> LocalExchangeState:
    return LocalExchangeState()


@pytest.fixture
async def user(state: LocalExchangeState) -> AsyncGenerator[LocalExchangeTransport]:
    async with LocalExchangeTransport.new(name="ann", state=state) as transport:
        yield transport


@pytest.fixture
async def agent(
    user: LocalExchangeTransport, state: LocalExchangeState
) -> AsyncGenerator[LocalExchangeTransport]:
    uid = (await user.register_agent(Calc, name="bob")).agent_id
    async with LocalExchangeTransport(uid, state) as transport:
        yield transport


def ping(src: LocalExchangeTransport, dest: Any) -> Message[Any]:
    dest = getattr(dest, "mailbox_id", dest)
    return Message.create(src.mailbox_id, dest, PingRequest())


async def error_in(transport: LocalExchangeTransport) -> Any:
    """The exception that the next message of a mailbox stands for."""
    message: Message[Any] = await transport.recv(timeout=10)
    return message.get_body().get_exception()


async def test_protocol(user: LocalExchangeTransport) -> None:
    assert isinstance(user, ExchangeTransport)
    assert str(user) == "LocalExchangeTransport<UserId<ann>>"
    assert isinstance(user.mailbox_id, UserId)


async def test_nothing_pickles(user: LocalExchangeTransport) -> None:
    for thing in (user, user.factory(), user._state):
        with pytest.raises(pickle.PicklingError, match="of this process"):
            pickle.dumps(thing)


def test_registration() -> None:
    registration = LocalAgentRegistration(AgentId[Calc].new("bob"))
    assert registration.exchange_type == "local"
    shown = f"agent_id={registration.agent_id!r}"
    assert repr(registration) == f"LocalAgentRegistration({shown})"
    dump = registration.model_dump_json()
    assert LocalAgentRegistration.model_validate_json(dump) == registration
    with pytest.raises(ValueError, match="exchange_type"):
        LocalAgentRegistration.model_validate_json(dump.replace("local", "redis"))


async def test_factory_options() -> None:
    config = ExchangeClientConfig(heartbeat_interval=5)
    factory = LocalExchangeFactory(config=config)
    assert factory.config is config
    async with await factory.create_user_client() as user:
        async with await LocalExchangeFactory().create_user_client() as stranger:
            status = await stranger.status(user.client_id)
            assert status is MailboxStatus.MISSING
        assert await user.status(user.client_id) is MailboxStatus.ACTIVE


class TestSend:
    async def test_in_order(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        sent = [ping(user, agent) for _ in range(5)]
        for message in sent:
            await user.send(message)
        received = [await agent.recv(1) for _ in sent]
        assert received == sent
        assert isinstance(received[0].get_body(), PingRequest)

    async def test_receiver_has_a_copy(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        request = ping(agent, user)
        await agent.send(request)
        await user.recv(1)
        array = np.zeros(1000)
        result = ActionResponse(
            result=array, serialization=SerializationStrategy.PICKLE
        )
        await user.send(request.create_response(result))
        array[:] = 1
        response: Message[ActionResponse] = await agent.recv(1)
        received = response.get_body().get_result()
        assert not received.any()
        received[0] = 2
        assert array[0] == 1

    async def test_in_the_name_of_another(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        with pytest.raises(ForbiddenError, match="sends in the name of UserId<ann>"):
            await user.send(ping(agent, user))

    async def test_to_nobody(self, user: LocalExchangeTransport) -> None:
        with pytest.raises(BadEntityIdError):
            await user.send(ping(user, AgentId.new()))
        assert (await user.agent_stats(user.mailbox_id)).outgoing == 0

    async def test_timeout(self, user: LocalExchangeTransport) -> None:
        with pytest.raises(TimeoutError):
            await anext(user.listen(timeout=0.001))

    async def test_stray_and_duplicate_responses_are_dropped(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        request = ping(user, agent)
        await user.send(request)
        taken = await agent.recv(1)
        for _ in range(2):
            await agent.send(taken.create_response(SuccessResponse()))
        stray = Message.create(agent.mailbox_id, user.mailbox_id, SuccessResponse())
        await agent.send(stray)
        await agent.send(ping(agent, user))
        assert (await user.recv(1)).tag == request.tag
        assert (await user.recv(1)).is_request()

    async def test_forgotten_request(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        request = ping(user, agent)
        await user.send(request)
        user.forget(request.tag)
        await agent.send((await agent.recv(1)).create_response(SuccessResponse()))
        with pytest.raises(TimeoutError):
            await user.recv(0)


class TestBind:
    async def test_unknown_and_terminated(
        self, user: LocalExchangeTransport, state: LocalExchangeState
    ) -> None:
        with pytest.raises(BadEntityIdError):
            LocalExchangeTransport(AgentId.new(), state)
        uid = (await user.register_agent(Calc)).agent_id
        await user.terminate(uid)
        with pytest.raises(AgentTerminatedError) as caught:
            LocalExchangeTransport(uid, state)
        assert caught.value.executed == "no"

    async def test_messages_wait_for_the_owner(
        self, user: LocalExchangeTransport, state: LocalExchangeState
    ) -> None:
        uid = (await user.register_agent(Calc)).agent_id
        sent = [ping(user, uid) for _ in range(3)]
        for message in sent:
            await user.send(message)
        assert await user.agent_stats(uid) == AgentStats(queued=3)
        async with LocalExchangeTransport.new(uid, state=state) as agent:
            assert await agent.recv(1) == sent[0]
        # What was not taken waits for the next owner, in order.
        await user.send(ping(user, uid))
        async with LocalExchangeTransport(uid, state) as again:
            assert [await again.recv(1) for _ in sent[1:]] == sent[1:]

    async def test_newest_owns_it(
        self,
        user: LocalExchangeTransport,
        agent: LocalExchangeTransport,
        state: LocalExchangeState,
    ) -> None:
        taken, unread = ping(user, agent), ping(user, agent)
        await user.send(taken)
        await user.send(unread)
        assert await agent.recv(1) == taken
        async with LocalExchangeTransport(agent.mailbox_id, state) as newer:
            with pytest.raises(FencedError):
                await agent.recv(1)
            assert await newer.recv(1) == unread
            error = await error_in(user)
            assert isinstance(error, PeerLostError)
            assert (error.executed, error.uid) == ("maybe", agent.mailbox_id)
            assert "took its mailbox over" in str(error)
            await agent.close()
            status = await user.status(agent.mailbox_id)
            assert status is MailboxStatus.ACTIVE

    async def test_closed_owner_leaves_no_call_unanswered(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        await user.send(ping(user, agent))
        await agent.recv(1)
        await agent.close()
        await agent.close()
        error = await error_in(user)
        assert isinstance(error, PeerLostError)
        assert "it stopped before it answered" in str(error)
        with pytest.raises(ExchangeError, match=r"LocalExchangeTransport.* is closed"):
            await agent.recv(1)

    async def test_caller_that_is_gone(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        await user.send(ping(user, agent))
        await agent.recv(1)
        await agent.terminate(user.mailbox_id)
        await agent.close()


class TestTerminate:
    async def test_waiting_requests_are_answered(
        self, user: LocalExchangeTransport
    ) -> None:
        uid = (await user.register_agent(Calc)).agent_id
        await user.send(ping(user, uid))
        await user.fail(uid, "no worker")
        error = await error_in(user)
        assert isinstance(error, AgentTerminatedError)
        assert (error.executed, error.reason) == ("no", "no worker")
        with pytest.raises(AgentTerminatedError, match="no worker"):
            await user.send(ping(user, uid))

    async def test_only_requests_are(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        await user.send(ping(user, agent))
        await agent.send((await agent.recv(1)).create_response(SuccessResponse()))
        await agent.terminate(user.mailbox_id)
        with pytest.raises(UserTerminatedError):
            await user.recv(1)
        with pytest.raises(TimeoutError):
            await agent.recv(0)

    async def test_taken_requests_are_answered_after_the_grace(
        self,
        user: LocalExchangeTransport,
        agent: LocalExchangeTransport,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("academy.exchange.local.TERMINATION_GRACE", 0.01)
        await user.send(ping(user, agent))
        await agent.recv(1)
        await user.terminate(agent.mailbox_id)
        error = await error_in(user)
        assert isinstance(error, AgentTerminatedError)
        assert error.executed == "maybe"

    async def test_answers_within_the_grace_count(
        self,
        user: LocalExchangeTransport,
        agent: LocalExchangeTransport,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("academy.exchange.local.TERMINATION_GRACE", 0.01)
        await user.send(ping(user, agent))
        taken = await agent.recv(1)
        await user.terminate(agent.mailbox_id)
        await agent.send(taken.create_response(SuccessResponse()))
        response: Message[Any] = await user.recv(1)
        assert isinstance(response.get_body(), SuccessResponse)
        with pytest.raises(TimeoutError):
            await user.recv(0.05)

    async def test_idempotent_also_for_strangers(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        await user.fail(agent.mailbox_id, "first")
        await user.fail(agent.mailbox_id, "second")
        await user.terminate(AgentId.new())
        with pytest.raises(MailboxTerminatedError, match="first"):
            await agent.recv(1)

    async def test_caller_whose_loop_has_ended(
        self, agent: LocalExchangeTransport, state: LocalExchangeState
    ) -> None:
        """It awaits nothing any more, so the loop is not needed."""

        async def ask_and_go() -> None:
            other = LocalExchangeTransport.new(state=state)
            await other.send(ping(other, agent))

        await asyncio.to_thread(lambda: asyncio.run(ask_and_go()))
        await agent.recv(1)
        await agent.terminate(agent.mailbox_id)


class TestState:
    async def test_status(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        uid = agent.mailbox_id
        assert await user.status(AgentId.new()) is MailboxStatus.MISSING
        assert await user.status(uid) is MailboxStatus.ACTIVE
        assert await user.heartbeat_status(uid) == 0.0
        await agent.close()
        assert await user.status(uid) is MailboxStatus.INACTIVE
        age = await user.heartbeat_status(uid)
        assert age is not None
        assert 0 <= age < 10
        await user.terminate(uid)
        assert await user.status(uid) is MailboxStatus.TERMINATED
        with pytest.raises(AgentTerminatedError):
            await user.heartbeat_status(uid)
        with pytest.raises(AgentTerminatedError):
            await agent.update_heartbeat()

    async def test_never_alive(self, user: LocalExchangeTransport) -> None:
        uid = (await user.register_agent(Calc)).agent_id
        assert await user.status(uid) is MailboxStatus.INACTIVE
        assert await user.heartbeat_status(uid) is None
        await user.update_heartbeat()

    async def test_stats(
        self, user: LocalExchangeTransport, agent: LocalExchangeTransport
    ) -> None:
        for _ in range(3):
            await user.send(ping(user, agent))
        taken = await agent.recv(1)
        assert await user.agent_stats(agent.mailbox_id) == AgentStats(
            incoming=1, in_progress=1, queued=2
        )
        await agent.send(taken.create_response(SuccessResponse()))
        await agent.send(ping(agent, user))
        assert await user.agent_stats(agent.mailbox_id) == AgentStats(
            incoming=1, outgoing=1, completed=1, queued=2
        )
        with pytest.raises(BadEntityIdError):
            await user.agent_stats(AgentId.new())

    async def test_discover(self, user: LocalExchangeTransport) -> None:
        calc = (await user.register_agent(Calc)).agent_id
        better = (await user.register_agent(BetterCalc)).agent_id
        ended = (await user.register_agent(Calc)).agent_id
        await user.terminate(ended)
        assert set(await user.discover(Calc)) == {calc, better}
        assert await user.discover("Calc", allow_subclasses=False) == (calc,)
        assert await user.discover(BetterCalc) == (better,)


class TestThreads:
    async def test_agent_in_another_thread(
        self, user: LocalExchangeTransport, state: LocalExchangeState
    ) -> None:
        uid = (await user.register_agent(Calc)).agent_id
        count = 200

        async def serve() -> None:
            async with LocalExchangeTransport(uid, state) as agent:
                for _ in range(count):
                    request = await agent.recv(timeout=10)
                    await agent.send(request.create_response(SuccessResponse()))

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        sent = [ping(user, uid) for _ in range(count)]
        for message in sent:
            await user.send(message)
        received = [await user.recv(timeout=10) for _ in sent]
        await asyncio.to_thread(thread.join)
        assert [m.tag for m in received] == [m.tag for m in sent]
        assert (await user.agent_stats(uid)).completed == count

    async def test_takeover_from_another_thread(
        self, agent: LocalExchangeTransport, state: LocalExchangeState
    ) -> None:
        waiting = asyncio.ensure_future(agent.recv())
        await asyncio.sleep(0)

        async def take_over() -> None:
            await LocalExchangeTransport(agent.mailbox_id, state).close()

        await asyncio.to_thread(lambda: asyncio.run(take_over()))
        with pytest.raises(FencedError):
            await waiting
