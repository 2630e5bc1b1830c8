from __future__ import annotations

import inspect
import warnings
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from academy.action import PROTECTED_NAMES, action, takes_context
from academy.method import is_marked


def test_without_and_with_arguments() -> None:
    @action
    async def one() -> None: ...

    @action()
    async def two() -> None: ...

    @action(context=True)
    async def three(*, context: Any) -> None: ...

    assert all(is_marked(method, "action") for method in (one, two, three))
    assert [takes_context(method) for method in (one, two, three)] == [
        False,
        False,
        True,
    ]
    assert inspect.iscoroutinefunction(one)


def test_sync_function() -> None:
    with pytest.raises(TypeError, match=r"'.*f' is not a coroutine: declare it with"):

        @action  # type: ignore[type-var]
        def f(self: Any) -> None: ...


def test_async_generator() -> None:
    with pytest.raises(TypeError, match=r"async generator.*return a list"):

        @action  # type: ignore[type-var]
        async def f(self: Any) -> AsyncGenerator[int]:
            yield 1


def test_context_needs_its_parameter() -> None:
    with pytest.raises(TypeError, match="needs a parameter `context`"):

        @action(context=True)
        async def f(self: Any) -> None: ...


def test_context_must_take_a_keyword() -> None:
    with pytest.raises(TypeError, match="needs a parameter `context`"):

        @action(context=True)
        async def f(self: Any, context: Any, /) -> None: ...


def test_context_as_an_ordinary_parameter() -> None:
    @action(context=True)
    async def f(self: Any, context: Any) -> None: ...

    assert takes_context(f)


def test_protected_names() -> None:
    assert {"action", "ping", "shutdown", "agent_id", "exchange"} <= PROTECTED_NAMES
    assert "options" in PROTECTED_NAMES
    assert not any(name.startswith("_") for name in PROTECTED_NAMES)


def test_protected_name_warns_where_the_method_is() -> None:
    with pytest.warns(UserWarning, match=r"handle.action\('ping', ...\)") as caught:

        @action
        async def ping(self: Any) -> None: ...

    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="'shutdown'") as caught:

        @action()
        async def shutdown(self: Any) -> None: ...

    assert caught[0].filename == __file__


def test_protected_name_can_be_allowed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @action(allow_protected_name=True)
        async def ping(self: Any) -> None: ...

    assert is_marked(ping, "action")
