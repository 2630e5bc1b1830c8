from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import copy
import functools
import logging
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from academy.agent import Agent, action, loop
from academy.context import AgentContext
from academy.exception import AgentNotInitializedError
from academy.identifier import AgentId
from academy.runtime import RuntimeConfig
from tests.unit.local_agents import Calculator, eventually, running

variable = contextvars.ContextVar("variable", default="outside")


class Plain(Agent):
    limit = 3

    def __init__(self) -> None:
        self.items = ["a"]

    @property
    def computed(self) -> int:
        raise RuntimeError("properties must not run")

    @functools.cached_property
    def cached(self) -> int:
        raise RuntimeError("properties must not run")

    @action
    async def act(self) -> str:
        return "plain"

    @action
    async def gone(self) -> None: ...

    @loop
    async def work(self, shutdown: asyncio.Event) -> None: ...


class Other(Agent): ...


class Derived(Plain, Other):
    @action
    async def act(self) -> str:
        return "derived " + await super().act()

    async def gone(self) -> None: ...

    @action
    async def more(self) -> None: ...


class Mixin: ...


class Mixed(Mixin, Plain): ...


@dataclass
class Data(Agent):
    x: int
    y: int = 2


class Slotted(Agent):
    __slots__ = ("x",)


def context_of(executor: Any = None) -> AgentContext[Any]:
    client: Any = None
    return AgentContext(AgentId.new(), client, executor, asyncio.Event())


def test_the_base_class_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="derive a class"):
        Agent()


def test_text() -> None:
    assert repr(Plain()) == "Plain()"
    assert str(Plain()) == "Agent<Plain>"


def test_mro_is_nearest_first() -> None:
    name = __name__
    assert Derived._agent_mro() == (
        f"{name}.Derived",
        f"{name}.Plain",
        f"{name}.Other",
        "academy.agent.Agent",
    )
    assert Mixed._agent_mro() == (
        f"{name}.Mixed",
        f"{name}.Plain",
        "academy.agent.Agent",
    )


async def test_actions_are_inherited_overridden_and_hidden() -> None:
    assert sorted(Plain()._agent_actions()) == ["act", "agent_describe", "gone"]
    actions = Derived()._agent_actions()
    assert sorted(actions) == ["act", "agent_describe", "more"]
    assert await actions["act"]() == "derived plain"


def test_loops() -> None:
    assert list(Derived()._agent_loops()) == ["work"]


def test_attributes_leave_out_properties_and_what_all_objects_have() -> None:
    agent = Plain()
    agent._agent_set_context(context_of())
    attributes = dict(agent._agent_attributes())
    assert attributes["items"] == ["a"]
    assert attributes["limit"] == 3
    assert "act" in attributes
    assert not {"computed", "cached", "_agent_context", "__class__"} & set(attributes)


@pytest.mark.parametrize(
    "name", ["agent_context", "agent_id", "agent_exchange_client", "agent_shutdown"]
)
def test_nothing_of_the_runtime_before_the_start(name: str) -> None:
    def use() -> None:
        found = getattr(Plain(), name)
        if callable(found):
            found()

    with pytest.raises(AgentNotInitializedError):
        use()


async def test_no_threads_and_no_companions_before_the_start() -> None:
    with pytest.raises(AgentNotInitializedError):
        await Plain().agent_run_sync(print)
    with pytest.raises(AgentNotInitializedError):
        await Plain().agent_launch_alongside(Plain)
    agent = Plain()
    agent._agent_set_context(context_of())
    with pytest.raises(AgentNotInitializedError):
        await agent.agent_launch_alongside(Plain)


def test_context_gives_id_client_and_shutdown() -> None:
    agent = Plain()
    context = context_of()
    agent._agent_set_context(context)
    assert agent.agent_context is context
    assert agent.agent_id == context.agent_id
    assert agent.agent_exchange_client is context.exchange_client
    agent.agent_shutdown()
    assert context.shutdown_event.is_set()


def test_dataclass_agents() -> None:
    assert Data(1) == Data(1, 2)


@pytest.mark.parametrize("started", [False, True])
def test_pickles_without_its_context(started: bool) -> None:
    agent = Data(1)
    if started:
        agent._agent_set_context(context_of(threading.Lock()))
    for twin in (pickle.loads(pickle.dumps(agent)), copy.copy(agent)):
        assert twin == agent
        assert twin._agent_context is None


def test_pickles_with_slots() -> None:
    agent = Slotted()
    agent.x = 3
    agent._agent_set_context(context_of(threading.Lock()))
    agent.extra = 4  # type: ignore[attr-defined]
    twin = pickle.loads(pickle.dumps(agent))
    assert (twin.x, twin.extra, twin._agent_context) == (3, 4, None)


