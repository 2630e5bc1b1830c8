"""Listens to a device: what somebody on the wire would see."""

from __future__ import annotations

import base64
import collections
import select
import socket
import struct
import threading
from types import TracebackType
from typing import Self

ALL_PROTOCOLS = 3
IPV4, IPV6, TCP = 0x0800, 0x86DD, 6
ETHERNET = 14
LARGEST = 1 << 17
FORCE_BUFFER = 33
"""`SO_RCVBUFFORCE`, which Python does not name."""


class Capture:
    """What TCP carries over a device, both ways; a context manager.

    Args:
        device: The device.
        without: Port whose traffic is left out: that of the server.
    """

    def __init__(self, device: str, without: int) -> None:
        self._without = without
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, FORCE_BUFFER, 64 << 20)
        self._socket.bind((device, 0))
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="capture")
        self._streams: dict[bytes, bytearray] = collections.defaultdict(bytearray)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._socket.close()

    @property
    def data(self) -> bytes:
        """All that was said, connection by connection."""
        return b"\0".join(bytes(stream) for stream in list(self._streams.values()))

    def sees(self, text: bytes) -> bool:
        """Return whether somebody can read a text, also in base64."""
        data = self.data
        return any(form in data for form in forms(text))

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._stopped], [], [])
            if self._socket in ready:
                self._note(self._socket.recv(LARGEST))
            elif self._stopped in ready:
                return

    def _note(self, frame: bytes) -> None:
        (protocol,) = struct.unpack_from("!H", frame, 12)
        packet = frame[ETHERNET:]
        if protocol == IPV4 and packet[9] == TCP:
            start, end = 4 * (packet[0] & 15), struct.unpack_from("!H", packet, 2)[0]
        elif protocol == IPV6 and packet[6] == TCP:
            start, end = 40, 40 + struct.unpack_from("!H", packet, 4)[0]
        else:
            return
        ports = struct.unpack_from("!HH", packet, start)
        if self._without in ports:
            return
        data = start + 4 * (packet[start + 12] >> 4)
        # A packet that the device is to cut into pieces says no length.
        self._streams[packet[start : start + 4]] += packet[data : end or None]


def forms(text: bytes) -> list[bytes]:
    """Return a text as it is, and the part that base64 makes of it wherever it begins.

    Three bytes become four characters; those at the ends depend on what is beside.
    """
    found = [text]
    for before in range(3):
        coded = base64.b64encode(bytes(before) + text).rstrip(b"=")
        found.append(coded[4 if before else 0 : len(coded) // 4 * 4 - 4])
    return found
