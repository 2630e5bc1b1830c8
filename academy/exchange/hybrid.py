"""The hybrid exchange: direct where peers can reach each other, queues elsewhere.

The queues are on a Redis or Valkey server, which also keeps the directory.
"""

from __future__ import annotations

import functools
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from academy.exchange.client_config import ExchangeClientConfig
from academy.exchange.connection import RedisConnectionInfo, parse_url
from academy.exchange.credential import redacted
from academy.exchange.factory import ExchangeFactory
from academy.exchange.keys import base32_to_uuid, check_namespace, uuid_to_base32
from academy.exchange.ports import PortPool, check_port, release_port
from academy.exchange.reach import chosen_interface
from academy.exchange.relay import RelayTransport
from academy.identifier import AgentId, EntityId, UserId
from academy.link.security import Security
from academy.socket import interface_addresses
from academy.value import Value

if TYPE_CHECKING:
    import redis.asyncio

__all__ = [
    "HybridAgentRegistration",
    "HybridExchangeFactory",
    "HybridExchangeTransport",
    "_RedisConnectionInfo",
    "base32_to_uuid",
    "uuid_to_base32",
]

AgentT = TypeVar("AgentT")

_RedisConnectionInfo = RedisConnectionInfo

URL_VARIABLE = "ACADEMY_REDIS_URL"


@dataclass
class HybridAgentRegistration(Value, Generic[AgentT]):
    """Registration of an agent with a hybrid exchange.

    Attributes:
        agent_id: Identifier of the agent.
        exchange_type: Always `'hybrid'`.
    """

    agent_id: AgentId[AgentT]
    exchange_type: Literal["hybrid"] = field(default="hybrid", repr=False)


class HybridExchangeTransport(RelayTransport):
    """Transport of one mailbox of a hybrid exchange. Made by `new`.

    Args:
        mailbox_id: The mailbox.
        redis_client: A client of the server, which the transport then owns and closes;
            `None` for none. It is not used: mailboxes share connections.
        redis_info: The server.
        namespace: Namespace of the keys.
        host: Address under which peers can reach this host.
        port: A port to listen on, beside the one of this process; 0 for none.
        interface: Network interface that peers are to use.
        direct: Whether to talk directly to other processes.
        encrypt_relay: Whether to encrypt what goes into queues.
        security: How direct links are protected.
    """

    registration_type = HybridAgentRegistration

    def __init__(
        self,
        mailbox_id: EntityId,
        redis_client: redis.asyncio.Redis | None,
        *,
        redis_info: RedisConnectionInfo,
        namespace: str,
        host: str,
        port: int,
        interface: str | None = None,
        direct: bool = True,
        encrypt_relay: bool = False,
        security: Security = Security(),  # noqa: B008 - a value
    ) -> None:
        super().__init__(mailbox_id, redis_info, namespace)
        self.encrypt_relay = encrypt_relay
        self._security = security
        self.direct = direct
        self._redis_client = redis_client
        self._host = host
        self._port = port
        self._interface = interface
        self._ports: PortPool | None = None

    @classmethod
    async def new(
        cls,
        *,
        namespace: str,
        redis_info: RedisConnectionInfo,
        interface: str | None = None,
        mailbox_id: EntityId | None = None,
        name: str | None = None,
        port: int | None = None,
        direct: bool = True,
        encrypt_relay: bool = False,
        security: Security = Security(),  # noqa: B008 - a value
    ) -> Self:
        """Return a transport bound to a mailbox.

        Args:
            namespace: Namespace of the keys.
            redis_info: The server.
            interface: Network interface, by name or address, that peers are to use;
                `None` for all.
            mailbox_id: The mailbox; `None` registers a new user.
            name: Name of the new user.
            port: A port to listen on, beside the one of this process; `None` for none.
            direct: Whether to talk directly to other processes.
            encrypt_relay: Whether to encrypt what goes into queues.
            security: How direct links are protected.

        Raises:
            redis.exceptions.ConnectionError: The server cannot be reached.
            BadEntityIdError: The mailbox is not registered.
            MailboxTerminatedError: It is closed for good.
            ValueError: There is no such interface, the port is none, or there is no
                secret for encryption.
            OSError: Another process has the port.
        """
        host = _host(interface)
        if port is not None:
            check_port(port)
        transport = cls(
            mailbox_id or UserId.new(name=name),
            None,
            redis_info=redis_info,
            namespace=namespace,
            host=host,
            port=port or 0,
            interface=interface,
            direct=direct,
            encrypt_relay=encrypt_relay,
            security=security,
        )
        try:
            await transport.open(register=mailbox_id is None)
        except BaseException:
            await transport.close()
            raise
        return transport

    def factory(self) -> HybridExchangeFactory:
        """Return a factory that makes clients of the same exchange."""
        host, port, kwargs = self._redis_info
        factory = HybridExchangeFactory(
            host,
            port,
            redis_kwargs=kwargs,
            interface=self._interface,
            namespace=self._namespace,
            direct=self.direct,
            encrypt_relay=self.encrypt_relay,
            security=self._security.mode,
            certificate=self._security.certificate,
            key=self._security.key,
        )
        factory.ports = self._ports
        return factory

    async def close(self) -> None:
        """Stop receiving; unread messages stay in the mailbox. Idempotent."""
        try:
            await super().close()
        finally:
            if self._redis_client is not None:
                await self._redis_client.aclose()
            release_port(self._port)


