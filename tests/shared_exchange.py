"""A local exchange whose factory pickles, for use within one process."""

from __future__ import annotations

from typing import Any

from academy.exchange.local import (
    LocalExchangeFactory,
    LocalExchangeState,
    LocalExchangeTransport,
)

_states: dict[int, LocalExchangeState] = {}


class SharedExchangeFactory(LocalExchangeFactory):
    """Pickled as a reference to what this process has already."""

    def __reduce__(self) -> Any:
        _states[id(self._state)] = self._state
        return _factory, (id(self._state),)

    async def _create_transport(self, mailbox_id=None, *, name=None, registration=None):
        return _SharedTransport.new(mailbox_id, name=name, state=self._state)


class _SharedTransport(LocalExchangeTransport):
    def factory(self) -> SharedExchangeFactory:
        return SharedExchangeFactory(_state=self._state)


def _factory(key: int) -> SharedExchangeFactory:
    return SharedExchangeFactory(_state=_states[key])
