"""The world: what processes do, what goes wrong, and the end in which all is well.

A seed decides everything: how many processes and mailboxes there are, who sends what
when, which kinds of faults there are, and when they strike.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

from tests.simulation.box import Box
from tests.simulation.check import Ledger, Result
from tests.simulation.clock import Clock
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
        rollback: Whether the server may also lose its last writes.
    """

    def __init__(
        self, seed: int, rules: Rules = FULL, *, rollback: bool = False
    ) -> None:
        self.seed = seed
        self.rules = rules
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.ledger = Ledger()
        # From quick to so slow that everything crosses on the way.
        self.latency = 10 ** self.chance.uniform(-3.5, -0.7)
        self.fault_rate = self.chance.choice([0.5, 1.0, 2.0, 4.0])
        self.network = Network(
            self.clock, self.chance, 10 ** self.chance.uniform(-3.5, -0.7)
        )
        self.server = rules.server(self.clock, self._tell)
        self.direct = self.chance.random() < 0.95
        self.processes: list[Process] = []
        self._numbers = 0
        self._tag = 0
        self._calm = False
        self._slow: dict[uuid.UUID, float] = {}
        self._owners: dict[uuid.UUID, Box] = {}
        self._placing: dict[uuid.UUID, Process | None] = {}
        clients, agents = self.chance.randint(1, 3), self.chance.randint(1, 3)
        self.clients = [entity(1 + n) for n in range(clients)]
        self.agents = [entity(1 + clients + n) for n in range(agents)]
        self._faults = self._choose_faults(rollback)

    # A run

    def run(self) -> Result:
        """Let everything happen, and judge it."""
        for _ in range(self.chance.randint(2, 4)):
            self._start_process()
        for eid in (*self.clients, *self.agents):
            self.server.register(eid)
            self._place(eid, soon=True)
        for eid in (*self.clients, *self.clients, *self.agents):
            self.clock.after(self.chance.uniform(0, 1), None, self._work, eid)
        self.clock.after(self.chance.uniform(0.2, 2), None, self._strike)
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
        self._slow.clear()
        if self.server.down:
            late = self.chance.uniform(30.0, 50.0) if self.chance.random() < 0.1 else 0
            self.clock.after(late, None, self._back)
        self.network.heal()
        for process in self.processes:
            self.clock.resume(process)
        for eid in (*self.clients, *self.agents):
            if eid not in self._owners and eid not in self._placing:
                self._place(eid, soon=True)

    def _empty_queues(self) -> None:
        """Have new owners take whatever is left anywhere."""
        self.clock.run(self.clock.now + 1.0)
        for eid in (*self.clients, *self.agents):
            box = self._owners.get(eid)
            if box is not None:
                box.close()
        self.clock.run(self.clock.now + 2.0)

    # What the processes of the world ask

    def padding(self, tag: int) -> list[bytes]:
        """Return what a message carries."""
        choice = self.chance.random()
        if choice < 0.7:
            return []
        return [bytes(self.chance.randint(1, 40 if choice < 0.9 else 300))]

    def think(self, eid: uuid.UUID) -> float:
        """How long a consumer needs for a message."""
        return self.chance.uniform(0.0, self._slow.get(eid, 0.002))

    def work(self) -> float:
        """How long a request takes to execute."""
        choice = self.chance.random()
        if choice < 0.8:
            return self.chance.uniform(0.0, 0.05)
        return self.chance.uniform(0.0, 1.0 if choice < 0.97 else 12.0)

    def bound(self, box: Box) -> None:
        self._owners[box.eid] = box
        self._placing.pop(box.eid, None)

    def unbound(self, eid: uuid.UUID) -> None:
        """A mailbox has lost its owner: another may come."""
        if self._owners.get(eid) is not None and not self._owners[eid].ended:
            return
        self._owners.pop(eid, None)
        if eid not in self._placing and eid not in self.server.data.gone:
            self._place(eid, soon=self._calm)

    def not_bound(self, eid: uuid.UUID) -> None:
        self._placing.pop(eid, None)
        self.unbound(eid)

    # Work

    def _work(self, eid: uuid.UUID) -> None:
        if self._calm:
            return
        box = self._owners.get(eid)
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
        self._placing[eid] = None
        delay = self.chance.choice([0.0, 0.05, 0.5, 2.0, 8.0])
        delay = self.chance.uniform(0.0, 0.1 if soon else delay)
        self.clock.after(delay, None, self._bind, eid)

    def _bind(self, eid: uuid.UUID) -> None:
        process = self._placing[eid] = self._some_process()
        self.clock.after(0.0, process, process.bind, eid)

    def _some_process(self) -> Process:
        return self.chance.choice([p for p in self.processes if not p.dead])

    def _start_process(self) -> Process:
        self._numbers += 1
        process = Process(self, self._numbers)
        self.processes.append(process)
        return process

    def _tell(self, uid: bytes, kind: str, eid: uuid.UUID, inc: int) -> None:
        process = self.network.nodes[uid].process
        delay = self.latency * self.chance.uniform(0.5, 2.0)
        self.clock.after(delay, process, process.hear, kind, eid, inc)

    # Faults

    def _choose_faults(self, rollback: bool) -> list[Callable[[], object]]:
        faults: list[tuple[Callable[[], object], int]] = [
            (self._cut, 6),
            (self._block, 2),
            (self._crash, 2),
            (self._move, 4),
            (self._take_over, 2),
            (self._pause, 2),
            (self._stop, 1),
            (self._outage, 2),
            (self._break_off, 3),
            (self._slow_down, 2),
        ]
        if self.chance.random() < 0.15:
            faults.append((self._flush, 2))
        if self.chance.random() < 0.15:
            faults.append((self._terminate, 1))
        if rollback:
            faults.append((self._roll_back, 3))
        share = self.chance.uniform(0.3, 1.0)
        return [
            fault
            for fault, weight in faults
            if self.chance.random() < share
            for _ in range(weight)
        ]

    def _strike(self) -> None:
        if self._calm or not self._faults:
            return
        self.chance.choice(self._faults)()
        pause = self.chance.expovariate(self.fault_rate)
        self.clock.after(pause, None, self._strike)

    def _later(self, least: float, most: float, undo: Callable[[], object]) -> None:
        delay = self.chance.uniform(least, most)
        self.clock.after(delay, None, lambda: self._calm or undo())

    def _cut(self) -> None:
        ends = [e for e in self.network.ends if e.open and e.other.open]
        if ends:
            self.network.cut(self.chance.choice(ends))

    def _block(self) -> None:
        a, b = self.chance.sample([p.uid for p in self.processes if not p.dead], 2)
        self.network.block(a, b)
        if self.chance.random() < 0.7:
            self.network.block(b, a)
        self._later(0.5, 14.0, self.network.heal)

    def _crash(self) -> None:
        process = self._some_process()
        process.node.die(vanish=self.chance.random() < 0.3)
        for box in process.boxes.values():
            for tag in list(box.awaited):
                box.settle(tag, "Crashed", "maybe")
            box.ended = True
        self._died(process)

    def _died(self, process: Process) -> None:
        process.dead = True
        self._start_process()
        for eid in (*self.clients, *self.agents):
            if self._placing.get(eid) is process:
                del self._placing[eid]
            self.unbound(eid)

    def _stop(self) -> None:
        """A process ends in good order."""
        process = self._some_process()
        if process.paused:
            return
        for box in list(process.boxes.values()):
            box.close()
        self.clock.after(1.0, process, self._leave, process)

    def _leave(self, process: Process) -> None:
        if process.boxes:
            return
        process.commands.call(
            "leave", process.uid, done=lambda *_: self._stopped(process)
        )

    def _stopped(self, process: Process) -> None:
        if not process.boxes:
            process.node.close()
            self._died(process)

    def _move(self) -> None:
        """A mailbox is closed cleanly, and bound elsewhere."""
        boxes = [b for b in self._owners.values() if not b.process.paused]
        if boxes:
            self.chance.choice(boxes).close()

    def _take_over(self) -> None:
        """A mailbox is bound while its owner lives."""
        eid = self.chance.choice([*self.clients, *self.agents])
        if eid in self._owners and eid not in self._placing:
            self._bind(eid)

    def _pause(self) -> None:
        process = self._some_process()
        process.paused = True
        self._later(0.2, 14.0, lambda: self.clock.resume(process))

    def _outage(self) -> None:
        if self.server.down:
            return
        for process in self.processes:
            process.commands.break_off()
        self.server.down = True
        longest = self.chance.choice([1.0, 1.0, 5.0, 12.0, 40.0])
        self._later(0.1, longest, self._back)

    def _back(self) -> None:
        self.server.down = False
        for process in self.processes:
            self.clock.after(self.chance.uniform(0.0, 0.5), process, process.restore)

    def _break_off(self) -> None:
        process = self.chance.choice(self.processes)
        process.commands.break_off()
        self.clock.after(self.chance.uniform(0.0, 0.3), process, process.restore)

    def _slow_down(self) -> None:
        eid = self.chance.choice([*self.clients, *self.agents])
        self._slow[eid] = self.chance.choice([0.02, 0.2, 1.0])
        self._later(0.5, 5.0, lambda: self._slow.pop(eid, None))

    def _terminate(self) -> None:
        eid = self.chance.choice(self.agents)
        process = self._some_process()
        self.clock.after(0.0, process, process.terminate, eid)

    def _flush(self) -> None:
        self.server.flush()
        self.ledger.emptied = True

    def _roll_back(self) -> None:
        self.server.save()
        self.ledger.emptied = True
        self._later(0.01, 1.0, self.server.roll_back)
