"""The public path of `MultiLogging` in 1.0."""

from __future__ import annotations

from academy.logging.config import MultiLogging

__all__ = ["MultiLogging"]
