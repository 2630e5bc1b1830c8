from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from academy.exception import (
    AgentStartError,
    AgentTerminatedError,
    BadEntityIdError,
    ExchangeClientNotFoundError,
)
from academy.exchange.client import exchange_context
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.executor import EventLoopExecutor
from academy.handle import Handle
from academy.identifier import AgentId
from academy.logging import LogConfig
from academy.manager import Manager
from academy.runtime import RuntimeConfig
from tests.launched_agents import Asker, BadStartup, Counter, Flaky, Stubborn
from tests.shared_exchange import SharedExchangeFactory


@pytest.fixture
async def manager() -> AsyncIterator[Manager[Any]]:
    async with await Manager.from_exchange_factory(LocalExchangeFactory()) as manager:
        yield manager


class CapsuleExecutor:
    """Not an `Executor`, and shut down its own way: as the engines of others are."""

    def __init__(self, workers: int = 4) -> None:
        self.pool = ThreadPoolExecutor(workers)
        self.submitted: list[tuple[Any, ...]] = []
        self.shut_down = False

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted.append((fn, args, kwargs))
        return self.pool.submit(fn, *args, **kwargs)

    def shutdown(self) -> None:
        self.pool.shutdown()
        self.shut_down = True


class TestText:
    async def test_repr_and_str(self) -> None:
        pool = ThreadPoolExecutor(1)
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), pool
        ) as manager:
            client = manager.exchange_client
            assert repr(manager) == (
                f"Manager(exchange={client!r}, "
                f"executors={{event_loop: None, default: {pool!r}}})"
            )
            assert str(manager) == f"Manager<{manager.user_id}, {client}>"
            assert manager.user_id == client.client_id

    async def test_cannot_be_pickled(self, manager: Manager[Any]) -> None:
        with pytest.raises(pickle.PicklingError, match="Manager"):
            pickle.dumps(manager)


