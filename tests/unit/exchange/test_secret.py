from __future__ import annotations

import hashlib
import hmac
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.exchange.secret import (
    NamespaceSecret,
    new_secret,
    secrets_from_environment,
)

VALUE = b"0123456789abcdef"
SECRET = NamespaceSecret(VALUE)
PARTS = st.lists(st.binary(max_size=40), max_size=5)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACADEMY_SECRET", "ACADEMY_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_signature_is_hmac_sha256_of_lengths_and_parts() -> None:
    signed = b"\0" * 7 + b"\x02ab" + b"\0" * 8
    expected = hmac.new(VALUE, signed, hashlib.sha256).digest()
    assert SECRET.sign([b"ab", b""]) == expected


@given(PARTS)
def test_what_is_signed_verifies(parts: list[bytes]) -> None:
    signature = SECRET.sign(parts)
    assert SECRET.verify(parts, signature)
    assert SECRET.verify([memoryview(p) for p in parts], bytearray(signature))
    assert not new_secret().verify(parts, signature)


@given(PARTS, PARTS)
def test_other_parts_have_other_signatures(a: list[bytes], b: list[bytes]) -> None:
    """Also when the same bytes are divided otherwise."""
    assert (SECRET.sign(a) == SECRET.sign(b)) == (a == b)


@given(PARTS, st.binary(max_size=64))
def test_forgeries_do_not_verify(parts: list[bytes], forged: bytes) -> None:
    assert SECRET.verify(parts, forged) == (forged == SECRET.sign(parts))


def test_short_secrets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        NamespaceSecret(VALUE[:15])


def test_new_secrets_differ() -> None:
    assert len({new_secret().stored() for _ in range(50)}) == 50
    assert len(new_secret().stored()) == 32


def test_equality_is_that_of_the_value() -> None:
    same = NamespaceSecret(VALUE)
    assert same == SECRET
    assert hash(same) == hash(SECRET)
    assert new_secret() != SECRET
    assert SECRET != VALUE


def test_a_secret_does_not_show_itself() -> None:
    assert VALUE.decode() not in f"{SECRET!r} {SECRET}"
    with pytest.raises(pickle.PicklingError) as caught:
        pickle.dumps(SECRET)
    assert VALUE.decode() not in str(caught.value)


def test_no_secret_in_the_environment() -> None:
    assert secrets_from_environment() == []


def test_a_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACADEMY_SECRET", VALUE.decode())
    assert secrets_from_environment() == [SECRET]
    monkeypatch.setenv("ACADEMY_SECRET", "short")
    with pytest.raises(ValueError, match="at least 16 bytes"):
        secrets_from_environment()


def test_a_secret_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(VALUE + b"\n")
    path.chmod(0o600)
    monkeypatch.setenv("ACADEMY_SECRET_FILE", str(path))
    monkeypatch.setenv("ACADEMY_SECRET", "another secret of some length")
    assert secrets_from_environment() == [SECRET]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o644])
def test_a_secret_that_others_may_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(VALUE)
    path.chmod(mode)
    monkeypatch.setenv("ACADEMY_SECRET_FILE", str(path))
    with pytest.raises(ValueError, match="chmod 600") as caught:
        secrets_from_environment()
    assert str(path) in str(caught.value)
    assert VALUE.decode() not in str(caught.value)


def test_a_secret_file_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACADEMY_SECRET_FILE", os.fspath(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        secrets_from_environment()


def test_several_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first is the current one."""
    other = b"another secret of some length"
    expected = [NamespaceSecret(other), SECRET]
    monkeypatch.setenv("ACADEMY_SECRET", f"{other.decode()}\n{VALUE.decode()}")
    assert secrets_from_environment() == expected
    path = tmp_path / "secret"
    path.write_bytes(other + b"\r\n\n" + VALUE + b"\n\n")
    path.chmod(0o600)
    monkeypatch.setenv("ACADEMY_SECRET_FILE", str(path))
    assert secrets_from_environment() == expected


def test_an_empty_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It must not mean that the server is asked."""
    path = tmp_path / "secret"
    path.touch(0o600)
    monkeypatch.setenv("ACADEMY_SECRET_FILE", str(path))
    with pytest.raises(ValueError, match="There is no secret in"):
        secrets_from_environment()
