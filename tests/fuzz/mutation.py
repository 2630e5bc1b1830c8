"""Damages inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 18, 1 << 31, (1 << 32) - 1)
LARGEST = 8192
"""Bytes of an input, at most."""


def mutate(chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return a damaged input, or once in a while one of chance alone."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randint(0, 300))
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        chance.choice(_MUTATIONS)(chance, data)
    if chance.random() < 0.2:
        other = chance.choice(corpus)
        data[_position(chance, data) :] = other[_position(chance, other) :]
    return bytes(data[:LARGEST])


def pieces(data: bytes) -> list[bytes]:
    """Cut an input into pieces, always the same ones."""
    chance = random.Random(len(data))
    found = []
    while data:
        size = chance.choice((1, 2, 7, 50, 1000))
        found.append(data[:size])
        data = data[size:]
    return found


def _position(chance: random.Random, data: bytes | bytearray) -> int:
    return chance.randint(0, len(data))


def _flip_bit(chance: random.Random, data: bytearray) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set_byte(chance: random.Random, data: bytearray) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _set_number(chance: random.Random, data: bytearray) -> None:
    width = chance.choice((1, 2, 4, 8))
    number = chance.choice(NUMBERS) & ((1 << 8 * width) - 1)
    at = _position(chance, data)
    data[at : at + width] = number.to_bytes(width, chance.choice(("big", "little")))


def _insert(chance: random.Random, data: bytearray) -> None:
    at = _position(chance, data)
    data[at:at] = chance.randbytes(chance.randint(1, 16))


def _delete(chance: random.Random, data: bytearray) -> None:
    at = _position(chance, data)
    del data[at : at + chance.randint(1, 16)]


def _truncate(chance: random.Random, data: bytearray) -> None:
    del data[_position(chance, data) :]


def _repeat(chance: random.Random, data: bytearray) -> None:
    at = _position(chance, data)
    piece = data[at : at + chance.randint(1, 64)]
    data[at:at] = piece * chance.choice((1, 2, 30))


def _swap(chance: random.Random, data: bytearray) -> None:
    middle = _position(chance, data)
    data[:] = data[middle:] + data[:middle]


_MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip_bit,
    _set_byte,
    _set_number,
    _insert,
    _delete,
    _truncate,
    _repeat,
    _swap,
)
