"""Who is told what happens between this process and the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from academy.link.channel import Event
from academy.link.frame import Buffer
from academy.link.peer import Peer


class Handler(Protocol):
    """What a node tells the exchange."""

    def message(
        self, peer: Peer, note: Any, seq: int, segments: Sequence[Buffer]
    ) -> None:
        """A message has come on a channel that was accepted with a note."""
        ...

    def session_event(self, peer: Peer, event: Event) -> None:
        """The session with a peer has something else to say."""
        ...

    def link_up(self, peer: Peer) -> None:
        """A peer can be reached directly; channels can be opened."""
        ...

    def link_down(self, peer: Peer, *, may_return: bool) -> None:
        """A peer cannot be reached directly (any more).

        Args:
            peer: The peer.
            may_return: Whether it is dialled again at once.
        """
        ...
