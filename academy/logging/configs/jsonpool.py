"""The public path of `JSONPoolLogging` in 1.0."""

from __future__ import annotations

from academy.logging.config import JSONPoolLogging

__all__ = ["JSONPoolLogging"]
