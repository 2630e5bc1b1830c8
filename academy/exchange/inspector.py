"""Looks at this process: which way its messages go, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from academy.exchange.audit import Auditor
from academy.exchange.bound import BoundMailbox
from academy.exchange.courier import Courier
from academy.exchange.line import Line
from academy.exchange.link_info import LinkInfo, ProcessInfo
from academy.exchange.links import Links
from academy.exchange.queues import Queues
from academy.identifier import EntityId
from academy.link.peer import Peer

NOT_LINKED = "not linked yet"
CONNECTING = "being connected"
NOT_FOUND = "it is not known which process has the mailbox"
NO_LINKS = "this process makes no direct links"


class Inspector:
    """Tells how a process talks to others. Nothing is counted or kept for it.

    Args:
        process: Identifier of the process.
        queues: The queues on the server.
        courier: Sends messages to other processes.
        boxes: The mailboxes bound in this process.
        auditor: Settles requests.
        links: The direct links, where the exchange has some.
    """

    def __init__(
        self,
        process: str,
        queues: Queues,
        courier: Courier,
        boxes: Mapping[EntityId, BoundMailbox],
        auditor: Auditor,
        links: Links | None,
    ) -> None:
        self._process = process
        self._queues = queues
        self._lines = courier.lines
        self._boxes = boxes
        self._auditor = auditor
        self._links = links

    def look(self) -> ProcessInfo:
        """Return how things are now."""
        return dataclasses.replace(
            ProcessInfo.here(self._process, tuple(self._look_at_links())),
            dead_letters=self._queues.dead_letters,
            refused=0 if self._links is None else self._links.node.refused,
            settled=self._auditor.settled,
            refusals={} if self._links is None else dict(self._links.node.refusals),
        )

    def _look_at_links(self) -> Iterable[LinkInfo]:
        if self._links is not None:
            for process in self._processes(self._links):
                yield self._link(self._links, process)
        # A mailbox that is here by now is no matter of links.
        lines = [x for x in self._lines.unplaced() if x.dest not in self._boxes]
        if lines:
            reason = NO_LINKS if self._links is None else NOT_FOUND
            unacked, queued = _on_the_way(lines)
            yield LinkInfo("", reason=reason, unacked=unacked, queued=queued)

    def _processes(self, links: Links) -> list[bytes]:
        """Return the processes that there is a link to, or something to send to."""
        peers = links.node.peers
        linked = (p for p in peers if peers[p].connection is not None)
        return list(dict.fromkeys([*linked, *self._lines.processes()]))

    def _link(self, links: Links, process: bytes) -> LinkInfo:
        host, pid = links.whereabouts(process)
        unacked, queued = _on_the_way(self._lines.at(process))
        peer = links.node.peers.get(process)
        dialled = links.node.is_dialling(process)
        return LinkInfo(
            process=process.hex(),
            host=host,
            pid=pid,
            path="relay" if peer is None else peer.path,
            reason=_reason(peer, dialled=dialled),
            rtt=None if peer is None else peer.rtt,
            sent=0 if peer is None else peer.sent,
            received=0 if peer is None else peer.received,
            rate=0.0 if peer is None else peer.rate,
            unacked=unacked,
            queued=queued,
            encrypted=peer is not None and peer.encrypted,
        )


def _reason(peer: Peer | None, *, dialled: bool) -> str:
    if peer is not None and peer.usable:
        return ""
    if dialled:
        return CONNECTING
    return (peer is not None and peer.reason) or NOT_LINKED


def _on_the_way(lines: Iterable[Line]) -> tuple[int, int]:
    """Return how many messages are not confirmed, and how many wait."""
    boxes = [line.outbox for line in lines]
    unacked = sum(outbox.unconfirmed for outbox in boxes)
    return unacked, sum(map(len, boxes)) - unacked
