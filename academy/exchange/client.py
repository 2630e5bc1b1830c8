"""Clients: what users and agents send and receive messages with."""

from __future__ import annotations

import abc
import asyncio
import contextvars
import logging
import uuid
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeAlias, TypeVar

from academy.exception import (
    BadEntityIdError,
    ExchangeError,
    FencedError,
    MailboxTerminatedError,
)
from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.transport import (
    AgentRegistration,
    ExchangeTransportT,
    MailboxStatus,
    agent_mro,
    class_name,
)
from academy.identifier import AgentId, EntityId, UserId
from academy.message import AcademyErrorResponse, ErrorCode, Message
from academy.stats import AgentStats
from academy.task import Tasks

if TYPE_CHECKING:
    from academy.exchange.factory import ExchangeFactory

logger = logging.getLogger(__name__)

AgentT = TypeVar("AgentT")
RequestHandler: TypeAlias = Callable[[Message[Any]], Awaitable[None]]
"""Takes each request to an agent. It should return soon: it holds up the next one."""

exchange_context: contextvars.ContextVar[ExchangeClient[Any]] = contextvars.ContextVar(
    "exchange_context"
)
"""The client that handles use where they are not given one."""


class _Pending(NamedTuple):
    """A request that waits for its response."""

    dest: EntityId
    future: asyncio.Future[Message[Any]]


