"""A process that runs one agent; started by the harness.

The first line of standard input is a pickled `Part` in base64; when standard input
ends, the agent is shut down and its mailbox kept. The process writes `ready` when the
agent runs, and at the end `ended` and the name of the error, if there was one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import pickle
import resource
import sys
from collections.abc import AsyncIterator
from typing import Any

from academy.exchange.hybrid import HybridExchangeFactory
from academy.runtime import Runtime, RuntimeConfig

CONFIG = RuntimeConfig(
    cancel_actions_on_shutdown=False,
    terminate_on_error=False,
    terminate_on_success=False,
)
"""For an agent that is restarted: what runs ends, and the mailbox stays."""


@dataclasses.dataclass
class Part:
    """What the process plays.

    Attributes:
        factory: The exchange.
        registration: Registration of the agent.
        agent: Class of the agent.
        args: Its arguments.
        config: How to run it.
        files: How many files the process may have open; 0 for any.
    """

    factory: HybridExchangeFactory
    registration: Any
    agent: type[Any]
    args: tuple[Any, ...] = ()
    config: RuntimeConfig = CONFIG
    files: int = 0


def read_part() -> Any:
    """Return what the harness has put on standard input."""
    return pickle.loads(base64.b64decode(sys.stdin.buffer.readline()))


@contextlib.asynccontextmanager
async def standard_input() -> AsyncIterator[asyncio.StreamReader]:
    """The rest of standard input, without a thread that would outlive the program."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        yield reader
    finally:
        pipe.close()


def say(text: str) -> None:
    """Tell the harness; it may have died."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


async def main(part: Part) -> None:
    if part.files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (part.files, part.files))
    runtime = Runtime(
        part.agent(*part.args),
        exchange_factory=part.factory,
        registration=part.registration,
        config=part.config,
    )
    error = ""
    try:
        async with standard_input() as commands, runtime:
            say("ready")
            end = asyncio.ensure_future(commands.read())
            end.add_done_callback(lambda _: runtime.signal_shutdown())
            await runtime.wait_shutdown()
            end.cancel()
    except Exception as e:
        error = type(e).__name__
        print(f"{error}: {e}", file=sys.stderr)
    say(f"ended {error}".strip())


if __name__ == "__main__":
    asyncio.run(main(read_part()))
