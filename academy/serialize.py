"""Serialization strategies, and the policy of which of them are accepted.

Inside the package, objects travel as *segments*: `pack` returns the serialized stream
followed by its out-of-band buffers, `unpack` takes them back. `serialize` and
`deserialize` are the same as text, for use in user code.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import enum
import json
import pickle
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from academy.exception import (
    AcademyRemoteError,
    DeserializationError,
    DeserializationMethodProhibitedError,
    SerializationError,
)
from academy.segment import COUNT, ENTRY, Segment, copied, make_table, read_entry

PICKLE_PROTOCOL = 5
OUT_OF_BAND = 32 * 1024
"""Bytes from which an argument or result that is `bytes` or a `bytearray` is sent as it
is, and not in the stream of pickle: two copies less, but one more segment."""


class SerializationStrategy(enum.StrEnum):
    """How objects are turned into bytes.

    `PICKLE` carries almost any object, and whoever decodes it must trust whoever
    sent it. `JSON` carries plain data and decodes without running code.
    """

    PICKLE = "pickle"
    JSON = "json"


ALL_SERIALIZERS = frozenset(SerializationStrategy)
_JSON = SerializationStrategy.JSON  # to look it up on the class takes longer

default_serializer: contextvars.ContextVar[SerializationStrategy] = (
    contextvars.ContextVar("default_serializer", default=SerializationStrategy.PICKLE)
)
"""Strategy of handles that do not name one."""

allowed_deserializers: contextvars.ContextVar[
    frozenset[SerializationStrategy] | set[SerializationStrategy]
] = contextvars.ContextVar("allowed_deserializers", default=ALL_SERIALIZERS)
"""Strategies that this context decodes; data in any other is refused undecoded."""


class NoPickleMixin:
    """Marks objects that live in one process and cannot be pickled."""

    def __getstate__(self) -> Any:
        raise pickle.PicklingError(
            f"{type(self).__name__} holds connections and tasks of this process and "
            "cannot be pickled. Send its factory, an identifier, or a handle instead."
        )


class Serializer(Protocol):
    """Turns objects into text and back."""

    @classmethod
    def serialize(cls, obj: Any) -> str:
        """Return the object as text."""
        ...

    @classmethod
    def deserialize(cls, data: str) -> Any:
        """Return the object of a text."""
        ...


class JsonSerializer:
    """Plain data as JSON text; an exception becomes an `AcademyRemoteError`."""

    @classmethod
    def serialize(cls, obj: Any) -> str:
        """Return the object as JSON.

        Raises:
            TypeError: It contains something that JSON has no notation for.
        """
        return json.dumps(obj, default=json_exception_serializer)

    @classmethod
    def deserialize(cls, data: str) -> Any:
        """Return the object of a JSON text."""
        return json.loads(data, object_hook=json_exception_deserializer)


class PickleSerializer:
    """Any object, as base64 of its pickle."""

    @classmethod
    def serialize(cls, obj: Any) -> str:
        """Return the object as base64 text."""
        return base64.b64encode(_pickle(obj)).decode()

    @classmethod
    def deserialize(cls, data: str) -> Any:
        """Return the object of a text; runs code that the text names."""
        return pickle.loads(base64.b64decode(data))


_SERIALIZERS: dict[SerializationStrategy, type[Serializer]] = {
    SerializationStrategy.JSON: JsonSerializer,
    SerializationStrategy.PICKLE: PickleSerializer,
}


def serialize(obj: Any, strategy: SerializationStrategy) -> str:
    """Return the object as text in the given strategy.

    Raises:
        TypeError: (or `pickle.PicklingError`) The strategy cannot carry the object.
    """
    return _SERIALIZERS[SerializationStrategy(strategy)].serialize(obj)


def deserialize(obj: str, strategy: SerializationStrategy) -> Any:
    """Return the object of a text.

    Raises:
        DeserializationMethodProhibitedError: This context does not accept the
            strategy; nothing was decoded.
    """
    strategy = SerializationStrategy(strategy)
    check_allowed(strategy)
    return _SERIALIZERS[strategy].deserialize(obj)


def json_exception_serializer(obj: Any) -> dict[str, bool | str]:
    """Represent an exception in JSON by its text (a `default=` for `json.dumps`).

    Raises:
        TypeError: The object is no exception.
    """
    if isinstance(obj, BaseException):
        text = "".join(traceback.format_exception_only(obj))
        return {"__exception__": True, "exception_str": text}
    raise TypeError(f"{type(obj).__name__} has no notation in JSON")


def json_exception_deserializer(dct: dict[str, Any]) -> Any:
    """Turn what `json_exception_serializer` made into an `AcademyRemoteError`."""
    if dct.get("__exception__") is True and "exception_str" in dct:
        return AcademyRemoteError(dct["exception_str"])
    return dct


def check_allowed(*strategies: SerializationStrategy) -> None:
    """Refuse strategies that this context does not accept.

    Raises:
        DeserializationMethodProhibitedError: One is not in `allowed_deserializers`.
    """
    allowed = allowed_deserializers.get()
    if allowed is ALL_SERIALIZERS:
        return
    for strategy in strategies:
        if strategy not in allowed:
            raise DeserializationMethodProhibitedError(
                strategy.value, tuple(sorted(s.value for s in allowed))
            )


def accepted_default() -> SerializationStrategy:
    """Return the default strategy if it is accepted here, else one that is."""
    default, allowed = default_serializer.get(), allowed_deserializers.get()
    return default if default in allowed or not allowed else min(allowed)


def allowed_set(
    strategies: Iterable[SerializationStrategy] | None,
    *wanted: SerializationStrategy | None,
) -> frozenset[SerializationStrategy] | None:
    """Return the strategies that one side accepts, as a set; `None` for all.

    Args:
        strategies: Them.
        wanted: Strategies that it asks for, if it asks for any.

    Raises:
        ValueError: There are none, or an unknown one, or one that is asked for is not
            among them.
    """
    if strategies is None:
        return None
    allowed = frozenset(map(SerializationStrategy, strategies))
    if not allowed:
        raise ValueError("allowed_deserializers is empty: nothing could be received.")
    for strategy in wanted:
        if strategy is not None and strategy not in allowed:
            raise ValueError(
                f"What is asked for in {strategy.value} would be refused when it comes "
                f"(allowed_deserializers: {', '.join(sorted(allowed))}). Allow it, or "
                "ask for another one."
            )
    return allowed


@contextlib.contextmanager
def allowing(strategies: Iterable[SerializationStrategy] | None) -> Iterator[None]:
    """Narrow the accepted strategies within a block; `None` changes nothing.

    What the surroundings do not accept stays refused.
    """
    if strategies is None:
        yield
        return
    narrowed = frozenset(map(SerializationStrategy, strategies))
    token = allowed_deserializers.set(narrowed & allowed_deserializers.get())
    try:
        yield
    finally:
        allowed_deserializers.reset(token)


def pack(obj: Any, strategy: SerializationStrategy, *, what: str) -> list[Segment]:
    """Serialize an object into segments: the stream, then its large buffers.

    The buffers are the object's own memory (pickle protocol 5, PEP 574): whoever keeps
    them while that may change must copy them. A `bytes` or `bytearray` is a segment of
    its own if it is large, and is the object, or one of the arguments, itself.

    Args:
        obj: The object; for arguments a tuple of the positional ones, and a dictionary.
        strategy: How.
        what: `'arguments'`, `'result'` or `'exception'`, for the error.

    Raises:
        SerializationError: The strategy cannot carry the object.
    """
    try:
        if strategy is _JSON:
            return [JsonSerializer.serialize(obj).encode()]
        buffers: list[pickle.PickleBuffer] = []
        if what == "arguments":
            lifted = _lift_all(*obj) if obj[0] or obj[1] else obj
        else:
            lifted = _lift(obj) if type(obj) in _FLAT else obj
        stream = _pickle(lifted, buffers)
        return [stream, *map(_segment, buffers)] if buffers else [stream]
    except Exception as e:
        raise SerializationError(
            what, _describe(obj), strategy.value, f"{type(e).__name__}: {e}"
        ) from e


_FLAT = {bytes, bytearray}


def _lift(obj: Any) -> Any:
    """Return what is pickled for an object: itself, or a reference to its buffer."""
    if type(obj) in _FLAT and len(obj) >= OUT_OF_BAND:
        return pickle.PickleBuffer(obj)
    return obj


def _lift_all(pargs: Any, kargs: Any) -> Any:
    """Do so for arguments, unless one of them is there twice and must stay one."""
    large = [a for a in pargs if type(a) in _FLAT and len(a) >= OUT_OF_BAND]
    if kargs:
        values = kargs.values()
        large += [a for a in values if type(a) in _FLAT and len(a) >= OUT_OF_BAND]
    if not large or len(large) > len({id(a) for a in large}):
        return pargs, kargs
    return tuple(map(_lift, pargs)), {key: _lift(a) for key, a in kargs.items()}


def _segment(buffer: pickle.PickleBuffer) -> Segment:
    """Return the memory of a buffer: the object itself where it is nothing else."""
    view = buffer.raw()
    whole: Any = view.obj
    if type(whole) in _FLAT and len(whole) == len(view):
        return whole  # type: ignore[no-any-return]
    return view


def unpack(
    segments: Sequence[Segment], strategy: SerializationStrategy, *, what: str
) -> Any:
    """Return the object of segments made by `pack`.

    Arrays are built on the buffers as they are, so they are writable when those are.

    Raises:
        DeserializationMethodProhibitedError: This context does not accept the
            strategy; nothing was decoded.
        DeserializationError: The data is damaged, or needs a class that is not here.
    """
    if allowed_deserializers.get() is not ALL_SERIALIZERS:
        check_allowed(strategy)
    try:
        if strategy is _JSON:
            return JsonSerializer.deserialize(str(segments[0], "utf-8"))
        return pickle.loads(segments[0], buffers=segments[1:])
    except Exception as e:
        raise DeserializationError(
            what, strategy.value, f"{type(e).__name__}: {e}"
        ) from e


def _pickle(obj: Any, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle, with cloudpickle where plain pickle cannot or should not.

    Plain pickle refers to classes and functions of `__main__` by name, but on a
    worker `__main__` is another module; cloudpickle sends them by value.

    Args:
        obj: What.
        buffers: Gets the large buffers; `None` to have them in the pickle.
    """
    collect = None if buffers is None else buffers.append
    try:
        data = pickle.dumps(obj, PICKLE_PROTOCOL, buffer_callback=collect)
        if b"__main__" not in data:
            return data
    except (pickle.PicklingError, AttributeError, TypeError):
        pass
    from academy import by_value

    if buffers is not None:
        buffers.clear()
    return by_value.dumps(obj, collect=collect)


