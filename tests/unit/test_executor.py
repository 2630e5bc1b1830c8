from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from academy import worker_process
from academy.exchange.client import exchange_context
from academy.executor import EventLoopExecutor, SubprocessExecutor, WorkerProcessError
from tests.launched_agents import UnpicklableError, twice


def wait_until(condition, what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.005)


def hold(path: str) -> None:
    """Run until a file exists."""
    while not os.path.exists(path):
        time.sleep(0.005)


def announce(path: str) -> None:
    """Tell the test which process this is, and go on for ever."""
    write_pid(path)
    while True:
        time.sleep(1000)


def write_pid(path: str) -> None:
    with open(path + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".part", path)


def raise_unpicklable() -> None:
    raise UnpicklableError("stays here")


def return_unpicklable() -> object:
    return threading.Lock()


def exit_with(code: int) -> None:
    os._exit(code)


def leave(code: int) -> None:
    sys.exit(code)


def fork_and_return() -> int:
    """Return while a child, which has our open files, goes on."""
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    return child


def fork_and_die(path: str) -> None:
    child = os.fork()
    if child == 0:
        announce(path)
    hold(path)
    os._exit(9)


def linger() -> int:
    """Return while a thread keeps the interpreter from ending."""
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return os.getpid()


def read_stdin() -> str:
    return sys.stdin.read()


def tidy_up(path: str, new_event_loop: Callable[[], Any]) -> None:
    """Run an event loop whose coroutine has something to do at its end."""

    async def main() -> None:
        try:
            await asyncio.to_thread(write_pid, path)
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.01)
            os.rename(path, path + ".tidied")

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.get_loop().run_until_complete(main())


