from __future__ import annotations

import pytest
import redis.asyncio

from academy.exchange.keyring import Keyring
from academy.exchange.keys import Keys
from academy.exchange.server import Server


async def test_members_agree_on_a_secret(
    commands: Server, environment: pytest.MonkeyPatch
) -> None:
    mine, theirs = Keyring(commands), Keyring(commands)
    await mine.agree()
    await theirs.agree()
    assert mine.secrets == theirs.secrets
    assert mine.stored() == [mine.secrets[0].stored()]


async def test_a_private_secret_comes_from_the_environment_only(
    commands: Server,
    keys: Keys,
    raw: redis.asyncio.Redis,
    environment: pytest.MonkeyPatch,
) -> None:
    keyring = Keyring(commands, private=True)
    with pytest.raises(ValueError, match="set ACADEMY_SECRET_FILE"):
        await keyring.agree()
    environment.setenv("ACADEMY_SECRET", "a secret of some length")
    await keyring.agree()
    assert keyring.stored() == [b"a secret of some length"]
    assert await raw.exists(keys.secret) == 0
