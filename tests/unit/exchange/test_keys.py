from __future__ import annotations

import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.exchange.keys import (
    Keys,
    base32_to_uuid,
    check_namespace,
    entity_key,
    uuid_to_base32,
)
from academy.identifier import AgentId, UserId


@given(st.uuids())
def test_base32_round_trip(uid: uuid.UUID) -> None:
    text = uuid_to_base32(uid)
    assert len(text) == 26
    assert "=" not in text
    assert base32_to_uuid(text) == uid


def test_base32_of_known_uuids() -> None:
    assert uuid_to_base32(uuid.UUID(int=0)) == "A" * 26
    assert uuid_to_base32(uuid.UUID(int=2**128 - 1)) == "7" * 25 + "4"


@given(st.text() | st.text(alphabet="ABCXYZ234567", min_size=26, max_size=26))
def test_what_is_read_is_what_is_written(text: str) -> None:
    uid = None
    with contextlib.suppress(ValueError):
        uid = base32_to_uuid(text)
    assert uid is None or uuid_to_base32(uid) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "26 characters"),
        ("A" * 25, "26 characters"),
        ("A" * 27, "26 characters"),
        ("A" * 26 + "======", "26 characters"),
        ("a" * 26, "A to Z, 2 to 7"),
        ("1" * 26, "A to Z, 2 to 7"),
        ("é" * 26, "A to Z, 2 to 7"),
        ("_" + "A" * 25, "A to Z, 2 to 7"),
        ("A" * 25 + "B", "stray bits"),
        (None, "26 characters"),
        (b"A" * 26, "26 characters"),
        (uuid.UUID(int=0), "26 characters"),
    ],
)
def test_malformed_base32(text: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        base32_to_uuid(text)  # type: ignore[arg-type]
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("good", ["default", "a", "A-1_b.c:d/e@f", "x" * 128])
def test_namespaces(good: str) -> None:
    assert check_namespace(good) == good
    assert Keys(good).namespace == good


@pytest.mark.parametrize(
    "bad", ["", "x" * 129, "a b", "{a}", "a}", "a*", "ä", "a\n", None, 5, b"default"]
)
def test_bad_namespaces(bad: object) -> None:
    with pytest.raises(ValueError, match="Use 1 to 128 letters") as caught:
        Keys(bad)  # type: ignore[arg-type]
    assert repr(bad) in str(caught.value)


def test_all_keys_of_a_namespace_share_a_slot() -> None:
    keys = Keys("lab")
    assert keys.secret == "{lab}:secret"
    assert keys.wake("p1") == "{lab}:wake:p1"
    assert keys.lease("p1") == "{lab}:ls:p1"
    assert keys.prefix == "{lab}:"


def test_the_key_of_an_entity_is_that_of_its_uid() -> None:
    uid = uuid.uuid4()
    assert entity_key(AgentId(uid=uid)) == entity_key(UserId(uid=uid, name="n"))
    assert base32_to_uuid(entity_key(AgentId(uid=uid))) == uid
