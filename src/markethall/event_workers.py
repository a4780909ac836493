"""The background workers of the served contexts, and the transports of events between them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from markethall.container import ApplicationContainer
from markethall.contexts import topology
from markethall.settings import Settings
from markethall.shared.composition.container import ContextContainer
from markethall.shared.composition.context_persistence import RetentionJob
from markethall.shared.composition.manifest import Subscription
from markethall.shared.composition.topology import InvalidManifest, handler_key
from markethall.shared.composition.tracing import traced_handler
from markethall.shared.messaging.backlog import BacklogMonitor
from markethall.shared.messaging.context_worker import ContextWorker
from markethall.shared.messaging.events import EventHandler
from markethall.shared.messaging.inbox import InboxConsumer, WorkerConfig
from markethall.shared.messaging.outbox_relay import InProcessTransport, OutboxRelay
from markethall.shared.messaging.redis_stream_consumer import RedisStreamConsumer
from markethall.shared.messaging.redis_stream_publisher import RedisStreamPublisher
from markethall.shared.observability.opentelemetry import tracing


def build_event_workers(
    container: ApplicationContainer, settings: Settings, config: WorkerConfig | None = None
) -> list[ContextWorker]:
    """Return a worker for each served context.

    An event for a context of this process is written directly to the inbox of that context. An
    event for a context of another process is sent through a Redis stream. If `event_transport` is
    "dual", events for contexts of this process are sent through a Redis stream too.
    """
    inbox_transports = {
        context: _inbox_transport(context, context_container)
        for context, context_container in container.contexts.items()
    }
    return [
        _build_worker(container, settings, context, inbox_transports, config or WorkerConfig())
        for context in container.contexts
    ]


def bind_event_handlers(
    context: str, subscriptions: Iterable[Subscription], handlers: object
) -> dict[str, EventHandler]:
    """Map the key of each handler, as stored in the inbox, to its method.

    Raises InvalidManifest if a handler is missing.
    """
    bound: dict[str, EventHandler] = {}
    for subscription in subscriptions:
        method = getattr(handlers, subscription.handler, None)
        if method is None:
            raise InvalidManifest(f"{context} has no event handler {subscription.handler}")
        bound[handler_key(context, subscription)] = (
            traced_handler(method) if tracing.is_on else method
        )
    return bound


def _build_worker(
    container: ApplicationContainer,
    settings: Settings,
    context: str,
    inbox_transports: Mapping[str, InProcessTransport],
    config: WorkerConfig,
) -> ContextWorker:
    context_container = container.contexts[context]
    persistence = context_container.persistence()
    clock = context_container.clock()
    in_process_transports = [
        transport
        for subscriber, transport in inbox_transports.items()
        if context in topology().publishers_of(subscriber)
    ]
    publishers = _stream_publishers(container, settings, context)
    handlers = bind_event_handlers(
        context, topology().subscriptions[context], context_container.event_handlers()
    )
    retention = RetentionJob(persistence, clock, interval=timedelta(minutes=1))
    return ContextWorker(
        context,
        persistence.outbox,
        OutboxRelay(context, in_process_transports, clock, publishers, outbox=persistence.outbox),
        InboxConsumer(persistence.inbox, handlers, clock, config),
        [*context_container.periodic_jobs(), retention.run_once],
        config,
        [
            *_stream_consumers(container, settings, context, inbox_transports[context]),
            *context_container.long_running_tasks(),
            BacklogMonitor(context, persistence.outbox, persistence.inbox, clock),
        ],
        outbox_signal=persistence.outbox_signal,
        inbox_signal=persistence.inbox_signal,
        count_writes=lambda: persistence.database.write_count,
    )


def _inbox_transport(context: str, context_container: ContextContainer) -> InProcessTransport:
    persistence = context_container.persistence()
    return InProcessTransport(
        persistence.inbox, topology().handler_keys(context), persistence.inbox_signal.set
    )


def _stream_publishers(
    container: ApplicationContainer, settings: Settings, publisher: str
) -> Sequence[RedisStreamPublisher]:
    """Return one publisher, or none if no subscriber of the context uses Redis Streams."""
    subscribers = {
        subscriber: topology().event_types(publisher, subscriber)
        for source, subscriber in topology().event_pairs
        if source == publisher and settings.event_transports(publisher, subscriber)[1]
    }
    if not subscribers:
        return []
    signer = container.process.event_keys().signer_of(publisher)
    return [
        RedisStreamPublisher(
            publisher,
            subscribers,
            container.process.broker(),
            container.contexts[publisher].clock(),
            signer,
        )
    ]


def _stream_consumers(
    container: ApplicationContainer,
    settings: Settings,
    subscriber: str,
    inbox_transport: InProcessTransport,
) -> Sequence[RedisStreamConsumer]:
    inbox = container.contexts[subscriber].persistence().inbox
    return [
        RedisStreamConsumer(
            publisher,
            subscriber,
            inbox_transport,
            inbox,
            container.process.broker(),
            container.process.event_keys().verifier_of(publisher),
        )
        for publisher in topology().publishers_of(subscriber)
        if settings.event_transports(publisher, subscriber)[1]
    ]
