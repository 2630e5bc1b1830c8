"""Memory for large segments."""

from __future__ import annotations

import ctypes
import gc
import pathlib
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from academy import pages
from academy.pages import FROM, KEEP, Pages, take
from academy.segment import BYTES, MAPPED, MEMORY, Slot

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TRANSPARENT = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE = 64 << 20


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    pages._kept.clear()
    yield
    pages._kept.clear()


def resident() -> int:
    """Return how many bytes of memory this process has."""
    gc.collect()
    size = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(size) * 4096


def in_large_pages(address: int) -> int:
    """Return how many bytes around an address are in large pages.

    Counted in the mapping that has the address, not in the whole process: the memory
    may have been used before, and have its large pages from then.
    """
    inside = False
    for row in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", row):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and row.startswith("AnonHugePages:"):
            return int(row.split()[1]) * 1024
    raise LookupError(f"no mapping has {address:#x}")


def array(size: int) -> Any:
    """Return an array on memory that was filled as a segment is."""
    slot = Slot(MEMORY, size)
    while slot.missing:
        slot.write(memoryview(b"\x5a" * min(slot.missing, 1 << 20)))
    return np.frombuffer(slot.finish(), np.uint8)


def memory_of(found: Any) -> Any:
    """Return the address of the memory of an array, or of a view."""
    return np.frombuffer(found, np.uint8).ctypes.data


def test_it_is_writable() -> None:
    view = take(FROM)
    assert (len(view), view.readonly, type(view.obj)) == (FROM, False, Pages)
    view[0] = view[-1] = 1


@LINUX
@pytest.mark.parametrize("part", [lambda a: a, lambda a: a[5:], lambda a: a.base[7:9]])
def test_it_goes_back_to_the_system_with_its_last_view(
    part: Callable[[Any], Any],
) -> None:
    before = resident()
    found = part(array(LARGE))
    assert resident() - before > LARGE * 0.9
    del found
    assert resident() - before < LARGE * 0.1


@LINUX
@pytest.mark.parametrize("kind", [BYTES, MEMORY])
def test_large_pages(kind: int) -> None:
    if not TRANSPARENT.exists() or "[never]" in TRANSPARENT.read_text():
        pytest.skip("the system has no large pages")
    slot = Slot(kind, LARGE)
    while slot.missing:
        slot.write(memoryview(b"\x5a" * (1 << 20)))
    segment = slot.finish()
    assert in_large_pages(memory_of(segment) + LARGE // 2) > LARGE * 0.8
    assert len(segment) == LARGE


def unknown(*names: Any) -> Any:
    raise OSError("not here")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (pages, "_LARGE", None),
        (pages, "_LARGE", 12345),  # no kernel knows that
        (ctypes, "CDLL", unknown),
        (ctypes, "CDLL", lambda name: object()),
    ],
)
def test_a_system_without_large_pages(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any
) -> None:
    monkeypatch.setattr(where, name, value)
    assert array(KEEP + 1).sum() == (KEEP + 1) * 0x5A
    slot = Slot(BYTES, MAPPED)
    slot.write(memoryview(bytes(MAPPED)))
    assert slot.finish() == bytes(MAPPED)


def test_no_memory() -> None:
    with pytest.raises(MemoryError):
        take(1 << 60)


@pytest.mark.parametrize("size", [FROM, KEEP])
def test_what_nobody_has_any_more_is_used_again(size: int) -> None:
    first = array(size)
    where = memory_of(first)
    second = array(size)
    assert memory_of(second) != where
    where = memory_of(second)
    del first, second
    assert memory_of(array(size)) == where
    assert memory_of(array(size)) == where


@pytest.mark.parametrize(
    "hold",
    [
        lambda a: a,
        lambda a: a[5:6],
        lambda a: a.base,
        lambda a: a.base[7:9],
        lambda a: a.base.obj,
        lambda a: weakref.ref(a.base.obj),
        lambda a: [memoryview(a)[3:]],
    ],
)
def test_what_somebody_has_is_not_used_again(hold: Callable[[Any], Any]) -> None:
    first = array(FROM)
    where, held = memory_of(first), hold(first)
    del first
    assert memory_of(array(FROM)) != where or type(held) is weakref.ref
    if type(held) is weakref.ref:
        assert held() is None


def test_only_memory_of_that_size_is_used_again() -> None:
    first = array(FROM)
    assert pages.is_kept(first.base.obj)
    second = array(FROM + 1)
    assert len(second) == FROM + 1
    assert not pages.is_kept(first.base.obj)
    assert pages.is_kept(second.base.obj)


@LINUX
def test_no_more_is_kept() -> None:
    before = resident()
    found = [array(KEEP) for _ in range(5)]
    found.append(array(KEEP + 1))
    assert [pages.is_kept(a.base.obj) for a in found] == [False] * 4 + [True, False]
    found.clear()
    assert resident() - before < KEEP * 1.1


def test_nothing_is_kept_where_references_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "count_references", None)
    assert not pages.is_kept(array(FROM).base.obj)
    assert not pages._kept


def test_threads_do_not_get_the_same_memory() -> None:
    failures = []

    def use(number: int) -> None:
        for turn in range(300):
            view = take(4096)
            view[:] = bytes([number]) * 4096
            found = bytes(view)
            if found.count(number) != 4096:
                failures.append((number, turn))
            del view

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=use, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
