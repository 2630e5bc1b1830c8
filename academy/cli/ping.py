"""`academy ping`: is an agent there, and how far away?"""

from __future__ import annotations

import statistics
from typing import Any

from academy.cli.connection import Connection
from academy.cli.lookup import label, resolve
from academy.cli.output import print_json, print_text
from academy.exception import ExchangeError, PingCancelledError
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.handle import Handle


async def ping(
    connection: Connection, query: str, *, count: int, timeout: float, as_json: bool
) -> int:
    """Ping an agent several times and return the exit code: 1 if any got no answer."""
    async with connection.open() as client:
        agent = await resolve(client, query)
        handle: Handle[Any] = Handle(agent.agent_id, exchange=client)
        seconds: list[float] = []
        errors: list[str] = []
        for number in range(1, count + 1):
            try:
                seconds.append(await handle.ping(timeout=timeout))
                outcome = _milliseconds(seconds[-1])
            except TimeoutError:
                outcome = f"no answer within {timeout:g} s{await _why(client, agent)}"
                errors.append(outcome)
            except (ExchangeError, PingCancelledError) as e:
                outcome = str(e)
                errors.append(outcome)
            if not as_json:
                print_text(f"{label(agent)} {number}: {outcome}")
    _summarize(agent, seconds, errors, as_json=as_json)
    return 1 if errors else 0


async def _why(client: Any, agent: AgentInfo) -> str:
    """Say why there may be no answer."""
    status = await client.status(agent.agent_id)
    if status is MailboxStatus.INACTIVE:
        return "; it is registered, but no process runs it now"
    return f"; it is {status.value.lower()}"


def _summarize(
    agent: AgentInfo, seconds: list[float], errors: list[str], *, as_json: bool
) -> None:
    sent = len(seconds) + len(errors)
    times = (min(seconds), statistics.mean(seconds), max(seconds)) if seconds else ()
    if as_json:
        print_json(
            {
                "agent": str(agent.agent_id.uid),
                "sent": sent,
                "answered": len(seconds),
                "seconds": seconds,
                "errors": errors,
            }
        )
        return
    text = f"{sent} sent, {len(seconds)} answered"
    if times:
        text += f", min/avg/max {' / '.join(map(_milliseconds, times))}"
    print_text(text)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"
