"""Logging for those who just want to see what happens."""

from __future__ import annotations

import contextlib
import logging
import pathlib

from academy.logging.config import (
    ConsoleLogging,
    FileLogging,
    LogConfig,
    MultiLogging,
)
from academy.logging.context import JSONHandler, attach_handler

_started = contextlib.ExitStack()


def recommended_logging(
    level: int | str = logging.INFO,
    *,
    logfile: str | pathlib.Path | None = None,
    logfile_level: int | str | None = None,
    color: bool = True,
    extra: int = False,
) -> LogConfig:
    """Return a configuration that suits most programs.

    It logs to standard output and, on demand, to a file. Use it here with
    [`log_context`][academy.logging.context.log_context], and give it to the manager
    to have the same on the workers.

    Args:
        level: Lowest level to write.
        logfile: Also append to this file.
        logfile_level: Lowest level to write to the file; None for `level`.
        color: Use colors on a terminal.
        extra: If true, write the ids of thread and process and the fields of
            structured log records too.

    Raises:
        ValueError: If there is no such level.
    """
    console = ConsoleLogging(level=level, color=color, extra=extra)
    if logfile is None:
        return console
    file_level = level if logfile_level is None else logfile_level
    file = FileLogging(logfile=logfile, level=file_level, extra=extra)
    return MultiLogging([console, file])


def init_logging(
    level: int | str = logging.INFO,
    *,
    logfile: str | pathlib.Path | None = None,
    logfile_level: int | str | None = None,
    color: bool = True,
    extra: int = False,
    force: bool = False,
) -> logging.Logger:
    """Log in the recommended way from now on, in this process only.

    If the root logger has handlers already, nothing changes, unless `force` is
    true. To reach the workers too, give a
    [`recommended_logging`][academy.logging.recommended.recommended_logging] to the
    manager instead.

    Args:
        level: Lowest level to write.
        logfile: Also append to this file.
        logfile_level: Lowest level to write to the file; None for `level`.
        color: Use colors on a terminal.
        extra: If true, write the ids of thread and process and the fields of
            structured log records too. If 2, there is another file beside
            `logfile`, with the suffix ``.jsonlog``, that has the records as JSON.
        force: First remove and close all handlers of the root logger, whoever put
            them there. Test runners do not like that.

    Returns:
        The root logger.

    Raises:
        OSError: If the log file cannot be opened.
        ValueError: If there is no such level.
    """
    root = logging.getLogger()
    if root.handlers and not force:
        return root
    config = recommended_logging(
        level, logfile=logfile, logfile_level=logfile_level, color=color, extra=extra
    )
    _started.close()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    _started.callback(config.init_logging())
    if logfile is not None and extra > 1:
        json = JSONHandler(pathlib.Path(logfile).expanduser().with_suffix(".jsonlog"))
        json.setLevel(level if logfile_level is None else logfile_level)
        _started.callback(attach_handler(json))
    return root
