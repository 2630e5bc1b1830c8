"""`academy rotate-secret`: a new secret for a namespace whose members run."""

from __future__ import annotations

from academy.cli.connection import Connection
from academy.cli.error import CommandError, UsageError
from academy.cli.output import print_json, print_text


async def rotate(connection: Connection, *, overlap: float, as_json: bool) -> int:
    """Replace the secret and return the exit code.

    Args:
        connection: Where to connect to.
        overlap: Seconds for which the old one is accepted.
        as_json: Whether to print JSON.

    Raises:
        UsageError: The environment gives the secret.
        CommandError: The one before is still accepted.
    """
    async with connection.open() as client:
        keyring = client._transport.engine.keyring
        try:
            done = await keyring.rotate(overlap)
        except ValueError as e:
            raise UsageError(str(e)) from e
    if not done:
        raise CommandError(
            f"Namespace {connection.namespace!r} was given a secret not long ago, and "
            "the one before is still accepted; nothing was changed. Try again later."
        )
    if as_json:
        print_json({"namespace": connection.namespace, "overlap": overlap})
    else:
        print_text(
            f"Namespace {connection.namespace!r} has a new secret; the old one is "
            f"accepted for another {overlap:g} s."
        )
    return 0
