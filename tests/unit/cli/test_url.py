from __future__ import annotations

import pytest

from academy.cli.url import redacted, with_host


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        ("redis://:pw@host:1", "no pw here: redis://:pw@host:1", "no *** here: "),
        ("redis://u:p%40w@host:1", "got p@w and p%40w", "got *** and ***"),
        ("redis://host:1?password=pw", "with pw", "with ***"),
        ("redis://host:1?password=p%40w", "p@w, p%40w", "***, ***"),
        ("redis://host:1", "nothing secret", "nothing secret"),
        ("redis://[broken", "in redis://[broken", "in ***"),
        (None, "nothing secret", "nothing secret"),
    ],
)
def test_redacted(url: str | None, text: str, shown: str) -> None:
    assert redacted(text, url).startswith(shown)


def test_redacted_leaves_no_part_of_a_password() -> None:
    assert redacted("abc%20def", "redis://:abc%20def@host") == "***"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("name", "redis://:p%40w@name:6379/0"),
        ("fd00::1", "redis://:p%40w@[fd00::1]:6379/0"),
    ],
)
def test_with_host(host: str, url: str) -> None:
    assert with_host("redis://:p%40w@127.0.0.1:6379/0", host) == url
    assert with_host("redis://:p%40w@[::1]:6379/0", host) == url
