"""Log configurations: values that travel to workers and start logging there."""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import pathlib
import sys
import uuid
from collections.abc import Callable, Sequence

from academy.home import get_academy_home
from academy.logging.context import (
    JSONHandler,
    LogFormatter,
    attach_handler,
    log_context,
)

logger = logging.getLogger(__name__)


class LogConfig(abc.ABC):
    """A way to log, chosen once and used by every process of an application.

    A configuration is a picklable value. Its `uuid` identifies it and all its
    copies; by it [`log_context`][academy.logging.context.log_context] initializes a
    configuration once per process, however many copies arrive there. Subclasses
    call this constructor.
    """

    def __init__(self) -> None:
        self.uuid = str(uuid.uuid4())

    @abc.abstractmethod
    def init_logging(self) -> Callable[[], None]:
        """Start logging in this process.

        Not for end users: ``with log_context(config)`` calls this when needed, and
        keeps count of who still relies on it.

        Returns:
            A function, called once, that ends what this call started.
        """


class ConsoleLogging(LogConfig):
    """Logs to standard output.

    Args:
        level: Lowest level to write.
        color: Use colors, provided that standard output is a terminal and the
            environment variable ``NO_COLOR`` is not set.
        extra: If true, write the ids of thread and process and the fields of
            structured log records too.

    Raises:
        ValueError: If there is no such level.
    """

    def __init__(
        self,
        *,
        level: int | str = logging.INFO,
        color: bool = True,
        extra: int = False,
    ) -> None:
        super().__init__()
        self.level = _checked_level(level)
        self.color = color
        self.extra = extra

    def __repr__(self) -> str:
        return (
            f"ConsoleLogging(level={self.level!r}, color={self.color}, "
            f"extra={self.extra})"
        )

    def init_logging(self) -> Callable[[], None]:
        """Start logging to standard output."""
        colored = self.color and sys.stdout.isatty() and not os.getenv("NO_COLOR")
        handler = logging.StreamHandler(sys.stdout)
        handler.setLevel(self.level)
        handler.setFormatter(LogFormatter(color=colored, extra=self.extra))
        return attach_handler(handler)


class FileLogging(LogConfig):
    """Appends to a log file.

    Args:
        logfile: The file. It is created when logging starts, with the directories
            above it. A relative path is relative to the working directory of the
            process that logs.
        level: Lowest level to write.
        extra: If true, write the ids of thread and process and the fields of
            structured log records too.

    Raises:
        ValueError: If there is no such level.
    """

    def __init__(
        self,
        *,
        logfile: str | pathlib.Path,
        level: int | str = logging.INFO,
        extra: int = False,
    ) -> None:
        super().__init__()
        self.logfile = logfile
        self.level = _checked_level(level)
        self.extra = extra

    def __repr__(self) -> str:
        return (
            f"FileLogging(logfile={os.fspath(self.logfile)!r}, level={self.level!r}, "
            f"extra={self.extra})"
        )

    def init_logging(self) -> Callable[[], None]:
        """Start logging to the file.

        Raises:
            OSError: If the file or a directory above it cannot be created.
        """
        path = pathlib.Path(self.logfile).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setLevel(self.level)
        handler.setFormatter(LogFormatter(extra=self.extra))
        return attach_handler(handler)


class JSONPoolLogging(LogConfig):
    """Writes everything, for programs to read, into a pool of JSON files.

    Each process that initializes this configuration, or a copy of it, writes every
    record of every logger to a file of its own,
    ``logs/UUID/HOST-PID-RANDOM.jsonlog`` in
    [`get_academy_home()`][academy.home.get_academy_home]. UUID is the one of the
    configuration, so the files of one application lie together. There is nothing to
    configure: select when you read. The format is that of
    [`JSONHandler`][academy.logging.context.JSONHandler].
    """

    def __repr__(self) -> str:
        return f"JSONPoolLogging(uuid={self.uuid!r})"

    def init_logging(self) -> Callable[[], None]:
        """Start logging to a new file of the pool.

        Raises:
            OSError: If the file or a directory above it cannot be created.
        """
        pool = get_academy_home() / "logs" / self.uuid
        pool.mkdir(parents=True, exist_ok=True)
        name = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex}.jsonlog"
        handler = JSONHandler(pool / name)
        handler.setLevel(logging.DEBUG)
        detach = attach_handler(handler)
        logger.info("Logging to %s.", pool / name)
        return detach


class MultiLogging(LogConfig):
    """Several configurations that are used, and travel, as one.

    A member that is in force already, by itself or through another collection, is
    not initialized again.

    Args:
        configs: The members.
    """

    def __init__(self, configs: Sequence[LogConfig]) -> None:
        super().__init__()
        self.configs = list(configs)

    def __repr__(self) -> str:
        return f"MultiLogging({self.configs!r})"

    def init_logging(self) -> Callable[[], None]:
        """Start logging in all the ways collected here.

        Raises:
            Exception: What initializing a member raised; the others are ended then.
        """
        with contextlib.ExitStack() as started:
            for config in self.configs:
                started.enter_context(log_context(config))
            return started.pop_all().close


def _checked_level(level: int | str) -> int | str:
    """Return the level, or complain here and not in some worker later."""
    names = logging.getLevelNamesMapping()
    if isinstance(level, str) and level not in names:
        raise ValueError(
            f"There is no log level {level!r}. Use a number or one of "
            f"{', '.join(names)}."
        )
    return level
