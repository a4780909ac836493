"""Calls, commands of Redis and event handlers that are recorded as spans of OpenTelemetry."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.messaging.events import Delivery, EventHandler
from markethall.shared.observability.opentelemetry import client_span, tracer
from markethall.shared.observability.tracing import current_traceparent
from markethall.shared.persistence.redis_client import CommandArgument, LuaScript, RedisClient
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


class TracedRedisClient(RedisClient):
    """The spans have the names of the commands, never their arguments."""

    async def execute(self, *command: CommandArgument, deadline: float | None = None) -> Any:
        with client_span(str(command[0]), db_system="redis"):
            return await super().execute(*command, deadline=deadline)

    async def run_script(
        self,
        script: LuaScript,
        keys: Sequence[CommandArgument],
        *args: CommandArgument,
        deadline: float | None = None,
    ) -> Any:
        with client_span("EVALSHA", db_system="redis"):
            return await super().run_script(script, keys, *args, deadline=deadline)


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
