"""Start and stop OpenTelemetry, which is off unless its own environment variables turn it on.

A trace begins with a request. Background work without a trace, such as the poll of an outbox, would
be a trace of its own several times a second, so it is not recorded.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

TRACER_NAME: Final = "markethall"
MISSING_EXTRA: Final = (
    "OTEL_TRACES_EXPORTER: traces need more packages: pip install 'markethall[otel]'"
)
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTERS: Final = frozenset({"otlp", "console"})


class TracingError(Exception):
    """The environment variables ask for traces, but this process cannot send them."""


def is_tracing_wanted() -> bool:
    """Tell whether the variables of OpenTelemetry ask for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER")
    if exporter is not None:
        return exporter not in {"", "none"}
    return any(os.environ.get(name) for name in _ENDPOINTS)


class Tracing:
    """The traces of this process. There is one object of this class, because the SDK is global."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None

    @property
    def is_on(self) -> bool:
        return self._provider is not None

    def start(self, service_name: str) -> None:
        """Start the SDK, if the environment asks for traces.

        `service_name` is used if the environment has none. A second call does nothing. Raises
        TracingError.
        """
        if self._provider is not None or not is_tracing_wanted():
            return
        if find_spec("opentelemetry.sdk") is None:
            raise TracingError(MISSING_EXTRA)
        self._provider = _build_provider(service_name)
        trace.set_tracer_provider(self._provider)

    def flush(self) -> None:
        """Send the spans that wait. Call this when the process stops."""
        if self._provider is not None:
            self._provider.force_flush(timeout_millis=5000)


tracing: Final = Tracing()


def tracer() -> trace.Tracer:
    return trace.get_tracer(TRACER_NAME)


def client_span(name: str, **attributes: str) -> AbstractContextManager[trace.Span]:
    """Record the block as a request to another system. `db_system` is the attribute `db.system`."""
    named = {key.replace("_", "."): value for key, value in attributes.items()}
    return tracer().start_as_current_span(name, kind=SpanKind.CLIENT, attributes=named)


def _build_provider(service_name: str) -> "TracerProvider":
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({} if _is_service_named() else {"service.name": service_name})
    # without an argument, the SDK builds the sampler from OTEL_TRACES_SAMPLER
    chosen_sampler = TracerProvider().sampler
    provider = TracerProvider(resource=resource, sampler=requests_only(chosen_sampler))
    for exporter in _build_exporters():
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _is_service_named() -> bool:
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in attributes


def _build_exporters() -> list["SpanExporter"]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    names = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")
    if unknown := set(names) - _EXPORTERS:
        raise TracingError(
            f"OTEL_TRACES_EXPORTER: {', '.join(sorted(unknown))} is not known;"
            f" use {' or '.join(sorted(_EXPORTERS))}"
        )
    return [OTLPSpanExporter() if name == "otlp" else ConsoleSpanExporter() for name in names]


def requests_only(chosen: "Sampler") -> "Sampler":
    """Return the sampler of the environment, without traces that no request has begun."""
    from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

    class RequestsOnly(Sampler):
        def should_sample(
            self,
            parent_context: "Context | None",
            trace_id: int,
            name: str,
            kind: SpanKind | None = None,
            attributes: Any = None,
            links: "Sequence[Any] | None" = None,
            trace_state: Any = None,
        ) -> SamplingResult:
            parent = trace.get_current_span(parent_context).get_span_context()
            if not parent.is_valid and kind is not SpanKind.SERVER:
                return SamplingResult(Decision.DROP)
            return chosen.should_sample(
                parent_context, trace_id, name, kind, attributes, links, trace_state
            )

        def get_description(self) -> str:
            return f"RequestsOnly{{{chosen.get_description()}}}"

    return RequestsOnly()
