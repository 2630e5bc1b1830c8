from __future__ import annotations

import pickle
from typing import Any

import pytest

from academy.identifier import EntityId
from academy.runtime import RuntimeConfig
from academy.serialize import SerializationStrategy

JSON, PICKLE = SerializationStrategy.JSON, SerializationStrategy.PICKLE


def test_defaults() -> None:
    assert RuntimeConfig().model_dump() == {
        "cancel_actions_on_shutdown": True,
        "max_sync_concurrency": None,
        "raise_loop_errors_on_shutdown": True,
        "shutdown_on_loop_error": True,
        "terminate_on_error": True,
        "terminate_on_success": True,
        "default_serializer": None,
        "allowed_deserializers": None,
        "authorize": None,
    }


@pytest.mark.parametrize(
    "allowed", [{"json"}, ["json"], ("json",), frozenset({"json"}), {JSON}]
)
def test_strategies_are_coerced(allowed: Any) -> None:
    config = RuntimeConfig(default_serializer="json", allowed_deserializers=allowed)  # type: ignore[arg-type]
    assert config.default_serializer is JSON
    assert config.allowed_deserializers == {JSON}
    assert all(type(s) is SerializationStrategy for s in config.allowed_deserializers)


def test_unknown_field() -> None:
    with pytest.raises(TypeError, match="foo"):
        RuntimeConfig(foo=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="RuntimeConfig has no field 'foo'"):
        RuntimeConfig.model_validate({"foo": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cancel_actions_on_shutdown", "maybe"),
        ("max_sync_concurrency", "many"),
        ("max_sync_concurrency", 0),
        ("max_sync_concurrency", -1),
        ("terminate_on_error", None),
        ("default_serializer", "yaml"),
        ("allowed_deserializers", {"yaml"}),
        ("allowed_deserializers", "json"),
        ("authorize", "everybody"),
    ],
)
def test_bad_value_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"RuntimeConfig\({field}="):
        RuntimeConfig(**{field: value})


def test_travels_as_json() -> None:
    config = RuntimeConfig(max_sync_concurrency=3, allowed_deserializers={JSON, PICKLE})
    assert RuntimeConfig.model_validate_json(config.model_dump_json()) == config


def nobody(action: str, source: EntityId) -> bool:
    return False


def test_a_hook_travels_as_a_pickle_only() -> None:
    config = RuntimeConfig(authorize=nobody)
    assert pickle.loads(pickle.dumps(config)).authorize is nobody
    for dump in (config.model_dump, config.model_dump_json):
        with pytest.raises(TypeError, match=r"authorize.* as a pickle"):
            dump()
