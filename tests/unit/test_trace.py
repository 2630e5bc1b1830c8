from __future__ import annotations

import contextvars
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from academy.trace import continue_trace, outgoing_traceparent, traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"

INVALID = [
    "",
    "x",
    PARENT.upper(),
    PARENT[:-1],
    PARENT + "0",
    PARENT + "-x",
    f" {PARENT}",
    f"{PARENT}\n",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE}-{SPAN}",
    f"00_{TRACE}_{SPAN}_01",
]


def apart(work: Callable[[], None]) -> None:
    """Run it in a context of its own."""
    contextvars.copy_context().run(work)


@pytest.mark.parametrize("parent", [PARENT, f"cc-{TRACE}-{SPAN}-00"])
def test_calls_carry_on_what_came_in(parent: str) -> None:
    def work() -> None:
        assert outgoing_traceparent() is None
        continue_trace(parent)
        assert traceparent.get() == parent
        assert outgoing_traceparent() == parent
        continue_trace(None)
        assert outgoing_traceparent() is None

    apart(work)


@pytest.mark.parametrize("parent", INVALID)
def test_what_is_not_valid_is_dropped(parent: str) -> None:
    def work() -> None:
        traceparent.set(parent)
        assert outgoing_traceparent() is None
        traceparent.set(PARENT)
        continue_trace(parent)
        assert traceparent.get() is None

    apart(work)


def test_opentelemetry_is_never_imported() -> None:
    def work() -> None:
        before = set(sys.modules)
        continue_trace(PARENT)
        outgoing_traceparent()
        assert set(sys.modules) == before

    apart(work)


@dataclass
class SpanContext:
    trace_id: int
    span_id: int
    is_remote: bool = False
    trace_flags: int = 0

    @property
    def is_valid(self) -> bool:
        return bool(self.trace_id and self.span_id)


@dataclass
class Span:
    context: SpanContext

    def get_span_context(self) -> SpanContext:
        return self.context


NO_SPAN = Span(SpanContext(0, 0))


class TestOpenTelemetry:
    """With modules that have the names, and what they do, of the real ones."""

    @pytest.fixture(autouse=True)
    def opentelemetry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        current: contextvars.ContextVar[dict[str, Any]]
        current = contextvars.ContextVar("current")
        context: Any = types.ModuleType("opentelemetry.context")
        context.Context, context.attach = dict, current.set
        trace: Any = types.ModuleType("opentelemetry.trace")
        trace.SpanContext, trace.NonRecordingSpan, trace.TraceFlags = (
            SpanContext,
            Span,
            int,
        )
        trace.set_span_in_context = lambda span, context: {**context, "span": span}
        trace.get_current_span = lambda: current.get({}).get("span", NO_SPAN)
        for module in (context, trace):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        self.trace, self.context = trace, context

    def test_its_current_span_goes_first(self) -> None:
        def work() -> None:
            traceparent.set(PARENT)
            assert outgoing_traceparent() == PARENT
            self.context.attach({"span": Span(SpanContext(0xAB, 0xCD, False, 1))})
            assert outgoing_traceparent() == f"00-{0xAB:032x}-{0xCD:016x}-01"

        apart(work)

    def test_its_spans_become_children_of_the_caller(self) -> None:
        def work() -> None:
            self.context.attach({"span": Span(SpanContext(1, 2)), "baggage": 3})
            continue_trace(PARENT)
            span = self.trace.get_current_span().get_span_context()
            assert span == SpanContext(int(TRACE, 16), int(SPAN, 16), True, 1)
            assert outgoing_traceparent() == PARENT

        apart(work)

    def test_a_span_of_somebody_else_ends(self) -> None:
        def work() -> None:
            self.context.attach({"span": Span(SpanContext(1, 2))})
            continue_trace(None)
            assert outgoing_traceparent() is None

        apart(work)
