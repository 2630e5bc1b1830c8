from __future__ import annotations

import errno
import pickle
import threading
from collections.abc import Iterator

import pytest

from academy.exchange import ports
from academy.exchange.ports import (
    PortPool,
    check_port,
    release_port,
)


@pytest.fixture(autouse=True)
def none_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_in_use", set())


@pytest.mark.parametrize("port", [1, 8000, 65535])
def test_ports(port: int) -> None:
    assert check_port(port) == port


@pytest.mark.parametrize("port", [0, -1, 65536, 1.0, "80", None, True])
def test_what_is_no_port(port: object) -> None:
    with pytest.raises(ValueError, match="integers from 1 to 65535") as caught:
        check_port(port)
    assert repr(port) in str(caught.value)


def test_each_client_gets_a_port_of_its_own() -> None:
    pool = PortPool([5, 6, 7])
    assert [pool.take() for _ in range(3)] == [5, 6, 7]
    with pytest.raises(StopIteration):
        pool.take()


def test_a_released_port_is_given_out_again() -> None:
    pool = PortPool(range(5, 8))
    assert [pool.take() for _ in range(3)] == [5, 6, 7]
    release_port(6)
    assert pool.take() == 6
    with pytest.raises(StopIteration):
        pool.take()
    release_port(5)
    release_port(5)
    assert pool.take() == 5


def test_pools_of_a_process_do_not_collide() -> None:
    first, second = PortPool([5, 6]), PortPool([5, 6, 7])
    assert [first.take(), second.take(), second.take()] == [5, 6, 7]
    with pytest.raises(StopIteration):
        first.take()


def test_a_port_given_twice_is_one_port() -> None:
    pool = PortPool([5, 5])
    assert pool.take() == 5
    with pytest.raises(StopIteration):
        pool.take()


def test_a_generator_is_read_as_needed() -> None:
    drawn = []

    def numbers() -> Iterator[int]:
        for port in (5, 6, 70_000):
            drawn.append(port)
            yield port

    pool = PortPool(numbers())
    assert drawn == []
    assert pool.take() == 5
    assert drawn == [5]
    assert pool.take() == 6
    release_port(5)
    assert pool.take() == 5
    assert drawn == [5, 6]
    with pytest.raises(ValueError, match="70000"):
        pool.take()


def test_a_list_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="0"):
        PortPool([5, 0])


def test_a_pool_travels_as_its_ports() -> None:
    pool = PortPool([5, 6])
    assert pool.take() == 5
    copy = pickle.loads(pickle.dumps(pool))
    assert copy.take() == 6
    with pytest.raises(StopIteration):
        copy.take()
    assert repr(copy) == "[5, 6]"
    with pytest.raises(pickle.PicklingError, match="give a list or a range"):
        pickle.dumps(PortPool(iter([5])))


def test_threads_share_a_pool() -> None:
    pool = PortPool(range(1000, 1400))
    taken: list[int] = []

    def take() -> None:
        taken.extend(pool.take() for _ in range(100))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1000, 1400))


def in_use(port: int) -> OSError:
    return OSError(errno.EADDRINUSE, f"port {port} is in use")


async def test_ports_of_other_processes_are_passed_over() -> None:
    pool = PortPool(range(2000, 2004))
    tried: list[int] = []

    async def create(port: int) -> str:
        tried.append(port)
        if port < 2002:
            raise in_use(port)
        return f"on {port}"

    assert await pool.use(pool.take(), create) == "on 2002"
    assert tried == [2000, 2001, 2002]
    # They may be free by now.
    assert [pool.take(), pool.take(), pool.take()] == [2000, 2001, 2003]
    for port in range(2000, 2004):
        release_port(port)


async def test_other_processes_have_all_ports() -> None:
    pool = PortPool([2000, 2001])

    async def create(port: int) -> None:
        raise in_use(port)

    for _ in range(2):
        with pytest.raises(OSError, match="port 2001 is in use"):
            await pool.use(pool.take(), create)


async def test_a_port_is_released_when_nothing_is_made() -> None:
    pool = PortPool([2000, 2001])

    async def create(port: int) -> None:
        raise PermissionError(errno.EACCES, f"port {port} is not for you")

    with pytest.raises(PermissionError, match="2000"):
        await pool.use(pool.take(), create)
    assert pool.take() == 2000
    release_port(2000)
