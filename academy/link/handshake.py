"""The handshake: two processes prove to each other that they know the secret.

Three frames, far below the limit. The client speaks first; the server proves itself
first. The proofs are HMAC-SHA256 over both nonces, both process identifiers, the
namespace, the protocol version, what the transport binds the connection to, and a
role, so that a proof can be neither replayed nor reflected.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from academy.link.refusal import Refusal

VERSION = 3
MAGIC = b"ACDM"
NONCE = 32
UID = 16
SECRETS = 4
"""Secrets that are valid at a time, at most."""

_HELLO = struct.Struct("!4sB16s16s32s")
_CHALLENGE = struct.Struct("!4sB16s32s")
_PROOF = struct.Struct("!32s")


class Role(enum.Enum):
    """Who dialled."""

    CLIENT = b"client"
    SERVER = b"server"


@dataclass(frozen=True)
class Identity:
    """What a process says of itself.

    Attributes:
        process: Its identifier, 16 bytes.
        namespace: Hash of its namespace, 16 bytes.
        nonce: Fresh random bytes, 32 of them.
        binding: What the connection is bound to, such as the fingerprint of the
            server's certificate; both sides must see the same.

    Raises:
        ValueError: A field has another size.
    """

    process: bytes
    namespace: bytes
    nonce: bytes
    binding: bytes = b""

    def __post_init__(self) -> None:
        sizes = len(self.process), len(self.namespace), len(self.nonce)
        if sizes != (UID, UID, NONCE):
            raise ValueError(
                f"An identity needs {UID}, {UID} and {NONCE} bytes, not {sizes}."
            )


class HandshakeError(Exception):
    """The peer did not prove that it belongs to the namespace.

    Args:
        reason: Why, for people to read.
        refusal: The same for counting.
    """

    def __init__(self, reason: str, refusal: Refusal = Refusal.GARBAGE) -> None:
        super().__init__(reason)
        self.refusal = refusal


def namespace_hash(namespace: str) -> bytes:
    """Return the 16 bytes by which a handshake names a namespace."""
    return hashlib.sha256(namespace.encode()).digest()[:UID]


class _Step(enum.Enum):
    """What is to be received next."""

    HELLO = enum.auto()
    CHALLENGE = enum.auto()
    PROOF = enum.auto()
    NOTHING = enum.auto()


class Handshake:
    """One side of a handshake.

    Args:
        role: Which side.
        me: This process.
        secrets: Secrets of the namespace, the current one first. Sides that have one
            in common agree, so that a secret can be changed while processes run; only
            the first four count.
        expected: Process that the client means to reach; `None` for any.

    Raises:
        ValueError: There is no secret, or an empty one.
    """

    def __init__(
        self,
        role: Role,
        me: Identity,
        secrets: Sequence[bytes],
        expected: bytes | None = None,
    ) -> None:
        if not secrets or not all(secrets):
            raise ValueError("A handshake needs secrets that are not empty.")
        self._role = role
        self._me = me
        self._secrets = list(secrets[:SECRETS])
        self._expected = expected
        self._step = _Step.CHALLENGE if role is Role.CLIENT else _Step.HELLO
        self._peer_nonce = b""
        self.peer = b""
        """The peer process, as it says; proved once `done`."""
        self.done = False

    def start(self) -> bytes:
        """Return the client's first frame body."""
        me = self._me
        return _HELLO.pack(MAGIC, VERSION, me.namespace, me.process, me.nonce)

    def receive(self, body: bytes) -> bytes | None:
        """Take the peer's next frame body and return the answer, if there is one.

        Raises:
            HandshakeError: The peer did not prove itself; so does every later call.
        """
        step, self._step = self._step, _Step.NOTHING
        match step:
            case _Step.HELLO:
                return self._receive_hello(body)
            case _Step.CHALLENGE:
                return self._receive_challenge(body)
            case _Step.PROOF:
                self._receive_proof(body)
                return None
        raise HandshakeError("it goes on after the end")

    def _receive_hello(self, body: bytes) -> bytes:
        magic, version, namespace, process, nonce = _unpack(_HELLO, body)
        self._meet(magic, version, process, nonce)
        if namespace != self._me.namespace:
            raise HandshakeError("it belongs to another namespace", Refusal.NAMESPACE)
        me = self._me
        proofs = [self._proof(Role.SERVER, secret) for secret in self._secrets]
        self._step = _Step.PROOF
        head = _CHALLENGE.pack(MAGIC, VERSION, me.process, me.nonce)
        return head + b"".join(proofs)

    def _receive_challenge(self, body: bytes) -> bytes:
        head, proofs = body[: _CHALLENGE.size], body[_CHALLENGE.size :]
        self._meet(*_unpack(_CHALLENGE, head))
        if self._expected not in (None, self.peer):
            raise HandshakeError(
                "another process answers at this address", Refusal.PROCESS
            )
        if len(proofs) not in range(0, (SECRETS + 1) * _PROOF.size, _PROOF.size):
            raise HandshakeError("it sent something else than a handshake")
        for (proof,) in _PROOF.iter_unpack(proofs):
            for secret in self._secrets:
                if hmac.compare_digest(self._proof(Role.SERVER, secret), proof):
                    self.done = True
                    return self._proof(Role.CLIENT, secret)
        raise HandshakeError("it does not know the secret", Refusal.SECRET)

    def _receive_proof(self, body: bytes) -> None:
        (proof,) = _unpack(_PROOF, body)
        proofs = [self._proof(Role.CLIENT, secret) for secret in self._secrets]
        if not any(hmac.compare_digest(p, proof) for p in proofs):
            raise HandshakeError("it does not know the secret", Refusal.SECRET)
        self.done = True

    def _meet(self, magic: bytes, version: int, process: bytes, nonce: bytes) -> None:
        """Note who the peer says it is."""
        if magic != MAGIC:
            raise HandshakeError("it does not speak this protocol")
        if version != VERSION:
            reason = f"it speaks version {version}, this side {VERSION}"
            raise HandshakeError(reason, Refusal.VERSION)
        if process == self._me.process:
            raise HandshakeError("it claims to be this process", Refusal.PROCESS)
        self.peer, self._peer_nonce = process, nonce

    def _proof(self, prover: Role, secret: bytes) -> bytes:
        mine = (self._me.process, self._me.nonce)
        theirs = (self.peer, self._peer_nonce)
        client, server = (mine, theirs) if self._role is Role.CLIENT else (theirs, mine)
        # Every part has a fixed size, so that no two transcripts look the same.
        binding = hashlib.sha256(self._me.binding).digest()
        fixed = (prover.value, bytes((VERSION,)), self._me.namespace, binding)
        mac = hmac.new(secret, digestmod=hashlib.sha256)
        for part in (*fixed, *client, *server):
            mac.update(part)
        return mac.digest()


def _unpack(form: struct.Struct, body: bytes) -> tuple[Any, ...]:
    if len(body) != form.size:
        raise HandshakeError("it sent something else than a handshake")
    return form.unpack(body)
