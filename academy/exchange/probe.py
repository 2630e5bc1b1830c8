"""What processes ask each other about requests, and what they answer."""

from __future__ import annotations

import uuid

import msgspec

from academy.exchange.link_info import ProcessInfo
from academy.identifier import AgentId, EntityId, UserId


class Probe(msgspec.Struct, array_like=True):
    """Asks the owner of a mailbox what it knows.

    Attributes:
        number: Number of the question.
        asker: UUID of the mailbox that is to get the report.
        asker_role: Its role, `'agent'` or `'user'`.
        tags: Tags of the requests that are asked about.
        process: Whether the process of the owner is to tell about itself, too.
    """

    number: int
    asker: str
    asker_role: str
    tags: list[bytes]
    process: bool = False

    def asked_by(self) -> EntityId:
        """Return who is to get the report.

        Raises:
            ValueError: The asker is no UUID.
        """
        uid = uuid.UUID(self.asker)
        return AgentId(uid=uid) if self.asker_role == "agent" else UserId(uid=uid)


class Report(msgspec.Struct, array_like=True):
    """What the owner of a mailbox knows.

    Attributes:
        number: Number of the question.
        known: The tags that it knows, among those it was asked about.
        inc: Its incarnation.
        stats: Its counts, as in `AgentStats`.
        process: What its process tells about itself, if it was asked to.
    """

    number: int
    known: list[bytes]
    inc: int
    stats: tuple[int, int, int, int, int]
    process: ProcessInfo | None = None
