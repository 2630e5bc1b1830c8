from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from typing import Any

import pytest

from academy.loop import event, loop, timer
from academy.method import is_marked
from tests.unit.local_agents import eventually


class TestLoop:
    def test_is_marked_and_unchanged(self) -> None:
        async def run(self: Any, shutdown: asyncio.Event) -> None: ...

        assert loop(run) is run
        assert is_marked(run, "loop")

    def test_sync_function(self) -> None:
        with pytest.raises(TypeError, match=r"Loop '.*run' is not a coroutine"):

            @loop
            def run(self: Any, shutdown: asyncio.Event) -> None: ...  # type: ignore

    @pytest.mark.parametrize(
        "parameters",
        ["", "self", "self, stop", "self, shutdown, x=1", "self, *shutdown, x"],
    )
    def test_parameters(self, parameters: str) -> None:
        namespace: dict[str, Any] = {}
        exec(f"async def run({parameters}): ...", namespace)
        with pytest.raises(TypeError, match=r"is called as \(self, shutdown\)"):
            loop(namespace["run"])


class Ticker:
    """Counts its runs and requests the shutdown at the last one."""

    def __init__(self, until: int = 3) -> None:
        self.count = 0
        self.until = until
        self.shutdown = asyncio.Event()
        self.alert = asyncio.Event()

    def tick(self) -> None:
        self.count += 1
        if self.count == self.until:
            self.shutdown.set()


class TestTimer:
    @pytest.mark.parametrize("interval", [0, 0.001, timedelta(milliseconds=1)])
    async def test_runs_until_shutdown(self, interval: Any) -> None:
        class Timed(Ticker):
            @timer(interval)
            async def run(self) -> None:
                self.tick()

        timed = Timed()
        await timed.run(timed.shutdown)
        assert timed.count == 3

    async def test_pauses_between_runs(self) -> None:
        clock = asyncio.get_running_loop().time

        class Timed(Ticker):
            @timer(interval=0.05)
            async def run(self) -> None:
                self.tick()

        start = clock()
        timed = Timed()
        await timed.run(timed.shutdown)
        # Two pauses; the third run requests the shutdown, which ends the third.
        assert 0.09 < clock() - start < 1

    async def test_shutdown_ends_the_pause(self) -> None:
        class Timed(Ticker):
            @timer(float("inf"))
            async def run(self) -> None:
                self.tick()

        timed = Timed(until=-1)
        task = asyncio.create_task(timed.run(timed.shutdown))
        await eventually(lambda: timed.count)
        timed.shutdown.set()
        await asyncio.wait_for(task, 1)
        assert timed.count == 1

    async def test_does_not_run_after_shutdown(self) -> None:
        class Timed(Ticker):
            @timer(1)
            async def run(self) -> None:
                self.tick()

        timed = Timed()
        timed.shutdown.set()
        await timed.run(timed.shutdown)
        assert timed.count == 0

    async def test_error_ends_it(self) -> None:
        @timer(1)
        async def run(self: Any) -> None:
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await run(None, asyncio.Event())

    def test_keeps_name_and_docstring(self) -> None:
        @timer(1)
        async def run(self: Any) -> None:
            """Tick."""

        assert is_marked(run, "loop")
        assert inspect.getdoc(run) == "Tick."

    @pytest.mark.parametrize(
        ("interval", "error"),
        [
            ("1", TypeError),
            (None, TypeError),
            (True, TypeError),
            (-1, ValueError),
            (float("nan"), ValueError),
            (timedelta(seconds=-1), ValueError),
        ],
    )
    def test_bad_interval(self, interval: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="@timer"):
            timer(interval)

    def test_bad_method(self) -> None:
        with pytest.raises(TypeError, match=r"Timer '.*run' is not a coroutine"):

            @timer(1)
            def run(self: Any) -> None: ...  # type: ignore

        with pytest.raises(TypeError, match=r"is called as \(self\)"):

            @timer(1)
            async def run2(self: Any, shutdown: Any) -> None: ...  # type: ignore


class TestEvent:
    async def test_runs_once_per_set_and_clears(self) -> None:
        class Alarm(Ticker):
            @event("alert")
            async def run(self) -> None:
                self.tick()

        alarm = Alarm(until=2)
        task = asyncio.create_task(alarm.run(alarm.shutdown))
        await asyncio.sleep(0)
        assert alarm.count == 0
        for expected in (1, 2):
            alarm.alert.set()
            await eventually(lambda n=expected: alarm.count == n)
            assert not alarm.alert.is_set()
        await asyncio.wait_for(task, 1)

    async def test_a_set_during_a_run_is_not_missed(self) -> None:
        class Alarm(Ticker):
            @event("alert")
            async def run(self) -> None:
                self.tick()
                if self.count == 1:
                    self.alert.set()
                    await asyncio.sleep(0)

        alarm = Alarm(until=2)
        alarm.alert.set()
        await asyncio.wait_for(alarm.run(alarm.shutdown), 1)
        assert alarm.count == 2
        assert not alarm.alert.is_set()

    async def test_others_run_although_it_sets_its_own_event(self) -> None:
        class Alarm(Ticker):
            @event("alert")
            async def run(self) -> None:
                self.count += 1
                self.alert.set()

        alarm = Alarm()
        alarm.alert.set()
        task = asyncio.create_task(alarm.run(alarm.shutdown))
        await eventually(lambda: alarm.count > 2)
        alarm.shutdown.set()
        await asyncio.wait_for(task, 1)

    async def test_shutdown_ends_the_wait(self) -> None:
        class Alarm(Ticker):
            @event("alert")
            async def run(self) -> None:
                self.tick()

        alarm = Alarm()
        task = asyncio.create_task(alarm.run(alarm.shutdown))
        await asyncio.sleep(0)
        alarm.shutdown.set()
        await asyncio.wait_for(task, 1)
        assert alarm.count == 0

    async def test_missing_attribute(self) -> None:
        @event("nowhere")
        async def run(self: Any) -> None: ...

        with pytest.raises(AttributeError, match="no attribute 'nowhere' for @event"):
            await run(Ticker(), asyncio.Event())

    async def test_attribute_of_another_type(self) -> None:
        @event("count")
        async def run(self: Any) -> None: ...

        with pytest.raises(TypeError, match="count is a int, but @event"):
            await run(Ticker(), asyncio.Event())

    def test_bad_name(self) -> None:
        with pytest.raises(TypeError, match="name of an attribute, not 3"):
            event(3)  # type: ignore[arg-type]

    def test_bad_method(self) -> None:
        with pytest.raises(TypeError, match=r"Event '.*run' is not a coroutine"):

            @event("alert")
            def run(self: Any) -> None: ...  # type: ignore
