from __future__ import annotations

import pathlib
import tempfile
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.unit.link.network import Network, nothing_left


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The directory for temporary files; its name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="link-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield pathlib.Path(name)
        assert not list(pathlib.Path(name).iterdir())


@pytest.fixture
async def network(folder: pathlib.Path) -> AsyncIterator[Network]:
    async with nothing_left():
        network = Network()
        yield network
        await network.close()
