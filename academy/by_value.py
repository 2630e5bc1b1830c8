"""Pickles that bring along the classes and functions of the program's own script.

Plain pickle refers to what is defined in `__main__` by name, but where it is read
`__main__` is another module. cloudpickle sends that by value, all but functions that
cache their results; here those are sent, too, each with an empty cache.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle

PROTOCOL = 5

_Cached = type(functools.cache(lambda: None))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Cached) and obj.__module__ == "__main__":
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


def dumps(
    obj: Any, *, collect: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    """Return the pickle of an object; plain `pickle.loads` reads it.

    Args:
        obj: The object.
        collect: Called with each large buffer, which then is not in the pickle.

    Raises:
        pickle.PicklingError: It cannot be pickled; some objects raise other errors.
    """
    with io.BytesIO() as file:
        _Pickler(file, protocol=PROTOCOL, buffer_callback=collect).dump(obj)
        return file.getvalue()


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)
