from __future__ import annotations

import os
import platform

import msgspec
import pytest

from academy.exchange.link_info import LinkInfo, ProcessInfo

LINK = LinkInfo("ab" * 16, "host", 7, "tcp", "", 0.001, 3, 4, 1.5, 1, 2)
INFO = ProcessInfo("cd" * 16, "here", 8, (LINK,), 1, 2, 3)


def test_json() -> None:
    assert ProcessInfo.model_validate_json(INFO.model_dump_json()) == INFO
    assert INFO.model_dump(mode="json")["links"][0]["path"] == "tcp"


def test_messages_carry_it() -> None:
    data = msgspec.msgpack.encode(INFO)
    assert msgspec.msgpack.decode(data, type=ProcessInfo) == INFO
    with pytest.raises(ValueError, match="int"):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"process": 1}), type=ProcessInfo)


def test_this_process() -> None:
    expected = ProcessInfo("id", platform.node(), os.getpid(), (LINK,))
    assert ProcessInfo.here("id", (LINK,)) == expected
