"""How single calls are made: their deadline, retries, and agents that do not run."""

from __future__ import annotations

import math
import numbers
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

Offline: TypeAlias = Literal["queue", "fail"]
"""What becomes of a call to an agent that does not run: it waits, or it fails."""


class CallOptions(Struct, frozen=True, kw_only=True):
    """Options of calls, as [`Handle.options`][academy.handle.Handle.options] takes.

    Attributes:
        timeout: Seconds that a call may take; `None` for no limit.
        retry: Whether a call that was lost is sent again; `None` leaves that to the
            action.
        offline: What becomes of a call to an agent that does not run.
    """

    timeout: float | None = None
    retry: bool | None = None
    offline: Offline = "queue"

    def override(
        self,
        timeout: float | UnsetType | None = UNSET,
        retry: bool | UnsetType = UNSET,
        offline: Offline | UnsetType = UNSET,
    ) -> CallOptions:
        """Return these options with those that are given in place of their own.

        Raises:
            TypeError: The timeout is no number, or `retry` neither true nor false.
            ValueError: The timeout is negative or not finite, or `offline` is
                unknown.
        """
        given: dict[str, Any] = {}
        if timeout is not UNSET:
            given["timeout"] = None if timeout is None else _seconds(timeout)
        if retry is not UNSET:
            if not isinstance(retry, bool):
                raise TypeError(f"retry is True or False, not {retry!r}.")
            given["retry"] = retry
        if offline is not UNSET:
            if offline not in get_args(Offline):
                raise ValueError(f"offline is 'queue' or 'fail', not {offline!r}.")
            given["offline"] = offline
        return msgspec.structs.replace(self, **given)


DEFAULT_OPTIONS = CallOptions()


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real):
        raise TypeError(
            f"timeout is a number of seconds, or None for no limit, not {timeout!r}."
        )
    seconds = float(timeout)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(
            f"timeout is a number of seconds from 0 on, or None for no limit, not "
            f"{timeout!r}."
        )
    return seconds
