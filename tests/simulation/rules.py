"""The rules of the protocol, and what it is without one of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from academy.exchange.outbox import Outbox
from academy.exchange.parcel import Append, Effect, Parcel, Refuse
from academy.exchange.stream import Mark, Offer, Received
from tests.simulation.box import Box, Delivery
from tests.simulation.server import Reply, Server


@dataclass(frozen=True)
class Rules:
    """What the processes of a world are made of."""

    outbox: Callable[..., Outbox] = Outbox
    received: Callable[[int, Mapping[str, Mark]], Received] = Received
    server: type[Server] = Server
    consume: Callable[[Box, Delivery], None] = Box.consume
    audit: bool = True
    newer: bool = True
    """Whether a channel to a former incarnation is left when one hears of a newer."""
    last_ack: bool = True
    """Whether who ends a channel acknowledges first what was consumed."""
    careful: bool = True
    """Whether a message gets a new number only when nobody can have it."""


class Unstamped(Outbox):
    """R2: what was sent directly goes into the queue as if it had not been."""

    def _append(self, parcel: Parcel) -> Append | Refuse:
        effect = super()._append(parcel)
        return Append(parcel, 0) if isinstance(effect, Append) else effect


class Overtaking(Outbox):
    """R4: goes directly although earlier messages are in the queue."""

    def channel_open(self, inc: int, accepted: int, now: float) -> list[Effect]:
        self.stream.relayed = 0
        return super().channel_open(inc, accepted, now)

    def appended(self, parcel: Parcel, now: float, *, arrived: bool) -> list[Effect]:
        self._flight._arrived = 0
        return super().appended(parcel, now, arrived=False)


class Resending(Outbox):
    """R1, R3: sends again to whoever is there."""

    def channel_open(self, inc: int, accepted: int, now: float) -> list[Effect]:
        self._hold_sent()
        for parcel in self._held:
            parcel.inc = 0
        return super().channel_open(inc, accepted, now)


class Believing(Outbox):
    """R5: applies what one incarnation acknowledges to what another was sent."""

    def _hold_sent(self) -> None:
        pass


class Forgetful(Received):
    """Takes what it has taken before."""

    def offer(self, stream: str, seq: int) -> Offer:
        offer = super().offer(stream, seq)
        return Offer.NEW if offer is Offer.DUPLICATE else offer


class Unfenced(Server):
    """Gives messages to whoever asks."""

    def take(
        self, eid: uuid.UUID, inc: int, count: int, after: tuple[int, int]
    ) -> Reply:
        box = self.data.mailboxes.get(eid)
        if box is None:
            return super().take(eid, inc, count, after)
        owner, box.inc = box.inc, inc
        reply = super().take(eid, inc, count, after)
        box.inc = owner
        return reply


class Forgetting(Server):
    """Remembers only the last incarnation that closed cleanly, not those before."""

    def close(self, *args: Any) -> Reply:
        reply = super().close(*args)
        box = self.data.mailboxes.get(args[0])
        if box is not None:
            box.since = box.closed
        return reply


def _no_marks(inc: int, marks: Mapping[str, Mark]) -> Received:
    return Received(inc, {})


def _acknowledge_first(box: Box, delivery: Delivery) -> None:
    """R6: acknowledges, and refuses when it finds the time."""
    if not delivery.refused:
        box.consume(delivery)
        return
    box.note_consumed(delivery)
    box.clock.after(1.0, box.process, _refuse, box, delivery)


def _refuse(box: Box, delivery: Delivery) -> None:
    if not box.ended:
        box.use(delivery)


@dataclass(frozen=True)
class Ablation:
    """The protocol without a rule, in a world that needs it.

    Attributes:
        rules: What is left.
        faults: What goes wrong in that world.
        symptom: What comes of it, by its name in a `Result`.
    """

    rules: Rules
    faults: tuple[str, ...]
    symptom: str


FULL = Rules()
WITHOUT = {
    "stamp": Ablation(Rules(outbox=Unstamped), ("cut", "crash", "take_over"), "twice"),
    "barrier": Ablation(Rules(outbox=Overtaking), ("cut", "move"), "lost"),
    "dedup": Ablation(Rules(received=Forgetful), ("cut", "block"), "twice"),
    "resend": Ablation(Rules(outbox=Resending), ("crash",), "twice"),
    "acks": Ablation(Rules(outbox=Believing), ("cut", "crash", "move"), "lost"),
    "last_ack": Ablation(Rules(last_ack=False), ("take_over",), "twice"),
    "fence": Ablation(Rules(server=Unfenced), ("take_over",), "twice"),
    "handoff": Ablation(Rules(received=_no_marks), ("crash", "take_over"), "twice"),
    "run": Ablation(
        Rules(server=Forgetting), ("move", "cut", "cut", "cut"), "needless"
    ),
    "bounce": Ablation(
        Rules(consume=_acknowledge_first), ("cut", "crash", "move"), "lost"
    ),
    "newer": Ablation(Rules(newer=False), ("take_over",), "lost"),
    "careful": Ablation(Rules(careful=False), ("flush", "break_off"), "twice"),
    "audit": Ablation(Rules(audit=False), ("crash", "cut"), "hung"),
}
"""Per rule, the protocol without it."""
