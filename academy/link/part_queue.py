"""Large messages on their way out, which take turns."""

from __future__ import annotations

import collections
import functools
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from academy.link.config import SEGMENT_COST
from academy.link.frame import Frame, Part
from academy.link.parts import Memory, Step, Transfer, cut
from academy.segment import COUNT, ENTRY, Segment

TAIL = 16 * 1024
"""Bytes of the last part of a message that may change while it is sent."""


@dataclass(slots=True, eq=False)
class _Message:
    """A message on its way out.

    Attributes:
        seq: Its number in the stream.
        weight: What it counts for.
        steps: What is to be sent of it.
        left: Bytes of that.
        lent: Whether its memory may change once its sender has given up.
        step: What has been begun of it, and not sent.
        ready: The last segment that is to go on another way.
        begun: Whether something was sent.
        exposed: Whether some of that is the memory itself, not a copy.
    """

    seq: int
    weight: int
    steps: Generator[Step, None, None]
    left: int
    lent: bool
    step: Step | None = None
    ready: Transfer | None = None
    begun: bool = False
    exposed: bool = False

    def take(self, channel: int) -> tuple[Frame | None, int]:
        """Return the next frame, if it is ready, and the bytes that this is worth."""
        step, self.step = self.step, None
        if step is None:
            step = next(self.steps)
        if isinstance(step, Segment):
            return self._take_part(channel, step)
        return self._take_transfer(channel, step)

    def _take_part(self, channel: int, part: Segment) -> tuple[Frame, int]:
        if self.lent and len(part) == self.left:
            part = self._cut_tail(part)
        size = len(part)
        self.left -= size
        self.begun = True
        self.exposed |= type(part) is not bytes
        return Part(channel, self.seq, not self.left, part), size

    def _take_transfer(self, channel: int, way: Transfer) -> tuple[Frame | None, int]:
        if not way.done:
            self.step = way
            return None, way.advance()
        if self.ready is not way:
            self.ready = way
            step = next(self.steps)
            if isinstance(step, Segment):
                self.step = next(self.steps)
                return self._take_part(channel, step)
        self.left -= way.size
        self.begun = True
        return way.frame(channel, self.seq, not self.left), 1

    def _cut_tail(self, part: Segment) -> Segment:
        """Return what goes now of the last part: all but a small copy, or that."""
        view = memoryview(part)
        if len(view) <= TAIL:
            return bytes(view)
        self.step = view[-TAIL:]
        return view[:-TAIL]

    @property
    def at_end(self) -> bool:
        """Whether what goes next is the last of a message whose memory may change."""
        step = self.step
        if not self.lent or step is None or isinstance(step, Segment):
            return self.lent and self.left <= TAIL
        return self.exposed and step.done and step.size == self.left

    def close(self) -> None:
        """Give up what has been begun."""
        self.steps.close()


class PartQueue:
    """Large messages on their way out.

    Those of a channel go one after the other, those of different channels in turn,
    part by part. So that the peer need not keep too much of unfinished messages, only
    so many are begun.

    A message in *lent* memory is not copied. Its last part goes when nothing of the
    others waits to be written any more, and is a copy: so a message that was not taken
    back before that is as it was when its sender let go of it.

    Args:
        size: Size of a part.
        limit: Weight of messages that may be unfinished; a heavier one goes alone.
        memory: Where else than in parts segments may go, if anywhere.
    """

    def __init__(self, size: int, limit: int, memory: Memory | None = None) -> None:
        self._size = size
        self._limit = limit
        self._memory = memory
        self.messages: dict[int, collections.deque[_Message]] = {}
        """By channel, what waits; to look at."""
        self._waiting: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._turns: collections.OrderedDict[int, _Message] = collections.OrderedDict()
        self._begun = 0

    def add(
        self,
        channel: int,
        seq: int,
        segments: Sequence[Segment],
        *,
        lent: bool = False,
        owned: bool = False,
    ) -> None:
        """Append a message of a channel.

        Args:
            channel: Number of the channel.
            seq: Number of the message.
            segments: Its segments.
            lent: Whether their memory may change once it was taken back.
            owned: Whether nobody but the message refers to it, or ever will.
        """
        left = COUNT.size + ENTRY.size * len(segments) + sum(map(len, segments))
        weight = left + SEGMENT_COST * len(segments)
        if self._memory is None:
            steps = cut(segments, self._size)
        else:
            transfer = functools.partial(self._memory.transfer, owned=owned)
            steps = cut(segments, self._size, transfer)
        message = _Message(seq, weight, steps, left, lent)
        queue = self.messages.get(channel)
        if queue is None:
            queue = self.messages[channel] = collections.deque()
            self._waiting[channel] = None
        queue.append(message)

    def take(self, budget: int, *, drained: bool = True) -> list[Frame]:
        """Remove and return parts of so many bytes altogether, or up to one more.

        Args:
            budget: How many bytes.
            drained: Whether all parts that were taken before are written.
        """
        frames: list[Frame] = []
        self._begin()
        while self._turns and budget > 0:
            if (frames or not drained) and self.waits_for_end:
                break
            channel, message = next(iter(self._turns.items()))
            frame, worth = message.take(channel)
            budget -= worth
            if frame is not None:
                frames.append(frame)
            if message.left:
                self._turns.move_to_end(channel)
            else:
                self._finish(channel)
        return frames

    @property
    def waits_for_end(self) -> bool:
        """Whether the next part may only go when all before it are written."""
        message = next(iter(self._turns.values()), None)
        return message is not None and message.at_end

    def take_back(self, channel: int, seq: int) -> bool | None:
        """Forget a message that is not complete.

        Returns:
            Whether parts of it were taken; `None` if it is complete, or not here.
        """
        queue = self.messages.get(channel)
        message = next((m for m in queue or () if m.seq == seq), None)
        if queue is None or message is None:
            return None
        if queue[0] is message:
            if channel in self._turns:
                self._finish(channel)
            else:
                self._next(channel)
        else:
            queue.remove(message)
        return message.begun

    def drop(self, channel: int) -> None:
        """Forget the messages of a channel."""
        for waiting in self.messages.pop(channel, ()):
            waiting.close()
        self._waiting.pop(channel, None)
        message = self._turns.pop(channel, None)
        if message is not None:
            self._begun -= message.weight

    def _begin(self) -> None:
        """Let messages take turns, in the order of their channels' waiting."""
        while self._waiting:
            channel = next(iter(self._waiting))
            message = self.messages[channel][0]
            if self._begun and self._begun + message.weight > self._limit:
                break
            del self._waiting[channel]
            self._turns[channel] = message
            self._begun += message.weight

    def _finish(self, channel: int) -> None:
        self._begun -= self._turns.pop(channel).weight
        self._waiting[channel] = None
        self._next(channel)
        self._begin()

    def _next(self, channel: int) -> None:
        """Forget the first message of a channel, which waits for its turn."""
        queue = self.messages[channel]
        queue.popleft().close()
        if not queue:
            del self.messages[channel], self._waiting[channel]