class ExchangeClient(abc.ABC, Generic[ExchangeTransportT]):
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
        self._transport = transport
        self._config = config
        self._tasks = Tasks(f"exchange-client-{transport.mailbox_id}")
        self._pending: dict[uuid.UUID, _Pending] = {}
        self._ended: Exception | None = None
        self._closed = False
        self._listening = False
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
        if self._context_token is not None:
            exchange_context.reset(self._context_token)
            self._context_token = None
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.client_id!r})"

    def __str__(self) -> str:
        return f"{type(self).__name__}<{self.client_id}>"

    @property
    @abc.abstractmethod
    def client_id(self) -> EntityId:
        """Whose mailbox this is."""

    def factory(self) -> ExchangeFactory[ExchangeTransportT]:
        """Return a factory that makes clients of the same exchange."""
        return self._transport.factory()

    async def register_agent(
        self, agent: type[AgentT], *, name: str | None = None
    ) -> AgentRegistration:
        """Register a new agent, so that messages to it can wait until it runs.

        Args:
            agent: Class of the agent.
            name: Optional name for people to read.

        Raises:
            TypeError: The class does not derive from `Agent`.
        """
        agent_mro(agent)
        return await self._transport.register_agent(agent, name=name)

    async def register_agents(
        self, agents: list[tuple[type[Any], str | None]]
    ) -> list[AgentRegistration]:
        """Register several agents, given as pairs of class and name.

        Returns:
            Their registrations, in the same order.

        Raises:
            TypeError: A class does not derive from `Agent`; none was registered.
        """
        for agent, _ in agents:
            agent_mro(agent)
        batch = getattr(self._transport, "register_agents", None)
        if batch is not None:
            registrations: list[AgentRegistration] = await batch(agents)
            return registrations
        return [await self._transport.register_agent(a, name=n) for a, n in agents]

    async def discover(
        self, agent: type[Any] | str, *, allow_subclasses: bool = True
    ) -> tuple[AgentId[Any], ...]:
        """Return the agents of a class that are not terminated.

        Args:
            agent: A class, or its qualified name such as `'package.module.Class'`.
            allow_subclasses: Whether agents of derived classes count too.
        """
        return await self._transport.discover(
            class_name(agent), allow_subclasses=allow_subclasses
        )

    async def status(self, uid: EntityId) -> MailboxStatus:
        """Return the state of a mailbox."""
        if hasattr(self._transport, "status"):
            status: MailboxStatus = await self._transport.status(uid)
            return status
        try:
            age = await self._transport.heartbeat_status(uid)
        except BadEntityIdError:
            return MailboxStatus.MISSING
        except MailboxTerminatedError:
            return MailboxStatus.TERMINATED
        limit = self._config.heartbeat_interval * self._config.stale_heartbeat_threshold
        live = age is not None and age < limit
        return MailboxStatus.ACTIVE if live else MailboxStatus.INACTIVE

    async def heartbeat_status(self, uid: EntityId) -> float | None:
        """Return the seconds since a mailbox was last known alive, if it ever was.

        Raises:
            BadEntityIdError: It was never registered.
            MailboxTerminatedError: It is closed for good.
        """
        return await self._transport.heartbeat_status(uid)

    async def update_heartbeat(self) -> None:
        """Note that this client is alive now."""
        await self._transport.update_heartbeat()

    async def agent_stats(self, uid: EntityId) -> AgentStats:
        """Return the message counts of an agent.

        Raises:
            BadEntityIdError: It was never registered.
        """
        return await self._transport.agent_stats(uid)

    async def terminate(self, uid: EntityId, *, reason: str | None = None) -> None:
        """Close a mailbox for good; waiting requests are answered. Idempotent.

        Args:
            uid: Whose mailbox.
            reason: Text that those who wait for answers get to see.
        """
        fail = getattr(self._transport, "fail", None)
        if reason is None or fail is None:
            await self._transport.terminate(uid)
        else:
            await fail(uid, reason)

    async def send(self, message: Message[Any]) -> None:
        """Accept a message for delivery; no answer is awaited.

        Raises:
            BadEntityIdError: The destination was never registered.
            MailboxTerminatedError: The destination is closed for good.
            ExchangeError: The exchange could not accept it, or the client is closed.
        """
        self._check_open()
        await self._transport.send(message)

    def send_soon(self, message: Message[Any]) -> None:
        """Send a message in the background. What goes wrong is logged."""
        self._tasks.spawn(self._send_quietly(message), name=f"send-{message.tag}")

    async def request(self, message: Message[Any]) -> Message[Any]:
        """Send a request and return its response.

        Cancelling returns at once; a response that comes later is dropped.

        Raises:
            BadEntityIdError: The destination was never registered.
            MailboxTerminatedError: The destination is closed for good.
            ExchangeError: The exchange could not accept it, or this client is closed
                or was fenced while waiting.
        """
        self._check_open()
        if not self._listening:
            raise ExchangeError(
                f"{self} does not listen for messages (start_listener=False), so it "
                "cannot wait for an answer. Make a client that listens."
            )
        future = asyncio.get_running_loop().create_future()
        self._pending[message.tag] = _Pending(message.dest, future)
        try:
            await self._transport.send(message)
            return await future
        finally:
            self._pending.pop(message.tag, None)
            if not future.done() or future.cancelled():
                self._forget(message.tag)

    def fail_pending(self, uid: EntityId, error: Exception) -> None:
        """Fail this client's requests to an entity that wait for a response."""
        for tag, pending in list(self._pending.items()):
            if pending.dest == uid and not pending.future.done():
                pending.future.set_exception(error)
                self._forget(tag)

    def register_handle(self, handle: Any) -> None:
        """Accept a handle that uses this client. Nothing needs to be kept of it."""

    def start(self) -> None:
        """Start to receive messages. Factories call it; a second call changes nothing.

        Must be called in the event loop of the client.
        """
        if self._listening:
            return
        self._listening = True
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
        await self._tasks.cancel()
        await self._transport.close()

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _forget(self, tag: uuid.UUID) -> None:
        forget = getattr(self._transport, "forget", None)
        if forget is not None:
            forget(tag)

    def _end(self, error: Exception) -> None:
        """Fail what waits, now and later: this client receives nothing any more."""
        if self._ended is None:
            self._ended = error
        for pending in list(self._pending.values()):
            if not pending.future.done():
                pending.future.set_exception(error)

    async def _send_quietly(self, message: Message[Any]) -> None:
        try:
            await self._transport.send(message)
        except ExchangeError as e:
            logger.info("%s could not send to %s: %s", self, message.dest, e)

    async def _listen(self) -> None:
        """Hand out messages until the mailbox ends; then say so to all who wait."""
        try:
            async for message in self._transport.listen():
                await self._receive(message)
        except (MailboxTerminatedError, FencedError) as e:
            logger.debug("%s receives no more: %s", self, e)
            self._end(e)
            self._mailbox_ended(e)
        except Exception as e:
            logger.exception("%s stopped receiving", self)
            self._end(e)
            self._mailbox_ended(e)

    async def _receive(self, message: Message[Any]) -> None:
        if message.is_request():
            await self._handle_request(message)
            return
        pending = self._pending.get(message.tag)
        if pending is not None and not pending.future.done():
            pending.future.set_result(message)

    @abc.abstractmethod
    async def _handle_request(self, message: Message[Any]) -> None:
        """Take a request to this client."""

    def _mailbox_ended(self, error: Exception) -> None:
        """React to the end of the mailbox; called once, from the listener."""

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_interval)
            try:
                await self._transport.update_heartbeat()
            except ExchangeError as e:
                logger.warning("%s could not send a heartbeat: %s", self, e)


