"""What travels to a worker: the order to run an agent, and the failure that returns.

A capsule is plain bytes: a magic word, a header in JSON, and a body made by
cloudpickle. The header is read first, so that a worker with another Python or other
packages answers with a sentence instead of a pickle error.
"""

from __future__ import annotations

import dataclasses
import pickle
import struct
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Self

import cloudpickle
import msgspec

import academy
from academy import by_value
from academy.exception import WorkerMismatchError
from academy.exchange.factory import ExchangeFactory
from academy.exchange.transport import AgentRegistration
from academy.logging.config import LogConfig
from academy.runtime_config import RuntimeConfig

MAGIC = b"academy-capsule\n"
PROTOCOL = 1
_LENGTH = struct.Struct("!I")

_HINT = "Pass plain data, and open files, connections and locks in agent_on_startup()."
_HINTS = {
    "the exchange factory": (
        "Agents in other processes need an exchange that reaches them, such as the "
        "hybrid exchange."
    ),
}


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """All that a worker needs to run one agent.

    Attributes:
        agent: The agent, or its class, which the worker then instantiates.
        args: Positional arguments for the class.
        kwargs: Keyword arguments for the class.
        config: How to run it.
        exchange_factory: Makes its exchange client.
        registration: Its registration with that exchange.
        log_config: Logging to keep in force meanwhile.
        debug: The debug mode of the launching process.
    """

    agent: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    config: RuntimeConfig
    exchange_factory: ExchangeFactory[Any]
    registration: AgentRegistration[Any]
    log_config: LogConfig | None = None
    debug: bool = False

    def create_agent(self) -> Any:
        """Return the agent, instantiated here if a class was given."""
        if isinstance(self.agent, type):
            return self.agent(*self.args, **self.kwargs)
        return self.agent

    def keeping_mailbox(self) -> Self:
        """Return the same order, but leave the mailbox open if the agent fails."""
        config = msgspec.structs.replace(self.config, terminate_on_error=False)
        return dataclasses.replace(self, config=config)

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Yield what it consists of, each with a name for people."""
        yield "the exchange factory", self.exchange_factory
        yield "the agent", self.agent
        for position, value in enumerate(self.args, start=1):
            yield f"argument {position}", value
        for name, value in self.kwargs.items():
            yield f"argument {name!r}", value
        yield "the registration", self.registration
        yield "the log configuration", self.log_config
        yield "the runtime configuration", self.config


class _Header(msgspec.Struct, kw_only=True):
    """What both sides must agree on before the body can be read."""

    protocol: int = PROTOCOL
    python: str = msgspec.field(
        default_factory=lambda: f"{sys.version_info.major}.{sys.version_info.minor}"
    )
    packages: dict[str, str] = msgspec.field(
        default_factory=lambda: {
            "academy-hybrid": academy.__version__,
            "cloudpickle": _minor(cloudpickle.__version__),
            "msgspec": _minor(msgspec.__version__),
        }
    )
    final: bool


def dump_body(spec: RunSpec) -> bytes:
    """Pickle an order; classes and functions of `__main__` travel by value.

    Raises:
        pickle.PicklingError: A part of it cannot be pickled. The message names the
            part and says what to do instead.
    """
    try:
        return by_value.dumps(spec)
    except Exception as e:
        what, cause = _find_unpicklable(spec, e)
        hint = _HINTS.get(what.partition(" (")[0], _HINT)
        raise pickle.PicklingError(
            f"{what} cannot be sent to a worker process: "
            f"{_summary(cause).rstrip('.')}. {hint}"
        ) from cause


def seal(body: bytes, *, final: bool) -> bytes:
    """Put a body into a capsule.

    Args:
        body: What `dump_body` returned.
        final: Whether this is the last try. In all others the agent's mailbox stays
            open when it fails, because it is going to be restarted.
    """
    header = msgspec.json.encode(_Header(final=final))
    return b"".join((MAGIC, _LENGTH.pack(len(header)), header, body))


def unseal(capsule: bytes) -> RunSpec:
    """Return the order in a capsule.

    Raises:
        WorkerMismatchError: The capsule is damaged or comes from another version of
            Python or of a package, or its body needs something that is not here.
    """
    header, body = _split(capsule)
    _check(header)
    try:
        spec: RunSpec = pickle.loads(body)
    except Exception as e:
        raise WorkerMismatchError(
            f"the agent or its arguments cannot be loaded there ({_summary(e)})"
        ) from e
    return spec if header.final else spec.keeping_mailbox()


class WorkerFailure(Exception):
    """Carries an exception out of a worker, whatever the executor does to it.

    Executors send exceptions back by pickle, and some of them, process pools above
    all, break when one cannot be rebuilt. This one always can be; `unwrap` returns
    the exception that it stands for.

    Args:
        summary: Type and text of the original.
        details: The original with its traceback, as text.
        pickled: The original, if it can be pickled.
    """

    def __init__(self, summary: str, details: str, pickled: bytes | None) -> None:
        super().__init__(summary, details, pickled)
        self.summary = summary
        self.details = details
        self.pickled = pickled

    def __str__(self) -> str:
        return self.summary

    @classmethod
    def wrap(cls, error: Exception) -> Self:
        """Return the carrier of an exception."""
        details = "".join(traceback.format_exception(error))
        try:
            pickled = by_value.dumps(error)
            pickle.loads(pickled)
        except Exception:
            return cls(_summary(error), details, None)
        return cls(_summary(error), details, pickled)

    def unwrap(self) -> Exception:
        """Return the original with the worker's traceback as a note.

        Where the original cannot be pickled, or not be rebuilt here, it is a
        `RuntimeError` with the text of the original.
        """
        error: Exception = RuntimeError(self.summary)
        if self.pickled is not None:
            try:
                error = pickle.loads(self.pickled)
            except Exception as e:
                error.add_note(f"The original cannot be rebuilt here: {_summary(e)}")
        error.add_note(f"Raised on the worker:\n{self.details.rstrip()}")
        return error


def _split(capsule: bytes) -> tuple[_Header, memoryview]:
    if not capsule.startswith(MAGIC):
        raise WorkerMismatchError("what it received is not a capsule of this package")
    view = memoryview(capsule)[len(MAGIC) :]
    try:
        (length,) = _LENGTH.unpack_from(view)
        body = view[_LENGTH.size + length :]
        header = msgspec.json.decode(
            view[_LENGTH.size : _LENGTH.size + length], type=_Header
        )
    except (struct.error, msgspec.DecodeError) as e:
        raise WorkerMismatchError(f"the capsule is damaged ({e})") from e
    return header, body


def _check(sent: _Header) -> None:
    here = _Header(final=sent.final)
    if sent.protocol != here.protocol:
        raise WorkerMismatchError(
            f"the capsule has format {sent.protocol}, but the worker reads "
            f"{here.protocol}"
        )
    versions = {"Python": (sent.python, here.python)}
    for package in here.packages:
        there = sent.packages.get(package, "not installed")
        versions[package] = (there, here.packages[package])
    differing = [
        f"{name} is {theirs} where it was launched and {ours} on the worker"
        for name, (theirs, ours) in versions.items()
        if theirs != ours
    ]
    if differing:
        raise WorkerMismatchError("; ".join(differing))


def _find_unpicklable(spec: RunSpec, error: Exception) -> tuple[str, Exception]:
    """Return the name of the part that cannot be pickled, and why."""
    for name, value in spec.parts():
        try:
            by_value.dumps(value)
        except Exception as e:
            return f"{name} ({_type_name(value)})", e
    return "the agent with its arguments", error


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _type_name(value: Any) -> str:
    return (value if isinstance(value, type) else type(value)).__name__


def _summary(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
