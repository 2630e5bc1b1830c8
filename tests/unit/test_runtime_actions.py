"""What callers get, from good actions and from all kinds of bad ones."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable
from typing import Any

import pytest

from academy import dispatch
from academy import runtime as runtime_module
from academy.agent import Agent, action
from academy.exception import (
    AcademyRemoteError,
    ActionCancelledError,
    ActionInvalidStateError,
    AgentTerminatedError,
    DeserializationError,
    DeserializationMethodProhibitedError,
    ExceptionSerializationError,
    MessageTooLargeError,
    PingCancelledError,
    SerializationError,
)
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle
from academy.identifier import UserId
from academy.message import (
    ActionRequest,
    CancelRequest,
    ErrorCode,
    Message,
    PingRequest,
    UserErrorResponse,
)
from academy.runtime import RuntimeConfig
from academy.serialize import SerializationStrategy
from tests.unit.local_agents import (
    Calculator,
    Running,
    eventually,
    prepared,
    running,
)

JSON, PICKLE = SerializationStrategy.JSON, SerializationStrategy.PICKLE


class Unreadable:
    """Pickles, and fails when it is read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


class Marker:
    """Notes when it is read."""

    read: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> Any:
        return Marker.read.append, ("read",)


class Faulty(Calculator):
    @action
    async def lock(self) -> Any:
        return threading.Lock()

    @action
    async def bad_exception(self) -> None:
        raise ValueError("text of it", threading.Lock())

    @action
    async def leave(self, kind: str) -> None:
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[kind]


async def outcome(one: Running, body: Any) -> Any:
    """Return the body of the response to a raw request."""
    message = Message.create(one.user.client_id, one.handle.agent_id, body)
    return (await one.user.request(message)).get_body()


def request(action: str = "add", **options: Any) -> ActionRequest:
    return ActionRequest(action=action, **({"serialization": PICKLE} | options))


async def works(one: Running) -> None:
    assert await one.handle.add(1, 2) == 3


