from __future__ import annotations

import dataclasses

import pytest

from academy.link.config import LinkConfig

NAMES = [field.name for field in dataclasses.fields(LinkConfig)]


def test_defaults_are_valid() -> None:
    config = LinkConfig()
    assert config.frame_limit >= 2 * config.chunk
    assert config.suspect_after == 6.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_every_value_is_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"LinkConfig\.{name} must be greater than 0"):
        LinkConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ping_interval": 6.0}, "ping_interval < suspect_after"),
        ({"suspect_after": 15.0}, "suspect_after < dead_after"),
        ({"handshake_limit": 180}, "181 <= handshake_limit"),
        ({"frame_limit": 500, "chunk": 100}, "handshake_limit <= frame_limit"),
        ({"chunk": 513 * 1024}, r"2 \* chunk <= frame_limit"),
        ({"frame_limit": 1 << 29, "chunk": (2 << 20) + 1}, "chunk <= 2097152"),
        ({"part": (1 << 20) + 1000}, "part <= frame_limit - 32"),
        ({"frame_limit": 1 << 30}, r"frame_limit < 2 \*\* 30"),
        ({"message_limit": 1 << 62}, r"message_limit < 2 \*\* 62"),
    ],
)
def test_contradictions(values: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LinkConfig(**values)


def test_the_limits_themselves_are_valid() -> None:
    LinkConfig(
        handshake_limit=181,
        frame_limit=(1 << 30) - 1,
        chunk=2 << 20,
        part=(1 << 30) - 33,
        message_limit=(1 << 62) - 1,
    )
    LinkConfig(handshake_limit=512, frame_limit=512, chunk=256, part=480)


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LinkConfig().chunk = 5  # type: ignore[misc]
