"""The certificate by which a process is known on encrypted links.

Each process makes one for itself, unless the operator gives one. Nobody signs it: who
dials a process knows the fingerprint of its certificate from the directory, and takes
no other.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import hashlib
import os
import shutil
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from academy.link.folder import private_folder
from academy.link.security import Security

VALIDITY = datetime.timedelta(days=3650)
"""Time for which a certificate is made out; it is the directory that makes it valid."""


@dataclass(frozen=True)
class Certificate:
    """What a process answers encrypted connections with.

    Attributes:
        context: For its side of these connections. The private key is in it, and
            nowhere else.
        fingerprint: SHA-256 of the certificate, 64 hexadecimal digits.
    """

    context: ssl.SSLContext = field(repr=False)
    fingerprint: str


def certificate(security: Security) -> Certificate:
    """Return the certificate of this process, made when it is needed first.

    Raises:
        ValueError: The certificate that the operator gives, or its key, is none.
        OSError: One of them cannot be read.
    """
    if security.certificate is None or security.key is None:
        return _own(os.getpid())
    return _given(security.certificate, security.key)


def client_context() -> ssl.SSLContext:
    """Return the settings of the side that dials, which compares the fingerprint."""
    return _client_context()


def peer_fingerprint(transport: asyncio.BaseTransport) -> str:
    """Return the fingerprint of the other side of an encrypted connection."""
    return fingerprint(transport.get_extra_info("ssl_object").getpeercert(True))


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate, 64 hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


@functools.cache
def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # No authority knows these certificates: `peer_fingerprint` is what counts.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no session is ever resumed
    context.load_cert_chain(certificate, key, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("it needs a password; give a key without one")


@functools.lru_cache(maxsize=8)
def _given(certificate: str, key: str) -> Certificate:
    try:
        context = _server_context(Path(certificate), Path(key))
        found = fingerprint(ssl.PEM_cert_to_DER_cert(_first(certificate)))
    except (ssl.SSLError, ValueError) as e:
        raise ValueError(
            f"{certificate} and {key} are no certificate and key in PEM format that "
            f"belong together: {e}"
        ) from e
    return Certificate(context, found)


def _first(path: str) -> str:
    """Return the first certificate of a file: a chain begins with that of its owner."""
    text = Path(path).read_text()
    begin = text.index("-----BEGIN CERTIFICATE-----")
    end = text.index("-----END CERTIFICATE-----", begin)
    return text[begin:end] + "-----END CERTIFICATE-----\n"


@functools.lru_cache(maxsize=1)
def _own(pid: int) -> Certificate:
    """Return a new certificate; a process that was forked gets one of its own."""
    pem, key, found = _make()
    folder = private_folder()
    try:
        # The ssl module takes keys from files only.
        for name, text in (("certificate", pem), ("key", key)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as file:
                file.write(text)
        context = _server_context(folder / "certificate", folder / "key")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Certificate(context, found)


def _make() -> tuple[bytes, bytes, str]:
    """Return a self-signed certificate, its key, and its fingerprint."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "academy")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALIDITY)
        .not_valid_after(now + VALIDITY)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    encoding = serialization.Encoding
    found = fingerprint(made.public_bytes(encoding.DER))
    return made.public_bytes(encoding.PEM), secret, found
