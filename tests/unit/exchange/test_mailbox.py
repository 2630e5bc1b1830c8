from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from academy.exchange.mailbox import (
    REQUEST,
    RESPONSE,
    Entry,
    make_entry,
    open_entry,
    open_head,
)
from academy.exchange.secret import NamespaceSecret, new_secret

SECRET = NamespaceSecret(b"a secret of some length")
DEST = "DEST"
SEGMENTS = st.lists(st.binary(max_size=50), min_size=1, max_size=4)
ENTRIES = st.builds(
    make_entry,
    st.text(max_size=20),
    st.integers(1, 2**53),
    st.sampled_from([REQUEST, RESPONSE]),
    st.binary(min_size=16, max_size=16),
    SEGMENTS,
)


def stored(
    entry: Entry, secret: NamespaceSecret = SECRET, *, encrypt: bool = False
) -> list[bytes]:
    """Return the fields of an entry as the server gives them back."""
    values = entry.sealed(secret, DEST, encrypt=encrypt)
    pairs = zip("sqkgmbh", values[:-1], strict=True)
    return [
        part
        for name, value in pairs
        for part in (
            name.encode(),
            value if isinstance(value, bytes) else str(value).encode(),
        )
    ]


@given(SEGMENTS)
def test_segments_round_trip(segments: list[bytes]) -> None:
    entry = make_entry("s", 1, REQUEST, b"t" * 16, segments)
    assert [bytes(s) for s in entry.segments()] == segments


def test_a_message_of_one_segment_has_no_rest() -> None:
    assert make_entry("s", 1, REQUEST, b"t", [b"head"]).rest == b""


def test_views_are_stored_as_bytes() -> None:
    entry = Entry("s", 1, REQUEST, b"t", memoryview(b"head"), bytearray(b"rest"))
    assert entry.sealed(SECRET, DEST)[4:6] == [b"head", b"rest"]


@given(ENTRIES, st.booleans())
def test_a_sealed_entry_can_be_opened(entry: Entry, encrypt: bool) -> None:
    assume(entry.stream.isprintable())
    fields = stored(entry, encrypt=encrypt)
    assert open_entry(fields, [SECRET], DEST) == entry
    assert open_entry(fields, [new_secret(), SECRET], DEST) == entry


@given(ENTRIES, st.booleans())
def test_an_entry_is_for_its_mailbox_and_its_namespace(
    entry: Entry, encrypt: bool
) -> None:
    fields = stored(entry, encrypt=encrypt)
    assert open_entry(fields, [SECRET], "OTHER") is None
    assert open_entry(fields, [new_secret()], DEST) is None
    assert open_entry(fields, [], DEST) is None


@given(ENTRIES, st.booleans(), st.data())
def test_any_change_closes_an_entry(
    entry: Entry, encrypt: bool, data: st.DataObject
) -> None:
    """One value changed: whatever is returned, it is not a changed message."""
    fields = stored(entry, encrypt=encrypt)
    index = data.draw(st.integers(0, len(fields) // 2 - 1)) * 2 + 1
    fields[index] = data.draw(st.binary(max_size=60))
    assert open_entry(fields, [SECRET], DEST) in (None, entry)


@given(ENTRIES, st.booleans(), st.data())
def test_any_flipped_bit_closes_an_entry(
    entry: Entry, encrypt: bool, data: st.DataObject
) -> None:
    fields = stored(entry, encrypt=encrypt)
    index = data.draw(st.sampled_from([i for i, f in enumerate(fields) if f]))
    damaged = bytearray(fields[index])
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << (bit % 8)
    fields[index] = bytes(damaged)
    assert open_entry(fields, [SECRET], DEST) is None


@given(ENTRIES, st.data())
def test_missing_fields_close_an_entry(entry: Entry, data: st.DataObject) -> None:
    fields = stored(entry)
    start = data.draw(st.integers(0, len(fields) - 1))
    count = data.draw(st.integers(1, len(fields)))
    assert open_entry(fields[:start] + fields[start + count :], [SECRET], DEST) is None


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_junk_is_no_entry(fields: Sequence[bytes]) -> None:
    assert open_entry(fields, [SECRET], DEST) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"q", b"one"), (b"q", b"9" * 5000), (b"s", b"\xff"), (b"k", b"\xff")],
)
def test_fields_that_cannot_be_read(name: bytes, value: bytes) -> None:
    fields = stored(make_entry("s", 1, REQUEST, b"t" * 16, [b"head"]))
    fields[fields.index(name) + 1] = value
    assert open_entry(fields, [SECRET], DEST) is None


def test_a_signed_entry_with_a_damaged_rest() -> None:
    """Members may err, too: the segments say so when they are asked for."""
    entry = Entry("s", 1, REQUEST, b"t" * 16, b"head", b"no segments")
    opened = open_entry(stored(entry), [SECRET], DEST)
    assert opened == entry
    with pytest.raises(ValueError, match="cut off"):
        opened.segments()


CANARY = b"a canary in the mine"


def test_what_is_encrypted_cannot_be_read() -> None:
    entry = make_entry("s", 1, REQUEST, b"t" * 16, [CANARY, CANARY])
    assert CANARY in b"".join(stored(entry))
    assert CANARY not in b"".join(stored(entry, encrypt=True))
    # Not even that two are the same.
    first, second = (dict_of(stored(entry, encrypt=True)) for _ in range(2))
    assert first[b"m"] != second[b"m"]
    assert first[b"b"] != second[b"b"]
    assert (
        dict_of(stored(make_entry("s", 1, REQUEST, b"t", [b"h"]), encrypt=True))[b"b"]
        == b""
    )


def dict_of(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_head_without_its_rest(encrypt: bool) -> None:
    entry = make_entry("s", 1, REQUEST, b"t" * 16, [b"head", b"rest"])
    fields = [
        part
        for name, value in dict_of(stored(entry, encrypt=encrypt)).items()
        if name in b"sqkgm"
        for part in (name, value)
    ]
    assert open_head(fields, [new_secret(), SECRET], DEST) == b"head"
    if encrypt:
        assert open_head(fields, [SECRET], "OTHER") is None
        assert open_head(fields, [new_secret()], DEST) is None
    assert open_head(fields[:-2], [SECRET], DEST) is None


def test_encrypted_by_a_member_who_signs_something_else() -> None:
    """Authentic, and yet not what was encrypted: it is not decoded."""
    entry = make_entry("s", 1, REQUEST, b"t" * 16, [b"head", b"rest"])
    encrypted = entry._encrypted(SECRET, DEST)
    for changed in (
        encrypted._replace(seq=2),
        encrypted._replace(stream="z"),
        encrypted._replace(tag=b"u" * 16),
        encrypted._replace(head=encrypted.head[:5]),
        encrypted._replace(rest=b"x"),
        encrypted._replace(head=encrypted.rest, rest=encrypted.head),
    ):
        assert open_entry(stored(changed), [SECRET], DEST) is None
    assert open_entry(stored(encrypted), [SECRET], DEST) == entry
