"""What goes wrong, at random times, until all is well again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

WEIGHTS = {
    "cut": 6,
    "block": 2,
    "crash": 2,
    "move": 4,
    "take_over": 2,
    "pause": 2,
    "stop": 1,
    "outage": 2,
    "break_off": 3,
    "slow_down": 2,
}
"""Kinds of faults, and how often they strike."""
RARE = {"flush": 2, "terminate": 1}
"""Kinds that only a few worlds have."""
GENTLE = ("cut", "block", "move", "stop", "break_off", "slow_down")
"""Kinds that must not lead to an error for what was not executed."""


class Faults:
    """The faults of a world.

    Args:
        world: The world.
        names: Kinds of faults; chosen at random if there are none.
    """

    def __init__(self, world: World, names: Sequence[str]) -> None:
        self.world = world
        self.clock = world.clock
        self.chance = world.chance
        self.names = list(names) or self._choose()
        self.gentle = set(self.names) <= set(GENTLE)
        self._rate = self.chance.choice([0.5, 1.0, 2.0, 4.0])
        self._over = False

    def begin(self) -> None:
        """Strike from now on."""
        self.clock.after(self.chance.uniform(0.2, 2.0), None, self._strike)

    def end(self) -> None:
        """Undo everything, and strike no more."""
        world = self.world
        self._over = True
        if world.server.down:
            late = self.chance.uniform(20.0, 50.0) if self.chance.random() < 0.1 else 0
            world.ledger.excused = world.ledger.excused or late > 0
            self.clock.after(late, None, self._come_back)
        world.network.heal()
        for process in world.processes:
            self.clock.resume(process)

    def _choose(self) -> list[str]:
        rare = {n: weight for n, weight in RARE.items() if self.chance.random() < 0.15}
        weights = WEIGHTS | rare
        if self.chance.random() < 0.1:
            weights = {name: weights[name] for name in GENTLE}
        share = self.chance.uniform(0.3, 1.0)
        return [
            name
            for name, weight in weights.items()
            if self.chance.random() < share
            for _ in range(weight)
        ]

    def _strike(self) -> None:
        if self._over or not self.names:
            return
        getattr(self, self.chance.choice(self.names))()
        self.clock.after(self.chance.expovariate(self._rate), None, self._strike)

    def _later(self, least: float, most: float, undo: Callable[[], object]) -> None:
        delay = self.chance.uniform(least, most)
        self.clock.after(delay, None, lambda: self._over or undo())

    # The network

    def cut(self) -> None:
        """A connection breaks."""
        network = self.world.network
        ends = [e for e in network.ends if e.open and e.other.open]
        if ends:
            network.cut(self.chance.choice(ends))

    def block(self) -> None:
        """Two processes cannot hear each other, or one of them the other."""
        network = self.world.network
        living = [p.uid for p in self.world.processes if not p.dead]
        a, b = self.chance.sample(living, 2)
        network.block(a, b)
        if self.chance.random() < 0.7:
            network.block(b, a)
        self._later(0.5, 14.0, network.heal)

    # Processes and their mailboxes

    def crash(self) -> None:
        """A process dies, or its host vanishes."""
        process = self.world.some_process()
        process.node.die(vanish=self.chance.random() < 0.3)
        for box in process.boxes.values():
            for tag in list(box.awaited):
                box.settle(tag, "Crashed", "maybe")
            box.ended = True
        self.world.died(process)
        if self.chance.random() < 0.5:
            delay = self.chance.uniform(0.0, 0.5)
            self.clock.after(delay, None, self._found_dead, process)

    def _found_dead(self, process: Process) -> None:
        """The processes of its host see that a process is gone."""
        for other in self.world.processes:
            if not other.dead:
                self.clock.after(0.0, other, other.lost, process.uid)
        if not self.world.server.down:
            self.world.server.leave(process.uid)

    def pause(self) -> None:
        """A process is stopped, and goes on later."""
        process = self.world.some_process()
        process.paused = True
        self._later(0.2, 14.0, lambda: self.clock.resume(process))

    def stop(self) -> None:
        """A process ends in good order."""
        process = self.world.some_process()
        if process.paused:
            return
        for box in list(process.boxes.values()):
            box.close()
        self.clock.after(1.0, process, self._leave, process)

    def _leave(self, process: Process) -> None:
        if not process.boxes:
            process.commands.call(
                "leave", process.uid, done=lambda *_: self._stopped(process)
            )

    def _stopped(self, process: Process) -> None:
        if not process.boxes:
            process.node.close()
            self.world.died(process)

    def move(self) -> None:
        """A mailbox is closed cleanly, and will be bound elsewhere."""
        boxes = [b for b in self.world.owners.values() if not b.process.paused]
        if boxes:
            self.chance.choice(boxes).close()

    def take_over(self) -> None:
        """A mailbox is bound while its owner lives."""
        eid = self.chance.choice(self.world.entities)
        if eid in self.world.owners and eid not in self.world.placing:
            self.world.bind_somewhere(eid)

    def slow_down(self) -> None:
        """A consumer does not keep up."""
        eid = self.chance.choice(self.world.entities)
        self.world.slow[eid] = self.chance.choice([0.02, 0.2, 1.0])
        self._later(0.5, 5.0, lambda: self.world.slow.pop(eid, None))

    def terminate(self) -> None:
        """A mailbox is closed for good."""
        eid = self.chance.choice(self.world.agents)
        process = self.world.some_process()
        self.clock.after(0.0, process, process.terminate, eid)

    # The server

    def outage(self) -> None:
        """The server goes away for a while."""
        if self.world.server.down:
            return
        for process in self.world.processes:
            process.commands.break_off()
        self.world.server.down = True
        longest = self.chance.choice([1.0, 1.0, 5.0, 12.0, 40.0])
        self._later(0.1, longest, self._come_back)

    def _come_back(self) -> None:
        self.world.server.down = False
        for process in self.world.processes:
            self._gap(process, 0.5)

    def break_off(self) -> None:
        """The connections of a process to the server break."""
        process = self.chance.choice(self.world.processes)
        process.commands.break_off()
        self._gap(process, 0.3)

    def _gap(self, process: Process, most: float) -> None:
        """The reader of the wake stream has noticed that it was cut off."""
        delay = self.chance.uniform(0.0, most)
        self.clock.after(delay, process, process.restore)

    def flush(self) -> None:
        """The server loses everything."""
        self.world.server.flush()
        self.world.ledger.excused = True

    def roll_back(self) -> None:
        """The server loses its last writes."""
        self.world.server.save()
        self.world.ledger.excused = True
        self._later(0.01, 1.0, self.world.server.roll_back)
