"""The first step of a shutdown: reports "not ready" for a while, before the socket is closed."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Protocol

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Drainable(Protocol):
    draining: bool


@contextmanager
def drain_on_signal(
    readiness: Drainable, drain_seconds: float, on_drain: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Delay SIGTERM and SIGINT for the server while the block runs.

    The first signal sets `draining`, calls `on_drain` in the event loop, and is passed on to the
    server's handler after `drain_seconds`. A SIGINT during this time (a second Ctrl-C) is passed on
    at once. The server must have installed its handlers before the block.
    """
    readiness.draining = False
    handler = _SignalHandler(readiness, drain_seconds, on_drain)
    # Python allows signal handlers only in the main thread
    if threading.current_thread() is threading.main_thread():
        handler.install()
    try:
        yield
    finally:
        readiness.draining = True
        on_drain()
        handler.uninstall()


class _SignalHandler:
    def __init__(
        self, readiness: Drainable, drain_seconds: float, on_drain: Callable[[], None]
    ) -> None:
        self._readiness = readiness
        self._drain_seconds = drain_seconds
        self._on_drain = on_drain
        self._loop = asyncio.get_running_loop()
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        for sig in _SIGNALS:
            self._previous[sig] = signal.signal(sig, self._on_signal)

    def uninstall(self) -> None:
        for sig, previous in self._previous.items():
            # another application of this process may have replaced the handler
            if signal.getsignal(sig) == self._on_signal:
                signal.signal(sig, previous)
        self._previous.clear()

    def _on_signal(self, sig: int, _: FrameType | None) -> None:
        if not self._readiness.draining:
            self._readiness.draining = True
            self._loop.call_soon_threadsafe(self._pass_on_later, sig)
        elif sig == signal.SIGINT:
            self._pass_on(sig)

    def _pass_on_later(self, sig: int) -> None:
        self._on_drain()
        self._loop.call_later(self._drain_seconds, self._pass_on, sig)

    def _pass_on(self, sig: int) -> None:
        if self._previous:
            self.uninstall()
            signal.raise_signal(sig)
