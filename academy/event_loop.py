"""The event loop of processes that are this package's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeAlias

LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
"""Makes event loops."""


def loop_factory() -> LoopFactory:
    """Return what makes event loops in worker processes and on the command line.

    That is uvloop, where it is installed and the environment variable
    ``ACADEMY_UVLOOP`` is not ``0``. The loop of a user's program is the user's choice.
    """
    if os.environ.get("ACADEMY_UVLOOP") != "0":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            new_event_loop: LoopFactory = uvloop.new_event_loop
            return new_event_loop
    return asyncio.new_event_loop