def ignore_sigterm(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    announce(path)


@pytest.fixture
def executor() -> Iterator[SubprocessExecutor]:
    executor = SubprocessExecutor()
    yield executor
    for future in executor.pids:
        future.cancel()
    executor.shutdown(cancel_futures=True)


class TestSubprocess:
    def test_result_of_another_process(self, executor: SubprocessExecutor) -> None:
        pid = executor.submit(os.getpid).result(20)
        assert pid != os.getpid()
        assert executor.submit(twice, "ab").result(20) == "abab"
        assert executor.submit(pow, base=2, exp=5).result(20) == 32

    def test_large_arguments_and_results(self, executor: SubprocessExecutor) -> None:
        data = os.urandom(3 << 20)
        assert executor.submit(twice, data).result(30) == data + data

    def test_function_of_main(self, executor: SubprocessExecutor) -> None:
        def of_main() -> str:
            return "by value"

        of_main.__module__ = "__main__"
        assert executor.submit(of_main).result(20) == "by value"

    def test_exception_keeps_its_type(self, executor: SubprocessExecutor) -> None:
        with pytest.raises(ZeroDivisionError) as e:
            executor.submit(divmod, 1, 0).result(20)
        assert "Raised on the worker" in e.value.__notes__[0]

    def test_unpicklable_exception(self, executor: SubprocessExecutor) -> None:
        with pytest.raises(RuntimeError, match="UnpicklableError: stays here"):
            executor.submit(raise_unpicklable).result(20)

    def test_unpicklable_result(self, executor: SubprocessExecutor) -> None:
        with pytest.raises(TypeError, match="cannot pickle"):
            executor.submit(return_unpicklable).result(20)

    def test_unpicklable_argument(self, executor: SubprocessExecutor) -> None:
        with pytest.raises(TypeError, match="cannot pickle"):
            executor.submit(twice, threading.Lock())

    def test_killed_process_fails_its_own_call_only(
        self, executor: SubprocessExecutor, tmp_path
    ) -> None:
        killed = executor.submit(announce, str(tmp_path / "pid"))
        other = executor.submit(hold, str(tmp_path / "go"))
        wait_until((tmp_path / "pid").exists, "the worker starts")
        pid = int((tmp_path / "pid").read_text())
        assert executor.pids[killed] == pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerProcessError) as e:
            killed.result(20)
        assert str(e.value).startswith(
            f"Worker process {pid} was killed by SIGKILL before it returned."
        )
        again = pickle.loads(pickle.dumps(e.value))
        assert (again.pid, again.exitcode, str(again)) == (pid, -9, str(e.value))
        (tmp_path / "go").touch()
        assert other.result(20) is None

    def test_process_that_is_told_to_end(
        self, executor: SubprocessExecutor, tmp_path
    ) -> None:
        future = executor.submit(announce, str(tmp_path / "pid"))
        wait_until((tmp_path / "pid").exists, "the worker starts")
        os.kill(executor.pids[future], signal.SIGTERM)
        with pytest.raises(WorkerProcessError, match="was told to end, by SIGTERM"):
            future.result(20)

    @pytest.mark.parametrize("function", [exit_with, leave])
    def test_process_that_exits(self, executor: SubprocessExecutor, function) -> None:
        with pytest.raises(WorkerProcessError, match="ended with exit code 3 before"):
            executor.submit(function, 3).result(20)

    def test_process_that_dies_while_its_child_goes_on(
        self, executor: SubprocessExecutor, tmp_path
    ) -> None:
        future = executor.submit(fork_and_die, str(tmp_path / "child"))
        with pytest.raises(WorkerProcessError, match="exit code 9"):
            future.result(20)
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)

    def test_result_while_a_child_goes_on(self, executor: SubprocessExecutor) -> None:
        child = executor.submit(fork_and_return).result(20)
        os.kill(child, signal.SIGKILL)

    def test_process_that_does_not_end_is_killed(
        self, executor: SubprocessExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker_process, "EXIT_GRACE", 0.2)
        pid = executor.submit(linger).result(20)
        executor.shutdown()
        assert not psutil.pid_exists(pid)

    def test_cancel_ends_the_process(
        self, executor: SubprocessExecutor, tmp_path
    ) -> None:
        future = executor.submit(announce, str(tmp_path / "pid"))
        wait_until((tmp_path / "pid").exists, "the worker starts")
        assert future.running()
        assert future.cancel()
        assert future.cancelled()
        assert not future.running()
        done, _ = concurrent.futures.wait([future], timeout=20)
        assert done == {future}
        executor.shutdown()
        assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
        assert future.cancel()  # once more changes nothing

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_cancel_lets_an_event_loop_tidy_up(
        self, executor: SubprocessExecutor, tmp_path, loop: str
    ) -> None:
        new_event_loop = pytest.importorskip(loop).new_event_loop
        future = executor.submit(tidy_up, str(tmp_path / "pid"), new_event_loop)
        wait_until((tmp_path / "pid").exists, "the worker starts")
        future.cancel()
        executor.shutdown()
        assert (tmp_path / "pid.tidied").exists()

    def test_cancel_kills_what_ignores_sigterm(
        self,
        executor: SubprocessExecutor,
        tmp_path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(worker_process, "TERMINATE_GRACE", 0.1)
        future = executor.submit(ignore_sigterm, str(tmp_path / "pid"))
        wait_until((tmp_path / "pid").exists, "the worker starts")
        future.cancel()
        executor.shutdown()
        assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))

    def test_cancel_at_once(self, executor: SubprocessExecutor) -> None:
        """Whether or not there is a process already, none is left."""
        futures = [executor.submit(time.sleep, 1000) for _ in range(5)]
        assert all(future.cancel() for future in futures)
        executor.shutdown()
        assert executor.pids == {}

    def test_cancel_after_the_end(self, executor: SubprocessExecutor) -> None:
        future = executor.submit(os.getpid)
        future.result(20)
        assert not future.cancel()

    def test_max_workers(self, tmp_path) -> None:
        executor = SubprocessExecutor(1)
        first = executor.submit(hold, str(tmp_path / "go"))
        cancelled = executor.submit(os.getpid)
        second = executor.submit(os.getpid)
        assert not second.running()
        assert cancelled.cancel()
        assert len(executor.pids) <= 1
        (tmp_path / "go").touch()
        assert second.result(20) > 0
        assert first.result(20) is None
        executor.shutdown()

    def test_shutdown_waits(self) -> None:
        executor = SubprocessExecutor(1)
        futures = [executor.submit(os.getpid) for _ in range(3)]
        executor.shutdown()
        assert len({future.result(0) for future in futures}) == 3
        with pytest.raises(RuntimeError, match="was shut down"):
            executor.submit(os.getpid)

    def test_shutdown_cancels_what_waits(self, tmp_path) -> None:
        executor = SubprocessExecutor(1)
        first = executor.submit(hold, str(tmp_path / "go"))
        waiting = [executor.submit(os.getpid) for _ in range(2)]
        executor.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
        (tmp_path / "go").touch()
        executor.shutdown()
        assert first.result(0) is None

    def test_environment(self) -> None:
        with SubprocessExecutor(env={"ACADEMY_TEST": "x"}) as executor:
            variables = executor.submit(dict, os.environ).result(20)
            there = executor.submit(os.getenv, "ACADEMY_TEST").result(20)
        assert "ACADEMY_TEST" not in variables
        assert there == "x"

    def test_paths_are_those_of_this_process(
        self, executor: SubprocessExecutor, tmp_path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "only_here.py").write_text("def f(): return 'found'")
        monkeypatch.syspath_prepend(str(tmp_path))
        import only_here

        assert executor.submit(only_here.f).result(20) == "found"

    def test_no_interpreter(self) -> None:
        with SubprocessExecutor(python="/no/such/python") as executor:
            future = executor.submit(os.getpid)
            with pytest.raises(FileNotFoundError, match="/no/such/python"):
                future.result(20)

    def test_interpreter_that_is_no_worker(self) -> None:
        with SubprocessExecutor(python="/bin/false") as executor:
            future = executor.submit(twice, bytes(1 << 20))
            with pytest.raises(WorkerProcessError, match="ended with exit code 1"):
                future.result(20)

    def test_too_few_workers(self) -> None:
        with pytest.raises(ValueError, match="at least 1, not 0"):
            SubprocessExecutor(0)

    def test_printing_goes_where_this_process_prints(
        self, executor: SubprocessExecutor, capfd: pytest.CaptureFixture[str]
    ) -> None:
        executor.submit(os.system, "echo from the worker").result(20)
        assert capfd.readouterr().out == "from the worker\n"

    def test_stdin_is_empty(self, executor: SubprocessExecutor) -> None:
        assert executor.submit(read_stdin).result(20) == ""