class HybridExchangeFactory(ExchangeFactory[HybridExchangeTransport]):
    """Makes clients of a hybrid exchange.

    Args:
        redis_host: Host of the Redis or Valkey server, version 7 or newer.
        redis_port: Its port.
        redis_kwargs: Further arguments of `redis.asyncio.Redis`, such as `password`, or
            where it is: `password_env` (an environment variable), `password_file` (a
            file that its owner alone may read) or `credential_provider`.
        interface: Network interface, by name or address, that peers are to use;
            `None` for that in `ACADEMY_INTERFACE`, or else all. In processes that get
            the factory as a pickle, that variable counts more, and where there is no
            such interface a warning is logged and all are used. With
            `ACADEMY_ADVERTISE`, a list of addresses or names with commas in between,
            each perhaps with a port, a process publishes these instead of its own.
        namespace: Namespace of the keys; clients reach those of the same namespace.
            `None` makes a random one.
        ports: Ports to give to the clients of this process, one each. When they run
            out, `create_*_client()` raises `StopIteration`. Those that another process
            has are passed over, so that processes of one host can share a range.
        config: Configuration of the clients.
        direct: False for a process whose ports are blocked: it does not listen, and
            all its messages go through the server.
        embed_credentials: Whether pickles of the factory have the password in the
            clear. If not, they have a reference: that of `redis_kwargs`, or else the
            path of a file that this process leaves for its workers, which must run
            as the same user and see the same directory (`ACADEMY_HOME`). Others take
            the password from `ACADEMY_REDIS_PASSWORD` or
            `ACADEMY_REDIS_PASSWORD_FILE` in their environment.
        encrypt_relay: Whether to encrypt what messages say while they wait on the
            server, so that it need not be trusted with that. All members need the
            `ACADEMY_SECRET_FILE` then. What others have encrypted is understood
            without it, too. Who writes to whom, when and how much stays visible.
        security: How processes that talk directly are protected from others; they
            always prove to each other that they belong to the namespace. `'auto'`:
            between hosts TLS 1.3 and nothing else, within a host Unix sockets or the
            loopback interface, in clear. `'tls'`: TLS on the loopback interface, too.
            `'authenticated'`: no encryption. Then whoever can read the network reads
            the messages, and whoever can change them on their way runs code in the
            agents; only for a network where nobody can. Processes of different
            settings that do not agree talk through the server.
        certificate: Path of a certificate (PEM, of any authority or none) to use for
            TLS instead of one that the process makes for itself; every process needs
            to find it there. Others know it by its fingerprint in the directory.
        key: Path of its private key (PEM, without a password).

    Raises:
        ValueError: The namespace cannot be used in keys, one of the ports is none, the
            password is given twice, there is no such `security`, or one of
            `certificate` and `key` is missing.
    """

    def __init__(
        self,
        redis_host: str,
        redis_port: int,
        *,
        redis_kwargs: dict[str, Any] | None = None,
        interface: str | None = None,
        namespace: str | None = "default",
        ports: Iterable[int] | None = None,
        config: ExchangeClientConfig | None = None,
        direct: bool = True,
        embed_credentials: bool = False,
        encrypt_relay: bool = False,
        security: str = "auto",
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(config)
        self.encrypt_relay = encrypt_relay
        if namespace is None:
            namespace = f"academy-{uuid.uuid4().hex}"
        self.namespace = check_namespace(namespace)
        self.redis_info = RedisConnectionInfo(
            redis_host, redis_port, redis_kwargs or {}, embed=embed_credentials
        )
        self.interface = interface
        self.ports = None if ports is None else PortPool(ports)
        self.direct = direct
        self._travelled = False
        self.security = Security(security, certificate, key)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _travelled=True)

    @classmethod
    def from_url(cls, url: str | None = None, **options: Any) -> Self:
        """Return a factory for a server given by a URL.

        Args:
            url: Such as `redis://:password@host:6379/0`, `rediss://...` for TLS, or
                `redis://host?password_file=/path` (or `password_env=NAME`); `None`
                for the environment variable `ACADEMY_REDIS_URL`.
            **options: Further arguments of the factory.

        Raises:
            ValueError: It is no such URL, or none is given.
        """
        url = url or os.environ.get(URL_VARIABLE)
        if not url:
            raise ValueError(
                f"No server is named. Give a URL or set {URL_VARIABLE}; `academy "
                "server` starts a server and prints its URL."
            )
        host, port, kwargs = parse_url(url)
        kwargs |= options.pop("redis_kwargs", None) or {}
        return cls(host, port, redis_kwargs=kwargs, **options)

    def __repr__(self) -> str:
        host, port, kwargs = self.redis_info
        return (
            f"{type(self).__name__}({host!r}, {port}, redis_kwargs={redacted(kwargs)}, "
            f"interface={self.interface!r}, namespace={self.namespace!r}, "
            f"ports={self.ports!r}, direct={self.direct}, "
            f"encrypt_relay={self.encrypt_relay}, security={self.security.mode!r})"
        )

    def _prepare(self) -> Callable[..., Coroutine[Any, Any, HybridExchangeTransport]]:
        port = None if self.ports is None else self.ports.take()
        return functools.partial(self._create_on_port, port)

    async def _create_transport(
        self,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        registration: HybridAgentRegistration[Any] | None = None,
    ) -> HybridExchangeTransport:
        return await self._prepare()(mailbox_id, name=name, registration=registration)

    async def _create_on_port(
        self,
        port: int | None,
        mailbox_id: EntityId | None = None,
        *,
        name: str | None = None,
        registration: HybridAgentRegistration[Any] | None = None,
    ) -> HybridExchangeTransport:
        def create(port: int | None) -> Coroutine[Any, Any, HybridExchangeTransport]:
            return HybridExchangeTransport.new(
                namespace=self.namespace,
                redis_info=self.redis_info,
                interface=chosen_interface(self.interface, travelled=self._travelled),
                mailbox_id=mailbox_id,
                name=name,
                port=port,
                direct=self.direct,
                encrypt_relay=self.encrypt_relay,
                security=self.security,
            )

        if self.ports is None or port is None:
            return await create(None)
        transport = await self.ports.use(port, create)
        transport._ports = self.ports
        return transport


def _host(interface: str | None) -> str:
    """Return an address of this host, that of an interface if one is given."""
    if interface is not None:
        return interface_addresses(interface)[0]
    return socket.gethostname()
