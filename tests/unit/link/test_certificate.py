from __future__ import annotations

import os
import pathlib
import pickle
import ssl
import stat
import subprocess
import sys

import pytest

from academy.link import certificate as certificate_module
from academy.link.certificate import certificate, client_context, fingerprint
from academy.link.folder import PREFIX
from academy.link.security import Security

AUTO = Security()


@pytest.fixture
def fresh() -> None:
    certificate_module._own.cache_clear()


def test_one_per_process() -> None:
    own = certificate(AUTO)
    assert certificate(Security("tls")) is own
    assert len(own.fingerprint) == 64
    assert certificate_module._own(os.getpid() + 1).fingerprint != own.fingerprint
    certificate_module._own.cache_clear()


def test_what_it_is(fresh: None) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    pem, _, found = certificate_module._make()
    made = x509.load_pem_x509_certificate(pem)
    key = made.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    made.verify_directly_issued_by(made)
    assert fingerprint(ssl.PEM_cert_to_DER_cert(pem.decode())) == found
    context = certificate(AUTO).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert client_context().minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_key_is_on_disk_for_a_moment_only(
    fresh: None, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only this user can read it; the fixture finds what is left."""
    seen = []
    load = ssl.SSLContext.load_cert_chain

    def looking(self: ssl.SSLContext, *args: object, **options: object) -> None:
        (parent,) = folder.iterdir()
        assert parent.name.startswith(f"{PREFIX}{os.getpid()}-")
        found = (parent, *parent.iterdir())
        seen.extend(stat.S_IMODE(path.stat().st_mode) for path in found)
        load(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", looking)
    certificate(AUTO)
    assert seen == [0o700, 0o600, 0o600]


def test_nothing_is_left_when_it_fails(
    fresh: None, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_module, "_make", lambda: (b"no", b"key", "f"))
    with pytest.raises(ssl.SSLError):
        certificate(AUTO)


def test_the_key_goes_nowhere(fresh: None) -> None:
    own = certificate(AUTO)
    assert "PRIVATE" not in repr(own)
    with pytest.raises(TypeError, match="cannot pickle 'SSLContext'"):
        pickle.dumps(own)


def test_given_by_the_operator(tmp_path: pathlib.Path) -> None:
    pem, key, found = certificate_module._make()
    other, *_ = certificate_module._make()
    (tmp_path / "chain.pem").write_bytes(pem + other)
    (tmp_path / "key.pem").write_bytes(key)
    given = Security("auto", str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))
    assert certificate(given).fingerprint == found


@pytest.mark.parametrize("wrong", ["certificate", "key", "pair"])
def test_given_ones_that_are_none(tmp_path: pathlib.Path, wrong: str) -> None:
    pem, key, _ = certificate_module._make()
    if wrong == "pair":
        key = certificate_module._make()[1]
    (tmp_path / "c").write_bytes(b"?" if wrong == "certificate" else pem)
    (tmp_path / "k").write_bytes(b"?" if wrong == "key" else key)
    with pytest.raises(ValueError, match="no certificate and key in PEM format"):
        certificate(Security("tls", str(tmp_path / "c"), str(tmp_path / "k")))


def test_given_with_a_password(tmp_path: pathlib.Path) -> None:
    """Nobody is asked for it at a terminal."""
    from cryptography.hazmat.primitives import serialization as s

    pem, key, _ = certificate_module._make()
    sealed = s.load_pem_private_key(key, None).private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"word")
    )
    (tmp_path / "c").write_bytes(pem)
    (tmp_path / "k").write_bytes(sealed)
    with pytest.raises(ValueError, match="it needs a password"):
        certificate(Security("tls", str(tmp_path / "c"), str(tmp_path / "k")))


def test_given_ones_that_are_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        certificate(Security("tls", str(tmp_path / "c"), str(tmp_path / "k")))


def test_nothing_is_loaded_that_is_not_needed() -> None:
    code = (
        "import sys, academy.exchange.hybrid, academy.link.certificate as c;"
        "c.client_context(); assert 'cryptography.x509' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