class TestEventLoop:
    @pytest.fixture
    def executor(self) -> Iterator[EventLoopExecutor]:
        executor = EventLoopExecutor()
        yield executor
        executor.shutdown()

    @staticmethod
    async def thread_and_loop() -> tuple[int, int]:
        await asyncio.sleep(0)
        return threading.get_ident(), id(asyncio.get_running_loop())

    def test_all_run_in_one_loop_of_another_thread(
        self, executor: EventLoopExecutor
    ) -> None:
        futures = [executor.submit(self.thread_and_loop) for _ in range(3)]
        [(thread, _)] = {future.result(10) for future in futures}
        assert thread != threading.get_ident()

    def test_plain_functions(self, executor: EventLoopExecutor) -> None:
        assert executor.submit(divmod, 7, 2).result(10) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 7, 0).result(10)

    def test_waiting_calls_do_not_hold_up_others(
        self, executor: EventLoopExecutor
    ) -> None:
        waiting = executor.submit(asyncio.sleep, 1000)
        assert executor.submit(twice, 2).result(10) == 4
        assert waiting.cancel()

    def test_cancel_reaches_the_call(self, executor: EventLoopExecutor) -> None:
        begun, cancelled = threading.Event(), threading.Event()

        async def call() -> None:
            begun.set()
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        future = executor.submit(call)
        assert begun.wait(10)
        future.cancel()
        assert cancelled.wait(10)

    def test_a_call_that_runs_says_so(self, executor: EventLoopExecutor) -> None:
        begun = threading.Event()

        async def call() -> None:
            begun.set()
            await asyncio.sleep(1000)

        future = executor.submit(call)
        assert begun.wait(10)
        wait_until(future.running, "the call runs")
        assert future.cancel()
        assert future.cancel()
        assert future.cancelled()
        assert not future.running()

    def test_whoever_waits_for_cancelled_calls_is_told(
        self, executor: EventLoopExecutor
    ) -> None:
        """One that runs, and one that the thread has not seen yet."""
        running = executor.submit(asyncio.sleep, 1000)
        held = threading.Event()
        executor.submit(held.wait)
        unseen = executor.submit(asyncio.sleep, 1000)
        for future in (running, unseen):
            assert future.cancel()
        held.set()
        done, _ = concurrent.futures.wait([running, unseen], timeout=10)
        assert done == {running, unseen}

    def test_a_call_that_cancels_itself(self, executor: EventLoopExecutor) -> None:
        async def call() -> None:
            raise asyncio.CancelledError

        with pytest.raises(concurrent.futures.CancelledError):
            executor.submit(call).result(10)

    def test_a_call_that_has_ended_cannot_be_cancelled(
        self, executor: EventLoopExecutor
    ) -> None:
        future = executor.submit(twice, 2)
        assert future.result(10) == 4
        assert not future.cancel()

    def test_exchange_client_of_the_caller_is_out_of_reach(
        self, executor: EventLoopExecutor
    ) -> None:
        token = exchange_context.set(None)  # type: ignore[arg-type]
        future = executor.submit(exchange_context.get, "none")
        exchange_context.reset(token)
        assert future.result(10) == "none"

    def test_shutdown_waits(self, executor: EventLoopExecutor) -> None:
        future = executor.submit(asyncio.sleep, 0.05, "slept")
        executor.shutdown(cancel_futures=False)
        assert future.result(0) == "slept"
        with pytest.raises(RuntimeError, match="was shut down"):
            executor.submit(asyncio.sleep, 0)

    def test_shutdown_cancels(self, executor: EventLoopExecutor) -> None:
        """Calls that run, and one that the thread has not seen yet."""
        running = executor.submit(asyncio.sleep, 1000)
        held = threading.Event()
        executor.submit(held.wait)
        unseen = executor.submit(asyncio.sleep, 1000)
        executor.shutdown(wait=False)
        held.set()
        executor.shutdown()
        for future in (running, unseen):
            with pytest.raises(concurrent.futures.CancelledError):
                future.result(10)

    def test_shutdown_unused(self) -> None:
        executor = EventLoopExecutor()
        executor.shutdown()
        executor.shutdown()
        assert executor._thread is None
