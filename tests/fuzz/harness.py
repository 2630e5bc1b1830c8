"""Feeds damaged inputs to a target."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import time

import psutil

from tests.fuzz.mutation import mutate
from tests.fuzz.seeds import all_seeds
from tests.fuzz.targets import TARGETS

CORPUS = pathlib.Path(__file__).parent / "corpus"
SLOW = 1.0
"""CPU seconds for an input of a few kilobytes that are a finding."""


class Finding(AssertionError):
    """A target did something with an input that its parser does not document."""

    def __init__(self, target: str, data: bytes, what: str) -> None:
        super().__init__(
            f"{target}: {what}\nThe input, in hexadecimal, for --replay:\n{data.hex()}"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run over one target came to.

    Attributes:
        target: Its name.
        inputs: Inputs tried.
        size: Bytes of these.
        valid: Inputs that were valid in spite of the damage.
        slowest: CPU seconds of the slowest one.
        growth: Bytes by which this process has grown.
    """

    target: str
    inputs: int
    size: int
    valid: int
    slowest: float
    growth: int


def corpus(target: str) -> dict[str, bytes]:
    """Return the valid inputs of a target."""
    return {
        path.stem: path.read_bytes() for path in sorted((CORPUS / target).iterdir())
    }


def write_corpus() -> None:
    """Write the corpus anew, as after a change of a format."""
    for target, seeds in all_seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, data in seeds.items():
            (folder / f"{name}.bin").write_bytes(data)


def replay(target: str, data: bytes) -> tuple[bool, float]:
    """Feed one input; return whether it was valid, and the CPU seconds it took.

    Raises:
        Finding: Anything happened but the documented outcomes.
    """
    start = time.process_time()
    try:
        valid = TARGETS[target](data)
    except Exception as e:
        raise Finding(target, data, f"{type(e).__name__}: {e}") from e
    took = time.process_time() - start
    if took > SLOW:
        raise Finding(target, data, f"it took {took:.1f} s")
    return valid, took


def fuzz(target: str, seconds: float, seed: int) -> Report:
    """Feed damaged inputs for some time; raises as `replay` does."""
    chance = random.Random(f"{target} {seed}")
    seeds = list(corpus(target).values())
    process = psutil.Process()
    inputs = size = good = 0
    slowest = 0.0
    for data in seeds:
        replay(target, data)
    before = process.memory_info().rss
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(chance, seeds)
        valid, took = replay(target, data)
        inputs += 1
        size += len(data)
        good += valid
        slowest = max(slowest, took)
    growth = process.memory_info().rss - before
    return Report(target, inputs, size, good, slowest, growth)
