"""An agent in a process of its own that writes every call down before it answers.

Run as a program: `responder.py PICKLE LOG [DELAY]`. PICKLE holds a factory and a
registration, LOG is appended to, one line per executed call: its number and the pid.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from academy.exception import ExchangeError
from academy.exchange import AgentExchangeClient
from academy.message import ActionRequest, ActionResponse, Message


class Responder:
    """Executes each request as a task: write it down, wait, answer."""

    def __init__(self, log: str, delay: float) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._delay = delay
        self._tasks: set[asyncio.Task[None]] = set()
        self.client: AgentExchangeClient[Any, Any]

    @classmethod
    def _agent_mro(cls) -> tuple[str, ...]:
        return ("tests.fault.Responder", "academy.agent.Agent")

    async def handle(self, message: Message[Any]) -> None:
        task = asyncio.create_task(self._execute(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _execute(self, message: Message[Any]) -> None:
        body = message.get_body()
        assert isinstance(body, ActionRequest)
        (number,) = body.get_args()
        os.write(self._log, f"{number} {os.getpid()}\n".encode())
        await asyncio.sleep(self._delay)
        answer = ActionResponse(result=number, serialization=body.serialization)
        try:
            await self.client.send(message.create_response(answer))
        except ExchangeError as e:
            print(f"call {number} was not answered: {e}", file=sys.stderr)


async def main(agent: bytes, log: str, delay: str = "0.01") -> None:
    factory, registration = pickle.loads(agent)
    responder = Responder(log, float(delay))
    responder.client = await factory.create_agent_client(registration, responder.handle)
    print("ready", flush=True)
    # The parent ends this process; when it dies itself, its end of the pipe closes.
    await asyncio.to_thread(sys.stdin.read)
    await responder.client.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes(), *sys.argv[2:]))
