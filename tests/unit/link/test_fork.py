"""Children that are forked, and shared memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable

import pytest

from academy.link.frame import Offer
from academy.link.region import Region, Regions
from academy.loan import lent
from tests.unit.link.memory import ONLY_LINUX, nothing_is_left

__all__ = ["nothing_is_left"]

pytestmark = [ONLY_LINUX, pytest.mark.usefixtures("nothing_is_left")]
SIZE = 1 << 20


def nothing() -> None:
    """Tell nobody."""


@pytest.fixture
def region() -> Region:
    """A region that this process has from another one."""
    regions = Regions(os.getpid(), os.geteuid())
    made = regions.create(SIZE)
    found = regions.open(Offer(1, made.descriptor, SIZE, made.inode))
    made.settle()
    assert found is not None
    found.other = made  # type: ignore[attr-defined]
    return found


def fork(child: Callable[[], bool]) -> Callable[[], None]:
    """Run something in a forked child; return what waits for it to be true."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if child() else 1)
        except BaseException:
            os._exit(2)

    def join() -> None:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return join


def test_the_child_has_a_copy(region: Region) -> None:
    view = region.lend(100, 1000, nothing)
    view[:4] = b"abcd"
    reading, writing = os.pipe()

    def child() -> bool:
        os.read(reading, 1)
        right = bytes(view[:4]) == b"abcd"
        view[:4] = b"?!?!"
        return right and bytes(view[:4]) == b"?!?!"

    join = fork(child)
    # What others write from now on is not seen there.
    region.other.view[100:104] = b"efgh"  # type: ignore[attr-defined]
    os.write(writing, b"x")
    join()
    assert bytes(view[:4]) == b"efgh"
    os.close(reading)
    os.close(writing)


def test_the_parent_waits_for_the_copy(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    from academy.link import fork as fork_module

    copy = fork_module._copy

    def copy_slowly(start: int, size: int) -> None:
        time.sleep(0.1)
        copy(start, size)

    monkeypatch.setattr(fork_module, "_copy", copy_slowly)
    view = region.lend(0, 100, nothing)
    view[:4] = b"abcd"
    join = fork(lambda: bytes(view[:4]) == b"abcd")
    view[:4] = b"efgh"
    join()


def test_a_child_that_dies_before(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    from academy.link import fork as fork_module

    def die(start: int, size: int) -> None:
        os._exit(0)

    monkeypatch.setattr(fork_module, "_copy", die)
    view = region.lend(0, 100, nothing)
    fork(lambda: False)()
    assert bytes(view[:1]) == b"\0"


def test_views_end_in_the_child_as_they_do_anywhere(region: Region) -> None:
    views = [region.lend(0, 100, nothing) for _ in range(3)]

    def child() -> bool:
        views[1:] = []
        views[0][:] = bytes(100)
        views.clear()
        return not lent()

    fork(child)()
    assert len(lent()) == 1
    views.clear()
    assert not lent()


def pipes() -> set[str]:
    """Return the pipes that this process has."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("pipe:")}


def test_descriptors(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pipes()
    view = region.lend(0, 100, nothing)
    fork(lambda: pipes() <= before)()
    assert pipes() <= before

    def fail() -> None:
        raise OSError("too many")

    # The child has its copy also when nobody waits for it.
    monkeypatch.setattr(os, "pipe", fail)
    fork(lambda: view.obj is not None and bytes(view[:1]) == b"\0")()


def test_nothing_is_done_where_nothing_is_lent(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssertionError

    monkeypatch.setattr(os, "pipe", fail)
    assert not lent()
    fork(lambda: True)()


def test_no_room_for_a_copy(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    view = region.lend(0, 100, nothing)
    view[:4] = b"abcd"

    def child() -> bool:
        from academy.link import fork as fork_module

        resource.setrlimit(resource.RLIMIT_AS, (mmap.PAGESIZE, mmap.PAGESIZE))
        for start, size in lent():
            fork_module._copy(start, size)
        return bytes(view[:4]) == b"abcd"

    fork(child)()
