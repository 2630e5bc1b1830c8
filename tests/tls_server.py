"""A Redis server that speaks TLS, and certificates for it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from academy.embedded import port as ports

PASSWORD = "canary-of-the-tls-server"
KEY_PASSWORD = "canary-of-the-key"


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, and of the server and a client that it vouches for."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    other_authority: Path


@dataclass(frozen=True)
class TLSServer:
    """A server that runs.

    Attributes:
        port: Where it speaks TLS.
        certificates: The files.
    """

    port: int
    certificates: Certificates

    @property
    def url(self) -> str:
        return (
            f"rediss://:{PASSWORD}@127.0.0.1:{self.port}/0"
            f"?ssl_ca_certs={self.certificates.authority}"
        )

    def kwargs(self, **more: Any) -> dict[str, Any]:
        authority = str(self.certificates.authority)
        return {"ssl": True, "ssl_ca_certs": authority, "password": PASSWORD, **more}


class _Authority:
    def __init__(self, directory: Path, name: str) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name
        self.path = self._write(name, self._certificate(name, self._key, ca=True))

    def issue(self, name: str, password: str | None = None) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        encryption: Any = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            encryption,
        )
        certificate = self._write(name, self._certificate(name, key, ca=False))
        path = self._directory / f"{name}.key"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        return certificate, path

    def _certificate(self, name: str, key: Any, *, ca: bool) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        def called(text: str) -> Any:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        now = datetime.datetime.now(datetime.UTC)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        issuer, subject = self._key.public_key(), key.public_key()
        # From 3.13 on, Python asks for the identifiers of both keys (RFC 5280).
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
        own = x509.SubjectKeyIdentifier.from_public_key(subject)
        usage = x509.KeyUsage(not ca, *[False] * 4, ca, ca, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName([here]), False)
            .add_extension(usage, True)
            .add_extension(by, False)
            .add_extension(own, False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: Any) -> Path:
        from cryptography.hazmat.primitives.serialization import Encoding

        path = self._directory / f"{name}.crt"
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return path


def make_certificates(directory: Path) -> Certificates:
    """Make them; skips the test where `cryptography` is not installed."""
    pytest.importorskip("cryptography")
    authority = _Authority(directory, "authority")
    return Certificates(
        authority.path,
        *authority.issue("server"),
        *authority.issue("client", KEY_PASSWORD),
        _Authority(directory, "other").path,
    )


def find_binary() -> str:
    """Return a server with TLS; skips the test where there is none."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            break
    else:
        pytest.skip("no redis-server or valkey-server in PATH, to try TLS with")
    probe = subprocess.run(
        [found, "--port", "0", "--tls-port", "x"], capture_output=True, timeout=10
    )
    # One that was built without TLS does not even know the name.
    if b"Bad directive" in probe.stdout + probe.stderr:
        pytest.skip(f"{found} was built without TLS")
    return found


@contextlib.contextmanager
def tls_server(
    directory: Path, certificates: Certificates, *, ask_clients: bool
) -> Iterator[TLSServer]:
    """Run a server; it asks clients for certificates, or does not."""
    binary = find_binary()
    port = ports.free_port(["127.0.0.1"])
    config = directory / f"tls-{port}.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport 0\ntls-port {port}\nrequirepass {PASSWORD}\n"
        f'dir {directory}\nsave ""\ntls-cert-file {certificates.server}\n'
        f"tls-key-file {certificates.server_key}\n"
        f"tls-ca-cert-file {certificates.authority}\n"
        f"tls-auth-clients {'yes' if ask_clients else 'no'}\n"
    )
    with open(directory / f"tls-{port}.log", "wb") as log:
        process = subprocess.Popen([binary, str(config)], stdout=log, stderr=log)
    try:
        _wait(process, port)
        yield TLSServer(port, certificates)
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.01)
    raise redis.ConnectionError(f"the TLS server did not start: {process.poll()}")
