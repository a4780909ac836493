"""The background work of the served contexts, and the pipes between it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from markethall.container import LISTENERS, Container
from markethall.settings import Settings
from markethall.shared.backend import Backend, Housekeeping
from markethall.shared.events import DirectPipe
from markethall.shared.steward import Pace, Processor, Relay, Steward, Worker
from markethall.shared.streams import StreamPipe, StreamReader
from markethall.topology import HEARS, Context


def stewards(container: Container, settings: Settings) -> list[Steward]:
    """One for each served context. Where a listener runs decides what carries the events to it."""
    served = sorted(settings.serve)
    pipes = {context: _into(container, context) for context in served}
    made = {context: _steward(container, settings, context, pipes) for context in served}
    for context, steward in made.items():
        pipes[context].wake = steward.wake_processor
    return list(made.values())


def _steward(
    container: Container,
    settings: Settings,
    context: Context,
    pipes: dict[Context, DirectPipe],
) -> Steward:
    part: Any = getattr(container, f"{context.value}_context")
    backend: Backend[Any] = part.backend()
    clock, pace = container.clock(), Pace()
    direct = [pipe for listener, pipe in pipes.items() if context in HEARS[listener]]
    steward = Steward(
        context.value,
        backend.outbox,
        Relay(context.value, direct, clock, _streams(container, settings, context)),
        Processor(backend.inbox, part.handlers(), clock, pace),
        [*part.sweeps(), Housekeeping(backend, clock, every=timedelta(minutes=1)).sweep],
        pace,
        [*_readers(container, settings, context, pipes[context]), *_workers(part)],
    )
    backend.database.on_publish = steward.wake
    return steward


def _workers(part: Any) -> Sequence[Worker]:
    """Of a context that has long work to do."""
    return part.workers() if hasattr(part, "workers") else []


def _into(container: Container, listener: Context) -> DirectPipe:
    """Into the inbox of this listener, wherever the events come from."""
    handlers = {
        event.type: [handler for context, handler in listeners if context == listener]
        for event, listeners in LISTENERS.items()
        if any(context == listener for context, _ in listeners)
    }
    part: Any = getattr(container, f"{listener.value}_context")
    return DirectPipe(part.backend().inbox, handlers)


def _streams(container: Container, settings: Settings, publisher: Context) -> Sequence[StreamPipe]:
    """To the listeners that are reached by a stream; none where there are none."""
    listeners = {
        listener.value: _types(publisher, listener)
        for listener in Context
        if publisher in HEARS[listener] and settings.pipes(publisher, listener)[1]
    }
    if not listeners:
        return []
    return [StreamPipe(publisher.value, listeners, container.broker(), container.clock())]


def _readers(
    container: Container, settings: Settings, listener: Context, pipe: DirectPipe
) -> Sequence[StreamReader]:
    part: Any = getattr(container, f"{listener.value}_context")
    inbox, broker = part.backend().inbox, container.broker
    return [
        StreamReader(publisher.value, listener.value, pipe, inbox, broker())
        for publisher in sorted(HEARS[listener])
        if settings.pipes(publisher, listener)[1]
    ]


def _types(publisher: Context, listener: Context) -> frozenset[str]:
    return frozenset(
        event.type
        for event, listeners in LISTENERS.items()
        if event.type.startswith(f"{publisher}.")
        and any(context == listener for context, _ in listeners)
    )
