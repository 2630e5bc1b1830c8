"""Identifiers of the entities that have a mailbox: agents and users."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import force_setattr

from academy.value import Value

AgentT = TypeVar("AgentT")
"""Type of the agent behind an identifier, a registration, or a handle."""


class _Identifier(
    Value, Struct, frozen=True, kw_only=True, eq=False, forbid_unknown_fields=True
):
    uid: uuid.UUID
    name: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.uid, uuid.UUID):
            return
        try:
            force_setattr(self, "uid", uuid.UUID(self.uid))
        except (ValueError, AttributeError, TypeError) as e:
            raise ValueError(
                f"{type(self).__name__} needs a UUID as its uid, not {self.uid!r}."
            ) from e

    @classmethod
    def new(cls, name: str | None = None) -> Self:
        """Return an identifier that nobody has had before.

        Args:
            name: Optional name for people to read; it need not be unique.
        """
        return cls(uid=uuid.uuid4(), name=name)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.uid == self.uid

    def __ne__(self, other: object) -> bool:
        # A struct's own `!=` does not ask `__eq__`.
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.uid))

    def __str__(self) -> str:
        return f"{type(self).__name__}<{self.name or str(self.uid)[:8]}>"


class AgentId(
    _Identifier,
    Generic[AgentT],
    frozen=True,
    kw_only=True,
    eq=False,
    tag_field="role",
    tag="agent",
):
    """Identifier of an agent. Two are equal when their `uid` is, whatever the name.

    Attributes:
        uid: 128-bit identifier, unique in the world.
        name: Optional name for people to read.
        role: Always `'agent'`.
    """

    role: ClassVar[Literal["agent"]] = "agent"


class UserId(
    _Identifier, frozen=True, kw_only=True, eq=False, tag_field="role", tag="user"
):
    """Identifier of a user (a program that is not an agent). Equal by `uid`.

    Attributes:
        uid: 128-bit identifier, unique in the world.
        name: Optional name for people to read.
        role: Always `'user'`.
    """

    role: ClassVar[Literal["user"]] = "user"


EntityId: TypeAlias = AgentId[Any] | UserId
"""Anything that has a mailbox."""