class TestExecutors:
    async def test_default_is_the_event_loop(self, manager: Manager[Any]) -> None:
        counter = await manager.launch(Counter)
        assert await counter.place() == (
            os.getpid(),
            threading.current_thread().name,
        )

    async def test_single_executor_is_the_default(self) -> None:
        pool = ThreadPoolExecutor(1, "mine")
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), pool
        ) as manager:
            there = await manager.launch(Counter)
            here = await manager.launch(Counter, executor="event_loop")
            assert (await there.place())[1] == "mine_0"
            assert (await here.place())[1] == threading.current_thread().name

    async def test_named_executors(self) -> None:
        executors = {"a": ThreadPoolExecutor(1, "a"), "b": ThreadPoolExecutor(1, "b")}
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), executors, default_executor="b"
        ) as manager:
            assert (await (await manager.launch(Counter)).place())[1] == "b_0"
            assert manager.set_default_executor("a") is manager
            assert (await (await manager.launch(Counter)).place())[1] == "a_0"
            added = ThreadPoolExecutor(1, "c")
            assert manager.add_executor("c", added) is manager
            counter = await manager.launch(Counter, executor="c")
            assert (await counter.place())[1] == "c_0"

    async def test_event_loop_can_be_replaced(self) -> None:
        pool = ThreadPoolExecutor(1, "mine")
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), {"event_loop": pool}
        ) as manager:
            assert (await (await manager.launch(Counter)).place())[1] == "mine_0"

    async def test_event_loop_executor_packs(self) -> None:
        executor = EventLoopExecutor(LocalExchangeFactory())
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), executor
        ) as manager:
            counters = [await manager.launch(Counter) for _ in range(5)]
            places = {await counter.place() for counter in counters}
            assert places == {(os.getpid(), "event-loop-executor")}

    async def test_foreign_executor_gets_capsules(self) -> None:
        executor = CapsuleExecutor()
        async with await Manager.from_exchange_factory(
            SharedExchangeFactory(), executor
        ) as manager:
            counter = await manager.launch(
                Counter, args=(4,), submit_kwargs={"cores": 2}
            )
            asker = await manager.launch(Asker, args=(counter,))
            assert await asker.ask() == 5
        (function, (capsule,), options), _ = executor.submitted
        assert f"{function.__module__}.{function.__name__}" == (
            "academy.worker.run_capsule"
        )
        assert isinstance(capsule, bytes)
        assert options == {"cores": 2}
        assert executor.shut_down

    @pytest.mark.parametrize("executors", [object(), {"a": 3}])
    async def test_no_executor(self, executors: Any) -> None:
        with pytest.raises(ValueError, match=r"which has no submit\(\)") as e:
            await Manager.from_exchange_factory(LocalExchangeFactory(), executors)
        assert repr(
            next(iter(getattr(executors, "values", lambda: [executors])()))
        ) in str(e.value)

    async def test_no_future(self) -> None:
        executor = CapsuleExecutor()
        executor.submit = lambda *_: "job 17"  # type: ignore[assignment]
        async with await Manager.from_exchange_factory(
            SharedExchangeFactory(), executor
        ) as manager:
            with pytest.raises(AgentStartError, match="returned a str, not a conc"):
                await manager.launch(Counter)

    async def test_names(self, manager: Manager[Any]) -> None:
        with pytest.raises(ValueError, match='"event_loop" already exists'):
            manager.add_executor("event_loop", None)
        for use in (
            lambda: manager.set_default_executor("nope"),
            lambda: Manager(manager.exchange_client, default_executor="nope"),
        ):
            with pytest.raises(
                ValueError, match=r"No executor named \"nope\" exists; .* 'event_loop'"
            ):
                use()
        with pytest.raises(ValueError, match='No executor named "nope"'):
            await manager.launch(Counter, executor="nope")
        assert manager.running() == set()

    @pytest.mark.parametrize("option", ["max_retries", "shutdown_timeout"])
    async def test_negative_numbers(self, option: str) -> None:
        with pytest.raises(ValueError, match=f"{option}=-1.*must not be negative"):
            await Manager.from_exchange_factory(LocalExchangeFactory(), **{option: -1})

    async def test_too_few_workers(self) -> None:
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), ThreadPoolExecutor(1)
        ) as manager:
            first = await manager.launch(Counter)
            await first.ping()
            with pytest.warns(RuntimeWarning, match="Executor overload") as warned:
                await manager.launch(Counter)
            assert "executor: default, running agents: 2, max workers: 1" in str(
                warned[0].message
            )
            assert warned[0].filename == __file__
            third = await manager.launch(Counter)  # said it once already
            assert await third.agent_status() is MailboxStatus.INACTIVE


