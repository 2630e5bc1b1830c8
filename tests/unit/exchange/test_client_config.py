from __future__ import annotations

import pickle
from typing import Any

import pytest

from academy.exchange.client_config import ExchangeClientConfig


def test_defaults() -> None:
    config = ExchangeClientConfig()
    assert (config.heartbeat_interval, config.stale_heartbeat_threshold) == (30, 3)


def test_values() -> None:
    config = ExchangeClientConfig(heartbeat_interval=5, stale_heartbeat_threshold=2)
    assert config.heartbeat_interval == 5.0
    assert ExchangeClientConfig.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("heartbeat_interval", 0, "must be greater than 0"),
        ("heartbeat_interval", -1.5, "must be greater than 0"),
        ("stale_heartbeat_threshold", 0, "must be greater than 0"),
        ("heartbeat_interval", "30", "Expected `float`"),
        ("stale_heartbeat_threshold", 1.5, "Expected `int`"),
        ("heartbeat_interval", None, "Expected `float`"),
    ],
)
def test_wrong_values(field: str, value: Any, message: str) -> None:
    for make in (ExchangeClientConfig, _validate):
        with pytest.raises(ValueError, match=f"{field}.*{message}|{message}.*{field}"):
            make(**{field: value})


def _validate(**fields: Any) -> ExchangeClientConfig:
    return ExchangeClientConfig.model_validate(fields)


def test_unknown_field() -> None:
    with pytest.raises(ValueError, match="has no field 'interval'"):
        ExchangeClientConfig.model_validate({"interval": 1})
    with pytest.raises(TypeError, match="interval"):
        ExchangeClientConfig(interval=1)  # type: ignore[call-arg]
