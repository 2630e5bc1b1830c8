"""What a script defines goes to other interpreters, also functions that cache."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap

import pytest

from academy import by_value

SCRIPT = """
import functools, sys
from academy import by_value

@functools.cache
def double(n):
    return 2 * n

@functools.lru_cache(maxsize=7, typed=True)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

class Model:
    factor = 3

    def value(self, n):
        return self.factor * double(n) + fibonacci(n)

assert double(1) == 2  # there is something in its cache
sys.stdout.buffer.write(by_value.dumps((double, fibonacci, Model(), len)))
"""
READER = """
import pickle, sys
double, fibonacci, model, length = pickle.loads(sys.stdin.buffer.read())
assert double.cache_info().currsize == 0
assert (double(4), model.value(10)) == (8, 115)
assert fibonacci.cache_parameters() == {"maxsize": 7, "typed": True}
assert fibonacci.cache_info().hits > 0
assert length is len
"""


def run(code: str, data: bytes = b"") -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        input=data,
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_what_a_script_defines() -> None:
    run(READER, run(SCRIPT))


def test_large_buffers_can_be_taken_out() -> None:
    found: list[pickle.PickleBuffer] = []
    buffer = pickle.PickleBuffer(bytearray(b"x" * 100))
    data = by_value.dumps([buffer], collect=found.append)
    assert b"xxx" not in data
    assert pickle.loads(data, buffers=found) == [bytearray(b"x" * 100)]


def test_what_cannot_be_pickled() -> None:
    with pytest.raises((TypeError, pickle.PicklingError)):
        by_value.dumps(sys._getframe())
