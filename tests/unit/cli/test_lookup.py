from __future__ import annotations

import uuid

import pytest

from academy.agent import Agent
from academy.cli.error import CommandError, UsageError
from academy.cli.lookup import describe, find, label, resolve
from academy.exchange.local import LocalExchangeFactory
from academy.exchange.transport import AgentInfo, MailboxStatus
from academy.identifier import AgentId


def info(uid: str, name: str | None = None) -> AgentInfo:
    return AgentInfo(
        agent_id=AgentId(uid=uuid.UUID(uid.ljust(32, "0")), name=name),
        agent_class="package.Kind",
        status=MailboxStatus.ACTIVE,
        host="here",
        pid=1,
        queued=0,
    )


ALFA = info("abcd1111", "alfa")
BETA = info("abcd2222", "beta")
OTHER_BETA = info("ffff3333", "beta")
NAMELESS = info("eeee4444")
AGENTS = [ALFA, BETA, OTHER_BETA, NAMELESS]


@pytest.mark.parametrize(
    ("query", "agent"),
    [
        ("alfa", ALFA),
        ("abcd1", ALFA),
        ("ABCD2222-0000", BETA),
        (str(OTHER_BETA.agent_id.uid), OTHER_BETA),
        (OTHER_BETA.agent_id.uid.hex, OTHER_BETA),
        ("eeee", NAMELESS),
    ],
)
def test_find(query: str, agent: AgentInfo) -> None:
    assert find(query, AGENTS) is agent


@pytest.mark.parametrize("query", ["eee", "alf", "Alfa", "", "----", "0000"])
def test_nothing_fits(query: str) -> None:
    with pytest.raises(UsageError, match=f"no agent '{query}' in this namespace"):
        find(query, AGENTS)


def test_similar_name_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"Did you mean alfa\? `academy ps`"):
        find("alpha", AGENTS)


@pytest.mark.parametrize(
    ("query", "agents"), [("beta", [BETA, OTHER_BETA]), ("abcd", [ALFA, BETA])]
)
def test_ambiguous(query: str, agents: list[AgentInfo]) -> None:
    with pytest.raises(UsageError, match="stands for 2 agents") as caught:
        find(query, AGENTS)
    assert all(describe(agent) in str(caught.value) for agent in agents)


def test_name_that_is_the_beginning_of_another_identifier() -> None:
    with pytest.raises(UsageError, match="2 agents"):
        find("abcd1", [ALFA, info("1234", "abcd1")])


def test_only_some_candidates_are_listed() -> None:
    with pytest.raises(UsageError, match="; and 2 more"):
        find("twin", [info(f"{n:08x}", "twin") for n in range(12)])


def test_label() -> None:
    assert label(ALFA) == "alfa"
    assert label(NAMELESS) == "eeee4444"


class Quiet(Agent):
    pass


async def test_resolve_says_that_an_agent_has_ended() -> None:
    async with await LocalExchangeFactory().create_user_client() as client:
        ended = (await client.register_agent(Quiet, name="ended")).agent_id
        there = (await client.register_agent(Quiet, name="there")).agent_id
        await client.terminate(ended)

        assert (await resolve(client, "there")).agent_id == there
        with pytest.raises(UsageError, match="no agent 'ended'"):
            await resolve(client, "ended")
        with pytest.raises(CommandError, match="has been terminated") as caught:
            await resolve(client, str(ended.uid))
        assert caught.value.exit_code == 1
        with pytest.raises(UsageError, match="no agent"):
            await resolve(client, str(uuid.uuid4()))
