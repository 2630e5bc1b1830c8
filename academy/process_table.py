"""Which processes of this host live."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Return whether there is a process with this number, whoever it belongs to.

    Raises:
        OverflowError: No process can have this number.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
