"""Reads and writes the W3C trace context with OpenTelemetry's propagators."""

from opentelemetry import propagate, trace


def read_traceparent(traceparent: str) -> str | None:
    """Return the `traceparent` of an incoming request, or None if it is invalid."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, propagate.extract({"traceparent": traceparent}))
    return carrier.get("traceparent")


def current_traceparent() -> str | None:
    """Return the `traceparent` of the current span, or None if no tracer is installed."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def outgoing_trace_headers(traceparent: str | None) -> dict[str, str]:
    """Return the trace headers of an outgoing call.

    If a tracer is installed, the headers name the current span; otherwise they repeat
    `traceparent`, which `read_traceparent` has returned for the incoming request.
    """
    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    elif traceparent:
        carrier["traceparent"] = traceparent
    return carrier
