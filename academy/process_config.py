"""The configuration of an agent that is a process of its own, as a TOML file."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import pickle as pickles
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import msgspec.structs

from academy import toml_file
from academy.agent import Agent
from academy.exchange.factory import ExchangeFactory
from academy.exchange.transport import AgentRegistration
from academy.runtime_config import RuntimeConfig
from academy.value import Value


class ConfigError(ValueError):
    """A configuration cannot be used. The text names the table and the field."""


@dataclass(kw_only=True)
class HybridExchangeModel(Value):
    """Arguments of a `HybridExchangeFactory`."""

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"redis_kwargs"})

    redis_host: str
    redis_port: int
    redis_kwargs: dict[str, Any] = field(default_factory=dict, repr=False)
    interface: str | None = None
    namespace: str = "default"
    ports: list[int] | None = None
    encrypt_relay: bool = False
    exchange_type: Literal["hybrid"] = "hybrid"

    def create(self) -> ExchangeFactory[Any]:
        """Return the factory."""
        from academy.exchange.hybrid import HybridExchangeFactory

        return HybridExchangeFactory(
            self.redis_host,
            self.redis_port,
            redis_kwargs=self.redis_kwargs,
            interface=self.interface,
            namespace=self.namespace,
            ports=self.ports,
            encrypt_relay=self.encrypt_relay,
        )


@dataclass(kw_only=True)
class _RedisServer(Value):
    hostname: str
    port: int


class RedisExchangeModel:
    """Arguments of a `RedisExchangeFactory`.

    Args:
        hostname: Host of the server.
        port: Its port.
        exchange_type: Always `'redis'`.
        **options: Further arguments of the factory, such as `namespace`, and of the
            Redis client, such as `password`.
    """

    def __init__(
        self,
        *,
        hostname: str,
        port: int,
        exchange_type: Literal["redis"] = "redis",
        **options: Any,
    ) -> None:
        self.hostname = hostname
        self.port = port
        self.exchange_type = exchange_type
        self.options = options

    def __repr__(self) -> str:
        shown = [f"hostname={self.hostname!r}", f"port={self.port}"]
        shown += [f"{name}=..." for name in self.options]
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def model_validate(cls, table: Mapping[str, Any]) -> Self:
        """Build it from a mapping; raises `ValueError` if a field is wrong."""
        own = {key: table[key] for key in ("hostname", "port") if key in table}
        checked = _RedisServer.model_validate(own)
        return cls(**{**table, "hostname": checked.hostname, "port": checked.port})

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> Any:
        """Return the fields as a mapping."""
        own = {"exchange_type": "redis", "hostname": self.hostname, "port": self.port}
        return {**own, **self.options}

    def create(self) -> ExchangeFactory[Any]:
        """Return the factory."""
        from academy.exchange.redis import RedisExchangeFactory

        return RedisExchangeFactory(self.hostname, self.port, **self.options)


class AgentModel:
    """How to make the agent.

    Args:
        constructor: Path of its class, `'module:Class'` or `'module.Class'`.
        pickle: Instead of that, a file with the pickled agent. Unpickling runs code
            that the file names, so it must come from somebody you trust.
        **kwargs: Arguments of the class.

    Raises:
        ConfigError: Neither or both of the two are given, or the path is none.
    """

    def __init__(
        self,
        *,
        constructor: str | None = None,
        pickle: str | pathlib.Path | None = None,
        **kwargs: Any,
    ) -> None:
        if (constructor is None) == (pickle is None):
            raise ConfigError("Give either a constructor or a pickle file.")
        if constructor is not None and not all(_split(constructor)):
            raise ConfigError(
                f"constructor={constructor!r} is not the path of a class. Write it as "
                "'package.module:Class'."
            )
        self.constructor = constructor
        self.pickle = None if pickle is None else pathlib.Path(pickle)
        self.kwargs = kwargs

    def __repr__(self) -> str:
        source = self.constructor if self.pickle is None else str(self.pickle)
        shown = [repr(source), *(f"{name}=..." for name in self.kwargs)]
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def model_validate(cls, table: Mapping[str, Any]) -> Self:
        """Build it from a mapping; raises as the class does."""
        return cls(**table)

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> Any:
        """Return the fields as a mapping."""
        path = None if self.pickle is None else str(self.pickle)
        return {"constructor": self.constructor, "pickle": path, **self.kwargs}

    def create(self) -> Agent:
        """Return the agent.

        Raises:
            ConfigError: There is no such file or class, it is not an agent, or the
                class does not take these arguments.
            Exception: What the class raised.
        """
        if self.pickle is not None:
            return _load_pickle(self.pickle)
        assert self.constructor is not None
        cls = _load_class(self.constructor)
        try:
            inspect.signature(cls).bind(**self.kwargs)
        except TypeError as e:
            raise ConfigError(f"[agent] {self.constructor}: {e}.") from e
        agent: Agent = cls(**self.kwargs)
        return agent


ExchangeModel = HybridExchangeModel | RedisExchangeModel
_EXCHANGES: dict[str, type[ExchangeModel]] = {
    "hybrid": HybridExchangeModel,
    "redis": RedisExchangeModel,
}


@dataclass(kw_only=True)
class AgentProcessConfig:
    """All that is needed to run an agent as a process.

    Attributes:
        exchange: Its exchange.
        agent: How to make it.
        config: How to run it.
        agent_registration: Its registration, once it has one.
    """

    exchange: ExchangeModel
    agent: AgentModel
    config: RuntimeConfig = field(default_factory=RuntimeConfig)
    agent_registration: AgentRegistration[Any] | None = None

    @classmethod
    def load(cls, filepath: str | pathlib.Path) -> Self:
        """Read a TOML file.

        A password in a file that others may read is logged as a warning.

        Raises:
            OSError: It cannot be read.
            ConfigError: It is not TOML, or something in it is missing, unknown, or
                wrong.
        """
        try:
            return cls.model_validate(toml_file.read(pathlib.Path(filepath)))
        except ValueError as e:
            raise ConfigError(f"{filepath}: {e}") from e

    @classmethod
    def model_validate(cls, tables: Mapping[str, Any]) -> Self:
        """Build it from a mapping of mappings; raises `ConfigError` as `load` does."""
        known = ("exchange", "agent", "config", "agent_registration")
        unknown = sorted(set(tables) - set(known))
        if unknown:
            raise ConfigError(
                f"{unknown[0]} is none of {', '.join(f'[{name}]' for name in known)}."
            )
        kind = _table(tables, "exchange").get("exchange_type")
        if kind not in _EXCHANGES:
            raise ConfigError(
                f"[exchange] exchange_type={kind!r} is none of "
                f"{', '.join(map(repr, _EXCHANGES))}."
            )
        registration = None
        if "agent_registration" in tables:
            registered = _registration_type(kind)
            registration = _validated(tables, "agent_registration", registered)
        return cls(
            exchange=_validated(tables, "exchange", _EXCHANGES[kind]),
            agent=_validated(tables, "agent", AgentModel),
            config=_runtime_config(tables.get("config", {})),
            agent_registration=registration,
        )

    def get_exchange(self) -> ExchangeFactory[Any]:
        """Return the exchange factory.

        Raises:
            ConfigError: One of its arguments cannot be used.
        """
        try:
            return self.exchange.create()
        except ValueError as e:
            raise ConfigError(f"[exchange] {e}") from e

    def get_agent(self) -> Agent:
        """Return the agent; raises as `AgentModel.create` does."""
        return self.agent.create()

    def to_toml(self, filepath: str | pathlib.Path) -> None:
        """Write it to a TOML file, which `load` can read.

        A new file can be read by its owner only, for there may be a password in it.

        Raises:
            OSError: The file cannot be written.
            TypeError: An argument of the agent, or an `authorize` hook, has no
                notation in TOML.
        """
        tables = {
            "exchange": self.exchange.model_dump(mode="json"),
            "agent": self.agent.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
        }
        if self.agent_registration is not None:
            tables["agent_registration"] = _dump(self.agent_registration)
        toml_file.write(pathlib.Path(filepath), tables)

    def note_registration(
        self, filepath: str | pathlib.Path, registration: AgentRegistration[Any]
    ) -> None:
        """Take a registration, and append it to the file that this was read from.

        Raises:
            OSError: The file cannot be written.
        """
        toml_file.append(
            pathlib.Path(filepath), {"agent_registration": _dump(registration)}
        )
        self.agent_registration = registration


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name)
    if not isinstance(table, Mapping):
        raise ConfigError(f"There is no table [{name}].")
    return table


def _validated(tables: Mapping[str, Any], name: str, model: Any) -> Any:
    """Build a model from a table, whose name is put before what is wrong with it."""
    try:
        return model.model_validate(_table(tables, name))
    except ValueError as e:
        if not str(e).startswith("There is no table"):
            raise ConfigError(f"[{name}] {e}") from e
        raise


def _runtime_config(table: Any) -> RuntimeConfig:
    """Build the configuration, whose hook is a path like `'module:function'`."""
    hook = None
    if isinstance(table, Mapping) and "authorize" in table:
        table = dict(table)
        hook = _load("[config] authorize", table.pop("authorize"))
    config: RuntimeConfig = _validated({"config": table}, "config", RuntimeConfig)
    try:
        return msgspec.structs.replace(config, authorize=hook)
    except ValueError as e:
        raise ConfigError(f"[config] {e}") from e


def _registration_type(kind: str) -> Any:
    module = importlib.import_module(f"academy.exchange.{kind}")
    return getattr(module, f"{kind.capitalize()}AgentRegistration")


def _dump(registration: Any) -> Any:
    return registration.model_dump(mode="json")


def _split(constructor: str) -> tuple[str, str]:
    """Return module and class of the path of a class."""
    separator = ":" if ":" in constructor else "."
    module, _, name = constructor.rpartition(separator)
    return module, name


def _load(what: str, path: str) -> Any:
    """Return what a path like `'module:name'` leads to."""
    try:
        module_name, name = _split(path)
        found: Any = importlib.import_module(module_name)
        for attribute in name.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as e:
        raise ConfigError(f"{what}={path!r}: {e}.") from e
    return found


def _load_class(constructor: str) -> Any:
    cls = _load("[agent] constructor", constructor)
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise ConfigError(f"[agent] constructor={constructor!r} is not an Agent class.")
    return cls


def _load_pickle(path: pathlib.Path) -> Agent:
    try:
        agent = pickles.loads(path.read_bytes())
    except Exception as e:
        raise ConfigError(
            f"[agent] pickle={str(path)!r} cannot be loaded: {type(e).__name__}: {e}."
        ) from e
    if not isinstance(agent, Agent):
        raise ConfigError(
            f"[agent] pickle={str(path)!r} is a {type(agent).__name__}, not an agent."
        )
    return agent
