"""Runs the demo on this machine: a server, worker processes, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from academy.demo.federation import Federation
from academy.demo.report import Plan, Report
from academy.demo.screen import View
from academy.embedded import EmbeddedServer
from academy.exchange.hybrid import HybridExchangeFactory
from academy.executor import SubprocessExecutor
from academy.manager import Manager

RESTARTS = 3
"""How often an agent may lose its process."""

_ONE_THREAD = {
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""The matrices are small, and the sites share the cores of this machine."""


class StoppedError(Exception):
    """A signal stopped the demo.

    Attributes:
        signal: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"The demo was stopped by {number.name}.")
        self.signal = number


def run(plan: Plan, view: View) -> Report:
    """Run the demo with a server of its own. It leaves no process behind.

    Args:
        plan: What to do.
        view: Shows what happens.

    Raises:
        KeyboardInterrupt: Ctrl-C, after all has been stopped.
        StoppedError: SIGTERM or SIGHUP, likewise.
        ServerNotFoundError: There is no server binary to run.
        Exception: Something does not work; possibly several as a group.
    """
    with EmbeddedServer() as server, view:
        view.say(f"A server, version {server.version}, runs as process {server.pid}.")
        return asyncio.run(_federate(server.url, plan, view))


async def _federate(url: str, plan: Plan, view: View) -> Report:
    with _cancelled_by(signal.SIGTERM, signal.SIGHUP):
        factory = HybridExchangeFactory.from_url(url, namespace=None)
        blocked = HybridExchangeFactory.from_url(
            url, namespace=factory.namespace, direct=False
        )
        async with await _manager(factory) as manager, await _manager(blocked) as other:
            try:
                return await Federation(manager, other, plan, view).run()
            finally:
                view.say("All agents are asked to shut down.")


async def _manager(factory: HybridExchangeFactory) -> Manager[Any]:
    return await Manager.from_exchange_factory(
        factory, SubprocessExecutor(env=_ONE_THREAD), max_retries=RESTARTS
    )


@contextlib.contextmanager
def _cancelled_by(*signals: signal.Signals) -> Iterator[None]:
    """Have signals cancel the current task, and raise what says so."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def cancel(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, cancel, number)
    try:
        yield
    except asyncio.CancelledError:
        if received:
            raise StoppedError(received[0]) from None
        raise
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
