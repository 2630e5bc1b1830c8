"""`academy server`: a server in the foreground, or a user for another one."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from academy.cli.error import CommandError, UsageError
from academy.cli.output import complain, print_json, print_text
from academy.cli.url import VARIABLE, with_host
from academy.embedded import EmbeddedServer
from academy.exchange.acl import NamespaceUser
from academy.socket import address_by_hostname

_WILDCARDS = {"0.0.0.0", "::"}
_CHECK = 0.5  # seconds between two looks at the server


async def serve(server: EmbeddedServer, *, persist: Path | None, as_json: bool) -> int:
    """Run a server until Ctrl-C, SIGTERM or SIGHUP, and return the exit code.

    Args:
        server: The server, not started yet.
        persist: Where it keeps its data, if it does.
        as_json: Whether to print one line of JSON instead of text.

    Raises:
        CommandError: The server ended by itself.
        Exception: It could not be started.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    with server:
        _announce(server, persist=persist, as_json=as_json)
        while not stop.is_set():
            if not server.running:
                raise CommandError("The server has ended; somebody else stopped it.")
            try:
                async with asyncio.timeout(_CHECK):
                    await stop.wait()
            except TimeoutError:
                continue
    return 0


def print_acl(namespace: str, *, as_json: bool) -> int:
    """Print what makes a user for a namespace, with a new password.

    Args:
        namespace: The namespace.
        as_json: Whether to print one line of JSON instead of the command alone.

    Raises:
        UsageError: It is no namespace.
    """
    user = NamespaceUser(f"academy-{namespace}", secrets.token_urlsafe(24), namespace)
    try:
        rule = user.rule
    except ValueError as e:
        raise UsageError(str(e)) from e
    if as_json:
        print_json({"user": user.name, "password": user.password, "rule": rule})
        return 0
    print_text(rule)
    complain(
        "Pipe the line into redis-cli or valkey-cli, connected to the server as a user "
        "who may do all. It has a new password. The URL for programs is then\n"
        f"    redis://{quote(user.name, safe='')}:PASSWORD@HOST:PORT"
    )
    return 0


def _announce(server: EmbeddedServer, *, persist: Path | None, as_json: bool) -> None:
    url = server.url
    if server.host in _WILDCARDS:
        url = with_host(url, _own_name())
    if as_json:
        print_json({"url": url, "pid": os.getpid()})
        return
    print_text(
        f"Server version {server.version} listens at {server.host}, port "
        f"{server.port}. Tell programs and other terminals where it is:\n\n"
        f"    export {VARIABLE}={shlex.quote(url)}\n"
    )
    fate = f"stays in {persist}" if persist else "is gone then; --persist DIR keeps it"
    print_text(f"Ctrl-C stops the server. Its data {fate}.")


def _own_name() -> str:
    """Return a name of this host that stands for an address, or else an address."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return address_by_hostname()
    return name
