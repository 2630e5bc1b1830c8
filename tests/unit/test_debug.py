from __future__ import annotations

from collections.abc import Generator

import pytest

from academy.debug import get_academy_debug, set_academy_debug


@pytest.fixture(autouse=True)
def debug_off() -> Generator[None]:
    yield
    set_academy_debug(False)


def test_off_by_default() -> None:
    assert get_academy_debug() is False


def test_on_and_off() -> None:
    set_academy_debug()
    assert get_academy_debug() is True
    set_academy_debug(False)
    assert get_academy_debug() is False
    set_academy_debug(debug_mode=True)
    assert get_academy_debug() is True
