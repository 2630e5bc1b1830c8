"""Memory that two processes see, as the system gives it."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from academy.link import region as region_module
from academy.link.frame import Offer
from academy.link.region import VARIABLE, Region, Regions, regions_with
from tests.unit.link.memory import ONLY_LINUX

pytestmark = ONLY_LINUX
SIZE = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    gc.collect()
    before = open_files()
    yield
    gc.collect()
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def here() -> Regions:
    """Return what opens the regions of this process."""
    return Regions(os.getpid(), os.geteuid())


def offer_of(region: Region) -> Offer:
    return Offer(1, region.descriptor, region.size, region.inode)


def test_both_see_it() -> None:
    made = here().create(SIZE)
    found = here().open(offer_of(made))
    assert found is not None
    made.view[:4] = b"abcd"
    assert bytes(found.view[:4]) == b"abcd"
    found.view[-1] = 7
    assert made.view[-1] == 7
    assert (found.size, found.inode) == (SIZE, made.inode)
    made.settle()


def test_it_is_seen_in_another_process() -> None:
    made = here().create(SIZE)
    made.view[:4] = b"abcd"
    program = f"""
from academy.link.region import Regions
from academy.link.frame import Offer
found = Regions({os.getpid()}, {os.geteuid()}).open({offer_of(made)!r})
assert bytes(found.view[:4]) == b"abcd"
found.view[:4] = b"efgh"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert bytes(made.view[:4]) == b"efgh"
    made.settle()


def test_it_cannot_change_its_size() -> None:
    made = here().create(SIZE)
    for size in (0, SIZE // 2, 2 * SIZE):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(made.descriptor, size)
    with pytest.raises(OSError, match="not permitted"):
        fcntl.fcntl(made.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    made.settle()


def test_its_memory_is_there_at_once() -> None:
    made = here().create(SIZE)
    assert os.fstat(made.descriptor).st_blocks * 512 == SIZE
    made.settle()


def test_the_file_is_let_go() -> None:
    before = open_files()
    made = here().create(SIZE)
    assert open_files() == before + 2
    made.settle()
    made.settle()
    assert open_files() == before + 1
    assert here().open(Offer(1, made.descriptor, SIZE, made.inode)) is None
    view = made.lend(0, 10, lambda: None)
    del made
    gc.collect()
    view[0] = 1
    assert open_files() == before + 1
    del view
    assert open_files() == before


def test_where_a_segment_is() -> None:
    made = here().create(SIZE)
    found = here().open(offer_of(made))
    assert found is not None
    view = found.lend(0, 100, lambda: None)
    assert found.find(view[7:]) == 7
    assert made.find(view) is None
    made.settle()


def file_of(make: Callable[[], int], size: int = SIZE) -> Offer:
    descriptor = make()
    return Offer(1, descriptor, size, os.fstat(descriptor).st_ino)


def memory_file(name: str = "academy", seals: int = 0, size: int = SIZE) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@pytest.mark.parametrize(
    "make",
    [
        memory_file,
        lambda: memory_file(seals=fcntl.F_SEAL_SHRINK),
        lambda: memory_file(seals=fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL),
        lambda: memory_file(name="another", seals=SEALS),
        lambda: memory_file(seals=SEALS, size=SIZE // 2),
        lambda: memory_file(seals=SEALS, size=2 * SIZE),
        lambda: memory_file(seals=SEALS | fcntl.F_SEAL_WRITE),
        lambda: os.open("/dev/zero", os.O_RDWR),
        lambda: os.open("/", os.O_RDONLY),
        lambda: os.open(__file__, os.O_RDONLY),
        lambda: socket.socket().detach(),
        lambda: os.eventfd(0),
    ],
)
def test_what_is_no_region_of_that_size(make: Callable[[], int]) -> None:
    offer = file_of(make)
    assert here().open(offer) is None
    os.close(offer.descriptor)


def test_a_file_with_the_name_of_a_region(tmp_path: pathlib.Path) -> None:
    """The check of its name does not stand alone."""
    path = tmp_path / "memfd:academy (deleted)"
    path.write_bytes(bytes(SIZE))
    offer = file_of(lambda: os.open(path, os.O_RDWR))
    assert here().open(offer) is None
    os.close(offer.descriptor)


def test_what_turns_into_something_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Between the look at its name and its opening."""
    monkeypatch.setattr(os, "readlink", lambda path: region_module._LINK)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(SIZE))
    for path in (fifo, plain):
        offer = file_of(lambda path=path: os.open(path, os.O_RDWR))  # type: ignore[misc]
        assert here().open(offer) is None
        os.close(offer.descriptor)


def test_another_inode_another_user_another_process() -> None:
    made = here().create(SIZE)
    right = offer_of(made)
    other = here().create(SIZE)
    assert here().open(Offer(1, other.descriptor, SIZE, made.inode)) is None
    assert here().open(Offer(1, 2**32 - 1, SIZE, made.inode)) is None
    assert here().open(Offer(1, made.descriptor, 2**63, made.inode)) is None
    assert Regions(os.getpid(), os.geteuid() + 1).open(right) is None
    assert Regions(os.getppid(), os.geteuid()).open(right) is None
    assert Regions(2**31 - 1, os.geteuid()).open(right) is None
    assert here().open(right) is not None
    made.settle()
    other.settle()


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    before = open_files()
    for module, name in (
        *((os, n) for n in ("ftruncate", "posix_fallocate", "memfd_create", "fstat")),
        (mmap, "mmap"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(OSError, match="no space"):
                here().create(SIZE)
    made = here().create(SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", fail)
        assert here().open(offer_of(made)) is None
    made.settle()
    del made
    assert open_files() == before


def test_with_whom_memory_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with one, other:
        found = regions_with(one)
        assert found is not None
        assert (found._pid, found._uid) == (os.getpid(), os.geteuid())
        monkeypatch.setenv(VARIABLE, "0")
        assert regions_with(one) is None
        monkeypatch.setenv(VARIABLE, "1")
        assert regions_with(one) is not None
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            assert regions_with(one) is None
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "darwin")
            assert regions_with(one) is None
        with monkeypatch.context() as patch:
            patch.delattr(os, "memfd_create")
            assert regions_with(one) is None
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "ctypes", None)
            assert regions_with(one) is None
    assert regions_with(None) is None


def test_a_process_without_a_number_here() -> None:
    class Socket:
        """A peer from another namespace of process numbers."""

        def getsockopt(self, *_: object) -> bytes:
            return region_module._CREDENTIALS.pack(0, os.geteuid(), 0)

    assert regions_with(Socket()) is None


def test_sockets_without_credentials() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        assert regions_with(sock) is None
