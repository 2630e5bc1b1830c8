"""Which log configurations are in force in this process, and how they write."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import threading
import warnings
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)

ACADEMY_EXTRA_PREFIX = "academy."
"""Log record attributes with this prefix are ours: the fields of a structured log."""

_lock = threading.RLock()
# A child forked while another thread holds the lock would wait for it for ever.
os.register_at_fork(
    before=_lock.acquire,
    after_in_parent=_lock.release,
    after_in_child=_lock.release,
)


class Initializable(Protocol):
    """What `log_context` needs of a configuration; `LogConfig` has it."""

    uuid: str
    """Identity of the configuration; its pickled copies have the same."""

    def init_logging(self) -> Callable[[], None]:
        """Start logging, and return the function that ends it."""


@dataclass(slots=True)
class _Reference:
    """A configuration in force, and how many contexts rely on it."""

    uninit: Callable[[], None]
    count: int = 0


initialized_log_contexts: dict[str, _Reference] = {}
"""The configurations in force in this process, by their uuid."""


@contextlib.contextmanager
def log_context(c: Initializable | None) -> Generator[None]:
    """Keep a log configuration in force while the context lasts.

    Contexts may overlap, in any threads and tasks, with the same configuration, a
    pickled copy of it, or others: each is initialized once per process, by the
    first context that asks for it, and ended by the last one that leaves. While
    any is in force, Python warnings are logged, and the level of the root logger
    is as low as the most talkative handler needs. Both go back to what they were.

    Args:
        c: The configuration. With None the context does nothing.

    Raises:
        Exception: What initializing raised; nothing is in force then.
    """
    if c is None:
        yield
        return
    _acquire(c)
    try:
        yield
    finally:
        _release(c)


def _acquire(config: Initializable) -> None:
    with _lock:
        reference = initialized_log_contexts.get(config.uuid)
        if reference is None:
            reference = _Reference(config.init_logging())
            initialized_log_contexts[config.uuid] = reference
        reference.count += 1


def _release(config: Initializable) -> None:
    with _lock:
        reference = initialized_log_contexts[config.uuid]
        reference.count -= 1
        if reference.count == 0:
            del initialized_log_contexts[config.uuid]
            reference.uninit()


class _RootLogger:
    """Our handlers on the root logger, and what it was like before them."""

    def __init__(self) -> None:
        self._handlers: list[logging.Handler] = []
        self._level_before = self._level = logging.WARNING
        self._captures_warnings = False

    def add(self, handler: logging.Handler) -> None:
        root = logging.getLogger()
        if not self._handlers:
            self._level_before = self._level = root.level
            self._capture_warnings()
        self._handlers.append(handler)
        root.addHandler(handler)
        self._adjust_level(root)

    def remove(self, handler: logging.Handler) -> None:
        root = logging.getLogger()
        self._handlers.remove(handler)
        root.removeHandler(handler)
        self._adjust_level(root)
        if not self._handlers and self._captures_warnings:
            logging.captureWarnings(False)
        handler.close()

    def _adjust_level(self, root: logging.Logger) -> None:
        if root.level != self._level:
            return  # somebody else has set it since, and knows why
        self._level = min([self._level_before, *(h.level for h in self._handlers)])
        root.setLevel(self._level)

    def _capture_warnings(self) -> None:
        # Where somebody else captures them already, they stay captured afterwards.
        before = warnings.showwarning
        logging.captureWarnings(True)
        self._captures_warnings = warnings.showwarning is not before


_root = _RootLogger()


def attach_handler(handler: logging.Handler) -> Callable[[], None]:
    """Add a handler to the root logger, whose level is lowered if need be.

    Returns:
        A function, to be called once, that removes and closes the handler.
    """
    with _lock:
        _root.add(handler)

    def detach() -> None:
        with _lock:
            _root.remove(handler)

    return detach


_RESET, _GREY, _RED, _GREEN, _YELLOW, _BLUE, _PURPLE, _CYAN = (
    f"\033[{code}m" for code in ("0", "2", "31", "32", "33", "34", "35", "36")
)
_LEVEL_COLORS = {
    logging.DEBUG: _CYAN,
    logging.INFO: _BLUE,
    logging.WARNING: _YELLOW,
    logging.ERROR: _RED,
    logging.CRITICAL: _RED,
}


class LogFormatter(logging.Formatter):
    """Formats a record as a line for people, with its traceback below.

    Args:
        color: Color the line with ANSI escape sequences.
        extra: If true, add the ids of thread and process, and the fields of the
            record whose names begin with `academy.`, without that prefix.
    """

    default_msec_format = "%s.%03d"

    def __init__(self, color: bool = False, extra: int = False) -> None:
        super().__init__()
        self._color = color
        self._extra = extra

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, without the traceback."""
        level = _LEVEL_COLORS.get(record.levelno, _BLUE)
        parts = [self._paint(_GREY, f"[{self.formatTime(record)}]")]
        if self._extra:
            ids = f"[tid={threading.get_native_id()} pid={record.process}]"
            parts.append(self._paint(_GREEN, ids))
        parts.append(self._paint(level, f"{record.levelname:<8}"))
        parts.append(self._paint(_PURPLE, f"({record.name})"))
        parts.append(record.message)
        if self._extra:
            parts.extend(self._fields(record))
        return " ".join(parts)

    def _fields(self, record: logging.LogRecord) -> list[str]:
        return [
            self._paint(_YELLOW, f"{key.removeprefix(ACADEMY_EXTRA_PREFIX)}=")
            + _text(value)
            for key, value in vars(record).items()
            if key.startswith(ACADEMY_EXTRA_PREFIX)
        ]

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{_RESET}" if self._color else text


class JSONHandler(logging.Handler):
    """Writes each record as a JSON object on a line of its own.

    The object has an entry for each attribute of the record, its `extra` fields
    included, as text; besides, `formatted` is the message with its traceback, and
    `os_thread` the thread as the operating system numbers it. A record is appended
    by a single write, so a reader, or a forked process that writes to the same
    file, never tears one.

    Args:
        filename: The file, in an existing directory. It is created if missing.

    Raises:
        OSError: If the file cannot be opened.
    """

    def __init__(self, filename: pathlib.Path) -> None:
        super().__init__()
        self._file = open(filename, "ab", buffering=0)  # noqa: SIM115

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record; what fails is reported as logging is set to do."""
        if self._file.closed:
            return  # another thread had picked this handler before it was removed
        try:
            entry = {"formatted": self.format(record)}
            entry.update((key, _text(value)) for key, value in vars(record).items())
            entry["os_thread"] = str(threading.get_native_id())
            self._file.write(json.dumps(entry).encode() + b"\n")
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Close the file; records that come later are dropped."""
        with contextlib.ExitStack() as stack:
            self.acquire()
            stack.callback(self.release)
            self._file.close()
        super().close()


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as e:
        return f"<{type(value).__name__} without text: {type(e).__name__}>"


async def execute_and_log_traceback(fut: Awaitable[Any]) -> Any:
    """Await a future; if it fails, log the error with its traceback and raise it.

    The future is awaited first of all and directly, so cancelling the task that
    runs this cancels the future. A cancellation is not logged.

    Raises:
        Exception: The error of the future.
    """
    try:
        return await fut
    except Exception:
        logger.exception("A background operation failed.")
        raise