class AgentExchangeClient(
    ExchangeClient[ExchangeTransportT], Generic[AgentT, ExchangeTransportT]
):
    """Client of an agent: requests go to its request handler.

    Args:
        agent_id: The agent.
        transport: Transport bound to the agent's mailbox; the client owns it.
        request_handler: Takes each request, in order per sender.
        config: Client configuration.
        on_end: Called once when the mailbox ends while the client is open, with the
            error that ended it.
    """

    def __init__(
        self,
        agent_id: AgentId[AgentT],
        transport: ExchangeTransportT,
        request_handler: RequestHandler,
        *,
        config: ExchangeClientConfig | None = None,
        on_end: Callable[[Exception], None] | None = None,
    ) -> None:
        super().__init__(transport, config or ExchangeClientConfig())
        self._agent_id = agent_id
        self._request_handler = request_handler
        self.on_end = on_end

    @property
    def client_id(self) -> AgentId[AgentT]:
        """The agent."""
        return self._agent_id

    async def close(self) -> None:
        """Close the client. The mailbox stays: the agent can run again later."""
        await self._close()

    async def _handle_request(self, message: Message[Any]) -> None:
        try:
            await self._request_handler(message)
        except Exception:
            logger.exception("%s: the request handler failed", self)

    def _mailbox_ended(self, error: Exception) -> None:
        if self.on_end is not None and not self._closed:
            self.on_end(error)


class UserExchangeClient(ExchangeClient[ExchangeTransportT]):
    """Client of a user: it makes requests and answers none.

    Args:
        user_id: The user.
        transport: Transport bound to the user's mailbox; the client owns it.
        start_listener: Whether the client will listen; without, it can send but not
            wait for answers.
        config: Client configuration.
    """

    def __init__(
        self,
        user_id: UserId,
        transport: ExchangeTransportT,
        *,
        start_listener: bool = True,
        config: ExchangeClientConfig | None = None,
    ) -> None:
        super().__init__(transport, config or ExchangeClientConfig())
        self._user_id = user_id
        if start_listener:
            self.start()

    @property
    def client_id(self) -> UserId:
        """The user."""
        return self._user_id

    async def close(self) -> None:
        """Close the client and terminate its mailbox: nobody will come back to it."""
        if not self._closed:
            try:
                await self._transport.terminate(self.client_id)
            except ExchangeError as e:
                logger.warning("%s could not terminate its mailbox: %s", self, e)
        await self._close()

    async def _handle_request(self, message: Message[Any]) -> None:
        refusal = AcademyErrorResponse(
            error_code=ErrorCode.INVALID_CLIENT,
            executed="no",
            detail=f"{self.client_id} is a user, and users do not answer requests.",
        )
        self.send_soon(message.create_response(refusal))
