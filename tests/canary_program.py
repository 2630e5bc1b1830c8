"""A program with workers that shows all it can: logs, texts, pickles, command lines.

    python -m tests.canary_program DIRECTORY

It leaves them in files in the directory, for a test to look for its passwords, which
are in the file `secrets` there.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import pathlib
import pickle
import secrets
import sys
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil

from academy.capsule import RunSpec, dump_body
from academy.embedded import EmbeddedServer
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.redis import RedisExchangeFactory
from academy.executor import SubprocessExecutor
from academy.logging import recommended_logging
from academy.manager import Manager
from academy.runtime_config import RuntimeConfig
from tests.launched_agents import BadStartup, Counter


class Show:
    """Writes what there is to see into files.

    Args:
        directory: Where to.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def texts(self, *things: Any) -> None:
        with open(self._directory / "texts", "a") as file:
            for thing in things:
                # A server has its password; all others have it inside a secret.
                mine = not isinstance(thing, EmbeddedServer)
                inside = getattr(thing, "__dict__", {}) if mine else {}
                print(repr(thing), str(thing), f"{thing}", inside, file=file)

    def pickles(self, *things: bytes) -> None:
        with open(self._directory / "pickles", "ab") as file:
            file.writelines(things)

    def error(self, error: BaseException) -> None:
        with open(self._directory / "errors", "a") as file:
            print(*traceback.format_exception(error), repr(error), file=file)
            print(vars(error), file=file)

    def processes(self) -> int:
        """Write what anybody can see of all processes; return how many are ours."""
        with open(self._directory / "processes", "ab") as file:
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                file.write(_content(path))
            ours = psutil.Process().children(recursive=True)
            for process in ours:
                file.write(_content(pathlib.Path(f"/proc/{process.pid}/environ")))
        return len(ours)


def _content(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def factories(server: EmbeddedServer, password: str) -> Iterable[Any]:
    login = {"password": password}
    yield HybridExchangeFactory(server.host, server.port, redis_kwargs=login)
    yield RedisExchangeFactory(server.host, server.port, **login)
    yield HybridExchangeFactory.from_url(
        f"redis://:{password}@{server.host}:{server.port}/0"
    )


async def work(show: Show, factory: Any, directory: pathlib.Path) -> None:
    """Run agents in workers of two kinds, and one that fails."""
    executors = {
        "subprocess": SubprocessExecutor(),
        "spawn": ProcessPoolExecutor(1, multiprocessing.get_context("spawn")),
    }
    log = recommended_logging(logging.DEBUG, logfile=directory / "worker.log")
    async with await Manager.from_exchange_factory(
        factory, executors=executors, default_executor="subprocess", log_config=log
    ) as manager:
        client = manager.exchange_client
        transport = client._transport
        engine = transport.engine
        show.texts(manager, client, transport, engine, engine.server, client.factory())
        show.texts(engine.server.info, engine._lease, transport._redis_info.identity())
        show.pickles(pickle.dumps(client.factory()))
        for name in executors:
            counter = await manager.launch(Counter, executor=name)
            assert await counter.add() == 1
        assert show.processes() >= 4
        registration = await manager.register_agent(Counter)
        spec = RunSpec(Counter, (), {}, RuntimeConfig(), factory, registration)
        show.pickles(dump_body(spec))
        show.texts(spec)


async def fail_in_a_worker(show: Show, factory: Any) -> None:
    try:
        async with await Manager.from_exchange_factory(
            factory, executors=SubprocessExecutor()
        ) as manager:
            agent = await manager.launch(BadStartup)
            await manager.wait([agent])
    except ValueError as e:
        show.error(e)


async def fail(show: Show, server: EmbeddedServer, wrong: str) -> None:
    """Log in with a wrong password, and connect to nobody."""
    for factory in factories(server, wrong):
        try:
            await factory.create_user_client()
        except Exception as e:
            show.error(e)
    try:
        HybridExchangeFactory.from_url(f"redis://:{wrong}@host:port")
    except ValueError as e:
        show.error(e)


async def main(directory: pathlib.Path) -> None:
    show = Show(directory)
    password, wrong = (f"canary-{secrets.token_hex(12)}" for _ in range(2))
    (directory / "secrets").write_text(f"{password}\n{wrong}\n")
    asyncio.get_running_loop().set_debug(True)
    log = recommended_logging(logging.DEBUG, logfile=directory / "main.log", extra=True)
    close = log.init_logging()
    with EmbeddedServer(password=password) as server:
        show.texts(server)
        for factory in factories(server, password):
            show.texts(factory, factory.redis_info, factory.redis_info.kwargs)
            show.pickles(pickle.dumps(factory))
            await work(show, factory, directory)
            await fail_in_a_worker(show, factory)
        await fail(show, server, wrong)
        plain = HybridExchangeFactory(
            server.host,
            server.port,
            redis_kwargs=server.redis_kwargs,
            embed_credentials=True,
        )
        show.texts(plain)
        (directory / "embedded").write_bytes(pickle.dumps(plain))
    close()


if __name__ == "__main__":
    asyncio.run(main(pathlib.Path(sys.argv[1])))
