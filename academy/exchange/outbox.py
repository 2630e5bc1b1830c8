"""The sending end of a stream to another process: which message goes which way.

A message goes directly while a channel to the destination is open, else through the
queue on the server. The rules that keep it from being lost, overtaken or executed twice
on the way are those of PROTOCOL.md, section 2.4:

- R1: what was sent directly to an incarnation is sent again directly only to the same.
- R2: if it goes into the queue instead, it is stamped with that incarnation. The server
  decides by the stamp (R3): if that incarnation has closed cleanly, it knows what was
  taken; if it is gone otherwise, the message may have been executed and is not queued.
- R4: nothing goes directly while something of the stream is still in the queue.
- R5: an acknowledgement on a channel covers what was sent to its incarnation directly.

What is too large for the queue goes directly only, and what was submitted behind it
waits with it. What finds no room in the queue waits for some, or for the channel.

Pure: calls and the time go in, effects and the next timer come out.
"""

from __future__ import annotations

import bisect
import collections
import uuid
from collections.abc import Sequence

from academy.exchange.flight import QUEUE_LIMIT, Flight, Room
from academy.exchange.parcel import Append, Effect, GiveUp, Parcel, Refuse, SendDirect
from academy.exchange.stream import REQUESTS, SendStream
from academy.exchange.unconfirmed import Unconfirmed
from academy.segment import Segment

RECONNECT_GRACE = 0.3
"""Seconds that messages wait for a lost channel to come back."""
BARRIER_TIMEOUT = 1.0
"""Seconds that messages wait for earlier ones to leave the queue, before they are
queued behind them: those may be lost."""
SLOW = 2.0
"""Seconds for which nothing waits like that again: the consumer does not keep up."""
DIRECT_TIMEOUT = 10.0
"""Seconds that what is too large for the queue waits for a channel. To find the process
takes one round trip to the server, and to connect to it 3 s at most; but the process
may be starting."""
UNREACHABLE_TIMEOUT = 21.0
"""Seconds that messages wait for a way while the server is away, too. With the six that
it takes to notice a silent peer, and three for a silent server, that makes 30."""


