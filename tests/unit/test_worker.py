from __future__ import annotations

import asyncio
import contextvars
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest

from academy.capsule import RunSpec, WorkerFailure, dump_body, seal
from academy.debug import get_academy_debug, set_academy_debug
from academy.exception import WorkerMismatchError
from academy.exchange.client import UserExchangeClient
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle
from academy.logging import LogConfig
from academy.runtime import RuntimeConfig
from academy.worker import EXIT_ORPHANED, FRAME, run_agent, run_capsule, run_live
from tests.launched_agents import BadConstructor, Counter, RaisesUnpicklable
from tests.shared_exchange import SharedExchangeFactory
from tests.unit.test_executor import ignore_sigterm


@pytest.fixture
async def client() -> AsyncIterator[UserExchangeClient[Any]]:
    async with await SharedExchangeFactory().create_user_client() as client:
        yield client


@pytest.fixture
async def spec(client: UserExchangeClient[Any]) -> RunSpec:
    return RunSpec(
        agent=Counter,
        args=(3,),
        kwargs={},
        config=RuntimeConfig(),
        exchange_factory=client.factory(),
        registration=await client.register_agent(Counter),
    )


@pytest.fixture(autouse=True)
def debug_off() -> Iterator[None]:
    yield
    set_academy_debug(False)


def handle(client: UserExchangeClient[Any], spec: RunSpec) -> Handle[Counter]:
    return Handle(spec.registration.agent_id, exchange=client)


async def in_thread(run: Callable[[Any], None], argument: object) -> None:
    """Run in a thread that no asyncio test machinery has prepared."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def call() -> None:
        try:
            run(argument)
        except Exception as e:
            loop.call_soon_threadsafe(ended.set_exception, e)
        else:
            loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=call).start()
    await ended


class NoteLogging(LogConfig):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def init_logging(self) -> Callable[[], None]:
        self.notes.append("begun")
        return lambda: self.notes.append("ended")


async def test_run_agent(client: UserExchangeClient[Any], spec: RunSpec) -> None:
    config = NoteLogging()
    running = asyncio.create_task(run_agent(replace(spec, log_config=config)))
    counter = handle(client, spec)
    assert await counter.add() == 4
    assert config.notes == ["begun"]
    await counter.shutdown()
    await running
    assert config.notes == ["begun", "ended"]


async def test_run_agent_whose_class_fails(spec: RunSpec) -> None:
    with pytest.raises(ValueError, match="no such lattice"):
        await run_agent(replace(spec, agent=BadConstructor, args=()))


async def test_run_live_in_a_thread(
    client: UserExchangeClient[Any], spec: RunSpec
) -> None:
    running = asyncio.create_task(in_thread(run_live, spec))
    counter = handle(client, spec)
    _, thread = await counter.place()
    assert thread != threading.current_thread().name
    # The loop of the user's choice is for worker processes.
    assert (await counter.loop_module()).startswith("asyncio")
    await counter.shutdown()
    await running


async def test_run_live_raises_as_it_is(spec: RunSpec) -> None:
    with pytest.raises(ValueError, match="no such lattice"):
        await in_thread(run_live, replace(spec, agent=BadConstructor, args=()))


@pytest.mark.parametrize(("chosen", "module"), [("1", "uvloop"), ("0", "asyncio")])
async def test_run_capsule(
    client: UserExchangeClient[Any],
    spec: RunSpec,
    monkeypatch: pytest.MonkeyPatch,
    chosen: str,
    module: str,
) -> None:
    pytest.importorskip("uvloop")
    monkeypatch.setenv("ACADEMY_UVLOOP", chosen)
    capsule = seal(dump_body(replace(spec, debug=True)), final=True)
    running = asyncio.create_task(in_thread(run_capsule, capsule))
    counter = handle(client, spec)
    assert (await counter.loop_module()).startswith(module)
    assert get_academy_debug()
    await counter.shutdown()
    await running


async def test_run_capsule_without_uvloop(
    client: UserExchangeClient[Any], spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    running = asyncio.create_task(
        in_thread(run_capsule, seal(dump_body(spec), final=True))
    )
    counter = handle(client, spec)
    assert (await counter.loop_module()).startswith("asyncio")
    await counter.shutdown()
    await running


async def test_options_of_the_executor_are_ignored(spec: RunSpec) -> None:
    bad = replace(spec, agent=BadConstructor, args=())
    with pytest.raises(WorkerFailure):
        await in_thread(
            lambda capsule: run_capsule(capsule, cores=4),
            seal(dump_body(bad), final=True),
        )
    with pytest.raises(ValueError, match="lattice"):
        await in_thread(lambda spec: run_live(spec, cores=4), bad)


@pytest.mark.parametrize(
    ("agent", "kind", "text"),
    [
        (BadConstructor, ValueError, "no such lattice"),
        (RaisesUnpicklable, RuntimeError, "UnpicklableError: stays here"),
    ],
)
async def test_failure_travels_and_is_logged(
    spec: RunSpec,
    caplog: pytest.LogCaptureFixture,
    agent: type,
    kind: type[Exception],
    text: str,
) -> None:
    capsule = seal(dump_body(replace(spec, agent=agent, args=())), final=True)
    with pytest.raises(WorkerFailure) as e:
        await in_thread(run_capsule, capsule)
    error = e.value.unwrap()
    assert type(error) is kind
    assert str(error) == text
    assert "An agent failed on its worker." in caplog.messages


async def test_mismatch_travels_too() -> None:
    with pytest.raises(WorkerFailure) as e:
        await in_thread(run_capsule, b"something else")
    assert type(e.value.unwrap()) is WorkerMismatchError


async def test_thread_stays_as_it_was(
    client: UserExchangeClient[Any], spec: RunSpec
) -> None:
    """Its event loop is kept, and its context is out of reach for the agent."""

    class Looks(Counter):
        async def agent_on_startup(self) -> None:
            seen.append(marker.get("unset"))
            self.agent_shutdown()

    def run(spec: RunSpec) -> None:
        marker.set("set")
        asyncio.set_event_loop(own)
        run_live(spec)
        seen.append(asyncio.get_event_loop() is own)
        seen.append(marker.get())
        asyncio.set_event_loop(None)

    seen: list[object] = []
    marker = contextvars.ContextVar[str]("marker")
    own = asyncio.new_event_loop()
    await in_thread(run, replace(spec, agent=Looks()))
    own.close()
    assert seen == ["unset", True, "set"]


def test_signals_stay_as_they_were() -> None:
    """In the main thread, where `asyncio.run` would handle Ctrl-C."""
    handlers = []

    class Looks(Counter):
        async def agent_on_startup(self) -> None:
            handlers.append(signal.getsignal(signal.SIGINT))
            self.agent_shutdown()

    run_live(asyncio.run(registered(Looks)))
    assert handlers == [signal.default_int_handler]


def test_interrupted_agent_ends_in_good_order() -> None:
    """A Ctrl-C in the main thread; the agent's exchange client still works."""
    seen = []

    class Interrupted(Counter):
        async def agent_on_startup(self) -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon(signal.raise_signal, signal.SIGINT)

        async def agent_on_shutdown(self) -> None:
            await asyncio.sleep(0)
            seen.append(await self.agent_exchange_client.status(self.agent_id))

    spec = asyncio.run(registered(Interrupted))
    with pytest.raises(KeyboardInterrupt):
        run_live(spec)
    assert seen == [MailboxStatus.ACTIVE]


