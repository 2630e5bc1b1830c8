"""The world: what processes do, what goes wrong, and the end in which all is well.

A seed decides everything: how many processes and mailboxes there are, who sends what
when, which kinds of faults there are, and when they strike.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence

from tests.simulation.box import Box
from tests.simulation.check import Ledger, Result
from tests.simulation.clock import Clock
from tests.simulation.faults import Faults
from tests.simulation.message import REQUEST, Message, entity
from tests.simulation.network import Network
from tests.simulation.process import Process
from tests.simulation.rules import FULL, Rules

PATIENCE = 120.0
"""Seconds of virtual time in which everything must be resolved in the end."""


class World:
    """One run.

    Args:
        seed: Decides everything.
        rules: What the processes are made of.
        faults: Names of what may go wrong; chosen by the seed if empty.
    """

    def __init__(
        self, seed: int, rules: Rules = FULL, faults: Sequence[str] = ()
    ) -> None:
        self.seed = seed
        self.rules = rules
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.ledger = Ledger()
        # From quick to so slow that everything crosses on the way.
        self.latency = 10 ** self.chance.uniform(-3.5, -1.0)
        self.thinking = 10 ** self.chance.uniform(-3.0, -0.7)
        self.network = Network(
            self.clock, self.chance, 10 ** self.chance.uniform(-3.5, -0.7)
        )
        self.server = rules.server(self.clock, self._tell)
        self.late_news = self.chance.choice([0.0, 0.03, 0.3])
        self.server.capacity = self.chance.choice([4, 20, 10_000, 10_000])
        self.direct = self.chance.random() < 0.95
        self.processes: list[Process] = []
        self._numbers = 0
        self._tag = 0
        self._calm = False
        self.slow: dict[uuid.UUID, float] = {}
        self.owners: dict[uuid.UUID, Box] = {}
        self.placing: dict[uuid.UUID, Process | None] = {}
        clients, agents = self.chance.randint(1, 3), self.chance.randint(1, 3)
        self.clients = [entity(1 + n) for n in range(clients)]
        self.agents = [entity(1 + clients + n) for n in range(agents)]
        self.entities = [*self.clients, *self.agents]
        self.faults = Faults(self, faults)
        self.ledger.gentle = self.faults.gentle

    # A run

    def run(self) -> Result:
        """Let everything happen, and judge it."""
        for _ in range(self.chance.randint(2, 4)):
            self.start_process()
        for eid in self.entities:
            self.server.register(eid)
            self._place(eid, soon=True)
        for eid in (*self.clients, *self.clients, *self.agents):
            self.clock.after(self.chance.uniform(0, 1), None, self._work, eid)
        self.faults.begin()
        self.clock.run(self.clock.now + self.chance.uniform(4, 14))
        self._heal()
        until = self.clock.now + PATIENCE
        while self.ledger.unresolved and self.clock.now < until:
            self.clock.run(self.clock.now + 0.5)
        self.ledger.out_of_time()
        self._empty_queues()
        return self.ledger.result(self.seed)

    def _heal(self) -> None:
        """End all faults; from now on everything must find its end."""
        self._calm = True
        self.slow.clear()
        self.faults.end()
        for eid in self.entities:
            if eid not in self.owners and eid not in self.placing:
                self._place(eid, soon=True)

    def _empty_queues(self) -> None:
        """Have new owners take whatever is left anywhere."""
        self.clock.run(self.clock.now + 1.0)
        for eid in self.entities:
            box = self.owners.get(eid)
            if box is not None:
                box.close()
        self.clock.run(self.clock.now + 2.0)

    # What the processes of the world ask

    def padding(self) -> list[bytes]:
        """Return what a message carries."""
        choice = self.chance.random()
        if choice < 0.7:
            return []
        return [bytes(self.chance.randint(1, 40 if choice < 0.9 else 300))]

    def think(self, eid: uuid.UUID) -> float:
        """How long a consumer needs for a message."""
        return self.chance.uniform(0.0, self.slow.get(eid, self.thinking))

    def work(self) -> float:
        """How long a request takes to execute."""
        choice = self.chance.random()
        if choice < 0.8:
            return self.chance.uniform(0.0, 0.05)
        return self.chance.uniform(0.0, 1.0 if choice < 0.97 else 12.0)

    def bound(self, box: Box) -> None:
        self.owners[box.eid] = box
        self.placing.pop(box.eid, None)

    def unbound(self, eid: uuid.UUID) -> None:
        """A mailbox has lost its owner: another may come."""
        box = self.owners.get(eid)
        if box and not box.process.dead and (box.closing or not box.ended):
            return
        self.owners.pop(eid, None)
        if eid not in self.placing and eid not in self.server.data.gone:
            self._place(eid, soon=self._calm)

    def died(self, process: Process) -> None:
        """A process has ended: another one starts."""
        process.dead = True
        self.start_process()
        for eid in self.entities:
            if self.placing.get(eid) is process:
                del self.placing[eid]
            self.unbound(eid)

    def not_bound(self, eid: uuid.UUID) -> None:
        self.placing.pop(eid, None)
        self.unbound(eid)

    # Work

    def _work(self, eid: uuid.UUID) -> None:
        if self._calm:
            return
        box = self.owners.get(eid)
        if box is not None and not (box.ended or box.process.dead):
            self.clock.after(0.0, box.process, self._burst, box)
        self.clock.after(self.chance.expovariate(1.2), None, self._work, eid)

    def _burst(self, box: Box) -> None:
        dest = self.chance.choice([a for a in self.agents if a != box.eid] or [None])
        if box.ended or dest is None:
            return
        most = 14 if self.chance.random() < 0.1 else 4
        for _ in range(self.chance.randint(1, most)):
            self._tag += 1
            self.ledger.submitted(self._tag)
            box.request(Message(REQUEST, self._tag, box.eid, dest))
            if self.chance.random() < 0.03:
                delay = self.chance.uniform(0.0, 3.0)
                self.clock.after(delay, box.process, box.cancel, self._tag)

    def _place(self, eid: uuid.UUID, *, soon: bool = False) -> None:
        self.placing[eid] = None
        delay = self.chance.choice([0.0, 0.05, 0.5, 2.0, 8.0])
        delay = self.chance.uniform(0.0, 0.1 if soon else delay)
        self.clock.after(delay, None, self.bind_somewhere, eid)

    def bind_somewhere(self, eid: uuid.UUID) -> None:
        process = self.placing[eid] = self.some_process()
        self.clock.after(0.0, process, process.bind, eid)

    def some_process(self) -> Process:
        return self.chance.choice([p for p in self.processes if not p.dead])

    def start_process(self) -> Process:
        self._numbers += 1
        process = Process(self, self._numbers)
        self.processes.append(process)
        return process

    def _tell(self, uid: bytes, kind: str, eid: uuid.UUID, inc: int) -> None:
        process = self.network.nodes[uid].process
        delay = self.latency * self.chance.uniform(0.5, 2.0)
        if self.chance.random() < self.late_news:
            delay += self.chance.uniform(0.0, 3.0)
        self.clock.after(delay, process, process.hear, kind, eid, inc)
