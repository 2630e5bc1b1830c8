from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomli_w

from academy.debug import get_academy_debug, set_academy_debug
from academy.embedded import EmbeddedServer
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.transport import MailboxStatus
from academy.handle import Handle
from academy.identifier import AgentId
from academy.run import main


@pytest.fixture(autouse=True)
def debug_off() -> Iterator[None]:
    yield
    set_academy_debug(False)


@pytest.fixture
def factory(server: EmbeddedServer, namespace: str) -> HybridExchangeFactory:
    return HybridExchangeFactory.from_url(server.url, namespace=namespace)


@pytest.fixture
def path(
    server: EmbeddedServer, namespace: str, tmp_path: pathlib.Path
) -> pathlib.Path:
    path = tmp_path / "agent.toml"
    write(path, server, namespace)
    return path


def write(
    path: pathlib.Path,
    server: EmbeddedServer,
    namespace: str,
    agent: str = "Counter",
    **arguments: Any,
) -> None:
    kwargs = {"password": server.password}
    path.touch(mode=0o600)  # for the password in it
    path.write_text(
        tomli_w.dumps(
            {
                "exchange": {
                    "exchange_type": "hybrid",
                    "redis_host": server.host,
                    "redis_port": server.port,
                    "redis_kwargs": kwargs,
                    "namespace": namespace,
                },
                "agent": {
                    "constructor": f"tests.launched_agents:{agent}",
                    **arguments,
                },
                "config": {"terminate_on_success": False},
            }
        )
    )


def start(path: pathlib.Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "academy.run", "--config", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def agent_id(path: pathlib.Path) -> AgentId[Any]:
    table = tomllib.loads(path.read_text())["agent_registration"]["agent_id"]
    return AgentId.model_validate(table)


async def add(factory: HybridExchangeFactory, path: pathlib.Path) -> int:
    """Call the agent as soon as its registration is in the file."""
    async with asyncio.timeout(30):
        while True:
            if "agent_registration" in await asyncio.to_thread(path.read_text):
                break
            await asyncio.sleep(0.01)
        async with await factory.create_user_client() as client:
            result: int = await Handle(agent_id(path), exchange=client).add()
            return result


async def status(factory: HybridExchangeFactory, path: pathlib.Path) -> MailboxStatus:
    async with await factory.create_user_client() as client:
        return await client.status(agent_id(path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runs_until_a_signal_and_again_as_the_same(
    factory: HybridExchangeFactory, path: pathlib.Path, number: signal.Signals
) -> None:
    identities = []
    for _ in range(2):
        with start(path) as process:
            assert asyncio.run(add(factory, path)) == 1
            process.send_signal(number)
            output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert f"Shutting down on {number.name}" in output
        assert errors == ""
        identities.append(agent_id(path))
        assert asyncio.run(status(factory, path)) is MailboxStatus.INACTIVE
    assert len(set(identities)) == 1


def test_second_signal_does_not_wait(
    factory: HybridExchangeFactory,
    path: pathlib.Path,
    server: EmbeddedServer,
    namespace: str,
) -> None:
    write(path, server, namespace, "Stubborn")
    with start(path) as process:
        assert asyncio.run(add(factory, path)) == 1
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        while "Shutting down on SIGTERM" not in process.stdout.readline():
            continue
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


def test_agent_that_ends_by_itself(
    factory: HybridExchangeFactory, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """In this process; its log goes to a file as well."""

    async def call() -> None:
        assert await add(factory, path) == 1
        async with await factory.create_user_client() as client:
            await Handle(agent_id(path), exchange=client).shutdown()

    log = tmp_path / "logs" / "agent.log"
    caller = threading.Thread(target=asyncio.run, args=(call(),))
    caller.start()
    assert main(["--config", str(path), "--log-file", str(log), "--debug"]) == 0
    caller.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "ended" in log.read_text()
    assert get_academy_debug()


def test_failing_agent(
    path: pathlib.Path,
    server: EmbeddedServer,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(path, server, namespace, "BadStartup")
    assert main(["--config", str(path)]) == 1
    assert "ValueError: no such lattice" in capsys.readouterr().out
    assert main(["--config", str(path)]) == 1
    output = capsys.readouterr().out
    assert f"To run it anew, delete [agent_registration] from {path}." in output


def test_failing_constructor(
    path: pathlib.Path,
    server: EmbeddedServer,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(path, server, namespace, "BadConstructor")
    assert main(["--config", str(path)]) == 1
    assert "ValueError: no such lattice" in capsys.readouterr().out
    assert "agent_registration" not in path.read_text()


def test_no_server(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = tomllib.loads(path.read_text())
    tables["exchange"]["redis_port"] = 1
    path.write_text(tomli_w.dumps(tables))
    assert main(["--config", str(path)]) == 1
    assert "ConnectionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"constructor": "nomodule_x:C"}, "No module named 'nomodule_x'"),
    ],
)
def test_agent_that_cannot_be_made(
    path: pathlib.Path,
    server: EmbeddedServer,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
    arguments: dict[str, str],
    sentence: str,
) -> None:
    write(path, server, namespace, **arguments)
    assert main(["--config", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"academy.run: {path}: [agent] ")
    assert sentence in line


def test_bad_file(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("[exchange]\nexchange_type = 'http'")
    assert main(["--config", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"academy.run: {path}: [exchange] exchange_type='http' is none of 'hybrid', "
        "'redis'.\n"
    )


def test_no_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_no_level(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(path), "--log-level", "LOUD"]) == 2
    assert "There is no log level 'LOUD'" in capsys.readouterr().err


def test_file_that_cannot_be_written(
    path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["--config", str(path)]) == 2
    assert "the registration of the agent must be noted" in capsys.readouterr().err


def test_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main([])
    assert e.value.code == 2
    assert "--config" in capsys.readouterr().err
