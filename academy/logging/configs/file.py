"""The public path of `FileLogging` in 1.0."""

from __future__ import annotations

from academy.logging.config import FileLogging

__all__ = ["FileLogging"]
