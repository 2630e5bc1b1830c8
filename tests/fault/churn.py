"""Mailboxes that come, move and end, in one process: `python -m tests.fault.churn`.

Four engines, each like a process of its own, have agents and callers; one of them has
no direct links. At random moments agents are taken over by another engine, restarted,
and terminated; callers give up and leave; links are cut, as are the connections to the
server, which may also say nothing for a moment. Every call must end soon, and
what a caller asks of an agent must be executed in order, and nothing of it twice. Some
carry an array there and back, which who has sent it uses for something else afterwards:
nobody may see that.

Nothing is killed here and nobody is away for long: what waits has been forgotten.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import functools
import itertools
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from academy.agent import Agent
from academy.answer import result_body
from academy.embedded import EmbeddedServer
from academy.exception import ExchangeError
from academy.exchange import HybridExchangeFactory
from academy.exchange.client import AgentExchangeClient, UserExchangeClient
from academy.exchange.engine import Engine
from academy.exchange.hybrid import HybridExchangeTransport
from academy.exchange.transport import AgentRegistration
from academy.identifier import AgentId, EntityId
from academy.message import (
    ActionRequest,
    ActionResponse,
    Message,
    Response,
    SuccessResponse,
)
from academy.serialize import SerializationStrategy
from tests.proxy import Proxy

User = UserExchangeClient[HybridExchangeTransport]
Disturbance = Coroutine[Any, Any, None]
Host = AgentExchangeClient[Any, HybridExchangeTransport]
Array = npt.NDArray[np.uint8]

ENGINES: tuple[dict[str, Any], ...] = (
    {},
    {"interface": "lo"},
    {"interface": "127.0.0.1"},
    {"direct": False},
)
"""One engine for each: a process has one for each way to be reached."""
AGENTS = 6
USERS = 6
IN_FLIGHT = 8
"""Calls that each user has under way."""
PAUSE = 0.05
"""Seconds between two disturbances, on average."""
LATE = 10.0
"""Seconds that a call may take."""
CARRIES = 0.03
"""How many of all calls carry an array."""
SIZES = 100_000, 3_000_000
"""Bytes of it: copied or lent, in a frame or in parts, shared or not."""
KEPT = 4
"""Arrays that came back and are kept for a while."""
USED_AGAIN = 255
"""What its bytes become after that; they are smaller before."""


@dataclasses.dataclass
class Findings:
    """What was seen.

    Attributes:
        calls: How many calls were made.
        outcomes: How they ended.
        disturbances: How often each was done.
        executed: How often each request was executed.
        disorder: Requests that were executed after a later one of the same caller.
        worst: Seconds of the slowest call.
        late: Calls that took too long, or did not end.
        torn: How often an array was not as it was sent.
    """

    calls: int = 0
    outcomes: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    disturbances: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    executed: collections.Counter[uuid.UUID] = dataclasses.field(
        default_factory=collections.Counter
    )
    disorder: int = 0
    worst: float = 0.0
    late: list[str] = dataclasses.field(default_factory=list)
    torn: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not (self.twice or self.disorder or self.late or self.torn)

    @property
    def twice(self) -> int:
        """Requests that were executed more than once."""
        return sum(times > 1 for times in self.executed.values())

    def __str__(self) -> str:
        lines = [
            f"{self.calls:,} calls, {self.twice} executed twice, "
            f"{self.disorder} out of order, {self.torn} torn, {len(self.late)} late, "
            f"slowest {self.worst:.2f} s",
            *self.late[:20],
            ", ".join(f"{n:,} {name}" for name, n in self.outcomes.most_common()),
            ", ".join(f"{n:,} {name}" for name, n in self.disturbances.most_common()),
        ]
        return "\n".join(lines)


def make_array(number: int, size: int) -> Array:
    """Return an array that shows whether it is that of a call."""
    return np.full(size, number % USED_AGAIN, np.uint8)


def is_whole(array: Array, number: int) -> bool:
    """Return whether an array is as it was sent."""
    return bool(len(array) and (array == number % USED_AGAIN).all())


class Resident:
    """An agent, and the client that has its mailbox now.

    Args:
        churn: What it lives in.
        registration: Its registration.
    """

    def __init__(self, churn: Churn, registration: AgentRegistration[Any]) -> None:
        self._churn = churn
        self.registration = registration
        self.hosts: list[Host] = []
        self._last: collections.Counter[EntityId] = collections.Counter()
        self.changing = asyncio.Lock()

    @property
    def uid(self) -> AgentId[Any]:
        return self.registration.agent_id

    async def move(self) -> None:
        """Bind the mailbox somewhere; who has it is not asked."""
        made: list[Host] = []

        async def handle(request: Message[Any]) -> None:
            await self._execute(made[0], request)

        factory = self._churn.factory()
        client = await factory.create_agent_client(self.registration, handle)
        made.append(client)
        self.hosts.append(client)

    async def close(self, keep: int = 0) -> None:
        """Close the clients, but for the newest ones."""
        for client in self.hosts[: len(self.hosts) - keep]:
            self.hosts.remove(client)
            await client.close()

    async def _execute(self, client: Host, request: Message[Any]) -> None:
        churn = self._churn
        body = request.get_body()
        array: Array | None = None
        answer: Response = SuccessResponse()
        if isinstance(body, ActionRequest):
            churn.findings.executed[request.tag] += 1
            (number, array), _ = body.take_arguments()
            churn.findings.disorder += number < self._last[request.src]
            self._last[request.src] = number
        if churn.chance.random() < 0.3:
            await asyncio.sleep(churn.chance.random() * 0.01)
        if array is not None:
            churn.findings.torn += not is_whole(array, number)
            answer = result_body(array, SerializationStrategy.PICKLE)
            if churn.chance.random() < 0.5:
                # Nobody but the message has it, when that is sent.
                array = None
        # It may have lost its mailbox meanwhile.
        with contextlib.suppress(ExchangeError, RuntimeError):
            await client.send(request.create_response(answer))
        if array is not None:
            array.fill(USED_AGAIN)


class Churn:
    """One run.

    Args:
        server: The server.
        proxy: What all engines reach it through.
        chance: Source of all randomness.
    """

    def __init__(
        self, server: EmbeddedServer, proxy: Proxy, chance: random.Random
    ) -> None:
        self.chance = chance
        self._proxy = proxy
        self.findings = Findings()
        namespace = f"churn{uuid.uuid4().hex[:8]}"
        self._factories = [
            HybridExchangeFactory(
                "127.0.0.1",
                proxy.port,
                namespace=namespace,
                redis_kwargs=server.redis_kwargs,
                **settings,
            )
            for settings in ENGINES
        ]
        self._residents: list[Resident] = []
        self._engines: list[Engine] = []
        self._numbers = itertools.count(1)
        self._kept: collections.deque[tuple[Array, int]] = collections.deque()
        self._ending = False

    def factory(self) -> HybridExchangeFactory:
        """Return the factory of a random engine."""
        return self.chance.choice(self._factories)

    async def run(self, seconds: float) -> Findings:
        """Run, and return what was seen."""
        async with contextlib.AsyncExitStack() as stack:
            for factory in self._factories:
                user = await stack.enter_async_context(
                    await factory.create_user_client()
                )
                self._engines.append(user._transport.engine)
            self._desk = user
            for _ in range(AGENTS):
                await self._settle()
            callers = [asyncio.create_task(self._call_for_ever()) for _ in range(USERS)]
            await self._disturb(time.monotonic() + seconds)
            self._ending = True
            await asyncio.gather(*callers)
            for resident in self._residents:
                await resident.close()
        return self.findings

    async def _settle(self) -> None:
        registration = await self._desk.register_agent(Agent)
        resident = Resident(self, registration)
        await resident.move()
        self._residents.append(resident)

    # Disturbances

    async def _disturb(self, until: float) -> None:
        ways: dict[str, tuple[int, Callable[[], Disturbance]]] = {
            "taken over": (4, functools.partial(self._change, self._take_over)),
            "restarted": (4, functools.partial(self._change, self._restart)),
            "restarted in haste": (4, functools.partial(self._change, self._hurry)),
            "terminated": (2, self._terminate),
            "link cut": (2, self._cut),
            "server cut off": (1, self._proxy.drop),
            "server silent": (1, self._silence),
        }
        weights = [weight for weight, _ in ways.values()]
        running: set[asyncio.Task[None]] = set()
        while time.monotonic() < until:
            name = self.chance.choices(list(ways), weights)[0]
            self.findings.disturbances[name] += 1
            task = asyncio.create_task(ways[name][1]())
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(self.chance.expovariate(1 / PAUSE))
        await asyncio.gather(*running)

    def _resident(self) -> Resident:
        return self.chance.choice(self._residents)

    async def _change(self, change: Callable[[Resident], Disturbance]) -> None:
        """Do something to a resident to which nothing else is being done.

        Mostly it is called first: an agent that always moves gets nothing done.
        """
        resident = self._resident()
        async with resident.changing:
            if resident in self._residents:
                if self.chance.random() < 0.7:
                    await self._call(self._desk, resident.uid)
                await change(resident)

    async def _take_over(self, resident: Resident) -> None:
        await resident.move()
        await resident.close(keep=1)

    async def _restart(self, resident: Resident) -> None:
        await resident.close()
        await asyncio.sleep(self.chance.random() * 0.2)
        await resident.move()

    async def _hurry(self, resident: Resident) -> None:
        """Bind the mailbox while who has it still closes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(resident.close())
            await asyncio.sleep(self.chance.random() * 0.01)
            group.create_task(resident.move())

    async def _terminate(self) -> None:
        resident = self._resident()
        async with resident.changing:
            if resident not in self._residents:
                return
            self._residents.remove(resident)
            engine = self.chance.choice(self._engines)
            await engine.terminate(resident.uid, "it is enough")
            await resident.close()
        await self._settle()

    async def _cut(self) -> None:
        found = [
            peer.connection
            for engine in self._engines
            if engine.links is not None
            for peer in engine.links.node.peers.values()
            if peer.connection is not None
        ]
        if found:
            self.chance.choice(found).abort()

    async def _silence(self) -> None:
        self._proxy.hold()
        await asyncio.sleep(self.chance.random() * 0.2)
        self._proxy.let_go()

    # Calls

    async def _call_for_ever(self) -> None:
        while not self._ending:
            user = await self.factory().create_user_client()
            async with user:
                stay = time.monotonic() + self.chance.expovariate(1 / 2.0)
                async with asyncio.TaskGroup() as group:
                    for _ in range(IN_FLIGHT):
                        group.create_task(self._call_until(user, stay))

    async def _call_until(self, user: User, until: float) -> None:
        while time.monotonic() < until and not self._ending:
            await self._call(user, self._resident().uid)

    async def _call(self, user: User, uid: AgentId[Any]) -> None:
        # The order in which these are made is that in which they are sent.
        number = next(self._numbers)
        carries = self.chance.random() < CARRIES
        array = make_array(number, self.chance.randint(*SIZES)) if carries else None
        arguments = number, array
        body = ActionRequest(action="act", serialization="pickle", pargs=arguments)
        request = Message.create(user.client_id, uid, body)
        patience = LATE
        if self.chance.random() < (0.5 if carries else 0.05):
            # While it waits for its turn, or is on its way, or is answered.
            patience = self.chance.random() * (0.02 if carries else 0.1)
        begin = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                answer = (await user.request(request)).get_body()
            if isinstance(answer, SuccessResponse):
                outcome = "done"
            elif isinstance(answer, ActionResponse):
                outcome = "carried"
                self._keep(answer.get_result(), number)
            else:
                outcome = type(answer.get_exception()).__name__  # type: ignore[attr-defined]
        except TimeoutError:
            outcome = "given up"
            if patience == LATE:
                run = self.findings.executed[request.tag]
                self.findings.late.append(f"{request.tag} to {uid}, executed {run} x")
        except ExchangeError as e:
            outcome = type(e).__name__
        if array is not None:
            array.fill(USED_AGAIN)
        self.findings.calls += 1
        self.findings.outcomes[outcome] += 1
        self.findings.worst = max(self.findings.worst, time.monotonic() - begin)

    def _keep(self, array: Array, number: int) -> None:
        """Look at an array that came back, now and once more after a while."""
        self.findings.torn += not is_whole(array, number)
        self._kept.append((array, number))
        if len(self._kept) > KEPT:
            self.findings.torn += not is_whole(*self._kept.popleft())


async def churn(server: EmbeddedServer, seconds: float, seed: int) -> Findings:
    """Let mailboxes come, move and end for so many seconds."""
    async with Proxy(server.port) as proxy:
        return await Churn(server, proxy, random.Random(seed)).run(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args(argv)
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}")
    with EmbeddedServer() as server:
        findings = asyncio.run(churn(server, 60 * given.minutes, seed))
    print(findings)
    return 0 if findings.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
