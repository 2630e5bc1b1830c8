"""`academy describe`: what an agent is and what it can do."""

from __future__ import annotations

import asyncio
import dataclasses
import textwrap
from typing import Any

from academy.cli.connection import Connection
from academy.cli.error import CommandError
from academy.cli.lookup import label, resolve
from academy.cli.output import print_json, print_text
from academy.cli.ps import as_object, place
from academy.describe import ActionDescription, AgentDescription
from academy.exchange.client import ExchangeClient
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.handle import Handle
from academy.stats import AgentStats


async def describe(
    connection: Connection, query: str, *, timeout: float, as_json: bool
) -> int:
    """Print what an agent is and can do, and return the exit code.

    An agent that no process runs cannot be asked what it can do; the rest is printed.

    Raises:
        UsageError: There is no such agent.
        CommandError: It did not answer in time.
        Exception: It could not be asked.
    """
    async with connection.open() as client:
        agent = await resolve(client, query)
        stats = await client.agent_stats(agent.agent_id)
        running = agent.status is MailboxStatus.ACTIVE
        about = await _ask(client, agent, timeout) if running else None
    if as_json:
        known = as_object(agent) | {"stats": dataclasses.asdict(stats)}
        print_json(known | {"description": about and about.model_dump()})
    else:
        _print_agent(agent, stats)
        _print_description(about)
    return 0


async def _ask(
    client: ExchangeClient[Any], agent: AgentInfo, timeout: float
) -> AgentDescription:
    handle: Handle[Any] = Handle(agent.agent_id, exchange=client)
    try:
        async with asyncio.timeout(timeout):
            about: AgentDescription = await handle.action("agent_describe")
    except TimeoutError as e:
        raise CommandError(
            f"{label(agent)} did not say within {timeout:g} s what it can do."
        ) from e
    return about


def _print_agent(agent: AgentInfo, stats: AgentStats) -> None:
    print_text(f"agent     {label(agent)}")
    print_text(f"id        {agent.agent_id.uid}")
    print_text(f"class     {agent.agent_class}")
    print_text(f"state     {agent.status.value.lower()}")
    print_text(f"host:pid  {place(agent)}")
    print_text(
        f"requests  {stats.incoming} in, {stats.completed} answered, "
        f"{stats.in_progress} in progress, {stats.outgoing} out"
    )
    print_text(f"queue     {agent.queued}")


def _print_description(about: AgentDescription | None) -> None:
    print_text()
    if about is None:
        print_text("No process runs it now, so it cannot be asked what it can do.")
        return
    if about.description:
        print_text(about.description + "\n")
    for action in about.actions.values():
        print_text(signature(action))
        if action.doc:
            print_text(textwrap.indent(action.doc, "    "))


def signature(action: ActionDescription) -> str:
    """Return name, parameters and result of an action as Python writes them.

    One that may run twice is marked as idempotent.
    """
    types = dict(action.type_signature)
    result = types.pop("return", None)
    parameters = ", ".join(f"{name}: {_plain(kind)}" for name, kind in types.items())
    text = f"{action.name}({parameters})" + (f" -> {_plain(result)}" if result else "")
    return f"{text}  # idempotent" if action.idempotent else text


def _plain(kind: str) -> str:
    """Return the text of a type, with classes as their names."""
    name = kind.removeprefix("<class '").removesuffix("'>")
    return "None" if name == "NoneType" else name
