"""What an agent can do, as data."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from academy.method import is_idempotent
from academy.value import Value


class ActionDescription(Value, Struct, kw_only=True):
    """Description of an action.

    Attributes:
        name: Name to call it by.
        type_signature: Types of its annotated parameters, and of its result under
            `'return'`, as text.
        doc: Its docstring, empty when it has none.
        idempotent: Whether it may run twice for one call, so that a lost call of it
            is sent again.
    """

    name: str
    type_signature: dict[str, str]
    doc: str
    idempotent: bool = False


class AgentDescription(Value, Struct, kw_only=True):
    """Description of an agent.

    Attributes:
        description: Docstring of its class, empty when it has none.
        actions: Its actions by name.
    """

    description: str
    actions: dict[str, ActionDescription]


def describe(cls: type, actions: Iterable[str]) -> AgentDescription:
    """Return the description of a class with actions of these names."""
    return AgentDescription(
        description=inspect.cleandoc(cls.__doc__ or ""),
        actions={name: _describe_action(cls, name) for name in actions},
    )


def _describe_action(cls: type, name: str) -> ActionDescription:
    method = getattr(cls, name)
    return ActionDescription(
        name=name,
        type_signature=_types(method),
        doc=_doc(cls, name),
        idempotent=is_idempotent(cls, name),
    )


def _doc(cls: type, name: str) -> str:
    """Return the docstring of a method, or that of the one it overrides."""
    for base in cls.__mro__:
        method = base.__dict__.get(name)
        if method is not None and method.__doc__:
            return inspect.cleandoc(method.__doc__)
    return ""


def _types(method: Any) -> dict[str, str]:
    try:
        hints = typing.get_type_hints(method)
    except Exception:
        # Evaluating annotations runs any code; names that exist for type checkers
        # only are the common failure. Their source text says it as well.
        hints = method.__annotations__
    return {name: str(hint) for name, hint in hints.items()}
