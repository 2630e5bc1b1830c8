"""The public path of `LogConfig` in 1.0."""

from __future__ import annotations

from academy.logging.config import LogConfig

__all__ = ["LogConfig"]
