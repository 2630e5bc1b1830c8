"""`python -m tests.security.strangers`: what hundreds of strangers at the door cost.

They come to the port of a process at once, and say nothing, or begin to say something.
Measured in that process: how long members need to connect meanwhile, when the last
stranger is gone, the loop's worst lag, and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping

import psutil

from academy.link.config import LinkConfig
from academy.link.security import Security
from tests.unit.link.network import Network, Process

STRANGERS = 600
TIME = LinkConfig().handshake_timeout
"""Seconds that a stranger has: five."""
SAYINGS = {
    "nothing": b"",
    "the beginning of TLS": b"\x16\x03\x01",
    "clear text": b"\0\0",
}
"""What strangers say."""
LATE = 0.5
"""Seconds after their time in which the last ones have to go."""
TICK = 0.005
"""Seconds between two looks at what the process is like."""


@dataclasses.dataclass(frozen=True)
class Siege:
    """What strangers have cost.

    Attributes:
        members: Seconds in which each of the members was linked, while the strangers
            were there, and after they had gone.
        waiting: Strangers who waited at the gate, at most.
        gone: Seconds from the coming of the last stranger until all were gone.
        lag: Seconds by which the event loop was late, at most.
        growth: Bytes by which the process has grown, at most.
        refusals: Why strangers were refused, and how many.
    """

    members: list[float]
    waiting: int
    gone: float
    lag: float
    growth: int
    refusals: Mapping[str, int]


class Crowd:
    """Connections that say little."""

    def __init__(self, port: int, say: bytes, count: int) -> None:
        self._socks = []
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.send(say)
            sock.setblocking(False)
            self._socks.append(sock)

    def present(self) -> bool:
        """Return whether the process has not hung up on all of them."""
        while self._socks and not _is_open(self._socks[-1]):
            self._socks.pop().close()
        return bool(self._socks)

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def _is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


class Watch:
    """Looks at the process again and again."""

    def __init__(self, process: Process) -> None:
        self._gate = process._gate
        self._usage = psutil.Process()
        self._before = self._usage.memory_info().rss
        self.waiting = self.growth = 0
        self.lag = 0.0

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            task.cancelled() or task.result()

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + TICK
            await asyncio.sleep(TICK)
            self.lag = max(self.lag, clock() - due)
            self.waiting = max(self.waiting, len(self._gate))
            self.growth = max(self.growth, self._usage.memory_info().rss - self._before)


async def besiege(
    network: Network, say: bytes, timeout: float, strangers: int = STRANGERS
) -> Siege:
    """Let strangers come to a process, and members to see whether they get in.

    Args:
        network: Makes the processes.
        say: What each stranger says.
        timeout: Seconds that connections have to prove themselves.
        strangers: How many.
    """
    config = LinkConfig(handshake_timeout=timeout)
    process = await network.open(security=Security("tls"), config=config)
    watch = Watch(process)
    async with watch():
        # In a thread, or nobody would take them.
        crowd = await asyncio.to_thread(Crowd, process.ports[0], say, strangers)
        try:
            came = time.monotonic()
            members = await _members(network, process)
            end = came + timeout + LATE
            while crowd.present() and time.monotonic() < end:  # noqa: ASYNC110
                await asyncio.sleep(TICK)
            gone = time.monotonic() - came
        finally:
            crowd.close()
    members += await _members(network, process)
    return Siege(
        members, watch.waiting, gone, watch.lag, watch.growth, process.refusals
    )


async def _members(network: Network, process: Process) -> list[float]:
    """Let members connect one after the other; return how long each has needed."""
    took = []
    for kind in ("tcp", "uds", "tcp", "tcp"):
        member = await network.open(security=Security("tls"))
        start = time.monotonic()
        await network.link(member, process, kind)
        took.append(time.monotonic() - start)
    return took


@contextlib.contextmanager
def descriptors(strangers: int = STRANGERS) -> Iterator[bool]:
    """Let this process have both ends of so many connections; yield whether it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * strangers
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield False
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield True
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def measure(say: bytes, timeout: float, strangers: int) -> Siege:
    """Let strangers come to a process of a network of their own."""
    network = Network()
    try:
        return await besiege(network, say, timeout, strangers)
    finally:
        await network.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.security.strangers")
    parser.add_argument("--strangers", type=int, default=STRANGERS)
    parser.add_argument("--rounds", type=int, default=3, help="the worst is shown")
    parser.add_argument("--seconds", type=float, default=TIME, help="they have")
    options = parser.parse_args()
    print(f"{options.strangers} strangers at once, who have {options.seconds:g} s\n")
    print(
        "| they say | members linked after | gone after | waiting | loop lag "
        "| memory | refusals |"
    )
    print("|---|---|---|---|---|---|---|")
    with descriptors(options.strangers) as allowed:
        if not allowed:
            parser.error("too many for the file descriptors that this user may have")
        for name, say in SAYINGS.items():
            found = [
                asyncio.run(measure(say, options.seconds, options.strangers))
                for _ in range(options.rounds)
            ]
            print(_row(name, found), flush=True)


def _row(name: str, found: list[Siege]) -> str:
    """Return the worst of what was found, as a row of the table."""
    linked = 1e3 * max(max(siege.members) for siege in found)
    refusals = ", ".join(f"{n} {why}" for why, n in sorted(found[-1].refusals.items()))
    cells = (
        name,
        f"{linked:.0f} ms",
        f"{max(siege.gone for siege in found):.2f} s",
        f"{max(siege.waiting for siege in found)}",
        f"{1e3 * max(siege.lag for siege in found):.0f} ms",
        f"+{max(siege.growth for siege in found) / (1 << 20):.1f} MiB",
        refusals,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    # Refusals are counted in the table.
    logging.getLogger("academy").setLevel(logging.ERROR)
    main()