class TestLaunch:
    async def test_class_with_arguments(self, manager: Manager[Any]) -> None:
        counter = await manager.launch(Counter, args=(5,), kwargs={"step": 3})
        assert await counter.add() == 8

    async def test_instance(self, manager: Manager[Any]) -> None:
        agent = Counter(5)
        counter = await manager.launch(agent)
        assert await counter.add() == 6
        assert agent.value == 6

    async def test_name_and_config(self, manager: Manager[Any]) -> None:
        counter = await manager.launch(
            Counter, name="steering", config=RuntimeConfig(terminate_on_success=False)
        )
        assert counter.agent_id.name == "steering"
        await manager.shutdown(counter)
        assert await counter.agent_status() is MailboxStatus.INACTIVE

    async def test_handles_as_arguments(self, manager: Manager[Any]) -> None:
        counter = await manager.launch(Counter)
        asker = await manager.launch(Asker, args=(counter,))
        assert await asker.ask() == 1
        assert (await counter.agent_stats()).incoming == 1

    async def test_registration(self, manager: Manager[Any]) -> None:
        registration = await manager.register_agent(Counter, name="early")
        early = asyncio.create_task(manager.get_handle(registration).add())
        counter = await manager.launch(Counter, registration=registration)
        assert counter.agent_id == registration.agent_id
        assert await early == 1
        with pytest.raises(RuntimeError, match="has already been executed"):
            await manager.launch(Counter, registration=registration)
        assert await counter.add() == 2

    async def test_agent_that_has_ended_can_run_again(
        self, manager: Manager[Any]
    ) -> None:
        registration = await manager.register_agent(Counter)
        config = RuntimeConfig(terminate_on_success=False)
        for _ in range(2):
            counter = await manager.launch(
                Counter, registration=registration, config=config
            )
            assert await counter.add() == 1
            await manager.shutdown(counter)

    async def test_register_agents(self, manager: Manager[Any]) -> None:
        one, two = await manager.register_agents([(Counter, "one"), (Asker, None)])
        assert (one.agent_id.name, two.agent_id.name) == ("one", None)
        found = await manager.exchange_client.discover(Asker)
        assert found == (two.agent_id,)

    async def test_not_an_agent(self, manager: Manager[Any]) -> None:
        with pytest.raises(TypeError, match="not an agent class"):
            await manager.launch(dict)

    async def test_unpicklable_argument(self) -> None:
        async with await Manager.from_exchange_factory(
            SharedExchangeFactory(), CapsuleExecutor()
        ) as manager:
            with pytest.raises(
                AgentStartError, match=r"argument 1 \(lock\) cannot be sent to a worker"
            ) as e:
                await manager.launch(Counter, args=(threading.Lock(),), name="locked")
            with pytest.raises(AgentTerminatedError, match=r"argument 1 \(lock\)"):
                await manager.get_handle(e.value.uid).add()
            assert manager.running() == set()
            assert await (await manager.launch(Counter)).add() == 1

    async def test_exchange_that_stays_in_this_process(self) -> None:
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), CapsuleExecutor()
        ) as manager:
            with pytest.raises(AgentStartError, match="the exchange factory"):
                await manager.launch(Counter)

    async def test_failed_launch_leaves_a_given_registration_alone(self) -> None:
        async with await Manager.from_exchange_factory(
            SharedExchangeFactory(), CapsuleExecutor()
        ) as manager:
            registration = await manager.register_agent(Counter)
            with pytest.raises(AgentStartError):
                await manager.launch(
                    Counter, args=(threading.Lock(),), registration=registration
                )
            counter = await manager.launch(Counter, registration=registration)
            assert await counter.add() == 1

    async def test_executor_that_refuses(self) -> None:
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), pool
        ) as manager:
            with pytest.raises(
                AgentStartError, match=r"executor 'default' refused it \(RuntimeError"
            ) as e:
                await manager.launch(Counter)
            status = await manager.exchange_client.status(e.value.uid)
            assert status is MailboxStatus.TERMINATED

    async def test_mailbox_that_cannot_be_closed(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def terminate(*args: Any, **kwargs: Any) -> None:
            raise OSError("the exchange is gone")

        async with await Manager.from_exchange_factory(
            SharedExchangeFactory(), CapsuleExecutor()
        ) as manager:
            monkeypatch.setattr(manager.exchange_client, "terminate", terminate)
            with pytest.raises(AgentStartError) as e:
                await manager.launch(Counter, args=(threading.Lock(),))
        assert f"Cannot close the mailbox of {e.value.uid}: OSError" in caplog.text

    async def test_closed_manager(self, manager: Manager[Any]) -> None:
        await manager.close(close_exchange=False)
        with pytest.raises(RuntimeError, match="launches no more agents"):
            await manager.launch(Counter)

    async def test_manager_closed_while_registering(
        self, manager: Manager[Any]
    ) -> None:
        client = manager.exchange_client
        register = client.register_agent

        async def register_slowly(*args: Any, **kwargs: Any) -> Any:
            await manager.close(close_exchange=False)
            return await register(*args, **kwargs)

        client.register_agent = register_slowly  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="launches no more agents"):
            await manager.launch(Counter)
        [agent_id] = client._transport._state.mailboxes.keys() - {manager.user_id}
        assert await client.status(agent_id) is MailboxStatus.TERMINATED


