"""A call guard that records each call as a span of OpenTelemetry."""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from opentelemetry.trace import SpanKind

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.observability.opentelemetry import tracer
from markethall.shared.observability.tracing import current_traceparent
from markethall.shared.rpc.client_interceptor import CallGuard

P = ParamSpec("P")
T = TypeVar("T")


class TracedCallGuard(CallGuard):
    """Records calls in process and over HTTP alike, so that both topologies give one trace."""

    async def invoke(
        self,
        ctx: CallContext,
        method: str,
        call: Callable[Concatenate[CallContext, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        attributes = {"rpc.service": self.target, "rpc.method": method}
        with tracer().start_as_current_span(
            f"{self.target}.{method}", kind=SpanKind.CLIENT, attributes=attributes
        ):
            traced = ctx.model_copy(update={"traceparent": current_traceparent()})
            return await super().invoke(traced, method, call, *args, **kwargs)
