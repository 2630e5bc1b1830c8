"""Log configurations for all processes of an application, and their contexts."""

from __future__ import annotations

from academy.logging.config import (
    ConsoleLogging,
    FileLogging,
    JSONPoolLogging,
    LogConfig,
    MultiLogging,
)
from academy.logging.context import (
    ACADEMY_EXTRA_PREFIX,
    JSONHandler,
    LogFormatter,
    execute_and_log_traceback,
    initialized_log_contexts,
    log_context,
)
from academy.logging.recommended import init_logging, recommended_logging

__all__ = [
    "ACADEMY_EXTRA_PREFIX",
    "ConsoleLogging",
    "FileLogging",
    "JSONHandler",
    "JSONPoolLogging",
    "LogConfig",
    "LogFormatter",
    "MultiLogging",
    "execute_and_log_traceback",
    "init_logging",
    "initialized_log_contexts",
    "log_context",
    "recommended_logging",
]
