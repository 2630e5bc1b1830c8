"""Which memory of a message nobody else can change any more.

A result is sent while its agent goes on. It must be copied before that, unless nobody
but the message refers to it, as is the case for most arrays that are made for a result.
References are counted only where all of them are seen: for a `bytearray`, and for NumPy
arrays on memory of their own, or on memory that a message came in.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

from academy.loan import is_loan
from academy.pages import Pages, count_references, is_kept, take
from academy.segment import KINDS, Segment, copied

_count = count_references


def own(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments of a message with copies of what others may change.

    Args:
        segments: What `academy.message.encode` has returned, as a list of its own, for
            a message that is still there: both refer to each.
    """
    return [
        s if type(s) is bytes or _is_own(s) else copied(s, KINDS[type(s)])
        for s in segments
    ]


def _is_own(segment: Segment) -> bool:
    if _count is None:
        return False
    if type(segment) is memoryview:
        return _is_only_view(segment) and _is_only_owner(segment.obj)
    return _is_alone(segment, "segment")


def _is_only_view(view: memoryview) -> bool:
    """Return whether no other view was made of this one."""
    shared = gc.get_referents(view)
    return len(shared) == 1 and _is_alone(shared.pop(), "shared")


def _is_only_owner(owner: Any) -> bool:
    """Return whether one thing refers to an object, and so on down to its memory."""
    kind = type(owner)
    kept = kind is Pages and is_kept(owner)
    if not _is_alone(owner, "kept owner" if kept else "owner"):
        return False
    if kind in (bytearray, Pages) or is_loan(owner):
        return True
    if kind is memoryview:
        return _is_only_view(owner) and _is_only_owner(owner.obj)
    if (kind.__module__, kind.__name__) != ("numpy", "ndarray"):
        return False
    if owner.base is None:
        return bool(owner.flags.owndata)
    return _is_only_owner(owner.base)


def _is_alone(obj: Any, role: str) -> bool:
    """Return whether an object has no more references than one has that is alone."""
    assert _count is not None
    if type(obj) not in _WITHOUT_WEAK_REFERENCES and weakref.getweakrefcount(obj):
        return False
    return bool(_count(obj) <= _alone.setdefault(role, _count(obj)))


_WITHOUT_WEAK_REFERENCES = {bytearray}
_alone: dict[str, int] = {}
"""References in each role to what is alone, as the first call finds them."""


def _calibrate() -> None:
    packed: list[Segment] = [bytearray(1), memoryview(bytearray(1)), take(1)]
    own([*packed])


_calibrate()
