"""W3C trace context, read and written by OpenTelemetry's propagators."""

from opentelemetry import propagate, trace


def read_traceparent(traceparent: str) -> str | None:
    """Return the trace context of an incoming header, or None if it is not valid."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, propagate.extract({"traceparent": traceparent}))
    return carrier.get("traceparent")


def outgoing_trace_headers(traceparent: str | None) -> dict[str, str]:
    """Return the trace headers of an outgoing call.

    The current span is the parent of the callee's span where a tracer is installed; otherwise the
    trace context of the incoming request is passed on.
    """
    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    elif traceparent:
        propagate.inject(carrier, propagate.extract({"traceparent": traceparent}))
    return carrier
