"""The rules of the protocol, and what it is without one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from academy.exchange.outbox import Append, Effect, Outbox, Parcel
from academy.exchange.stream import Mark, Offer, Received
from tests.simulation.box import Box, Delivery
from tests.simulation.server import Server


@dataclass(frozen=True)
class Rules:
    """What the processes of a world are made of."""

    outbox: Callable[..., Outbox] = Outbox
    received: Callable[[int, Mapping[str, Mark]], Received] = Received
    server: type[Server] = Server
    consume: Callable[[Box, Delivery], None] = Box.consume
    audit: bool = True


class Unstamped(Outbox):
    """R2: what was sent directly goes into the queue as if it had not been."""

    def _append(self, parcel: Parcel) -> Append:
        return Append(super()._append(parcel).parcel, 0)


class Overtaking(Outbox):
    """R4: goes directly although earlier messages are in the queue."""

    def channel_open(self, inc: int, accepted: int, now: float) -> list[Effect]:
        self.stream.relayed = 0
        return super().channel_open(inc, accepted, now)

    def appended(self, parcel: Parcel, now: float, *, arrived: bool) -> list[Effect]:
        self._queued = 0
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

    def take(self, eid, inc, count, after):  # type: ignore[no-untyped-def]
        if eid in self.data.mailboxes:
            owner, self.data.mailboxes[eid].inc = self.data.mailboxes[eid].inc, inc
            reply = super().take(eid, inc, count, after)
            self.data.mailboxes[eid].inc = owner
            return reply
        return super().take(eid, inc, count, after)


def _no_marks(inc: int, marks: Mapping[str, Mark]) -> Received:
    return Received(inc, {})


def _acknowledge_first(box: Box, delivery: Delivery) -> None:
    """R6: acknowledges, and refuses when it finds the time."""
    if not delivery.refused:
        box.consume(delivery)
        return
    box.note_consumed(delivery)
    box.clock.after(0.2, box.process, lambda: box.ended or box.use(delivery))


FULL = Rules()
WITHOUT = {
    "stamp": Rules(outbox=Unstamped),
    "barrier": Rules(outbox=Overtaking),
    "dedup": Rules(received=Forgetful),
    "resend": Rules(outbox=Resending),
    "acks": Rules(outbox=Believing),
    "fence": Rules(server=Unfenced),
    "handoff": Rules(received=_no_marks),
    "bounce": Rules(consume=_acknowledge_first),
    "audit": Rules(audit=False),
}
"""Per rule, the protocol without it."""
