"""Clients: what users and agents send and receive messages with."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import contextvars
import logging
import uuid
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

from academy.exception import ExchangeError, FencedError, MailboxTerminatedError
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.pending import Answer, Pending
from academy.exchange.registry import Registry
from academy.exchange.transport import ExchangeTransportT
from academy.identifier import EntityId
from academy.message import Message
from academy.task import Tasks

logger = logging.getLogger(__name__)

FLUSH_TIMEOUT = 2.0
"""Seconds that a closing client waits for what it sends in the background."""

RequestHandler: TypeAlias = Callable[[Message[Any]], Awaitable[None] | None]
"""Takes each request to an agent. It should return soon: it holds up the next one.

A plain function is called as soon as a message has arrived, without waiting for the
next turn of the event loop."""

exchange_context: contextvars.ContextVar[ExchangeClient[Any]] = contextvars.ContextVar(
    "exchange_context"
)
"""The client that handles use where they are not given one."""


class ExchangeClient(Registry[ExchangeTransportT], abc.ABC):
    """Sends and receives messages in the name of one mailbox.

    Clients are made by a factory (`create_user_client`, `create_agent_client`), belong
    to the event loop they were made in, and are closed with `close` or `async with`.

    Args:
        transport: Transport bound to the mailbox; the client owns it.
        config: Client configuration.
    """

    def __init__(
        self, transport: ExchangeTransportT, config: ExchangeClientConfig
    ) -> None:
        super().__init__(transport, config)
        name = f"exchange-client-{transport.mailbox_id}"
        self._tasks, self._sends = Tasks(name), Tasks(name)
        self._submit = getattr(transport, "submit", transport.send)
        self._submit_lent = getattr(transport, "submit_lent", self._submit)
        self._forget = getattr(transport, "forget", lambda tag: None)
        self._pending = Pending()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: Exception | None = None
        self._closed = False
        self._context_token: contextvars.Token[ExchangeClient[Any]] | None = None

    async def __aenter__(self) -> Self:
        self._context_token = exchange_context.set(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        token, self._context_token = self._context_token, None
        if token is not None:
            # Where the block is left in another context, that one has nothing to undo.
            with contextlib.suppress(ValueError):
                exchange_context.reset(token)
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.client_id!r})"

    def __str__(self) -> str:
        return f"{type(self).__name__}<{self.client_id}>"

    @property
    @abc.abstractmethod
    def client_id(self) -> EntityId:
        """Whose mailbox this is."""

    async def send(self, message: Message[Any]) -> None:
        """Accept a message for delivery; no answer is awaited.

        Raises:
            BadEntityIdError: The destination was never registered.
            MailboxTerminatedError: The destination is closed for good.
            ExchangeError: The exchange could not accept it, or the client is closed.
        """
        work = self.submit(message)
        if work is not None:
            await work

    def submit(self, message: Message[Any]) -> Awaitable[None] | None:
        """Accept a message as `send` does, and raise what it raises.

        Returns:
            What is to be awaited until the message is accepted; `None` if it is, as
            where its way is clear.
        """
        if self._ended is not None:
            raise self._ended
        return self._submit(message)

    def send_soon(self, message: Message[Any]) -> None:
        """Send a message in the background. What goes wrong is logged.

        Closing the client waits up to `FLUSH_TIMEOUT` for such messages.
        """
        self._sends.spawn(self._send_quietly(message), name=f"send-{message.tag}")

    async def request(self, message: Message[Any]) -> Message[Any]:
        """Send a request and return its response.

        What it carries must not be changed meanwhile. Cancelling returns at once; a
        response that comes later is dropped.

        Raises:
            BadEntityIdError: The destination was never registered.
            MailboxTerminatedError: The destination is closed for good.
            ExchangeError: The exchange could not accept it; or this client is closed
                or was fenced, before or while waiting; or it does not listen, or
                belongs to another event loop.
        """
        answer = self.ask(message)
        try:
            return await answer
        except BaseException:
            self.forget(message.tag)
            raise

    def ask(self, message: Message[Any]) -> Awaitable[Message[Any]]:
        """Send a request, at once where its way is clear.

        Large `bytearray` objects and arrays that it carries are sent without a copy: do
        not change them before the response is there, or `forget` was called.

        Returns:
            What is to be awaited for the response. Whoever awaits it in vain, for an
            error or for giving up, must say so with `forget`.

        Raises:
            Exception: As `request`; so does what it returns.
        """
        if self._ended is not None:
            raise self._ended
        loop = self._loop
        if loop is None or loop is not asyncio.get_running_loop():
            self._refuse_to_wait()
        answer = self._pending.add(message, loop)
        try:
            work = self._submit_lent(message)
        except BaseException:
            self.forget(message.tag)
            raise
        return answer if work is None else self._answered(work, answer)

    async def _answered(self, sending: Awaitable[None], answer: Answer) -> Message[Any]:
        await sending
        return await answer

    def forget(self, tag: uuid.UUID) -> None:
        """Drop the response to a request when it comes: nobody waits for it."""
        self._pending.remove(tag)
        self._forget(tag)

    def fail_pending(self, uid: EntityId, error: Exception) -> None:
        """Fail this client's requests to an entity that wait for a response."""
        self._pending.fail(error, uid)

    def register_handle(self, handle: Any) -> None:
        """Accept a handle that uses this client. Nothing needs to be kept of it."""

    def start(self) -> None:
        """Start to receive messages. Factories call it; a second call changes nothing.

        Must be called in the event loop of the client.
        """
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        consume = getattr(self._transport, "consume", None)
        if consume is not None and self._takes_at_once:
            consume(self._receive_now, self._stop)
        else:
            self._tasks.spawn(self._listen(), name=f"listen-{self.client_id}")
        if not getattr(self._transport, "leased", False):
            self._tasks.spawn(self._beat(), name=f"heartbeat-{self.client_id}")

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the client and its transport. Idempotent."""

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._end(ExchangeError(f"{self} was closed."))
        try:
            await self._sends.join(FLUSH_TIMEOUT)
            await self._leave()
        finally:
            await self._sends.cancel()
            await self._tasks.cancel()
            await self._transport.close()

    async def _leave(self) -> None:
        """Do what is left to do with the mailbox before it is closed."""

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _refuse_to_wait(self) -> NoReturn:
        if self._loop is None:
            raise ExchangeError(
                f"{self} does not listen for messages (start_listener=False), so it "
                "cannot wait for an answer. Make a client that listens."
            )
        raise ExchangeError(
            f"{self} belongs to another event loop, so nothing can wait for its "
            "answers here. Make a client in this loop, with its factory()."
        )

    def _end(self, error: Exception) -> None:
        """Fail what waits, now and later: this client receives nothing any more."""
        if self._ended is None:
            self._ended = error
        self._pending.fail(error)

    async def _send_quietly(self, message: Message[Any]) -> None:
        try:
            work = self._submit(message)
            if work is not None:
                await work
        except ExchangeError as e:
            logger.info("%s could not send to %s: %s", self, message.dest, e)

    async def _listen(self) -> None:
        """Hand out messages until the mailbox ends; then say so to all who wait."""
        try:
            async with contextlib.aclosing(self._transport.listen()) as messages:
                async for message in messages:
                    await self._receive(message)
            error: Exception = ExchangeError(f"{self} receives no more messages.")
        except (MailboxTerminatedError, FencedError) as e:
            logger.debug("%s receives no more: %s", self, e)
            error = e
        except Exception as e:
            logger.exception("%s stopped receiving", self)
            error = e
        self._stop(error)

    def _stop(self, error: Exception) -> None:
        """Note that the mailbox has ended."""
        self._end(error)
        self._mailbox_ended(error)

    async def _receive(self, message: Message[Any]) -> None:
        if message.is_request():
            await self._handle_request(message)
        else:
            self._pending.resolve(message)

    def _receive_now(self, message: Message[Any]) -> None:
        if message.header.kind == "request":
            self._take_request(message)
        else:
            self._pending.resolve(message)

    _takes_at_once = True
    """Whether `_take_request` never has to be awaited."""

    @abc.abstractmethod
    def _take_request(self, message: Message[Any]) -> Awaitable[None] | None:
        """Take a request to this client."""

    async def _handle_request(self, message: Message[Any]) -> None:
        work = self._take_request(message)
        if work is not None:
            await work

    def _mailbox_ended(self, error: Exception) -> None:
        """React to the end of the mailbox; called once, from the listener."""

    async def _beat(self) -> None:
        while True:
            try:
                await self._transport.update_heartbeat()
            except Exception as e:
                logger.warning("%s could not send a heartbeat: %r", self, e)
            await asyncio.sleep(self._config.heartbeat_interval)
