"""The background work of the served contexts, and the pipes between it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from markethall.container import EVENT_SUBSCRIPTIONS, Container
from markethall.contexts import SUBSCRIPTIONS, Context
from markethall.settings import Settings
from markethall.shared.messaging.context_worker import (
    ContextWorker,
    InboxConsumer,
    LongRunningTask,
    OutboxRelay,
    WorkerConfig,
)
from markethall.shared.messaging.events import InProcessTransport
from markethall.shared.messaging.redis_streams import RedisStreamConsumer, RedisStreamPublisher
from markethall.shared.persistence.context_persistence import ContextPersistence, RetentionJob


def build_event_workers(container: Container, settings: Settings) -> list[ContextWorker]:
    """One for each served context. Where a listener runs decides what carries the events to it."""
    served = sorted(settings.contexts)
    inbox_transports = {context: _inbox_transport(container, context) for context in served}
    workers = {
        context: _build_worker(container, settings, context, inbox_transports) for context in served
    }
    for context, worker in workers.items():
        inbox_transports[context].notify_inbox = worker.notify_inbox
    return list(workers.values())


def _build_worker(
    container: Container,
    settings: Settings,
    context: Context,
    inbox_transports: dict[Context, InProcessTransport],
) -> ContextWorker:
    context_container: Any = getattr(container, f"{context.value}_context")
    persistence: ContextPersistence[Any] = context_container.persistence()
    clock, config = container.clock(), WorkerConfig()
    in_process_transports = [
        pipe for listener, pipe in inbox_transports.items() if context in SUBSCRIPTIONS[listener]
    ]
    worker = ContextWorker(
        context.value,
        persistence.outbox,
        OutboxRelay(
            context.value,
            in_process_transports,
            clock,
            _stream_publishers(container, settings, context),
        ),
        InboxConsumer(persistence.inbox, context_container.handlers(), clock, config),
        [
            *context_container.periodic_jobs(),
            RetentionJob(persistence, clock, interval=timedelta(minutes=1)).run_once,
        ],
        config,
        [
            *_stream_consumers(container, settings, context, inbox_transports[context]),
            *_long_running_workers(context_container),
        ],
    )
    persistence.database.after_publish = worker.notify_outbox
    return worker


def _long_running_workers(context_container: Any) -> Sequence[LongRunningTask]:
    """Of a context that has long work to do."""
    if hasattr(context_container, "long_running_tasks"):
        return context_container.long_running_tasks()
    return []


def _inbox_transport(container: Container, listener: Context) -> InProcessTransport:
    """Into the inbox of this listener, wherever the events come from."""
    handlers = {
        event.type: [handler for context, handler in listeners if context == listener]
        for event, listeners in EVENT_SUBSCRIPTIONS.items()
        if any(context == listener for context, _ in listeners)
    }
    context_container: Any = getattr(container, f"{listener.value}_context")
    return InProcessTransport(context_container.persistence().inbox, handlers)


def _stream_publishers(
    container: Container, settings: Settings, publisher: Context
) -> Sequence[RedisStreamPublisher]:
    """To the listeners that are reached by a stream; none where there are none."""
    listeners = {
        listener.value: _event_types(publisher, listener)
        for listener in Context
        if publisher in SUBSCRIPTIONS[listener]
        and settings.event_transports(publisher, listener)[1]
    }
    if not listeners:
        return []
    return [RedisStreamPublisher(publisher.value, listeners, container.broker(), container.clock())]


def _stream_consumers(
    container: Container, settings: Settings, listener: Context, inbox_transport: InProcessTransport
) -> Sequence[RedisStreamConsumer]:
    context_container: Any = getattr(container, f"{listener.value}_context")
    inbox, broker = context_container.persistence().inbox, container.broker
    return [
        RedisStreamConsumer(publisher.value, listener.value, inbox_transport, inbox, broker())
        for publisher in sorted(SUBSCRIPTIONS[listener])
        if settings.event_transports(publisher, listener)[1]
    ]


def _event_types(publisher: Context, listener: Context) -> frozenset[str]:
    return frozenset(
        event.type
        for event, listeners in EVENT_SUBSCRIPTIONS.items()
        if event.type.startswith(f"{publisher}.")
        and any(context == listener for context, _ in listeners)
    )
