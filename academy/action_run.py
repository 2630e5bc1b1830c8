"""Actions that an agent runs, and how they are told apart."""

from __future__ import annotations

import uuid
from typing import Any, TypeAlias

from msgspec import Struct

from academy.message import Header, Message

RunKey: TypeAlias = tuple[int, int]
"""Who sent a request, and its tag, as the numbers of their UUIDs."""


def run_key(header: Header, tag: uuid.UUID | None = None) -> RunKey:
    """Return the key of a request, or of another one of its sender by its tag."""
    return header.src.uid.int, (tag or header.tag).int


class ActionRun(Struct, eq=False):
    """An action that is running.

    Attributes:
        key: Its key.
        message: The request.
        task: What runs it.
        abandoned: Whether it was answered for already.
        expired: Whether its deadline has passed.
    """

    key: RunKey
    message: Message[Any]
    task: Any = None
    abandoned: bool = False
    expired: bool = False
