"""The trace that an action belongs to, so that what it calls belongs to it too.

A caller's `traceparent` (W3C Trace Context) travels with its calls. OpenTelemetry is
used where the program has imported it, and is never imported here.
"""

from __future__ import annotations

import contextvars
import re
import sys
from typing import Any

traceparent: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "traceparent", default=None
)
"""The span that runs now, as `version-trace_id-span_id-flags` in lower-case hex.

While an action runs, it is that of its caller. Calls take it along, unless there is a
current span of OpenTelemetry, which goes first.
"""

_FORMAT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)


def outgoing_traceparent() -> str | None:
    """Return what a call takes along; `None` if there is nothing, or nothing valid."""
    otel = sys.modules.get("opentelemetry.trace")
    if otel is not None:
        span: Any = otel.get_current_span().get_span_context()
        if span.is_valid:
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    parent = traceparent.get()
    return parent if parent is not None and _parse(parent) else None


def continue_trace(parent: str | None) -> None:
    """Let what runs in this context belong to a caller's trace, and to no other.

    Args:
        parent: The caller's `traceparent`; one that is not valid counts as none.
    """
    found = None if parent is None else _parse(parent)
    traceparent.set(parent if found else None)
    otel: Any = sys.modules.get("opentelemetry.trace")
    context: Any = sys.modules.get("opentelemetry.context")
    if otel is None or context is None:
        return
    current = context.Context()
    if found:
        trace_id, span_id, flags = (int(part, 16) for part in found.groups())
        caller = otel.SpanContext(
            trace_id, span_id, is_remote=True, trace_flags=otel.TraceFlags(flags)
        )
        current = otel.set_span_in_context(otel.NonRecordingSpan(caller), current)
    context.attach(current)


def _parse(parent: str) -> re.Match[str] | None:
    return _FORMAT.fullmatch(parent)