class TestHandles:
    async def test_within_the_block_and_without(self) -> None:
        manager = await Manager.from_exchange_factory(LocalExchangeFactory())
        counter = await manager.launch(Counter)
        assert await counter.add() == 1
        assert await manager.get_handle(counter.agent_id).add() == 2
        bare: Handle[Counter] = Handle(counter.agent_id)
        with pytest.raises(ExchangeClientNotFoundError):
            await bare.add()
        async with manager:
            assert exchange_context.get() is manager.exchange_client
            assert await bare.add() == 3
        assert exchange_context.get(None) is None

    async def test_block_left_in_another_context(self) -> None:
        manager = await Manager.from_exchange_factory(LocalExchangeFactory())
        await asyncio.create_task(manager.__aenter__())
        await asyncio.create_task(manager.__aexit__(None, None, None))
        with pytest.raises(RuntimeError, match="launches no more"):
            await manager.launch(Counter)


class TestWaitAndShutdown:
    async def test_running(self, manager: Manager[Any]) -> None:
        one, two = [await manager.launch(Counter) for _ in range(2)]
        assert manager.running() == {one.agent_id, two.agent_id}
        await manager.shutdown(one)
        assert manager.running() == {two.agent_id}

    async def test_unknown_agent(self, manager: Manager[Any]) -> None:
        stranger: AgentId[Any] = AgentId.new()
        with pytest.raises(BadEntityIdError):
            await manager.wait([stranger])
        with pytest.raises(BadEntityIdError):
            await manager.shutdown(Handle(stranger))

    async def test_wait_for_nobody(self, manager: Manager[Any]) -> None:
        await manager.wait([])

    async def test_wait_for_all(self, manager: Manager[Any]) -> None:
        counters = [await manager.launch(Counter) for _ in range(2)]
        waiting = asyncio.create_task(manager.wait(counters))
        await counters[0].shutdown()
        await manager.wait([counters[0].agent_id])
        assert not waiting.done()
        await counters[1].shutdown()
        await waiting

    async def test_wait_for_the_first(self, manager: Manager[Any]) -> None:
        counters = [await manager.launch(Counter) for _ in range(2)]
        await counters[0].shutdown()
        await manager.wait(counters, return_when=asyncio.FIRST_COMPLETED)
        assert manager.running() == {counters[1].agent_id}

    @pytest.mark.parametrize(
        "return_when", ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]
    )
    async def test_wait_with_timeout(
        self, manager: Manager[Any], return_when: str
    ) -> None:
        counters = [await manager.launch(Counter) for _ in range(2)]
        with pytest.raises(
            TimeoutError, match=r"2 of 2 agents still run after 0\.01 s"
        ):
            await manager.wait(counters, timeout=0.01, return_when=return_when)
        assert len(manager.running()) == 2

    async def test_shutdown_terminates(self, manager: Manager[Any]) -> None:
        counter = await manager.launch(Counter)
        await manager.shutdown(counter)
        with pytest.raises(AgentTerminatedError):
            await counter.add()
        await manager.shutdown(counter.agent_id)  # once more changes nothing

    @pytest.mark.parametrize(
        ("terminate", "status"),
        [(True, MailboxStatus.TERMINATED), (False, MailboxStatus.INACTIVE)],
    )
    async def test_terminate_overrides_the_configuration(
        self, manager: Manager[Any], terminate: bool, status: MailboxStatus
    ) -> None:
        config = RuntimeConfig(terminate_on_success=not terminate)
        counter = await manager.launch(Counter, config=config)
        await manager.shutdown(counter, terminate=terminate)
        assert await counter.agent_status() is status

    async def test_not_blocking(self, manager: Manager[Any]) -> None:
        counter = await manager.launch(Counter)
        await manager.shutdown(counter, blocking=False, timeout=1e-9)
        await manager.wait([counter])

    async def test_shutdown_with_timeout(self) -> None:
        manager = await Manager.from_exchange_factory(
            LocalExchangeFactory(), shutdown_timeout=0.05
        )
        stubborn = await manager.launch(Stubborn)
        await stubborn.ping()
        with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 s") as e:
            await manager.shutdown(stubborn, timeout=0.05)
        assert str(stubborn.agent_id) in str(e.value)
        assert manager.running() == {stubborn.agent_id}
        await manager.close()

    async def test_shutdown_of_one_that_ends_already(
        self, manager: Manager[Any]
    ) -> None:
        counter = await manager.launch(Counter)
        await manager.exchange_client.terminate(counter.agent_id)
        await manager.shutdown(counter)

    async def test_calls_that_wait_for_an_agent_that_ends(
        self, manager: Manager[Any]
    ) -> None:
        counter = await manager.launch(
            Counter, config=RuntimeConfig(cancel_actions_on_shutdown=True)
        )
        await manager.shutdown(counter)
        with pytest.raises(AgentTerminatedError):
            await asyncio.wait_for(counter.sleep(), 10)


