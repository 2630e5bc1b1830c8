"""A system in JSON never unpickles a byte, whatever its members send each other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from academy.agent import Agent
from academy.exchange.hybrid import HybridExchangeFactory

PROGRAM = "tests.security.json_only"


class Clerk(Agent):
    """Stands for the agent that runs in another process."""


class Process:
    """A process that plays a part."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, **part: Any) -> Process:
        pipe = asyncio.subprocess.PIPE
        made = cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", PROGRAM, stdin=pipe, stdout=pipe
            )
        )
        assert made._process.stdin is not None
        made._process.stdin.write(json.dumps(part).encode() + b"\n")
        return made

    async def line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 20)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "relay"])
async def test_nothing_is_unpickled(
    redis_url: str, namespace: str, direct: bool
) -> None:
    factory = HybridExchangeFactory.from_url(redis_url, namespace=namespace)
    part: dict[str, Any] = {"url": redis_url, "namespace": namespace, "direct": direct}
    async with await factory.create_user_client() as user:
        registration = await user.register_agent(Clerk)
        part["agent"] = registration.agent_id.model_dump_json()
        agent = await Process.start(role="agent", **part)
        caller = await Process.start(role="caller", **part)
        try:
            assert await agent.line() == {"ready": True}
            answers = await caller.line()
            assert await caller.line() == {"unpickled": []}
            await caller.end()
            await agent.end()
            assert await agent.line() == {"unpickled": []}
        finally:
            await caller.kill()
            await agent.kill()
    assert (answers["add"], answers["last"]) == (3, 7)
    assert answers["tuple"] == {"pair": [1, "two", None]}
    kinds = {name: a[0] for name, a in answers.items() if isinstance(a, list)}
    assert kinds == {
        "fail": "AcademyRemoteError",
        "strange": "AcademyRemoteError",
        "missing": "AcademyRemoteError",
        "arguments": "AcademyRemoteError",
        "forbidden": "UnauthorizedActionError",
        "rude": "DeserializationMethodProhibitedError",
        "greedy": "DeserializationMethodProhibitedError",
    }
    assert answers["fail"][1].startswith("KeyError: 'no key'")


def test_what_is_unpickled_would_be_seen() -> None:
    """Else the test above would show nothing."""
    code = (
        "import pickle, _pickle, tests.security.json_only as program\n"
        "data = pickle.dumps(program.AgentId.new())\n"
        "for loads in (pickle.loads, _pickle.loads):\n"
        "    try: loads(data)\n"
        "    except AssertionError: pass\n"
        "print(len(program.unpickled))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert int(done.stdout) >= 2, done.stderr
