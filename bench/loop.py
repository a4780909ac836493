"""An event loop that a signal can interrupt."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import uvloop

T = TypeVar("T")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Loop:
    """Runs coroutines one after another on the same event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def close(self) -> None:
        self._runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine. Raises KeyboardInterrupt after a stop signal."""
        try:
            return self._runner.run(_stoppable(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine; a stop signal cancels it.

    A signal handler that raises an exception is not enough, because asyncio would log and ignore
    it.
    """
    task, loop = cast("asyncio.Task[Any]", asyncio.current_task()), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await work
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