class TestLogging:
    class Noting(LogConfig):
        def __init__(self, notes: list[str], name: str) -> None:
            super().__init__()
            self.notes = notes
            self.name = name

        def init_logging(self) -> Callable[[], None]:
            self.notes.append(f"{self.name} begins")
            return lambda: self.notes.append(f"{self.name} ends")

    async def test_log_configs(self) -> None:
        notes: list[str] = []
        ours, its = self.Noting(notes, "ours"), self.Noting(notes, "its")
        async with await Manager.from_exchange_factory(
            LocalExchangeFactory(), log_config=ours
        ) as manager:
            assert notes == ["ours begins"]
            counter = await manager.launch(Counter, log_config=its)
            await counter.ping()
            assert notes == ["ours begins", "its begins"]
            await manager.shutdown(counter)
            assert notes[-1] == "its ends"
        assert notes[-1] == "ours ends"

    async def test_agents_inherit_it(self) -> None:
        notes: list[str] = []
        manager = await Manager.from_exchange_factory(
            LocalExchangeFactory(), log_config=self.Noting(notes, "ours")
        )
        counter = await manager.launch(Counter)
        await counter.ping()
        assert notes == ["ours begins"]
        await manager.close()
        assert notes == ["ours begins", "ours ends"]


class TestErrors:
    @pytest.fixture
    async def manager(self) -> Manager[Any]:
        return await Manager.from_exchange_factory(LocalExchangeFactory())

    async def test_wait_raises_on_request_only(self, manager: Manager[Any]) -> None:
        agent = await manager.launch(BadStartup)
        await manager.wait([agent])
        await manager.wait([agent], return_when=asyncio.FIRST_EXCEPTION)
        with pytest.raises(ValueError, match="no such lattice"):
            await manager.wait([agent], raise_error=True)
        with pytest.raises(ValueError, match="no such lattice"):
            await manager.close()

    async def test_several_errors_are_a_group(
        self, manager: Manager[Any], tmp_path
    ) -> None:
        agents = [
            await manager.launch(BadStartup),
            await manager.launch(Flaky, args=(str(tmp_path / "starts"), 9)),
        ]
        with pytest.raises(ExceptionGroup) as waiting:
            await manager.wait(agents, raise_error=True)
        with pytest.raises(ExceptionGroup) as closing:
            await manager.close()
        for group in (waiting, closing):
            assert [type(e) for e in group.value.exceptions] == [
                ValueError,
                RuntimeError,
            ]

    async def test_shutdown_raises_what_the_agent_ends_with(
        self, manager: Manager[Any]
    ) -> None:
        class BadShutdown(Counter):
            async def agent_on_shutdown(self) -> None:
                raise OSError("cannot let go")

        one, two = [await manager.launch(BadShutdown) for _ in range(2)]
        await asyncio.gather(one.ping(), two.ping())
        with pytest.raises(OSError, match="cannot let go"):
            await manager.shutdown(one)
        await manager.shutdown(two, raise_error=False)
        with pytest.raises(ExceptionGroup):
            await manager.close()

    async def test_errors_of_agents_do_not_cover_up_a_cancellation(
        self, manager: Manager[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        async def use() -> None:
            async with manager:
                agent = await manager.launch(BadStartup)
                await manager.wait([agent])
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await use()
        assert "Leaving the manager: no such lattice" in caplog.messages
