"""Two tap devices joined by a wire that takes its time.

Run as `python -m tests.network.wire ONE OTHER SECONDS`. It makes the two devices, says
`ready`, and carries each Ethernet frame from one to the other, that long after it came
and in order, until its standard input ends. The devices go on working when they are
moved into other namespaces, and are gone when the process is.
"""

from __future__ import annotations

import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
LARGEST_FRAME = 65_536


def tap(name: str) -> int:
    """Make a tap device and return its file descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(
        fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
    )
    return fd


class Wire:
    """Carries frames between two devices, in both directions."""

    def __init__(self, one: int, other: int, delay: float) -> None:
        self._far_end = {one: other, other: one}
        self._delay = delay
        self._frames: collections.deque[tuple[float, int, bytes]] = collections.deque()

    def run(self, stop: int) -> None:
        while True:
            due = self._frames[0][0] - time.monotonic() if self._frames else None
            wait = None if due is None else max(0.0, due)
            ready, _, _ = select.select([stop, *self._far_end], [], [], wait)
            if stop in ready:
                return
            for end in ready:
                self._read(end)
            self._deliver()

    def _read(self, end: int) -> None:
        due = time.monotonic() + self._delay
        while True:
            try:
                frame = os.read(end, LARGEST_FRAME)
            except BlockingIOError:
                return
            except OSError:
                return  # the device is down
            self._frames.append((due, self._far_end[end], frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._frames and self._frames[0][0] <= now:
            _, end, frame = self._frames.popleft()
            try:
                os.write(end, frame)
            except OSError:
                continue  # its queue is full, or it is down: a lost frame


def main() -> None:
    one, other, delay = sys.argv[1:]
    wire = Wire(tap(one), tap(other), float(delay))
    print("ready", flush=True)
    wire.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
