"""The event loop of a run, which may be told to end at any time."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import uvloop

T = TypeVar("T")
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Loop:
    """Runs one piece of work after another on the same loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def close(self) -> None:
        self._runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises KeyboardInterrupt when we are told to end."""
        try:
            return self._runner.run(_stoppable(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """The loop would swallow what a signal handler raises inside its callbacks: cancel instead."""
    task, loop = cast("asyncio.Task[Any]", asyncio.current_task()), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in STOPPING}
    caught = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in caught:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await work
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
