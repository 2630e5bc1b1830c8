"""Program: links are made to another process, and a short text goes there and back."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from load import percentile

from academy.link.address import Addresses, Endpoint
from academy.link.channel import Event, Told
from academy.link.config import LinkConfig
from academy.link.frame import Buffer
from academy.link.node import Node
from academy.link.peer import Peer
from academy.link.security import Security

SECRET = b"a secret for a benchmark"
LOCAL = "127.0.0.1"
TEXT = b"x" * 200
WAYS = {
    "Unix socket": ("uds", "auto"),
    "TCP, loopback": ("tcp", "auto"),
    "TLS, loopback": ("tcp", "tls"),
}


class End:
    """One process of a link: says back what it hears, or notes that it has heard."""

    def __init__(self, security: str, *, echo: bool) -> None:
        self._echo = echo
        self.linked = asyncio.Event()
        self.heard = asyncio.Event()
        self.node = Node(
            secrets.token_bytes(16),
            "bench",
            lambda: [SECRET],
            self,
            LinkConfig(),
            Security(security),
        )

    def session_event(self, peer: Peer, event: Event) -> None:
        if isinstance(event, Told):
            self.heard.set()
            if self._echo:
                peer.session.tell(bytes(event.data))

    def message(
        self, peer: Peer, note: object, seq: int, segments: Sequence[Buffer]
    ) -> None:
        """Nothing goes on a channel here."""

    def link_up(self, peer: Peer) -> None:
        self.linked.set()

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        self.linked.clear()

    def addresses(self, kind: str) -> Addresses:
        """Return where it can be reached, by one kind of socket only."""
        node = self.node
        ports = [Endpoint(host=LOCAL, port=port) for port in node.ports]
        return Addresses(
            process=node.process.hex(),
            host="here",
            unix=node.unix_path if kind == "uds" else None,
            tcp=tuple(ports) if kind == "tcp" else (),
            fingerprint=node.fingerprint,
            pid=1,
            started=1.0,
            version=1,
        )


async def serve(kind: str, security: str, pipe: Connection) -> None:
    end = End(security, echo=True)
    await end.node.open([LOCAL])
    pipe.send(end.addresses(kind))
    await asyncio.to_thread(pipe.recv)
    await end.node.close()


def run_server(kind: str, security: str, pipe: Connection) -> None:
    asyncio.run(serve(kind, security, pipe))


async def dial(
    security: str, kind: str, theirs: Addresses
) -> tuple[float, list[float]]:
    """Return the seconds until a new process was linked, and those of round trips."""
    end = End(security, echo=False)
    mine, process = end.addresses(kind), bytes.fromhex(theirs.process)
    begin = time.perf_counter()
    peer = end.node.connect(process, mine, theirs)
    await end.linked.wait()
    linked = time.perf_counter() - begin
    trips = []
    for _ in range(50):
        end.heard.clear()
        begin = time.perf_counter()
        peer.session.tell(TEXT)
        peer.flush()
        await end.heard.wait()
        trips.append(time.perf_counter() - begin)
    await end.node.close()
    return linked, trips


async def measure(
    way: str, theirs: Addresses, settings: dict[str, Any]
) -> dict[str, Any]:
    kind, security = WAYS[way]
    await dial(security, kind, theirs)
    linked, trips = [], []
    for _ in range(settings["links"]):
        seconds, more = await dial(security, kind, theirs)
        linked.append(seconds)
        trips += more
    return {
        "way": way,
        "linked_p50_ms": 1e3 * statistics.median(linked),
        "linked_p99_ms": 1e3 * percentile(sorted(linked), 0.99),
        "trip_p50_us": 1e6 * statistics.median(trips),
    }


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for way, (kind, security) in WAYS.items():
        here, there = spawn.Pipe()
        server = spawn.Process(target=run_server, args=(kind, security, there))
        server.start()
        rows.append(asyncio.run(measure(way, here.recv(), settings)))
        here.send("enough")
        server.join()
    return rows


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
