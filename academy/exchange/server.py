"""Connections of one process to the Redis or Valkey server.

`Server` carries all commands of a process over one connection, in order. Commands that
are issued together travel together. Every command is a script that changes nothing
when it runs a second time, so when a connection breaks, what has no answer is sent
again, in the same order, until its deadline.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import hashlib
import importlib.resources
import logging
import random
import ssl
from collections.abc import Sequence
from typing import Any, TypeAlias

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from academy.exception import ExchangeError
from academy.exchange.connection import RedisConnectionInfo, async_client
from academy.exchange.credential import CredentialError
from academy.exchange.silence import Silence
from academy.exchange.version import IncompatibleServerError, check_version
from academy.task import Tasks

logger = logging.getLogger(__name__)

COMMAND_TIMEOUT = 5.0
BATCH_COMMANDS = 256
BATCH_BYTES = 4 << 20

Argument: TypeAlias = str | bytes | bytearray | memoryview | int

_TRANSIENT = (ConnectionError, TimeoutError, OSError, BusyLoadingError, ReadOnlyError)

_ACL_HINT = ". `academy server --acl NAMESPACE` prints what its user must be allowed."


class ServerFullError(ExchangeError):
    """The server has no memory left for a command, and has not executed it."""


class ServerUnavailableError(ExchangeError):
    """The server could not be reached before the deadline of a command.

    Attributes:
        attempted: Whether the command was sent, so that it may have run.
    """

    def __init__(self, attempted: bool = False, detail: str = "") -> None:
        super().__init__(
            f"The Redis server cannot be reached{': ' + detail if detail else ''}. "
            "Check that it runs and that this host can connect to it."
        )
        self.attempted = attempted
        self.detail = detail

    def __reduce__(self) -> Any:
        return type(self), (self.attempted, self.detail)


@functools.cache
def scripts() -> dict[str, str]:
    """Return the sources of all scripts, by name, with the part that all share."""
    folder = importlib.resources.files("academy.exchange") / "scripts"
    sources = {
        file.name.removesuffix(".lua"): file.read_text()
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }
    prelude = sources.pop("prelude")
    return {name: prelude + source for name, source in sources.items()}


def script(name: str) -> str:
    """Return the source of a script."""
    return scripts()[name]


def backoff(attempt: int) -> float:
    """Return how long to wait before the next attempt, in seconds, with jitter."""
    return min(0.5, 0.05 * 2.0 ** min(attempt, 6)) * random.uniform(0.5, 1.0)


def _is_stranger(error: BaseException | None) -> bool:
    """Return whether an error comes from a certificate that was not accepted."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


