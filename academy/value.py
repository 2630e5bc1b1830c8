"""Validation and JSON for the small values that programs pass around.

`Value` gives a `msgspec.Struct` or a dataclass the four methods that programs use to
ship identifiers, registrations and configurations between processes as JSON, and
makes them usable as fields of pydantic models without importing pydantic.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_type_hints

import msgspec
import msgspec.structs


class Value:
    """Conversion to and from builtins and JSON, with validation."""

    __slots__ = ()

    hidden_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that `repr` leaves out because every instance has the same."""

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in field_names(type(self))
            if name not in self.hidden_fields
        )
        return f"{type(self).__name__}({fields})"

    def model_dump(self, *, mode: Literal["python", "json"] = "python") -> Any:
        """Return the value as builtin objects.

        Args:
            mode: `'python'` keeps UUIDs as objects, `'json'` turns all that JSON
                has no type for into strings.
        """
        kept = (uuid.UUID,) if mode == "python" else None
        return msgspec.to_builtins(self, builtin_types=kept)

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """Return the value as JSON text."""
        data = msgspec.json.encode(self.model_dump(mode="json"))
        if indent is not None:
            data = msgspec.json.format(data, indent=indent)
        return data.decode()

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Build a value from a mapping (an instance is returned as it is).

        Raises:
            ValueError: A field is missing, unknown, or has the wrong type. The
                message names the class and the field.
        """
        if isinstance(obj, cls):
            return obj
        if isinstance(obj, Mapping):
            tag = getattr(getattr(cls, "__struct_config__", None), "tag_field", None)
            unknown = set(obj) - set(field_names(cls)) - {tag}
            if unknown:
                raise ValueError(
                    f"{cls.__name__} has no field "
                    f"{', '.join(sorted(map(repr, unknown)))}; "
                    f"its fields are {', '.join(field_names(cls))}."
                )
        try:
            return msgspec.convert(obj, cls)
        except msgspec.ValidationError as e:
            raise ValueError(f"Not a valid {cls.__name__}: {e}.") from e

    @classmethod
    def model_validate_json(cls, data: str | bytes) -> Self:
        """Build a value from JSON text; raises as `model_validate` does."""
        try:
            obj = msgspec.json.decode(data)
        except msgspec.DecodeError as e:
            raise ValueError(f"Not JSON, so not a {cls.__name__}: {e}.") from e
        return cls.model_validate(obj)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let pydantic models have fields of this class."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.model_validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value, info: value.model_dump(mode=info.mode), info_arg=True
            ),
        )


def field_names(cls: type) -> tuple[str, ...]:
    """Return the field names of a struct or dataclass, in order."""
    names = getattr(cls, "__struct_fields__", None)
    return tuple(cls.__dataclass_fields__ if names is None else names)  # type: ignore[attr-defined]


def coerce_fields(value: Any) -> None:
    """Check and coerce the fields of a new struct by its annotations.

    A struct's constructor does not look at types; configurations call this from
    `__post_init__`, so that a wrong value is an error where it was written.

    Raises:
        ValueError: A field has a value of the wrong type. The message names it.
    """
    cls: Any = type(value)
    for name, hint in _hints(cls).items():
        given = getattr(value, name)
        try:
            msgspec.structs.force_setattr(value, name, msgspec.convert(given, hint))
        except msgspec.ValidationError as e:
            raise ValueError(f"{cls.__name__}({name}={given!r}): {e}.") from e


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {name: hints[name] for name in field_names(cls)}
