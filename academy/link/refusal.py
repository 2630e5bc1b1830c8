"""Why a connection, or what came on it, is refused."""

from __future__ import annotations

import enum


class Refusal(enum.StrEnum):
    """A reason to refuse; its value names the counter."""

    # Before a connection has proved itself.
    CROWDED = "crowded"
    """Too many connections were in the handshake."""
    DESCRIPTORS = "descriptors"
    """The process had no file descriptor left; the connection waits at the door."""
    LATE = "late"
    """It did not prove itself in time."""
    USER = "user"
    """It came to the Unix socket, from another user."""
    CLEAR_TEXT = "clear_text"
    """It was not encrypted, and had to be."""
    TLS = "tls"
    """It did not end the TLS handshake, or encryption is not offered."""
    CERTIFICATE = "certificate"
    """Its certificate was not the one that its process has published."""
    GARBAGE = "garbage"
    """It sent something else than a handshake."""
    VERSION = "version"
    """It speaks another version of the protocol."""
    NAMESPACE = "namespace"
    """It belongs to another namespace."""
    PROCESS = "process"
    """It is another process than the one that was dialled, or says it is this one."""
    SECRET = "secret"
    """It does not know the secret of the namespace."""
    # After that.
    VIOLATION = "violation"
    """It sent what the protocol does not allow."""
    FOREIGN_SOURCE = "foreign_source"
    """A message in the name of a mailbox that its process does not have."""
    FOREIGN_DESTINATION = "foreign_destination"
    """A message to another mailbox than that of its channel, or to one not here."""
    OLD_INCARNATION = "old_incarnation"
    """A message for, or from, a binding of a mailbox that a newer one has replaced."""
