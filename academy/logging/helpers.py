"""The public path of [`academy.logging.context`][academy.logging.context] in 1.0."""

from __future__ import annotations

from academy.logging.context import (
    ACADEMY_EXTRA_PREFIX,
    JSONHandler,
    execute_and_log_traceback,
    initialized_log_contexts,
    log_context,
)

__all__ = [
    "ACADEMY_EXTRA_PREFIX",
    "JSONHandler",
    "execute_and_log_traceback",
    "initialized_log_contexts",
    "log_context",
]
