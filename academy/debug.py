"""The debug mode of this process."""

from __future__ import annotations

academy_debug_mode = False


def get_academy_debug() -> bool:
    """Return whether debug mode is on; it is off until someone turns it on."""
    return academy_debug_mode


def set_academy_debug(debug_mode: bool = True) -> None:
    """Turn debug mode on or off, for the whole process.

    With debug mode on, a guarded background task that fails ends its event loop
    with `SystemExit` instead of leaving a log record only: such a task is not
    supposed to fail, so a failure is a bug in this package. Meant for its tests
    and for people who hunt such a bug.

    Args:
        debug_mode: The mode from now on. Tasks that run already obey it too.
    """
    global academy_debug_mode
    academy_debug_mode = debug_mode
