"""What can be seen of a process: its links to others, and what it has counted."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import Self

from academy.value import Value


@dataclass(frozen=True)
class LinkInfo(Value):
    """How a process talks to another one.

    Attributes:
        process: Identifier of the other process, 32 hexadecimal digits; empty for all
            the mailboxes together of which no process is known.
        host: Its host, if that is known.
        pid: Its process number there, if that is known.
        path: How messages go now: `'uds'`, `'tcp'` or `'relay'`.
        reason: Why they do not go directly, for people to read; empty if they do.
        rtt: Seconds of a round trip on the link; `None` if there is none.
        sent: Messages that were sent directly.
        received: Messages that have come directly.
        rate: Messages per second that go directly, in both directions, over the last
            seconds.
        unacked: Messages that were sent directly and are not confirmed.
        queued: Messages that wait for a way, or until they are in a queue.
        encrypted: Whether what goes directly is encrypted.
    """

    process: str
    host: str | None = None
    pid: int | None = None
    path: str = "relay"
    reason: str = ""
    rtt: float | None = None
    sent: int = 0
    received: int = 0
    rate: float = 0.0
    unacked: int = 0
    queued: int = 0
    encrypted: bool = False


@dataclass(frozen=True)
class ProcessInfo(Value):
    """A process as it sees itself.

    Attributes:
        process: Its identifier, 32 hexadecimal digits; each event loop that uses an
            exchange counts as a process. Empty where the exchange has no processes.
        host: Its host.
        pid: Its process number there.
        links: How it talks to others.
        dead_letters: Messages that it has refused unread: they were damaged, or not
            from this namespace.
        refused: Connections that it has refused, or that did not prove themselves, and
            what members may not do.
        settled: Requests that were answered with an error because nobody would have
            answered them any more.
        refusals: What is counted in `refused`, by reason; the reasons are those of
            `academy.link.refusal.Refusal`, and those never met are left out.
    """

    process: str
    host: str
    pid: int
    links: tuple[LinkInfo, ...] = ()
    dead_letters: int = 0
    refused: int = 0
    settled: int = 0
    refusals: dict[str, int] = field(default_factory=dict)

    @classmethod
    def here(cls, process: str, links: tuple[LinkInfo, ...] = ()) -> Self:
        """Return what the process that calls it is, with nothing counted."""
        return cls(process, platform.node(), os.getpid(), links)
