"""The decorator that makes a method of an agent callable from elsewhere."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from academy.handle import Handle
from academy.method import mark, mark_idempotent, require_coroutine

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
ActionMethodT = TypeVar("ActionMethodT", bound=Callable[..., Coroutine[Any, Any, Any]])

PROTECTED_NAMES = frozenset(name for name in dir(Handle()) if not name.startswith("_"))
"""Names that a handle has itself, so that they cannot be called as its attributes."""


class Action(Protocol[P, R_co]):
    """A bound action method."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the action."""
        ...


@overload
def action(
    method: ActionMethodT,
    *,
    allow_protected_name: bool = False,
    context: bool = False,
    idempotent: bool = False,
) -> ActionMethodT: ...


@overload
def action(
    method: None = None,
    *,
    allow_protected_name: bool = False,
    context: bool = False,
    idempotent: bool = False,
) -> Callable[[ActionMethodT], ActionMethodT]: ...


def action(
    method: ActionMethodT | None = None,
    *,
    allow_protected_name: bool = False,
    context: bool = False,
    idempotent: bool = False,
) -> ActionMethodT | Callable[[ActionMethodT], ActionMethodT]:
    """Let other agents and users call a method of an agent.

    Only methods marked so can be called through handles; the agent itself calls
    them as the methods they are. Use it with or without arguments:

    ```python
    class Counter(Agent):
        @action
        async def add(self, n: int) -> int: ...

        @action(context=True)
        async def whoami(self, *, context: ActionContext) -> str:
            return str(context.source_id)
    ```

    Args:
        method: The method, declared with ``async def``.
        allow_protected_name: Do not warn when the handle has an attribute of the
            same name. Such an action is called as ``handle.action('name', ...)``.
        context: Pass an [`ActionContext`][academy.context.ActionContext], which
            tells who calls, as the keyword argument `context`.
        idempotent: Running the action twice for one call does no harm. Callers that
            know the class of the agent send a lost call of it again, as with
            [`options(retry=True)`][academy.handle.Handle.options].

    Raises:
        TypeError: The method is not declared with ``async def``; or `context=True`
            and it has no parameter `context` that takes a keyword.
    """
    # Frames between the warning and the user's class body.
    depth = 3 if method is None else 4

    def decorate(method: ActionMethodT) -> ActionMethodT:
        require_coroutine(method, "Action")
        if context:
            _require_context(method)
        if method.__name__ in PROTECTED_NAMES and not allow_protected_name:
            _warn_protected(method.__name__, depth)
        mark(method, "action")
        method._agent_action_context = context  # type: ignore[attr-defined]
        if idempotent:
            mark_idempotent(method)
        return method

    return decorate if method is None else decorate(method)


def takes_context(method: Any) -> bool:
    """Return whether an action wants to know who calls it."""
    return bool(getattr(method, "_agent_action_context", False))


def _require_context(method: Callable[..., Any]) -> None:
    parameter = inspect.signature(method).parameters.get("context")
    if parameter is None or parameter.kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    ):
        raise TypeError(
            f"Action {method.__qualname__!r} is declared with context=True, so it "
            "needs a parameter `context` that takes a keyword: add "
            "`*, context: ActionContext`."
        )


def _warn_protected(name: str, depth: int) -> None:
    warnings.warn(
        f"Handles have an attribute {name!r} of their own, so this action can only be "
        f"called as handle.action({name!r}, ...). Choose another name, or say "
        "@action(allow_protected_name=True).",
        stacklevel=depth,
    )
