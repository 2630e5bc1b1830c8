"""The public path of `ConsoleLogging` in 1.0."""

from __future__ import annotations

from academy.logging.config import ConsoleLogging

__all__ = ["ConsoleLogging"]
