"""The background work of the served contexts, and the pipes between it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from markethall.container import Container
from markethall.contexts import topology
from markethall.settings import Settings
from markethall.shared.composition.context_persistence import ContextPersistence, RetentionJob
from markethall.shared.messaging.context_worker import ContextWorker, LongRunningTask
from markethall.shared.messaging.inbox_consumer import InboxConsumer
from markethall.shared.messaging.outbox_relay import OutboxRelay
from markethall.shared.messaging.redis_stream_consumer import RedisStreamConsumer
from markethall.shared.messaging.redis_stream_publisher import RedisStreamPublisher
from markethall.shared.messaging.transports import InProcessTransport
from markethall.shared.messaging.worker_config import WorkerConfig


def build_event_workers(container: Container, settings: Settings) -> list[ContextWorker]:
    """One for each served context. Where a listener runs decides what carries the events to it."""
    served = sorted(settings.contexts)
    inbox_transports = {context: _inbox_transport(container, context) for context in served}
    return [_build_worker(container, settings, context, inbox_transports) for context in served]


def _build_worker(
    container: Container,
    settings: Settings,
    context: str,
    inbox_transports: dict[str, InProcessTransport],
) -> ContextWorker:
    context_container: Any = getattr(container, f"{context}_context")
    persistence: ContextPersistence[Any] = context_container.persistence()
    clock, config = container.clock(), WorkerConfig()
    in_process_transports = [
        transport
        for subscriber, transport in inbox_transports.items()
        if context in topology().publishers_of(subscriber)
    ]
    return ContextWorker(
        context,
        persistence.outbox,
        OutboxRelay(
            context,
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
        outbox_signal=persistence.outbox_signal,
        inbox_signal=persistence.inbox_signal,
    )


def _long_running_workers(context_container: Any) -> Sequence[LongRunningTask]:
    """Of a context that has long work to do."""
    return (
        context_container.long_running_tasks()
        if hasattr(context_container, "long_running_tasks")
        else []
    )


def _inbox_transport(container: Container, subscriber: str) -> InProcessTransport:
    """Return the transport into this subscriber's inbox."""
    context_container: Any = getattr(container, f"{subscriber}_context")
    persistence: ContextPersistence[Any] = context_container.persistence()
    return InProcessTransport(
        persistence.inbox, topology().handler_keys(subscriber), persistence.inbox_signal.set
    )


def _stream_publishers(
    container: Container, settings: Settings, publisher: str
) -> Sequence[RedisStreamPublisher]:
    """To the subscribers that are reached by a stream; empty where there are none."""
    subscribers = {
        subscriber: topology().event_types(publisher, subscriber)
        for source, subscriber in topology().event_pairs
        if source == publisher and settings.event_transports(publisher, subscriber)[1]
    }
    if not subscribers:
        return []
    return [RedisStreamPublisher(publisher, subscribers, container.broker(), container.clock())]


def _stream_consumers(
    container: Container,
    settings: Settings,
    subscriber: str,
    inbox_transport: InProcessTransport,
) -> Sequence[RedisStreamConsumer]:
    context_container: Any = getattr(container, f"{subscriber}_context")
    inbox, broker = context_container.persistence().inbox, container.broker
    return [
        RedisStreamConsumer(publisher, subscriber, inbox_transport, inbox, broker())
        for publisher in topology().publishers_of(subscriber)
        if settings.event_transports(publisher, subscriber)[1]
    ]