async def registered(agent: type[Any]) -> RunSpec:
    """Register an agent with an exchange that has nobody else."""
    factory = SharedExchangeFactory()
    async with await factory.create_user_client() as client:
        registration = await client.register_agent(agent)
    return RunSpec(agent, (), {}, RuntimeConfig(), factory, registration)


# ---- the worker process


PARENT = """
import os, sys, time
sys.path.insert(0, os.getcwd())
from academy.executor import SubprocessExecutor
from tests.unit.test_executor import announce

if __name__ == "__main__":
    with SubprocessExecutor() as executor:
        future = executor.submit(announce, sys.argv[1])
        if sys.argv[2] == "fork" and os.fork() == 0:
            time.sleep(1000)
        future.result()
"""


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.005)


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("fork", [True, False])
def test_worker_ends_with_its_parent(tmp_path, fork: bool) -> None:
    """Also when another child of the parent keeps the pipes open."""
    path = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, str(path), "fork" if fork else "no"]
    with psutil.Popen(command) as parent:
        wait_until(path.exists, "the worker starts")
        wait_until(lambda: len(parent.children()) == 1 + fork, "the parent forks")
        worker = psutil.Process(int(path.read_text()))
        forks = [child for child in parent.children() if child.pid != worker.pid]
        parent.kill()
    # Who it belongs to now may take its time to notice.
    wait_until(lambda: ended(worker), "the worker ends")
    for process in forks:
        process.kill()


def start_worker(call: bytes) -> tuple[subprocess.Popen[bytes], int]:
    reader, writer = os.pipe()
    worker = subprocess.Popen(
        [sys.executable, "-m", "academy.worker", str(writer)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[writer],
    )
    os.close(writer)
    assert worker.stdin is not None
    worker.stdin.write(call)
    worker.stdin.flush()
    return worker, reader


def test_blocked_worker_is_ended_the_hard_way(tmp_path) -> None:
    call = pickle.dumps((ignore_sigterm, (str(tmp_path / "pid"),), {}))
    message = pickle.dumps((list(sys.path), call))
    worker, reader = start_worker(FRAME.pack(len(message)) + message)
    with os.fdopen(reader, "rb"):
        wait_until((tmp_path / "pid").exists, "the worker starts")
        worker.communicate()  # closes its standard input
    assert worker.returncode == EXIT_ORPHANED


def test_parent_that_ends_before_it_has_sent_the_call() -> None:
    worker, reader = start_worker(FRAME.pack(100) + b"only a part")
    with os.fdopen(reader, "rb") as outcome:
        _, error = worker.communicate()
        assert outcome.read() == b""
    assert worker.returncode == 1
    assert b"the parent process ended before it had sent the call" in error
