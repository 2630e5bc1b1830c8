from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Generator

import pytest

from academy.debug import set_academy_debug
from academy.task import (
    SafeTaskExitError,
    Tasks,
    spawn_guarded_background_task,
    take_steps,
)


@pytest.fixture(autouse=True)
def debug_off() -> Generator[None]:
    yield
    set_academy_debug(False)


async def fail() -> None:
    raise ValueError("broken")


async def leave() -> None:
    raise SafeTaskExitError("enough")


async def succeed() -> int:
    return 7


async def ended(*tasks: asyncio.Task[object]) -> None:
    """Wait until the tasks, and their callbacks, are done."""
    await asyncio.wait(tasks)


class TestGuarded:
    async def test_result_and_name(self) -> None:
        task = spawn_guarded_background_task(succeed(), name="seven")
        assert task.get_name() == "seven"
        assert await task == 7

    async def test_failure_is_logged_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = spawn_guarded_background_task(fail(), name="job")
        await ended(task)
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert record.getMessage() == "Background task 'job' failed."
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
        with pytest.raises(ValueError, match="broken"):
            await task

    async def test_failure_that_is_logged_elsewhere(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        task = spawn_guarded_background_task(fail(), name="job", log_exception=False)
        await ended(task)
        del task
        gc.collect()  # asyncio would log an error that was never looked at
        assert not caplog.records

    @pytest.mark.parametrize("debug", [False, True])
    async def test_no_failures(
        self, caplog: pytest.LogCaptureFixture, debug: bool
    ) -> None:
        set_academy_debug(debug)
        cancelled = spawn_guarded_background_task(asyncio.sleep(60), name="sleep")
        cancelled.cancel()
        left = spawn_guarded_background_task(leave(), name="leave")
        await ended(cancelled, left)
        assert not caplog.records
        assert cancelled.cancelled()
        with pytest.raises(SafeTaskExitError, match="enough"):
            await left

    @pytest.mark.parametrize("log_exception", [False, True])
    def test_debug_mode_ends_the_loop(
        self, caplog: pytest.LogCaptureFixture, log_exception: bool
    ) -> None:
        async def main() -> None:
            set_academy_debug()
            spawn_guarded_background_task(
                fail(), name="job", log_exception=log_exception
            )
            await asyncio.sleep(60)

        with pytest.raises(SystemExit):
            asyncio.run(main())
        assert [r.getMessage() for r in caplog.records] == [
            "Background task 'job' failed."
        ]

    async def test_task_is_held(self) -> None:
        """Nothing else refers to it: not the test, not the loop."""
        done = asyncio.Event()

        async def wait_for_nobody() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                done.set()

        spawn_guarded_background_task(wait_for_nobody(), name="held")
        await asyncio.sleep(0)
        gc.collect()
        assert not done.is_set()
        [task] = [t for t in asyncio.all_tasks() if t.get_name() == "held"]
        task.cancel()
        await ended(task)
        assert done.is_set()

    def test_no_event_loop(self) -> None:
        coro = succeed()
        with pytest.raises(RuntimeError):
            spawn_guarded_background_task(coro, name="job")
        coro.close()


class TestTasks:
    @pytest.fixture
    async def tasks(self) -> AsyncGenerator[Tasks]:
        tasks = Tasks("owner")
        yield tasks
        await tasks.cancel()

    async def test_spawn(self, tasks: Tasks) -> None:
        assert len(tasks) == 0
        task = tasks.spawn(succeed(), name="seven")
        assert task.get_name() == "owner/seven"
        assert len(tasks) == 1
        assert repr(tasks) == "Tasks('owner', running=[owner/seven])"
        assert await task == 7
        assert len(tasks) == 0
        assert repr(tasks) == "Tasks('owner', running=[])"

    async def test_error_is_logged_once_and_others_go_on(
        self, tasks: Tasks, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = tasks.spawn(asyncio.sleep(60), name="other")
        failing = tasks.spawn(fail(), name="job")
        await ended(failing)
        [record] = caplog.records
        assert record.getMessage() == "Task 'job' of owner failed."
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
        assert not other.done()
        assert len(tasks) == 1

    async def test_on_error(self) -> None:
        errors: list[tuple[str, Exception]] = []
        tasks = Tasks("owner", on_error=lambda *failure: errors.append(failure))
        await ended(tasks.spawn(succeed(), name="good"))
        await ended(tasks.spawn(leave(), name="leave"))
        failing = tasks.spawn(fail(), name="job")
        await ended(failing)
        assert errors == [("job", failing.exception())]

    async def test_cancel(self, tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
        cleaned = []

        async def clean_up() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        async def fail_late() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                raise ValueError("late")

        spawned = [
            tasks.spawn(clean_up(), name="clean"),
            tasks.spawn(fail_late(), name="late"),
        ]
        await asyncio.sleep(0)
        await tasks.cancel()
        assert all(task.done() for task in spawned)
        assert cleaned == [True]
        assert len(tasks) == 0
        assert [r.getMessage() for r in caplog.records] == [
            "Task 'late' of owner failed."
        ]
        await tasks.cancel()

    async def test_spawn_after_cancel(self, tasks: Tasks) -> None:
        await tasks.cancel()
        assert await tasks.spawn(succeed(), name="seven") == 7

    async def test_cancel_reaches_tasks_that_start_meanwhile(
        self, tasks: Tasks
    ) -> None:
        late: list[asyncio.Task[None]] = []

        async def replace_itself() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                late.append(tasks.spawn(asyncio.sleep(60), name="late"))

        tasks.spawn(replace_itself(), name="first")
        await asyncio.sleep(0)
        await tasks.cancel()
        assert late[0].cancelled()
        assert len(tasks) == 0

    async def test_cancel_from_one_of_them(self, tasks: Tasks) -> None:
        other = tasks.spawn(asyncio.sleep(60), name="other")

        async def close_owner() -> str:
            await tasks.cancel()
            return "closed"

        assert await tasks.spawn(close_owner(), name="closer") == "closed"
        assert other.cancelled()

    async def test_cancel_is_bounded(
        self, tasks: Tasks, caplog: pytest.LogCaptureFixture
    ) -> None:
        release = asyncio.Event()

        async def resist() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        task = tasks.spawn(resist(), name="mule")
        await asyncio.sleep(0)
        await tasks.cancel(timeout=0.01)
        assert [r.getMessage() for r in caplog.records] == [
            "Still running 0.01 s after cancel: owner/mule."
        ]
        assert not task.done()
        assert len(tasks) == 1
        release.set()
        await task
        assert len(tasks) == 0


# Steps


async def test_steps_are_all_taken_and_the_first_failure_is_raised() -> None:
    taken = []

    async def well() -> None:
        taken.append("well")

    def ill() -> None:
        taken.append("ill")
        raise LookupError("first")

    async def worse() -> None:
        taken.append("worse")
        raise ValueError("second")

    with pytest.raises(LookupError, match="first"):
        await take_steps([well, ill, worse, well])
    assert taken == ["well", "ill", "worse", "well"]
    await take_steps([])


async def test_cancelling_goes_on_with_the_next_step() -> None:
    begun, taken = asyncio.Event(), []

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(take_steps([wait, lambda: taken.append("next")]))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert taken == ["next"]
