"""Requests that wait until an order changes.

A waiting request holds no database connection, no lock and no slot of a bulkhead. It is woken by a
commit in this process, by the invalidation bus after a commit in another process, and by a poll:
one statement a second for all waiting requests, which finds the changes that the bus has lost.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final
from uuid import UUID

from markethall.orders.ports import ReadStore, Store
from markethall.shared.kernel.errors import Overloaded, Unavailable
from markethall.shared.kernel.held_slots import wait_without_slots
from markethall.shared.persistence.database import Database, ReadDatabase

MAX_WAITS: Final = 500
MAX_WAITS_PER_CLIENT: Final = 4
_POLL_SECONDS: Final = 1.0
# the namespace of changed orders on the invalidation bus
_NAMESPACE: Final = "orders"

Invalidations = Collection[tuple[str, str | None]]


class StatusWait:
    """One waiting request. `version` is the version of the order that the request has read.

    Without `seconds`, `wait_for_change` has no limit of time.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.version: int | None = None
        self.is_over = False
        self._changed = asyncio.Event()
        self._ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds

    async def wait_for_change(self, version: int) -> bool:
        """Wait until the order may have another version than `version`.

        Return False if the time is over or the process stops.
        """
        self.version = version
        try:
            await wait_without_slots(self._wait())
        except TimeoutError:
            return False
        self._changed.clear()
        return not self.is_over

    async def wait_for_wake(self, version: int, seconds: float) -> bool:
        """Wait at most this time. Return whether the order may have another version.

        The request must hold no slots.
        """
        self.version = version
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        was_woken = self._changed.is_set()
        self._changed.clear()
        return was_woken

    def wake(self) -> None:
        self._changed.set()

    async def _wait(self) -> None:
        async with asyncio.timeout_at(self._ends_at):
            await self._changed.wait()


class StatusWaits:
    """The waiting requests of this process. Their number is bounded, in total and per client.

    `publish` sends invalidations to the other processes.
    """

    def __init__(
        self, database: ReadDatabase[ReadStore], publish: Callable[[Invalidations], None]
    ) -> None:
        self._database = database
        self._publish = publish
        self._by_order: defaultdict[UUID, set[StatusWait]] = defaultdict(set)
        self._by_client: Counter[UUID | None] = Counter()
        self._has_ended = False

    @contextmanager
    def register(
        self, order_id: UUID, client_id: UUID | None, seconds: float
    ) -> Iterator[StatusWait | None]:
        """Yield a wait of at most `seconds`, or None if the request has to answer at once."""
        if not seconds or self._has_ended or self._is_full(client_id):
            yield None
            return
        wait = StatusWait(seconds)
        self._by_client[client_id] += 1
        try:
            with self._added(order_id, wait):
                yield wait
        finally:
            self._by_client[client_id] -= 1
            if not self._by_client[client_id]:
                del self._by_client[client_id]

    @contextmanager
    def watch(self, order_id: UUID) -> Iterator[StatusWait]:
        """Yield a wait without a limit of time. The caller limits the number of these waits.

        Raises Overloaded if the process stops.
        """
        if self._has_ended:
            raise Overloaded(retry_after=1)
        wait = StatusWait()
        with self._added(order_id, wait):
            yield wait

    def notify(self, order_ids: Collection[UUID]) -> None:
        """Wake the waits for these orders, in this process and in all other processes."""
        self._publish([(_NAMESPACE, str(order_id)) for order_id in order_ids])
        self._wake(order_ids)

    async def poll(self) -> None:
        """Wake the waits whose orders have changed. If there are no waits, run no statement."""
        if not self._by_order:
            return
        async with self._database.read_session() as store:
            versions = await store.get_order_versions(list(self._by_order))
        for order_id, waits in self._by_order.items():
            for wait in waits:
                if wait.version not in {None, versions.get(order_id)}:
                    wait.wake()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            with suppress(Unavailable):
                await self.poll()

    def end(self) -> None:
        """End all waits, because the process stops. Later requests do not wait."""
        self._has_ended = True
        for waits in self._by_order.values():
            for wait in waits:
                wait.is_over = True
                wait.wake()

    # The invalidation bus calls these two methods

    def on_invalidated(self, invalidations: Invalidations) -> None:
        keys = [key for namespace, key in invalidations if namespace == _NAMESPACE]
        all_orders = list(self._by_order)
        self._wake(all_orders if None in keys else [UUID(key) for key in keys if key])

    def on_connection_changed(self, connected: bool) -> None:
        """Do nothing: the poll finds the changes that were missed."""

    def _wake(self, order_ids: Collection[UUID]) -> None:
        for order_id in order_ids:
            for wait in self._by_order.get(order_id, ()):
                wait.wake()

    def _is_full(self, client_id: UUID | None) -> bool:
        return (
            self._by_client.total() >= MAX_WAITS
            or self._by_client[client_id] >= MAX_WAITS_PER_CLIENT
        )

    @contextmanager
    def _added(self, order_id: UUID, wait: StatusWait) -> Iterator[None]:
        self._by_order[order_id].add(wait)
        try:
            yield
        finally:
            self._by_order[order_id].discard(wait)
            if not self._by_order[order_id]:
                del self._by_order[order_id]


class ChangeReportingDatabase:
    """The database of orders. After a commit it wakes the requests that wait for a saved order."""

    def __init__(self, database: Database[ReadStore, Store], waits: StatusWaits) -> None:
        self.waits = waits
        self._database = database
        self.read_session = database.read_session

    @property
    def write_count(self) -> int:
        return self._database.write_count

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Store]:
        async with self._database.transaction() as store:
            yield store
        self._notify(store)

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[Store]:
        async with self._database.autocommit() as store:
            yield store
        self._notify(store)

    def _notify(self, store: Store) -> None:
        if store.saved_order_ids:
            self.waits.notify(store.saved_order_ids)
