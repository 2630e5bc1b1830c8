"""One agent as a process of its own: ``python -m academy.run --config FILE.toml``.

```toml
[exchange]
exchange_type = "hybrid"
redis_host = "localhost"
redis_port = 6379

[agent]
constructor = "mypackage.steering:Steering"
interval = 5            # all other keys are arguments of the class

[config]                # a RuntimeConfig
terminate_on_success = false
authorize = "mypackage.rules:permits"   # a function of a module
```

If the file has no `[agent_registration]`, the agent is registered and that table is
appended, so that the agent has the same identity and mailbox when it is started again.
SIGINT and SIGTERM shut it down. The process exits with 0 when the agent has ended
regularly, with 1 when it has failed, and with 2 when the file cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from academy.agent import Agent
from academy.debug import set_academy_debug
from academy.event_loop import loop_factory
from academy.exception import BadEntityIdError, MailboxTerminatedError
from academy.exchange.factory import ExchangeFactory
from academy.exchange.transport import AgentRegistration
from academy.logging import log_context, recommended_logging
from academy.process_config import (
    AgentModel,
    AgentProcessConfig,
    ConfigError,
    HybridExchangeModel,
    RedisExchangeModel,
)
from academy.runtime import Runtime

__all__ = [
    "AgentModel",
    "AgentProcessConfig",
    "ConfigError",
    "HybridExchangeModel",
    "RedisExchangeModel",
    "main",
    "run",
]

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent that a file describes, and return the exit code.

    Args:
        argv: Arguments of the command line; `None` for those of this process.
    """
    arguments = _parser().parse_args(argv)
    path: pathlib.Path = arguments.config
    try:
        log_config = recommended_logging(
            arguments.log_level, logfile=arguments.log_file
        )
        config = AgentProcessConfig.load(path)
        if config.agent_registration is None and not os.access(path, os.W_OK):
            raise ConfigError(
                f"{path} cannot be written, but the registration of the agent must be "
                "noted in it. Make it writable, or add an [agent_registration]."
            )
        exchange = config.get_exchange()
    except (OSError, ValueError) as e:
        return _usage_error(e)
    set_academy_debug(arguments.debug)
    with (
        log_context(log_config),
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        return runner.run(_run(config, path, exchange))


async def _run(
    config: AgentProcessConfig, path: pathlib.Path, exchange: ExchangeFactory[Any]
) -> int:
    try:
        await run(config.get_agent(), config, path, exchange)
    except ConfigError as e:
        return _usage_error(f"{path}: {e}")
    except Exception as e:
        logger.exception("The agent has failed.")
        registration = config.agent_registration
        if isinstance(e, MailboxTerminatedError | BadEntityIdError) and (
            registration is not None and e.uid == registration.agent_id
        ):
            logger.error("To run it anew, delete [agent_registration] from %s.", path)
        return 1
    return 0


async def run(
    agent: Agent,
    config: AgentProcessConfig,
    path: pathlib.Path,
    exchange: ExchangeFactory[Any],
) -> None:
    """Run an agent until it has ended, or until a signal shuts it down.

    Args:
        agent: The agent.
        config: What the file says.
        path: The file; a new registration is appended to it.
        exchange: The exchange of the agent.

    Raises:
        Exception: The agent could not be registered or started, or it failed.
    """
    registration = config.agent_registration
    if registration is None:
        registration = await _register(agent, exchange)
        config.note_registration(path, registration)
    runtime = Runtime(
        agent,
        exchange_factory=exchange,
        registration=registration,
        config=config.config,
    )
    with _shut_down_by_signal(runtime):
        await runtime.run_until_complete()


@contextlib.contextmanager
def _shut_down_by_signal(runtime: Runtime[Any]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def shut_down(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)  # the second one does not wait
        logger.info("Shutting down on %s.", number.name)
        runtime.signal_shutdown()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, shut_down, number)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _register(
    agent: Agent, exchange: ExchangeFactory[Any]
) -> AgentRegistration[Any]:
    client = await exchange.create_user_client(start_listener=False)
    async with client:
        return await client.register_agent(type(agent))


def _usage_error(error: object) -> int:
    print(f"academy.run: {error}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "academy.run", description="Run an agent as a process of its own."
    )
    parser.add_argument(
        "--config", type=pathlib.Path, required=True, help="TOML file to run"
    )
    parser.add_argument("--debug", action="store_true", help="turn on debug mode")
    parser.add_argument("--log-level", default="INFO", help="lowest level to log")
    parser.add_argument("--log-file", help="file to append the log to as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
