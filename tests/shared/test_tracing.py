"""Trace context: the incoming header, and the headers of outgoing calls."""

import pytest
from opentelemetry import trace

from markethall.shared.observability.tracing import outgoing_trace_headers, read_traceparent

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_valid_traceparent_is_read() -> None:
    assert read_traceparent(TRACEPARENT) == TRACEPARENT


def test_later_version_is_read_as_version_0() -> None:
    assert read_traceparent(f"01{TRACEPARENT[2:]}-extension") == TRACEPARENT


@pytest.mark.parametrize("header", ["", "garbage", f"00-{'0' * 32}-{'b' * 16}-01", "ff" * 40])
def test_invalid_traceparent_is_ignored(header: str) -> None:
    assert read_traceparent(header) is None


def test_incoming_trace_is_passed_on_without_a_tracer() -> None:
    assert outgoing_trace_headers(TRACEPARENT) == {"traceparent": TRACEPARENT}
    assert outgoing_trace_headers(None) == {}


def test_current_span_is_the_parent_of_an_outgoing_call() -> None:
    span_context = trace.SpanContext(
        trace_id=int("a" * 32, 16),
        span_id=int("c" * 16, 16),
        is_remote=False,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )

    with trace.use_span(trace.NonRecordingSpan(span_context)):
        headers = outgoing_trace_headers(TRACEPARENT)

    assert headers["traceparent"] == f"00-{'a' * 32}-{'c' * 16}-01"
