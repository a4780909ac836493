"""Test that a signal ends readiness immediately, but reaches the server after the drain time."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from markethall.graceful_shutdown import drain_on_signal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Readiness:
    draining: bool = True


@dataclass
class Server:
    """A server whose signal handler records the signals."""

    signals: list[int] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def handle(self, sig: int, _: Any) -> None:
        self.signals.append(sig)
        self.stopped.set()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    before = {sig: signal.signal(sig, server.handle) for sig in SIGNALS}
    yield server
    for sig, handler in before.items():
        signal.signal(sig, handler)


@pytest.mark.parametrize("sig", SIGNALS)
async def test_server_receives_signal_after_drain(server: Server, sig: int) -> None:
    readiness = Readiness()
    with drain_on_signal(readiness, drain_seconds=0.05):
        assert not readiness.draining

        signal.raise_signal(sig)

        assert readiness.draining
        assert server.signals == []
        async with asyncio.timeout(10):
            await server.stopped.wait()

    assert server.signals == [sig]


async def test_drain_begins_before_server_receives_signal(server: Server) -> None:
    drained = asyncio.Event()
    with drain_on_signal(Readiness(), drain_seconds=600, on_drain=drained.set):
        signal.raise_signal(signal.SIGTERM)

        async with asyncio.timeout(10):
            await drained.wait()

        assert server.signals == []


async def test_interrupt_ends_drain(server: Server) -> None:
    with drain_on_signal(Readiness(), drain_seconds=600):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert server.signals == []

        signal.raise_signal(signal.SIGINT)

        assert server.signals == [signal.SIGINT]


async def test_handlers_of_server_are_restored(server: Server) -> None:
    readiness = Readiness()
    with drain_on_signal(readiness, drain_seconds=0):
        pass

    assert readiness.draining
    assert [signal.getsignal(sig) for sig in SIGNALS] == [server.handle] * 2
