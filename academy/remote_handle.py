"""The handle to an agent that runs anywhere."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Self, TypeVar, get_args

from msgspec import UNSET, UnsetType

from academy.call import Call, Send, attempt
from academy.call_options import DEFAULT_OPTIONS, Offline
from academy.exception import (
    ExchangeClientNotFoundError,
    ExchangeError,
)
from academy.exchange.client import ExchangeClient, exchange_context
from academy.exchange.transport import MailboxStatus
from academy.identifier import AgentId
from academy.message import (
    ActionRequest,
    ActionResponse,
    ErrorResponse,
    Message,
    PingRequest,
    ShutdownRequest,
    SuccessResponse,
)
from academy.method import is_idempotent, marked_names
from academy.serialize import (
    SerializationStrategy,
    allowed_set,
    allowing,
    default_serializer,
)
from academy.stats import AgentStats
from academy.status_watch import StatusWatch

AgentT_co = TypeVar("AgentT_co", covariant=True)


class Handle(Generic[AgentT_co]):
    """Calls the actions of an agent, wherever it runs.

    ```python
    await handle.add(1, to="total")            # calls the action `add`
    await handle.action("add", 1, to="total")  # the same
    ```

    A handle sends through the exchange client of the context it is used in: that of
    the surrounding manager or client, or, inside an agent, that of the agent. So
    handles may be passed around, stored in agents, and pickled. A pickled handle
    never carries a client.

    Cancelling a call, also by a timeout, returns at once and asks the agent to
    cancel the action; that question is not waited for.

    Args:
        agent_id: The agent; `None` for a handle that is bound to one later.
        exchange: Client to use where the context has none.
        ignore_context: Always use `exchange`, whatever the context has.
        request_serializer: Strategy of the arguments; `None` for the default of the
            context ([`default_serializer`][academy.serialize.default_serializer]).
        result_serializer: Strategy of the result; `None` for that of the arguments.
        exception_serializer: Strategy of an exception; `None` for that of the
            result.
        polling_interval: Seconds between two looks at the agent's status while
            calls are pending, with `reject_on_inactive`.
        reject_on_inactive: Fail calls when no live process runs the agent, instead
            of waiting until one does.
        agent_class: Class of the agent, where it is known, as it is to
            `Handle[Counter](...)` too: it tells which actions are idempotent.
        allowed_deserializers: Strategies in which results and exceptions are
            accepted, of those that the context accepts; `None` for all of them. What
            comes in another one is refused undecoded. Where the strategy of the
            arguments is not among them, results are asked for in one that is.

    Raises:
        ValueError: `ignore_context` without `exchange`, an unknown serializer, one
            that is asked for and not allowed, or an interval that is not positive.
    """

    def __init__(
        self,
        agent_id: AgentId[AgentT_co] | None = None,
        *,
        exchange: ExchangeClient[Any] | None = None,
        ignore_context: bool = False,
        request_serializer: SerializationStrategy | None = None,
        result_serializer: SerializationStrategy | None = None,
        exception_serializer: SerializationStrategy | None = None,
        polling_interval: float = 60,
        reject_on_inactive: bool = False,
        agent_class: type[Any] | None = None,
        allowed_deserializers: Iterable[SerializationStrategy] | None = None,
    ) -> None:
        if ignore_context and exchange is None:
            raise ValueError(
                "A handle with ignore_context=True has nothing to send with: "
                "pass exchange= too."
            )
        if not polling_interval > 0:
            raise ValueError(
                f"polling_interval is in seconds and positive, not {polling_interval}."
            )
        self._agent_id = agent_id
        self._exchange = exchange
        self.ignore_context = ignore_context
        self.request_serializer = _strategy(request_serializer)
        self.result_serializer = _strategy(result_serializer)
        self.exception_serializer = _strategy(exception_serializer)
        self.allowed_deserializers = allowed_set(
            allowed_deserializers, self.result_serializer, self.exception_serializer
        )
        self.polling_interval = polling_interval
        self._reject_on_inactive = reject_on_inactive
        self._plain = not reject_on_inactive
        """Whether calls have neither options nor anybody who watches over them."""
        self._status_watch: StatusWatch | None = None
        self._options = DEFAULT_OPTIONS
        self._agent_class = agent_class
        self._idempotent: frozenset[str] = frozenset()
        self._sent_again: dict[str, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Clients live in one process; the copy finds one in its own context. The
        # class of the agent need not exist there.
        state = {
            **self.__dict__,
            "_exchange": None,
            "ignore_context": False,
            "_status_watch": None,
            "_agent_class": None,
            "_idempotent": self._idempotent_actions(),
            "_sent_again": {},
        }
        state.pop("__orig_class__", None)
        return state

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(agent_id={self._agent_id!r}, "
            f"exchange={self._exchange!r}, ignore_context={self.ignore_context})"
        )

    def __str__(self) -> str:
        return f"{type(self).__name__}<agent: {self._agent_id}>"

    def __getattr__(self, name: str) -> Any:
        # Underscores are for Python and its tools, which look for what is not there.
        if name.startswith("_"):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}; an action "
                f"of that name is called with handle.action({name!r}, ...)."
            )
        return functools.partial(self.action, name)

    @property
    def agent_id(self) -> AgentId[AgentT_co]:
        """The agent.

        Raises:
            RuntimeError: The handle is not bound to an agent yet.
        """
        if self._agent_id is None:
            raise RuntimeError(
                "This handle is not bound to an agent yet. A handle of a launch batch "
                "is bound when the batch is submitted, at the end of its block."
            )
        return self._agent_id

    @property
    def exchange(self) -> ExchangeClient[Any]:
        """The client that the handle sends with in this context.

        Raises:
            ExchangeClientNotFoundError: Neither the context nor the handle has one.
        """
        own = self._exchange
        if own is not None and self.ignore_context:
            return own
        client = exchange_context.get(own)
        if client is None:
            raise ExchangeClientNotFoundError(self._agent_id)
        return client

    @property
    def reject_on_inactive(self) -> bool:
        """Whether calls fail when no live process runs the agent."""
        return self._reject_on_inactive

    def options(
        self,
        *,
        timeout: float | UnsetType | None = UNSET,
        retry: bool | UnsetType = UNSET,
        offline: Offline | UnsetType = UNSET,
    ) -> Self:
        """Return a handle that calls actions of the same agent with these options.

        ```python
        total = await counter.options(timeout=3, retry=True).add(1)
        ```

        This handle stays as it is. The other one has its options, too, except for
        those given here. What an action itself calls does not inherit its deadline.

        Args:
            timeout: Seconds after which a call ends with a `TimeoutError`, retries
                included; `None`, as by default, for no limit. It travels with the
                call: the agent cancels the action then, or does not begin with it.
            retry: Whether a call that is lost (a
                [`DeliveryError`][academy.exception.DeliveryError]) is sent again,
                until it is answered, its time is up, or the agent has ended for good.
                The action may then run more than once. By default, that is done for
                actions that are declared with `@action(idempotent=True)`, of agents
                whose class this handle knows.
            offline: What becomes of a call to an agent that does not run: `'queue'`,
                as by default, lets it wait; `'fail'` asks the exchange first, and
                raises an `AgentInactiveError`. An exchange that does not answer does
                not fail the call.

        Raises:
            RuntimeError: The handle is not bound to an agent yet.
            TypeError: An option has the wrong type.
            ValueError: The timeout is negative or not finite, or `offline` is
                neither of the two.
        """
        _ = self.agent_id
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._options = self._options.override(timeout, retry, offline)
        twin._plain = self._plain and twin._options == DEFAULT_OPTIONS
        return twin

    def _bind(self, agent_id: AgentId[Any]) -> None:
        """Bind a handle that was made before its agent was registered."""
        self._agent_id = agent_id

    async def action(self, action: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an action and return its result.

        Do not change arguments before the call returns: arrays are not copied first.
        Cancelling returns at once; the agent is asked to cancel the action.

        Args:
            action: Name of the action.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            TimeoutError: There was no answer within the timeout of `options`.
            SerializationError: The arguments cannot be serialized; nothing was sent.
            AgentTerminatedError: The agent has ended for good.
            AgentInactiveError: No live process runs the agent, and the handle has
                `reject_on_inactive` or `offline='fail'`.
            ExchangeError: The call was not delivered, or got no answer.
            DeserializationError: The result cannot be decoded here.
            DeserializationMethodProhibitedError: The result came in a serialization
                that is not accepted here.
            Exception: Whatever the action raised.
        """
        strategy = self.request_serializer or default_serializer.get()
        wanted, allowed = self.result_serializer, self.allowed_deserializers
        if allowed is not None and wanted is None and strategy not in allowed:
            wanted = min(allowed)
        body = ActionRequest(
            action=action,
            serialization=strategy,
            result_serialization=wanted,
            exception_serialization=self.exception_serializer,
            pargs=args,
            kargs=kwargs,
        )
        client = self.exchange
        if self._plain and self._sent_again.get(action) is False:
            # As the general way does it, without what is not needed.
            response = await attempt(client, self.agent_id, body, client.ask)
        else:
            send, check = self._ways(client)
            response = await Call(client, self.agent_id, body, send).run(
                timeout=self._options.timeout, retry=self._retries(action), check=check
            )
        if allowed is None and isinstance(response, ActionResponse):
            return response.get_result()
        with allowing(allowed):
            if isinstance(response, ActionResponse):
                return response.get_result()
            raise _error(response, self._agent_id)

    async def ping(self, *, timeout: float | None = None) -> float:
        """Return the seconds that a message to the agent and back takes.

        Args:
            timeout: Longest wait in seconds.

        Raises:
            AgentTerminatedError: The agent has ended for good.
            AgentInactiveError: As for an action.
            TimeoutError: There was no answer within the timeout.
            ExchangeError: The ping was not delivered.
        """
        client = self.exchange
        message = Message.create(client.client_id, self.agent_id, PingRequest())
        send, check = self._ways(client)
        start = time.perf_counter()
        async with asyncio.timeout(timeout):
            if check is not None:
                await check()
            answer = await send(message)
        response = answer.get_body()
        if isinstance(response, SuccessResponse):
            return time.perf_counter() - start
        with allowing(self.allowed_deserializers):
            raise _error(response, self._agent_id)

    async def shutdown(self, *, terminate: bool | None = None) -> None:
        """Ask the agent to end, without waiting for it.

        Args:
            terminate: Whether to close the agent's mailbox for good; `None` leaves
                that to its [`RuntimeConfig`][academy.runtime.RuntimeConfig].

        Raises:
            AgentTerminatedError: The agent has ended for good already.
            ExchangeError: The request was not accepted for delivery.
        """
        client = self.exchange
        body = ShutdownRequest(terminate=terminate)
        await client.send(Message.create(client.client_id, self.agent_id, body))

    async def agent_status(self) -> MailboxStatus:
        """Return the state of the agent's mailbox now."""
        return await self.exchange.status(self.agent_id)

    async def agent_stats(self) -> AgentStats:
        """Return the message counts of the agent now.

        Raises:
            BadEntityIdError: The agent was never registered.
        """
        return await self.exchange.agent_stats(self.agent_id)

    def _ways(
        self, client: ExchangeClient[Any]
    ) -> tuple[Send, Callable[[], Awaitable[None]] | None]:
        """Return how to send a request, and what to ask before."""
        if self._reject_on_inactive:
            watch = self._watch(client)
            return watch.request, watch.check
        if self._options.offline == "fail":
            return client.ask, self._watch(client).check
        return client.ask, None

    def _watch(self, client: ExchangeClient[Any]) -> StatusWatch:
        watch = self._status_watch
        if watch is None or watch.client is not client:
            watch = StatusWatch(client, self.agent_id, self.polling_interval)
            self._status_watch = watch
        return watch

    def _retries(self, action: str) -> bool:
        """Return whether a call of the action is sent again when it is lost."""
        chosen = self._options.retry
        if chosen is not None:
            return chosen
        known = self._sent_again.get(action)
        if known is None:
            known = action in self._idempotent or is_idempotent(self._class(), action)
            self._sent_again[action] = known
        return known

    def _class(self) -> Any:
        """Return the class of the agent, as far as it is known here."""
        if self._agent_class is not None:
            return self._agent_class
        # Handle[Counter](...) leaves itself there.
        return next(iter(get_args(self.__dict__.get("__orig_class__"))), None)

    def _idempotent_actions(self) -> frozenset[str]:
        cls = self._class()
        names = marked_names(cls, "action")
        return self._idempotent.union(n for n in names if is_idempotent(cls, n))


def _strategy(given: SerializationStrategy | None) -> SerializationStrategy | None:
    return SerializationStrategy(given) if given else None


def _error(response: Any, agent_id: AgentId[Any] | None) -> Exception:
    """Return the exception that a response stands for."""
    if isinstance(response, ErrorResponse):
        return response.get_exception()
    return ExchangeError(
        f"{agent_id} answered with a {type(response).__name__}, which does not fit "
        "the request. Install the same release of academy on both sides."
    )
