"""Marks on the methods of an agent, by which the runtime knows what they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

Kind = Literal["action", "loop"]


def mark(method: Callable[..., Any], kind: Kind) -> None:
    """Mark a function as a method of that kind."""
    method._agent_method_type = kind  # type: ignore[attr-defined]


def is_marked(method: Any, kind: Kind) -> bool:
    """Return whether a function or a bound method is marked as that kind."""
    return getattr(method, "_agent_method_type", None) == kind


def mark_idempotent(method: Callable[..., Any]) -> None:
    """Mark an action as one that may run twice for one call."""
    method._agent_action_idempotent = True  # type: ignore[attr-defined]


def is_idempotent(cls: Any, name: str) -> bool:
    """Return whether a class has an action of that name that may run twice."""
    method = getattr(cls, name, None)
    marked = getattr(method, "_agent_action_idempotent", False) is True
    return marked and is_marked(method, "action")


def marked_names(cls: type, kind: Kind) -> tuple[str, ...]:
    """Return the names of the marked methods of a class, sorted.

    What counts is the nearest definition: a method that overrides a marked one
    without a mark of its own is not listed.
    """
    return tuple(name for name in dir(cls) if is_marked(getattr(cls, name, None), kind))


def require_coroutine(method: Any, role: str) -> None:
    """Refuse a method that is not declared with ``async def``.

    Raises:
        TypeError: The method is a plain function, or an async generator.
    """
    if inspect.iscoroutinefunction(method):
        return
    name = getattr(method, "__qualname__", repr(method))
    if inspect.isasyncgenfunction(method):
        raise TypeError(
            f"{role} {name!r} is an async generator, and results cannot be streamed. "
            "Collect what it yields and return a list."
        )
    raise TypeError(
        f"{role} {name!r} is not a coroutine: declare it with `async def`. Blocking "
        "work inside it belongs into `await self.agent_run_sync(...)`."
    )
