from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.exchange.cipher import NONCE_BYTES, StreamCipher

SECRET = b"a secret of some length"
BOUND = st.lists(st.binary(max_size=20), max_size=3)


@given(st.binary(max_size=200), BOUND)
def test_what_is_sealed_can_be_opened(text: bytes, bound: list[bytes]) -> None:
    sealed = StreamCipher(SECRET, "s").seal(text, bound)
    assert StreamCipher(SECRET, "s").open(sealed, bound) == text
    assert StreamCipher(SECRET, "s").open(memoryview(sealed), bound) == text


@given(st.binary(max_size=50), BOUND, BOUND)
def test_it_is_bound_to_the_other_fields(
    text: bytes, bound: list[bytes], other: list[bytes]
) -> None:
    cipher = StreamCipher(SECRET, "s")
    sealed = cipher.seal(text, bound)
    if other != bound:
        with pytest.raises(ValueError, match="Not encrypted by a member"):
            cipher.open(sealed, other)


@pytest.mark.parametrize(
    ("secret", "stream"), [(b"another secret of some length", "s"), (SECRET, "z")]
)
def test_each_secret_and_stream_has_its_key(secret: bytes, stream: str) -> None:
    sealed = StreamCipher(SECRET, "s").seal(b"text", [])
    with pytest.raises(ValueError, match="Not encrypted"):
        StreamCipher(secret, stream).open(sealed, [])


@given(st.integers(0, 8 * (NONCE_BYTES + 4 + 16) - 1))
def test_any_flipped_bit_is_found(bit: int) -> None:
    cipher = StreamCipher(SECRET, "s")
    sealed = bytearray(cipher.seal(b"text", []))
    sealed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ValueError, match="Not encrypted"):
        cipher.open(sealed, [])


@given(st.binary(max_size=NONCE_BYTES + 15))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="Not encrypted"):
        StreamCipher(SECRET, "s").open(junk, [])


def test_no_two_are_the_same() -> None:
    cipher = StreamCipher(SECRET, "s")
    assert len({cipher.seal(b"text", []) for _ in range(100)}) == 100
