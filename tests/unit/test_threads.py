from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from academy.threads import DEFAULT_THREADS, LazyThreadPool


def test_is_a_thread_pool_that_is_made_when_it_is_needed() -> None:
    before = threading.active_count()
    pool = LazyThreadPool(2, "lazy")
    assert isinstance(pool, ThreadPoolExecutor)
    assert pool._max_workers == 2
    assert not hasattr(pool, "_work_queue")
    assert pool.submit(lambda: threading.current_thread().name).result() == "lazy_0"
    assert list(pool.map(abs, [-1, 2])) == [1, 2]
    pool.shutdown()
    assert threading.active_count() == before


def test_the_default_is_that_of_the_standard_library() -> None:
    with ThreadPoolExecutor() as usual:
        assert usual._max_workers == DEFAULT_THREADS
    assert LazyThreadPool(None, "")._max_workers == DEFAULT_THREADS


@pytest.mark.parametrize("used", [False, True])
def test_takes_no_calls_after_its_end(used: bool) -> None:
    pool = LazyThreadPool(1, "lazy")
    if used:
        pool.submit(int).result()
    pool.shutdown(wait=False, cancel_futures=True)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


def test_calls_of_several_threads_make_one_pool() -> None:
    with LazyThreadPool(4, "lazy") as pool:
        futures = []
        callers = [
            threading.Thread(target=lambda: futures.append(pool.submit(int)))
            for _ in range(8)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert [f.result() for f in futures] == [0] * 8
        assert len(pool._threads) <= 4
