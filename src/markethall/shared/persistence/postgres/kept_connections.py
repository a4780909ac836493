"""Connections that stay acquired from asyncpg's pool between two uses."""

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy
    from asyncpg.protocol import Record

    Pool = asyncpg.Pool[Record]
    PooledDriver = PoolConnectionProxy[Record]


IDLE_SECONDS: Final = 300.0


class KeptConnections:
    """A pool whose connections stay acquired between two uses.

    asyncpg's release starts a task and a timer, which takes a sixth of the time of a select by
    primary key. Connections that stay unused for `idle_seconds` are closed, except `min_size` of
    them. While an acquisition waits for the pool, no connection is kept.
    """

    def __init__(self, pool: "Pool", min_size: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._pool = pool
        self._min_size = min_size
        self._idle_seconds = idle_seconds
        # the last one is taken first, so the first ones stay unused if there are too many
        self._kept: list[PooledDriver] = []
        # the smallest number of kept connections since the timer was started
        self._unused = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._is_closing = False

    @property
    def in_use(self) -> int:
        """The number of connections between acquisition and `keep` or `release`."""
        return self._pool.get_size() - self._pool.get_idle_size() - len(self._kept)

    def take(self) -> "PooledDriver | None":
        """Return a kept connection that is open, or None."""
        while self._kept:
            driver = self._kept.pop()
            self._unused = min(self._unused, len(self._kept))
            if _is_open(driver):
                return driver
        return None

    async def acquire(self) -> "PooledDriver":
        """Take a kept connection, or wait for one of the pool."""
        if driver := self.take():
            return driver
        self._waiting += 1
        try:
            return await self._pool.acquire()
        finally:
            self._waiting -= 1

    def keep(self, driver: "PooledDriver") -> bool:
        """Keep an open connection without a transaction. If false, the caller must release it."""
        if self._waiting or self._is_closing:
            return False
        self._kept.append(driver)
        if self._timer is None:
            self._start_timer()
        return True

    async def release(self, driver: "PooledDriver", seconds: float) -> None:
        """Return the connection to the pool. Raises TimeoutError and asyncpg.InterfaceError."""
        await self._pool.release(driver, timeout=seconds)

    async def close(self) -> None:
        """Close all connections. Waits for those in use; a cancellation terminates them."""
        self._is_closing = True
        if self._timer:
            self._timer.cancel()
        _close(self._kept)
        await self._pool.close()

    def _start_timer(self) -> None:
        self._unused = len(self._kept)
        self._timer = asyncio.get_running_loop().call_later(self._idle_seconds, self.close_unused)

    def close_unused(self) -> None:
        """Close the connections that were not taken since the timer was started."""
        unused = self._kept[self._min_size : self._unused]
        del self._kept[self._min_size : self._unused]
        _close(unused)
        self._start_timer()


def _close(drivers: "list[PooledDriver]") -> None:
    while drivers:
        driver = drivers.pop()
        if _is_open(driver):
            driver.terminate()


def _is_open(driver: "PooledDriver") -> bool:
    """Tell whether the connection is open. If it is closed, the pool gets its place back."""
    try:
        if not driver.is_closed():
            return True
        driver.terminate()
    except asyncpg.InterfaceError:
        pass  # the server has closed the connection, and the pool has released it
    return False