class Command:
    """A script call that waits for its answer.

    Attributes:
        future: Gets the answer, or the error that `Server.call` raises.
        attempts: How often it was sent to the server.
    """

    __slots__ = ("arguments", "attempts", "deadline", "future", "name", "size")

    def __init__(
        self, name: str, arguments: Sequence[Argument], deadline: float
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.deadline = deadline
        self.attempts = 0
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.size = sum(len(a) for a in arguments if not isinstance(a, int))


class Server:
    """The command connection of one process and event loop.

    Args:
        info: The server.
        prefix: Key prefix of the namespace, the first argument of every script.
    """

    def __init__(self, info: RedisConnectionInfo, prefix: str) -> None:
        self.info = info
        self._prefix = prefix
        self._client = async_client(info, timeout=COMMAND_TIMEOUT)
        self._queue: collections.deque[Command] = collections.deque()
        self._arrived = asyncio.Event()
        self._hashes: dict[str, str] = {}
        self._tasks = Tasks("redis-commands")
        self._silence = Silence(self._lose_patience)
        self._hasty: dict[Command, float] = {}
        self._closed = False
        self.commands = 0
        """How many commands were sent, for tests and statistics."""
        self.trips = 0
        """In how many round trips they were answered."""

    async def open(self) -> None:
        """Connect and check the server.

        A server that is just restarting is waited for, up to 4 seconds.

        Raises:
            redis.exceptions.ConnectionError: It cannot be reached, or refused the
                login (`AuthenticationError`), its certificate was refused, or the
                password cannot be found (`CredentialError`).
            IncompatibleServerError: It is older than 7.0.
        """
        deadline = asyncio.get_running_loop().time() + 4.0
        attempt = 0
        where = f"{self.info.hostname}:{self.info.port}"
        # Now, since later there may be no file descriptor left to read them.
        scripts()
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await check_version(self._client, where)
                break
            except (CredentialError, IncompatibleServerError):
                await self._client.aclose()
                raise
            except (AuthenticationError, NoPermissionError) as e:
                await self._client.aclose()
                raise AuthenticationError(
                    f"The Redis server at {self.info.hostname}:{self.info.port} "
                    f"refused the login ({e}): check user name and password, and the "
                    "user's rights (`academy server --acl`)."
                ) from e
            except (ConnectionError, TimeoutError, OSError, BusyLoadingError) as e:
                if _is_stranger(e):
                    await self._client.aclose()
                    raise ConnectionError(
                        f"The certificate of the Redis server at {self.info.hostname}:"
                        f"{self.info.port} was refused ({e}). Give the authority that "
                        "signed it (ssl_ca_certs), and the name that it is for."
                    ) from e
                attempt += 1
                pause = backoff(attempt)
                if asyncio.get_running_loop().time() + pause > deadline:
                    await self._client.aclose()
                    why = str(e).rstrip(".") or "it accepts connections and is mute"
                    raise ConnectionError(
                        f"No Redis server answers at {self.info.hostname}:"
                        f"{self.info.port} ({why}). Start one (`academy server`), or "
                        "check host, port and firewall."
                    ) from e
                await asyncio.sleep(pause)
        self._tasks.spawn(self._pump(), name="redis-commands")

    @property
    def away(self) -> bool:
        """Whether the server has not answered for a second what it was asked."""
        return self._silence.seconds > 1.0

    async def call(
        self,
        name: str,
        *arguments: Argument,
        timeout: float,
        stall: float | None = None,
    ) -> Any:
        """Run a script and return its answer.

        Calls are carried out in the order in which they are made. Cancelling leaves
        open whether the script runs.

        Args:
            name: Name of the script.
            arguments: Its arguments after the prefix.
            timeout: How long to try, in seconds.
            stall: Give up when the server has answered nobody for so many seconds.

        Raises:
            ServerUnavailableError: No answer came within the timeout.
            ServerFullError: The server has no memory left.
            ExchangeError: It refused the script.
        """
        command = self.submit(name, *arguments, timeout=timeout)
        if stall is None:
            return await command.future
        self._hasty[command] = stall
        try:
            return await command.future
        finally:
            del self._hasty[command]

    def submit(self, name: str, *arguments: Argument, timeout: float) -> Command:
        """Put a call in line, behind all that were made before."""
        deadline = asyncio.get_running_loop().time() + timeout
        command = Command(name, arguments, deadline)
        if self._closed:
            self._fail(command, "the client was closed")
        else:
            self._queue.append(command)
            self._arrived.set()
        return command

    async def while_answering(self, future: asyncio.Future[Any], stall: float) -> None:
        """Wait for something as long as the server answers at all, else cancel it.

        Raises:
            ServerUnavailableError: The server answered nobody for so many seconds.
        """
        trips, quiet = self.trips, 0.0
        while not (await asyncio.wait([future], timeout=stall / 4))[0]:
            quiet = quiet + stall / 4 if trips == self.trips else 0.0
            trips = self.trips
            if max(quiet, self._silence.seconds) > stall:
                future.cancel()
                raise ServerUnavailableError(True, f"no answer for {stall:g} s")

    async def close(self) -> None:
        """Close the connection. What has no answer fails. Idempotent."""
        self._closed = True
        await self._tasks.cancel()
        self._silence.end()
        for command in self._queue:
            self._fail(command, "the client was closed")
        self._queue.clear()
        await self._client.aclose()

    async def _pump(self) -> None:
        attempt = 0
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._next_batch()
            if not batch:
                continue
            self._silence.begin()
            try:
                replies = await self._send(batch)
            except _TRANSIENT as e:
                attempt += 1
                if attempt == 1:
                    logger.warning("Lost the Redis server (%s); trying again", e)
                self._queue.extendleft(reversed(batch))
                await self._wait(backoff(attempt), str(e))
                continue
            except Exception as e:
                logger.exception("A batch of commands failed")
                self._silence.end()
                for command in batch:
                    self._fail(command, f"{type(e).__name__}: {e}")
                continue
            except asyncio.CancelledError:
                self._queue.extendleft(reversed(batch))
                raise
            if attempt:
                logger.info("The Redis server is back")
            attempt = 0
            self.trips += 1
            self._silence.end()
            for command, reply in zip(batch, replies, strict=True):
                self._answer(command, reply)
            # They may be large, and the next ones may be long in coming.
            del batch, replies, command, reply

    def _lose_patience(self, silence: float) -> None:
        for command, stall in list(self._hasty.items()):
            if silence > stall:
                self._fail(command, f"no answer for {stall:g} s")

    def _next_batch(self) -> list[Command]:
        batch: list[Command] = []
        size = 0
        while self._queue and len(batch) < BATCH_COMMANDS and size < BATCH_BYTES:
            command = self._queue.popleft()
            # A command that was tried may have run; it must run again to be answered
            # in order. One that was not, and that nobody waits for, is dropped.
            if command.attempts or not command.future.done():
                batch.append(command)
                size += command.size
        return batch

    async def _send(self, batch: list[Command]) -> list[Any]:
        """Send a batch and return the replies; transient failures raise."""
        for name in {c.name for c in batch} - self._hashes.keys():
            source = script(name)
            await self._client.script_load(source)
            self._hashes[name] = hashlib.sha1(source.encode()).hexdigest()
        pipeline = self._client.pipeline(transaction=False)
        for command in batch:
            command.attempts += 1
            # The key is there for a cluster to know where the script must run.
            key = f"{self._prefix}secret"
            sha = self._hashes[command.name]
            pipeline.evalsha(sha, 1, key, self._prefix, *command.arguments)
        self.commands += len(batch)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        if any(isinstance(r, NoScriptError) for r in replies):
            # A restarted server has no scripts. All of the batch is repeated, for
            # what follows a command that was not run must not overtake it.
            self._hashes.clear()
            raise BusyLoadingError("the server has lost its scripts")
        for reply in replies:
            if isinstance(reply, _TRANSIENT):
                raise reply
        return replies

    async def _wait(self, pause: float, detail: str) -> None:
        """Wait before the next attempt, and fail what has run out of time."""
        await asyncio.sleep(pause)
        now = asyncio.get_running_loop().time()
        for command in [c for c in self._queue if c.deadline <= now]:
            self._queue.remove(command)
            self._fail(command, detail)

    def _answer(self, command: Command, reply: Any) -> None:
        if command.future.done():
            return
        if isinstance(reply, RedisError):
            full = isinstance(reply, OutOfMemoryError)
            kind = ServerFullError if full else ExchangeError
            hint = _ACL_HINT if isinstance(reply, NoPermissionError) else ""
            error = kind(f"The Redis server refused {command.name}: {reply}{hint}")
            command.future.set_exception(error)
        else:
            command.future.set_result(reply)

    def _fail(self, command: Command, detail: str) -> None:
        if not command.future.done():
            command.future.set_exception(
                ServerUnavailableError(command.attempts > 0, detail)
            )
