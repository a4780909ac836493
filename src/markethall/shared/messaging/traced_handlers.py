"""Event handlers that are recorded as spans of OpenTelemetry."""

from typing import Any

from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from markethall.shared.messaging.events import Delivery, EventHandler
from markethall.shared.observability.opentelemetry import tracer
from markethall.shared.observability.tracing import current_traceparent


def traced_handler(handler: EventHandler) -> EventHandler:
    """Return a handler whose span continues the trace in which the event was published."""

    async def handle(delivery: Delivery, event: Any) -> None:
        envelope = delivery.envelope
        parent = propagate.extract({"traceparent": envelope.traceparent or ""})
        attributes: dict[str, str | int] = {
            "messaging.message.id": str(envelope.event_id),
            "messaging.destination.name": envelope.type,
            "messaging.attempt": delivery.attempts,
        }
        with tracer().start_as_current_span(
            delivery.handler, parent, SpanKind.CONSUMER, attributes=attributes
        ):
            traced = envelope.model_copy(update={"traceparent": current_traceparent()})
            await handler(delivery.model_copy(update={"envelope": traced}), event)

    return handle