class TestBadInput:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (("ad",), AttributeError, r"Agent<Faulty> has no action 'ad'.*'add'\?"),
            (("agent_on_startup",), AttributeError, "no action 'agent_on_startup'"),
            (("add",), TypeError, "missing 1 required positional argument: 'a'"),
            (("add", 1, 2, 3), TypeError, "takes from 2 to 3 positional arguments"),
            (("add", "x"), TypeError, 'concatenate str .not "int". to str|must be str'),
            (("fail",), ValueError, "no"),
            (("lock",), SerializationError, "The result .lock. could not be"),
            (("add", Unreadable()), DeserializationError, "arguments .*no number"),
            (
                ("bad_exception",),
                ExceptionSerializationError,
                r"ValueError\) could not.*text of it",
            ),
        ],
    )
    async def test_caller_gets_an_error_and_the_agent_works(
        self, call: Any, error: type[Exception], message: str
    ) -> None:
        async with running(Faulty()) as one:
            with pytest.raises(error, match=message):
                await asyncio.wait_for(one.handle.action(*call), 5)
            await works(one)

    async def test_only_errors_of_the_agents_code_show_it(self) -> None:
        async with running(Faulty()) as one:
            for call, noted in ((("fail",), True), (("ad",), False), (("add",), False)):
                with pytest.raises(Exception) as caught:  # noqa: PT011
                    await one.handle.action(*call)
                assert hasattr(caught.value, "__notes__") is noted

    async def test_damaged_body(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(Calculator()) as one:
            with monkeypatch.context() as patch:
                # On the wire: a head with too few fields.
                patch.setattr(PingRequest, "head", lambda self: ())
                patch.setattr(PingRequest, "kind", "cancel-request")
                body = await outcome(one, PingRequest())
            assert isinstance(body, UserErrorResponse)
            assert body.serialization is JSON
            error = body.get_exception()
            assert isinstance(error, AcademyRemoteError)
            assert "ValueError: A message has a damaged cancel-request" in str(error)
            await works(one)

    async def test_garbage_as_arguments(self) -> None:
        async with running(Calculator()) as one:
            for packed in ([b"garbage"], [], [b"\x80\x05K\x01."]):
                body = await outcome(one, request(packed=packed))
                assert isinstance(body.get_exception(), Exception)
            await works(one)

    async def test_result_that_is_too_large(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with running(Calculator(offset=b"x" * 1000)) as one:  # type: ignore[arg-type]
            client = one.runtime.agent.agent_exchange_client
            submit = client.submit

            def limited(message: Message[Any]) -> Awaitable[None] | None:
                size = len(message.model_serialize())
                if size > 1000:
                    raise MessageTooLargeError(size, 1000)
                return submit(message)

            monkeypatch.setattr(client, "submit", limited)
            with pytest.raises(MessageTooLargeError):
                await asyncio.wait_for(one.handle.give("offset"), 5)

    @pytest.mark.parametrize("kind", ["exit", "interrupt"])
    async def test_action_that_would_end_the_process(self, kind: str) -> None:
        config = RuntimeConfig(terminate_on_success=False)
        async with prepared(Faulty(), config) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            with pytest.raises(AcademyRemoteError, match="The agent ends"):
                await asyncio.wait_for(one.handle.leave(kind), 5)
            with pytest.raises(RuntimeError, match="Action 'leave' of AgentId<agent>"):
                await asyncio.wait_for(run, 5)
            assert await one.handle.agent_status() is MailboxStatus.TERMINATED
            with pytest.raises(AgentTerminatedError, match="Action 'leave'"):
                await one.handle.ping()


class TestPolicy:
    CONFIG = RuntimeConfig(allowed_deserializers={JSON})

    async def test_prohibited_arguments_stay_undecoded(self) -> None:
        Marker.read.clear()
        async with running(Calculator(), self.CONFIG) as one:
            with pytest.raises(DeserializationMethodProhibitedError) as caught:
                await one.new_handle(request_serializer=PICKLE).add(Marker())
            assert (caught.value.serializer, caught.value.allowed) == (
                "pickle",
                ("json",),
            )
            assert await one.new_handle(request_serializer=JSON).add(1) == 1
        assert Marker.read == []

    @pytest.mark.parametrize("option", ["result_serializer", "exception_serializer"])
    async def test_prohibited_answer(self, option: str) -> None:
        async with running(Calculator(), self.CONFIG) as one:
            options = {"request_serializer": JSON, "exception_serializer": PICKLE}
            handle = one.new_handle(**options | {option: PICKLE})
            with pytest.raises(DeserializationMethodProhibitedError, match="pickle"):
                await handle.add(1)
            body = await outcome(one, request(serialization=JSON))
            assert "missing 1 required" in str(body.get_exception())

    async def test_a_refusal_is_not_a_pickle(self) -> None:
        """Not even to a caller that asks for one."""
        async with running(Calculator(), self.CONFIG) as one:
            body = await outcome(one, request(serialization=PICKLE))
            assert body.error_code is ErrorCode.SERIALIZATION_PROHIBITED
            assert body.executed == "no"

    async def test_the_default_is_one_that_is_accepted(self) -> None:
        async with running(Calculator(offset=(1,)), self.CONFIG) as one:  # type: ignore[arg-type]
            assert await one.handle.give("offset") == [1]


class TestCancelRequest:
    async def test_only_by_the_source(self) -> None:
        agent = Calculator()
        async with running(agent) as one:
            task = asyncio.create_task(one.handle.hold("mine"))
            await agent.entered.wait()
            [(_, tag)] = one.runtime._dispatcher._running
            cancel = CancelRequest(target_tag=uuid.UUID(int=tag))
            other = await one.factory.create_user_client()
            message = Message.create(other.client_id, one.handle.agent_id, cancel)
            refused = (await other.request(message)).get_body()
            assert isinstance(refused.get_exception(), ActionInvalidStateError)
            assert agent.cancelled == []
            await outcome(one, cancel)
            with pytest.raises(ActionCancelledError):
                await task
            assert agent.cancelled == ["mine"]
            await other.close()


class TestShutdown:
    async def test_running_actions_are_cancelled(self) -> None:
        agent = Calculator()
        async with running(agent) as one:
            tasks = [asyncio.create_task(one.handle.hold(n)) for n in "abc"]
            await agent.entered.wait()
        for task in tasks:
            with pytest.raises(ActionCancelledError):
                await asyncio.wait_for(task, 5)
        assert len(agent.cancelled) <= 3

    async def test_running_actions_are_awaited(self) -> None:
        agent = Calculator()
        config = RuntimeConfig(cancel_actions_on_shutdown=False)
        async with prepared(agent, config) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            task = asyncio.create_task(one.handle.hold("kept"))
            await agent.entered.wait()
            await one.handle.shutdown()
            await one.runtime.wait_shutdown(5)
            for call, error in (
                (one.handle.add(1), ActionCancelledError),
                (one.handle.ping(), PingCancelledError),
            ):
                with pytest.raises(error):
                    await asyncio.wait_for(call, 5)
            assert not run.done()
            agent.release.set()
            assert await asyncio.wait_for(task, 5) == "kept"
            await asyncio.wait_for(run, 5)

    async def test_cancelling_the_run_cancels_actions_that_are_awaited(self) -> None:
        agent = Calculator()
        config = RuntimeConfig(cancel_actions_on_shutdown=False)
        async with prepared(agent, config) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            task = asyncio.create_task(one.handle.hold("kept"))
            await agent.entered.wait()
            await one.handle.shutdown()
            await one.runtime.wait_shutdown(5)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(run, 5)
            with pytest.raises(ActionCancelledError):
                await asyncio.wait_for(task, 5)
            assert await one.handle.agent_status() is MailboxStatus.TERMINATED

    async def test_stubborn_action(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dispatch, "ACTION_GRACE", 0.01)
        release = asyncio.Event()

        class Stubborn(Agent):
            @action
            async def stay(self) -> None:
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue

        async with prepared(Stubborn()) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            task = asyncio.create_task(one.handle.stay())
            await eventually(lambda: bool(one.runtime._dispatcher._running))
            await one.handle.shutdown()
            with pytest.raises(ActionCancelledError):
                await asyncio.wait_for(task, 5)
            release.set()
            await asyncio.wait_for(run, 5)

    async def test_nobody_is_left_unanswered(self) -> None:
        async with prepared(Calculator()) as one:
            run = asyncio.create_task(one.runtime.run_until_complete())
            await one.handle.ping()
            calls = [asyncio.create_task(one.handle.add(n)) for n in range(50)]
            await one.handle.shutdown()
            calls += [asyncio.create_task(one.handle.add(n)) for n in range(50)]
            results = await asyncio.wait_for(
                asyncio.gather(*calls, return_exceptions=True), 10
            )
            await asyncio.wait_for(run, 5)
        answered = [r for r in results if isinstance(r, int)]
        refused = [
            r
            for r in results
            if isinstance(r, (ActionCancelledError, AgentTerminatedError))
        ]
        assert len(answered) + len(refused) == 100


class Child(Calculator):
    ended: list[str] = []  # noqa: RUF012

    def __init__(self, name: str = "", *, fail: bool = False) -> None:
        super().__init__(offset=100)
        self.name = name
        self.failing = fail

    async def agent_on_startup(self) -> None:
        if self.failing:
            raise ValueError("child failed")

    async def agent_on_shutdown(self) -> None:
        Child.ended.append(self.name)


class Parent(Calculator):
    @action
    async def spawn(self, how: str) -> Handle[Any]:
        if how == "class":
            return await self.agent_launch_alongside(
                Child, args=("c",), kwargs={"fail": False}
            )
        if how == "instance":
            return await self.agent_launch_alongside(Child("i"), args=("ignored",))
        if how == "failing":
            return await self.agent_launch_alongside(Child, kwargs={"fail": True})
        return await self.agent_launch_alongside(int)  # type: ignore[type-var]

    @action
    async def ask(self, child: Handle[Any]) -> Any:
        return await child.whoami()

    async def agent_on_shutdown(self) -> None:
        Child.ended.append("parent")


class TestLaunchAlongside:
    @pytest.mark.parametrize("how", ["class", "instance"])
    async def test_lives_as_long_as_its_parent(
        self, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Child, "ended", [])
        async with prepared(Parent()) as one:
            async with one.runtime, one.user:
                child = await one.handle.spawn(how)
                assert await child.add(1) == 101
                assert await child.whoami() == one.user.client_id
                assert await one.handle.ask(child) == one.handle.agent_id
                assert await one.user.discover(Child) == (child.agent_id,)
                assert Child.ended == []
            assert Child.ended == ["parent", how[0]]

    async def test_ends_before_its_parent(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Child, "ended", [])
        async with running(Parent()) as one:
            child = await one.handle.spawn("class")
            await Handle(child.agent_id, exchange=one.user).shutdown()
            await eventually(lambda: Child.ended == ["c"])
            await works(one)

    async def test_failing_child(self) -> None:
        config = RuntimeConfig(terminate_on_error=False)
        async with prepared(Parent(), config) as one:
            await one.runtime.__aenter__()
            child = await one.handle.spawn("failing")
            child = Handle(child.agent_id, exchange=one.user)
            with pytest.raises(AgentTerminatedError, match="child failed"):
                await child.ping()
            await works(one)
            with pytest.raises(ValueError, match="child failed"):
                await one.runtime.__aexit__(None, None, None)
            assert await one.handle.agent_status() is MailboxStatus.TERMINATED

    async def test_child_that_exits(self) -> None:
        class Exiting(Agent):
            async def agent_on_startup(self) -> None:
                raise SystemExit(3)

        async with prepared(Parent()) as one:
            await one.runtime.__aenter__()
            await one.runtime.agent.agent_launch_alongside(Exiting)
            await eventually(lambda: not one.runtime._child_tasks)
            with pytest.raises(RuntimeError, match=r"Exiting.* raised SystemExit: 3"):
                await one.runtime.__aexit__(None, None, None)

    async def test_not_during_the_shutdown(self) -> None:
        async with running(Parent()) as one:
            one.runtime.signal_shutdown()
            with pytest.raises(RuntimeError, match="is ending and launches no more"):
                await one.runtime.agent.agent_launch_alongside(Child)

    async def test_overtaken_by_the_shutdown(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Child, "ended", [])
        async with running(Parent()) as one:
            agent = one.runtime.agent
            client = agent.agent_exchange_client
            register = client.register_agent

            async def slow(cls: Any) -> Any:
                one.runtime.signal_shutdown()
                return await register(cls)

            monkeypatch.setattr(client, "register_agent", slow)
            child = await agent.agent_launch_alongside(Child)
        state = one.factory._state.mailboxes[child.agent_id]
        assert state.terminated is not None
        assert Child.ended == ["parent"]  # it was never started

    async def test_no_agent(self) -> None:
        async with running(Parent()) as one:
            with pytest.raises(TypeError, match="Only agents can be launched"):
                await one.handle.spawn("int")

    async def test_child_that_does_not_end(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime_module, "CHILD_GRACE", 0.01)
        begun = asyncio.Event()

        class Hanging(Agent):
            async def agent_on_startup(self) -> None:
                begun.set()
                await asyncio.Event().wait()

        async with running(Parent()) as one:
            await one.runtime.agent.agent_launch_alongside(Hanging)
            await begun.wait()
        [hanging] = one.factory._state.mailboxes.keys() - {
            one.handle.agent_id,
            one.user.client_id,
        }
        assert not isinstance(hanging, UserId)
        assert one.factory._state.mailboxes[hanging].terminated is not None
