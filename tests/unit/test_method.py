from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from academy.method import (
    is_idempotent,
    is_marked,
    mark,
    mark_idempotent,
    marked_names,
    require_coroutine,
)


async def coroutine() -> None: ...


def plain() -> None: ...


async def generator() -> AsyncGenerator[int]:
    yield 1


class Base:
    async def kept(self) -> None: ...

    async def lost(self) -> None: ...

    async def other(self) -> None: ...

    mark(kept, "action")
    mark(lost, "action")
    mark(other, "loop")


class Derived(Base):
    async def lost(self) -> None: ...

    @property
    def computed(self) -> int:
        raise RuntimeError("properties must not run")


def test_marks() -> None:
    assert is_marked(Base.kept, "action")
    assert is_marked(Base().kept, "action")
    assert not is_marked(Base.kept, "loop")
    assert not is_marked(None, "action")
    assert not is_marked(coroutine, "action")


def test_marked_names_are_sorted_and_by_kind() -> None:
    assert marked_names(Base, "action") == ("kept", "lost")
    assert marked_names(Base, "loop") == ("other",)


def test_an_override_without_a_mark_hides_the_marked_method() -> None:
    assert marked_names(Derived, "action") == ("kept",)


def test_coroutine_functions_are_accepted() -> None:
    require_coroutine(coroutine, "Action")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (plain, "Action 'plain' is not a coroutine: declare it with `async def`"),
        (generator, "Action 'generator' is an async generator"),
        (functools.partial(plain), "is not a coroutine"),
        (3, "Action '3' is not a coroutine"),
    ],
)
def test_others_are_refused(method: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        require_coroutine(method, "Action")


def test_idempotent_is_what_the_nearest_definition_says() -> None:
    class Twice:
        async def put(self) -> None: ...

        async def get(self) -> None: ...

        async def helper(self) -> None: ...

        mark(put, "action")
        mark(get, "action")
        mark_idempotent(put)
        mark_idempotent(helper)

    class Once(Twice):
        async def put(self) -> None: ...

        mark(put, "action")

    assert is_idempotent(Twice, "put")
    assert not is_idempotent(Twice, "get")
    assert not is_idempotent(Twice, "helper")  # no action
    assert not is_idempotent(Twice, "nothing")
    assert not is_idempotent(Once, "put")
    assert not is_idempotent(None, "put")
    assert not is_idempotent(Any, "put")
