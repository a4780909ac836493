"""ASGI middleware that records each request as a span of OpenTelemetry."""

from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from markethall.shared.http.request_context import route_template
from markethall.shared.observability.opentelemetry import tracer
from markethall.shared.observability.tracing import current_traceparent

_HEADER: Final = b"traceparent"
_SERVER_ERROR: Final = 500


class TracingMiddleware:
    """Begins or continues the trace of a request.

    The rest of the application reads the header `traceparent`. Here it gets the span of the
    request, so that log lines, events and calls to other processes belong to it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = tracer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = propagate.extract(_carrier_of(scope))
        name = scope["method"]
        with self._tracer.start_as_current_span(name, parent, SpanKind.SERVER) as span:
            scope["headers"] = _headers_with_span(scope)
            await self._app(scope, receive, _recording_status(span, send))
            _describe(span, scope)


def _carrier_of(scope: Scope) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in {_HEADER, b"tracestate"}
    }


def _headers_with_span(scope: Scope) -> list[tuple[bytes, bytes]]:
    headers = [(name, value) for name, value in scope["headers"] if name != _HEADER]
    traceparent = current_traceparent()
    return [*headers, (_HEADER, traceparent.encode())] if traceparent else headers


def _recording_status(span: Span, send: Send) -> Send:
    async def send_and_record(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            span.set_attribute("http.response.status_code", status)
            if status >= _SERVER_ERROR:
                span.set_status(Status(StatusCode.ERROR))
        await send(message)

    return send_and_record


def _describe(span: trace.Span, scope: Scope) -> None:
    """Name the span by its route: a path would have ids, and a trace needs few names."""
    scope.setdefault("state", {})
    route = route_template(scope)
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.route", route)
