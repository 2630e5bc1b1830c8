"""Memory that is lent as views, and the end of the last one of them."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable
from typing import Any

from msgspec import Struct


class _End(Struct, gc=False, eq=False):
    """What goes when nothing refers to a loan any more.

    The garbage collector does not know it. Else it could be finalized before another
    object of the same cycle, whose own finalizer may still look at the memory.
    """

    number: int
    tell: Callable[[], None]

    def __del__(self) -> None:
        _lent.pop(self.number, None)
        self.tell()


_numbers = itertools.count()
_lent: dict[int, tuple[int, int]] = {}
"""By number, where the memory of each loan that has not ended is, and its size."""
_forms: dict[int, Any] = {}
"""By size, the types of what is between the memory and the views of it."""


class Lendable:
    """Memory that is lent.

    Args:
        memory: The memory, which may be written to.

    Raises:
        ImportError: There is no `ctypes`.
    """

    __slots__ = ("_form", "_memory", "_start")

    def __init__(self, memory: mmap.mmap) -> None:
        import ctypes  # takes a while, and not every process needs it

        self._memory = memory
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        size = len(memory)
        if size not in _forms:
            # A class of its own, so that nobody else has made an object of it.
            _forms[size] = type("Loan", (ctypes.c_char * size,), {})
        self._form = _forms[size]

    def lend(self, offset: int, size: int, ended: Callable[[], None]) -> memoryview:
        """Return a view of some bytes.

        Args:
            offset: Where they begin.
            size: How many.
            ended: Called when nothing refers to the view any more, nor to what was
                made of it: in any thread, at any moment.
        """
        loan = self._form.from_buffer(self._memory)
        number = next(_numbers)
        _lent[number] = self._start, len(self._memory)
        loan.end = _End(number, ended)
        return memoryview(loan).cast("B")[offset : offset + size]

    def find(self, view: memoryview) -> int | None:
        """Return where in this memory a view begins; `None` if it is not all in it."""
        import ctypes

        if view.readonly or not view.contiguous or not view.nbytes:
            return None
        start = ctypes.addressof(ctypes.c_char.from_buffer(view)) - self._start
        return start if 0 <= start <= len(self._memory) - view.nbytes else None


def lent() -> set[tuple[int, int]]:
    """Return address and size of all memory of which there are views."""
    return set(_lent.copy().values())


def is_loan(thing: Any) -> bool:
    """Return whether all views of something are those of one loan, and it ends so."""
    return type(thing) in _forms.values()
