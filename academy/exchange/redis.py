"""The Redis exchange: all messages go through queues on a Redis or Valkey server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Self, TypeVar

from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.connection import RedisConnectionInfo
from academy.exchange.credential import redacted
from academy.exchange.factory import ExchangeFactory
from academy.exchange.keys import check_namespace
from academy.exchange.relay import RelayTransport
from academy.identifier import AgentId, EntityId, UserId
from academy.value import Value

AgentT = TypeVar("AgentT")

_RedisConnectionInfo = RedisConnectionInfo


@dataclass
class RedisAgentRegistration(Value, Generic[AgentT]):
    """Registration of an agent with a Redis exchange.

    Attributes:
        agent_id: Identifier of the agent.
        exchange_type: Always `'redis'`.
    """

    agent_id: AgentId[AgentT]
    exchange_type: Literal["redis"] = field(default="redis", repr=False)


class RedisExchangeTransport(RelayTransport):
    """Transport of one mailbox of a Redis exchange. Made by `new`.

    Args:
        mailbox_id: The mailbox.
        redis_info: The server.
        namespace: Namespace of the keys.
        encrypt_relay: Whether to encrypt what goes into queues.
    """

    direct = False
    registration_type = RedisAgentRegistration

    def __init__(
        self,
        mailbox_id: EntityId,
        *,
        redis_info: RedisConnectionInfo,
        namespace: str = "default",
        encrypt_relay: bool = False,
    ) -> None:
        super().__init__(mailbox_id, redis_info, namespace)
        self.encrypt_relay = encrypt_relay

    @classmethod
    async def new(
        cls,
        *,
        redis_info: RedisConnectionInfo,
        mailbox_id: EntityId | None = None,
        name: str | None = None,
        namespace: str = "default",
        encrypt_relay: bool = False,
    ) -> Self:
        """Return a transport bound to a mailbox.

        Args:
            redis_info: The server.
            mailbox_id: The mailbox; `None` registers a new user.
            name: Name of the new user.
            namespace: Namespace of the keys.
            encrypt_relay: Whether to encrypt what goes into queues.

        Raises:
            redis.exceptions.ConnectionError: The server cannot be reached.
            BadEntityIdError: The mailbox is not registered.
            MailboxTerminatedError: It is closed for good.
        """
        uid = mailbox_id or UserId.new(name=name)
        transport = cls(
            uid,
            redis_info=redis_info,
            namespace=namespace,
            encrypt_relay=encrypt_relay,
        )
        await transport.open(register=mailbox_id is None)
        return transport

    def factory(self) -> RedisExchangeFactory:
        """Return a factory that makes clients of the same exchange."""
        host, port, kwargs = self._redis_info
        return RedisExchangeFactory(
            host,
            port,
            namespace=self._namespace,
            encrypt_relay=self.encrypt_relay,
            **kwargs,
        )


class RedisExchangeFactory(ExchangeFactory[RedisExchangeTransport]):
    """Makes clients of an exchange on a Redis or Valkey server, version 7 or newer.

    Args:
        hostname: Host of the server.
        port: Its port.
        config: Configuration of the clients.
        namespace: Namespace of the keys; clients reach those of the same namespace.
        embed_credentials: Whether pickles of the factory have the password in the
            clear; see `HybridExchangeFactory`.
        encrypt_relay: Whether to encrypt what messages say while they wait on the
            server, so that it need not be trusted with that. All members need the
            `ACADEMY_SECRET_FILE` then. What others have encrypted is understood
            without it, too. Who writes to whom, when and how much stays visible.
        **redis_kwargs: Further arguments of `redis.asyncio.Redis`, such as `password`,
            or where it is: `password_env` (an environment variable), `password_file`
            (a file that its owner alone may read) or `credential_provider`.

    Raises:
        ValueError: The namespace cannot be used in keys, or the password is given
            twice.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        *,
        config: ExchangeClientConfig | None = None,
        namespace: str = "default",
        embed_credentials: bool = False,
        encrypt_relay: bool = False,
        **redis_kwargs: Any,
    ) -> None:
        super().__init__(config)
        self.encrypt_relay = encrypt_relay
        self.namespace = check_namespace(namespace)
        self.redis_info = RedisConnectionInfo(
            hostname, port, redis_kwargs, embed=embed_credentials
        )

    def __repr__(self) -> str:
        host, port, kwargs = self.redis_info
        return (
            f"{type(self).__name__}({host!r}, {port}, namespace={self.namespace!r}, "
            f"encrypt_relay={self.encrypt_relay}, {redacted(kwargs)})"
        )

    async def _create_transport(
        self,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        registration: RedisAgentRegistration[Any] | None = None,
    ) -> RedisExchangeTransport:
        return await RedisExchangeTransport.new(
            redis_info=self.redis_info,
            mailbox_id=mailbox_id,
            name=name,
            namespace=self.namespace,
            encrypt_relay=self.encrypt_relay,
        )
