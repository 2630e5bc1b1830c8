"""`academy call`: calls an action of an agent."""

from __future__ import annotations

import asyncio
from typing import Any

from academy.cli.arguments import parse_arguments
from academy.cli.connection import Connection
from academy.cli.error import CommandError, named, speaks_for_itself
from academy.cli.lookup import label, resolve
from academy.cli.output import print_json, print_value
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle
from academy.serialize import SerializationStrategy


async def call(
    connection: Connection,
    query: str,
    action: str,
    words: list[str],
    *,
    timeout: float | None,
    pickle: bool,
    as_json: bool,
) -> int:
    """Call an action, print its result, and return the exit code.

    Raises:
        UsageError: The agent or the arguments are not what they should be.
        CommandError: No process runs the agent, it did not answer in time, or the
            action raised an error.
        Exception: The call was not delivered, or its result cannot be read here.
    """
    args, kwargs = parse_arguments(words)
    async with connection.open() as client:
        agent = await resolve(client, query)
        name = label(agent)
        if agent.status is not MailboxStatus.ACTIVE:
            raise CommandError(f"No process runs {name} now, so it cannot be called.")
        json = SerializationStrategy.JSON
        handle: Handle[Any] = Handle(
            agent.agent_id,
            exchange=client,
            request_serializer=None if pickle else json,
            allowed_deserializers=None if pickle else {json},
        )
        try:
            async with asyncio.timeout(timeout) as patience:
                result = await handle.action(action, *args, **kwargs)
        except Exception as e:
            if patience.expired():
                raise CommandError(
                    f"{name} did not answer {action} within {timeout:g} s. The action "
                    "may have been executed."
                ) from e
            if speaks_for_itself(e):
                raise
            raise CommandError(f"{action} of {name} raised {named(e)}") from e
    (print_json if as_json else print_value)(result)
    return 0
