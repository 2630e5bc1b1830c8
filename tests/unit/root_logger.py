"""A root logger as in a fresh process, for the tests of `academy.logging`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator


class _Handlers(list[logging.Handler]):
    """Takes in all handlers but those that pytest adds for each phase of a test."""

    def append(self, handler: logging.Handler) -> None:
        if not type(handler).__module__.startswith("_pytest."):
            super().append(handler)


@contextlib.contextmanager
def bare_root_logger() -> Generator[None]:
    """Give the root logger no handlers, and check that none is left behind."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.handlers = _Handlers()
    root.setLevel(logging.WARNING)
    try:
        yield
        assert not root.handlers
    finally:
        root.handlers = handlers
        root.setLevel(level)
