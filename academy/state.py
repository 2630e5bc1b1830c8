"""State of an agent that outlives its process."""

from __future__ import annotations

import os
import pathlib
import shelve
from typing import Literal, NoReturn, TypeVar

DEFAULT_PICKLE_PROTOCOL = 5

ValueT = TypeVar("ValueT")


class FileState(shelve.DbfilenameShelf[ValueT]):
    """A dictionary in a file: string keys, and any values that pickle.

    It is a [shelve][shelve]. Create it in the agent's constructor, and launch the
    agent by its class, so that the file is opened where the agent runs:

    ```python
    class Counter(Agent):
        def __init__(self, path: str) -> None:
            self.state: FileState[int] = FileState(path)

        async def agent_on_shutdown(self) -> None:
            self.state.close()

        @action
        async def count(self) -> int:
            self.state["n"] = self.state.get("n", 0) + 1
            return self.state["n"]

    await manager.launch(Counter, args=("counter.state",))
    ```

    A file belongs to one process and one thread at a time. [dbm][dbm] chooses its
    format by what the Python at hand supports, and may add a suffix to the name:
    from Python 3.13 on that is usually ``dbm.sqlite3``, which refuses to be used
    from a second thread and which older Pythons cannot read. Files that an older
    Python wrote stay readable. Only open files you trust: reading a value
    unpickles it.

    An assignment is in the file after `sync()` or `close()` at the latest. It can
    be used as a context manager, which closes it.

    Args:
        filename: Path of the file. Missing directories above it are created when
            `flag` allows to create the file.
        flag: `c` reads and writes, and creates the file if there is none; `w` reads
            and writes a file that exists; `r` only reads; `n` starts with an empty
            file in any case.
        protocol: Pickle protocol of the values; None for Python's default.
        writeback: Keep every value that was read in memory and write it back in
            `sync()` and `close()`. Changes inside a value are then kept too, at the
            price of memory and a slower close; by default only assigned values are.

    Raises:
        dbm.error: If the file is missing and `flag` does not create it, or if it
            is in a format that this Python cannot read.
        OSError: If the file cannot be opened.
    """

    def __init__(
        self,
        filename: str | pathlib.Path,
        *,
        flag: Literal["r", "w", "c", "n"] = "c",
        protocol: int | None = DEFAULT_PICKLE_PROTOCOL,
        writeback: bool = False,
    ) -> None:
        self._path = os.fspath(filename)
        if flag in ("c", "n"):
            pathlib.Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(self._path, flag=flag, protocol=protocol, writeback=writeback)

    def __repr__(self) -> str:
        return f"FileState({self._path!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is an open file and cannot travel to another process. "
            "Pass its path instead and open it in the agent's constructor."
        )