def _describe(obj: Any) -> str:
    """Name the types in call arguments, or the type of a single object."""
    if isinstance(obj, tuple) and len(obj) == 2 and isinstance(obj[1], dict):
        parts = [type(a).__name__ for a in obj[0]]
        parts += [f"{k}: {type(v).__name__}" for k, v in obj[1].items()]
        return ", ".join(parts)
    return type(obj).__name__


def join(segments: Sequence[Segment]) -> bytes:
    """Join segments into one block: their table, then the data."""
    return b"".join([make_table(segments), *segments])


def split(block: Segment) -> list[Segment]:
    """Split what `join` made, into copies.

    Raises:
        ValueError: The block is damaged. Nothing is allocated from its length fields.
    """
    view = memoryview(block)
    if len(view) < COUNT.size:
        raise ValueError("A block of segments is cut off.")
    (count,) = COUNT.unpack_from(view)
    offset = COUNT.size + count * ENTRY.size
    if offset > len(view):
        raise ValueError("A block of segments is cut off.")
    entries = [read_entry(view, i) for i in range(count)]
    if offset + sum(length for _, length in entries) != len(view):
        raise ValueError("The segments of a block do not add up to its length.")
    segments: list[Segment] = []
    for kind, length in entries:
        segments.append(copied(view[offset : offset + length], kind))
        offset += length
    return segments