class Outbox:
    """Messages of one stream that are not known to be taken or queued.

    They are in three places: *sent* on the channel and not confirmed, *appending* to
    the queue, or *held*. What is held was submitted last.

    Args:
        stream: The stream.
        window_messages: Messages that may be unconfirmed on the channel; 0 for any.
        window_bytes: Bytes of these; a single larger message is sent alone.
        queue_limit: Bytes of the largest message that the queue takes.
        direct: Whether there are channels at all.
    """

    def __init__(
        self,
        stream: SendStream,
        window_messages: int,
        window_bytes: int,
        queue_limit: int = QUEUE_LIMIT,
        *,
        direct: bool = True,
    ) -> None:
        self.stream = stream
        self._queue_limit = queue_limit
        self._direct = direct
        self._direct_until = 0.0
        self._held: collections.deque[Parcel] = collections.deque()
        self._sent = Unconfirmed(window_messages, window_bytes)
        self._flight = Flight(stream)
        self.incarnation = 0
        """Incarnation that the channel is open to; 0 if there is no channel."""
        self._accepted = 0
        self._stopped = False
        self._wait_until: float | None = None
        self._away_since: float | None = None
        self._slow_until = 0.0

    def __len__(self) -> int:
        return len(self._held) + len(self._sent) + len(self._flight)

    @property
    def is_direct(self) -> bool:
        """Whether the next message would go directly, window permitting."""
        current = self.incarnation and not self._stopped
        return bool(current) and self._accepted >= self.stream.relayed

    @property
    def unconfirmed(self) -> int:
        """How many messages were sent on the channel and are not confirmed."""
        return len(self._sent)

    @property
    def short(self) -> bool:
        """Whether messages wait for room in the queue; see `room`."""
        return self._flight.short and bool(self._held)

    def tags(self) -> list[uuid.UUID]:
        """Return the tags of the messages here."""
        parts = (self._sent, self._held, self._flight)
        return [p.tag for part in parts for p in part if p.kept]

    def expect(self, now: float) -> None:
        """Have messages wait for a moment: a channel may be open soon."""
        if self._wait_until is None and not self.incarnation:
            self._wait(now + RECONNECT_GRACE)

    def submit(
        self,
        kind: str,
        tag: uuid.UUID,
        segments: Sequence[Segment],
        now: float,
        size: int | None = None,
    ) -> tuple[Parcel, list[Effect] | None]:
        """Take a message; it gets the next number of the stream.

        Returns:
            Its parcel, and effects; `None` for them if it is to be sent on the channel
            now, and nothing else is to be done.

        Args:
            kind: Kind of its queue entry.
            tag: Its tag.
            segments: The serialized message.
            now: The time.
            size: Bytes of the segments, if that is known.
        """
        if size is None:
            size = sum(map(len, segments))
        parcel = Parcel(self.stream.next(), kind, tag, segments, size, now)
        # Replies have room, but for cancels, which must not hold them up.
        parcel.patient = self.stream.lane == REQUESTS
        if self.is_direct and not self._held and self._sent.has_room(size):
            if self._wait_until is not None:
                self._wait(None)
            self._sent.add(parcel, self.incarnation)
            return parcel, None
        self._held.append(parcel)
        if size > self._queue_limit and self._direct and not self.incarnation:
            self._await_channel(now)
        return parcel, self._pump(now)

    def withdraw(self, parcel: Parcel) -> bool:
        """Take a message back; return whether it had not been sent anywhere."""
        parcel.patient = False
        if parcel.fresh and parcel in self._held:
            self.drop(parcel)
            return True
        return False

    def take_back(self, parcel: Parcel, now: float, *, unsent: bool) -> list[Effect]:
        """Do not send a message whose call has ended.

        Args:
            parcel: The message.
            now: The time.
            unsent: Whether it is certain that the channel has not carried all of it.
        """
        if not unsent or parcel not in self._sent:
            self.drop(parcel)
            return []
        self._sent.remove(parcel)
        parcel.release()
        return self._pump(now)

    def drop(self, parcel: Parcel) -> None:
        """Do not send a message again: its fate is known otherwise.

        What is being appended to the queue is left to the server, and not appended
        again. What was sent on the channel still counts there until it is confirmed.
        """
        parcel.patient = False
        if parcel in self._flight:
            return
        parcel.release()
        if parcel in self._held:
            self._held.remove(parcel)

    def channel_open(self, inc: int, accepted: int, now: float) -> list[Effect]:
        """Note that a channel is open; another one is given up for it.

        Args:
            inc: Incarnation of the destination.
            accepted: Highest number of the stream that has arrived there.
            now: The time.
        """
        self._hold_sent()
        self.incarnation = inc
        self._stopped = False
        self._accepted = accepted
        self._wait(None)
        # What has arrived is not sent again; its confirmation will come.
        while self._held and self._held[0].inc == inc and self._held[0].seq <= accepted:
            if not self._sent.has_room(self._held[0].size):
                break
            self._sent.add(self._held.popleft(), inc)
        return self._pump(now)

    def stop(self) -> None:
        """Send nothing more on the channel: its incarnation is not the owner any more.

        That will soon say what it has taken, and end the channel; if not, it is to be
        given up with `channel_lost`. Until then messages wait.
        """
        if self.incarnation:
            self._stopped = True
            self._wait(None)

    def channel_lost(
        self, now: float, *, grace: bool, ended: bool = False
    ) -> list[Effect]:
        """Note that the channel has ended.

        Args:
            now: The time.
            grace: Whether it may be back soon, so that messages wait for it.
            ended: Whether its incarnation has ended it, after its last confirmation:
                what is not confirmed it has not taken, and never will; at most it has
                given it back to the queue, under the same number.
        """
        if ended:
            for parcel in self._sent:
                parcel.inc = 0
            self._flight.learn(None)  # What was given back needs no room.
        self._hold_sent()
        self.incarnation = 0
        self._stopped = False
        self._direct_until = 0.0
        self._wait(now + RECONNECT_GRACE if grace else None)
        if grace and any(p.size > self._queue_limit for p in self._held):
            self._await_channel(now)
        return self._pump(now)

    def no_channel(self, now: float) -> list[Effect]:
        """Note that there is nobody to have a channel to now.

        What is too large for the queue waits on, for somebody may be about to come.
        """
        if self.incarnation:
            return []
        self._wait(None)
        return self._pump(now)

    def taken(self, seq: int, now: float) -> tuple[list[Parcel], list[Effect]]:
        """Note a confirmation; return the messages that it confirms, and effects."""
        self._accepted = max(self._accepted, seq)
        confirmed = [p for p in self._sent.confirmed(seq) if p.kept]
        for parcel in confirmed:
            parcel.release()
        idle = not self._held and self._wait_until is None
        return confirmed, [] if idle else self._pump(now)

    def appended(self, parcel: Parcel, now: float, *, arrived: bool) -> list[Effect]:
        """Note the end of an `Append`, and whether it has, or may have, arrived."""
        self._flight.remove(parcel, arrived=arrived)
        parcel.release()
        return self._pump(now)

    def refused(self, parcel: Parcel, now: float) -> list[Effect]:
        """Note that there was no room for a patient message: it is held again."""
        self._flight.refused(parcel)
        place = bisect.bisect(self._held, parcel.seq, key=lambda p: p.seq)
        self._held.insert(place, parcel)
        return self._pump(now)

    def returned(self, seq: int) -> None:
        """Note that a message goes into the queue that did not come from here (R4)."""
        self._flight.returned(seq)

    def room(self, room: Room | None, now: float) -> list[Effect]:
        """Note how much room there is in the queue, after all answers so far.

        Args:
            room: The room; `None` to send everything there, whatever comes of it.
            now: The time.
        """
        self._flight.learn(room)
        return self._pump(now)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, if it is."""
        return self._wait_until

    def handle_timer(self, now: float, *, relay_up: bool) -> list[Effect]:
        """Do what is due.

        Args:
            now: The time.
            relay_up: Whether the server answers. If not, messages wait for a channel.
        """
        if self._wait_until is None or now < self._wait_until:
            return []
        if not relay_up:
            self._wait_until = now + RECONNECT_GRACE
            return self._give_up(now)
        self._wait(None)
        if self.incarnation:
            self._slow_until = now + SLOW
        return self._append_held(now)

    def _pump(self, now: float) -> list[Effect]:
        if not self.incarnation:
            return [] if self._wait_until is not None else self._append_held(now)
        if self._stopped:
            return []
        effects: list[Effect] = []
        blocked = False
        while self._held:
            parcel = self._held[0]
            blocked = self._accepted < self.stream.relayed
            if self._queue_only(parcel, slow=blocked and now < self._slow_until):
                if not self._may_append(parcel):
                    break
                effects.append(self._append(self._held.popleft()))
                continue
            if blocked or not self._sent.has_room(parcel.size):
                break
            self._sent.add(self._held.popleft(), self.incarnation)
            effects.append(SendDirect(parcel))
        if not (blocked and self._held):
            self._wait(None)
        elif self._wait_until is None:
            self._wait(now + BARRIER_TIMEOUT)
        return effects

    def _queue_only(self, parcel: Parcel, *, slow: bool) -> bool:
        if parcel.inc not in (0, self.incarnation):
            return True
        if parcel.size > self._queue_limit:
            return False
        # It may have been given back; or was refused by the queue, but has arrived.
        return slow or not (parcel.fresh or parcel.inc) or parcel.seq <= self._accepted

    def _wait(self, until: float | None) -> None:
        self._wait_until = until
        self._away_since = None

    def _await_channel(self, now: float) -> None:
        """Have what is too large for the queue wait for a channel."""
        self._direct_until = now + DIRECT_TIMEOUT
        if self._wait_until is None:
            self._wait(self._direct_until)

    def _append_held(self, now: float) -> list[Effect]:
        """Append what is held, up to what is too large and may still go directly."""
        effects: list[Effect] = []
        while self._held:
            parcel = self._held[0]
            if parcel.size > self._queue_limit:
                until = self._direct_until
                if self.incarnation:
                    # What is before it in the queue may be lost, and never leave it.
                    until = parcel.since + UNREACHABLE_TIMEOUT
                if now < until:
                    self._wait(min(until, now + BARRIER_TIMEOUT))
                    break
            if not self._may_append(parcel):
                break
            effects.append(self._append(self._held.popleft()))
        return effects

    def _may_append(self, parcel: Parcel) -> bool:
        # Should the channel get lost, what is on it follows: it must not be overtaken.
        fits = not self._sent and self._flight.takes(parcel)
        return fits or parcel.size > self._queue_limit

    def _append(self, parcel: Parcel) -> Append | Refuse:
        if parcel.size > self._queue_limit:
            parcel.release()
            return Refuse(parcel)
        self._flight.add(parcel)
        return Append(parcel, parcel.inc)

    def _give_up(self, now: float) -> list[Effect]:
        if self._away_since is None:
            self._away_since = now
        effects: list[Effect] = []
        while self._held:
            parcel = self._held[0]
            if now < max(parcel.since, self._away_since) + UNREACHABLE_TIMEOUT:
                break
            self._held.popleft().release()
            effects.append(GiveUp(parcel))
        return effects

    def _hold_sent(self) -> None:
        # What was refused by the queue may be older.
        held = [*(p for p in self._sent.clear() if p.kept), *self._held]
        self._held = collections.deque(sorted(held, key=lambda p: p.seq))
