"""Program: what memory allows, a value copied once there and once back.

Who receives a value in memory of its own cannot have it faster, however it travels. All
in one process and one thread, into memory that is used again and again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from target import Target, measure


class Copies:
    """Copies values, into memory that is kept until the next size."""

    def __init__(self) -> None:
        self._there = self._back = memoryview(b"")

    async def noop(self) -> None:
        """Do nothing."""

    async def size(self, value: Any) -> int:
        """Copy a value; return how many bytes there are now."""
        data = memoryview(value)
        if len(data) != len(self._there):
            self._there = memoryview(bytearray(len(data)))
            self._back = memoryview(bytearray(len(data)))
        self._there[:] = data
        return len(self._there)

    async def echo(self, value: Any) -> memoryview:
        """Return a copy of a copy."""
        await self.size(value)
        self._back[:] = self._there
        return self._back


def main(settings: dict[str, Any]) -> list[dict[str, Any]]:
    copies = Copies()
    return asyncio.run(measure(Target(copies.noop, copies.echo, copies.size), settings))


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