def test_pickles_without_attributes() -> None:
    assert type(pickle.loads(pickle.dumps(Other()))) is Other


def test_import_is_light() -> None:
    heavy = "redis rich typer cryptography psutil numpy pydantic cloudpickle uvloop"
    program = (
        "import sys, academy.agent, academy.runtime\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


class TestInvoke:
    async def test_context_names_the_caller(self) -> None:
        who = AgentId[Any].new()
        agent = Calculator()
        assert await agent._agent_invoke("whoami", who, None, (), {}) == who

    async def test_a_caller_cannot_pass_the_context(self) -> None:
        who = AgentId[Any].new()
        forged = {"context": "somebody else"}
        agent = Calculator()
        assert await agent._agent_invoke("whoami", who, None, (), forged) == who

    async def test_an_action_replaced_on_the_instance(self) -> None:
        async def fake(a: int) -> int:
            return -a

        agent = Calculator()
        agent.add = fake  # type: ignore[assignment]
        assert await agent._agent_invoke("add", agent, None, (1,), {}) == -1  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("ad", r"Agent<Calculator> has no action 'ad'. Did you mean 'add'\?"),
            ("zzz", r"no action 'zzz'. Its actions are 'add', 'agent_describe', "),
            ("agent_on_startup", "no action 'agent_on_startup'"),
            ("agent_id", "no action 'agent_id'"),
            ("offset", "no action 'offset'"),
            ("__init__", "no action '__init__'"),
            ("", "no action ''"),
        ],
    )
    async def test_unknown_action(self, name: str, message: str) -> None:
        with pytest.raises(AttributeError, match=message):
            await Calculator()._agent_invoke(name, AgentId.new(), None, (), {})


class TestRunSync:
    async def test_result_thread_and_context_variables(self) -> None:
        async with running(Calculator()) as one:
            agent = one.runtime.agent

            def work(a: int, *, b: int) -> tuple[int, str, str]:
                return a + b, variable.get(), threading.current_thread().name

            variable.set("inside")
            result = await agent.agent_run_sync(work, 1, b=2)
        assert result[:2] == (3, "inside")
        assert "-sync" in result[2]

    @pytest.mark.parametrize("error", [ValueError, StopIteration])
    async def test_error(self, error: type[Exception]) -> None:
        def work() -> None:
            raise error("broken")

        expected = RuntimeError if error is StopIteration else error
        async with running(Calculator()) as one:
            with pytest.raises(expected):
                await asyncio.wait_for(one.runtime.agent.agent_run_sync(work), 5)

    async def test_warns_when_all_threads_are_busy(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = RuntimeConfig(max_sync_concurrency=1)
        begun, release = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            release.wait(10)

        async with running(Calculator(), config) as one:
            agent = one.runtime.agent
            first = asyncio.create_task(agent.agent_run_sync(work))
            await eventually(begun.is_set)
            assert "busy" not in caplog.text
            second = asyncio.create_task(agent.agent_run_sync(int))
            await eventually(lambda: "busy" in caplog.text)
            [record] = caplog.records
            assert record.levelno == logging.WARNING
            assert "All 1 threads for agent_run_sync of Agent<Calculator>" in (
                record.getMessage()
            )
            release.set()
            assert await second == 0
            await first
            await eventually(lambda: not agent.agent_context.sync_calls)
            assert await agent.agent_run_sync(int) == 0
        assert len(caplog.records) == 1

    async def test_cancelled_while_waiting_for_a_thread_it_never_runs(self) -> None:
        calls: list[str] = []
        release = threading.Event()
        agent = Plain()
        with ThreadPoolExecutor(1) as executor:
            agent._agent_set_context(context_of(executor))
            first = asyncio.create_task(agent.agent_run_sync(release.wait, 10))
            second = asyncio.create_task(agent.agent_run_sync(calls.append, "ran"))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            release.set()
            await first
        assert calls == []

    async def test_a_running_function_does_not_hold_up_the_shutdown(self) -> None:
        release = threading.Event()
        ended: concurrent.futures.Future[None] = concurrent.futures.Future()

        def work() -> None:
            release.wait(10)
            ended.set_result(None)

        async with running(Calculator()) as one:
            task = asyncio.create_task(one.runtime.agent.agent_run_sync(work))
            await eventually(lambda: one.runtime.agent.agent_context.sync_calls)
        assert not ended.done()
        release.set()
        await task
        assert ended.done()


async def test_agent_shutdown_from_an_action() -> None:
    class Leaving(Agent):
        @action
        async def leave(self) -> str:
            self.agent_shutdown()
            return "bye"

    async with running(Leaving()) as one:
        assert await one.handle.leave() == "bye"
        await one.runtime.wait_shutdown(5)
