from __future__ import annotations

import asyncio
import errno
import os

import pytest
import redis.exceptions

from academy.cli.error import CommandError, UsageError, explain, full_traceback
from academy.embedded import ServerNotFoundError
from academy.exception import PingCancelledError

URL = "redis://:secret@host:1"


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (CommandError("It failed."), "It failed.", 1),
        (UsageError("Say it so."), "Say it so.", 2),
        (ServerNotFoundError("No server."), "No server.", 2),
        (PingCancelledError(), str(PingCancelledError()), 1),
        (redis.exceptions.ConnectionError("Not there."), "Not there.", 1),
        (redis.exceptions.ConnectionError(), "ConnectionError.", 1),
        (ValueError("no"), "ValueError: no", 1),
        (ValueError(), "ValueError.", 1),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/x"),
            "/x: No such file or directory",
            1,
        ),
        (OSError(errno.EADDRINUSE, "Port 1 is in use"), "Port 1 is in use", 1),
        (OSError("odd"), "OSError: odd", 1),
        (ValueError(f"cannot use {URL}"), "ValueError: cannot use redis://:***@h", 1),
    ],
)
def test_explain(error: Exception, text: str, code: int) -> None:
    explained, exit_code = explain(error, URL)
    assert explained.startswith(text)
    assert exit_code == code


def test_group_is_explained_by_its_cause() -> None:
    inner = BaseExceptionGroup("", [asyncio.CancelledError(), CommandError("cause")])
    assert explain(BaseExceptionGroup("", [inner, ValueError()])) == ("cause", 1)


def test_group_of_nothing_but_cancellations() -> None:
    group = BaseExceptionGroup("", [asyncio.CancelledError()])
    assert explain(group) == ("CancelledError.", 1)


def test_traceback_shows_no_password() -> None:
    try:
        raise ValueError(URL)
    except ValueError as e:
        text = full_traceback(e, URL)
    assert "test_error.py" in text
    assert "secret" not in text
