"""The public path of the log configurations in 1.0."""

from __future__ import annotations

from academy.logging.config import (
    ConsoleLogging,
    FileLogging,
    JSONPoolLogging,
    LogConfig,
    MultiLogging,
)

__all__ = [
    "ConsoleLogging",
    "FileLogging",
    "JSONPoolLogging",
    "LogConfig",
    "MultiLogging",
]
