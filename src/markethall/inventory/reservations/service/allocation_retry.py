"""Reserve stock in several warehouses. Retry when another transaction takes the stock first.

A bulkhead limits the concurrent reservations of one product.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.contract import OutOfStock, ProductNotFound
from markethall.inventory.reservations.domain.reservations import ShortLine, out_of_stock_error
from markethall.inventory.reservations.ports import (
    AllocationStrategy,
    Availability,
    ReadStore,
    Store,
)
from markethall.inventory.stock.domain import StockQuantity
from markethall.inventory.stock.ports import ReservationExpiry
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database

T = TypeVar("T")

# a try fails if another transaction takes the planned stock first
_MAX_TRIES: Final = 4

# (include_backorder, include_overdue), in order of preference. The stock of overdue reservations is
# tried before backorder, because it is on hand.
_PLAN_OPTIONS: Final = ((False, False), (False, True), (True, False), (True, True))


@dataclass(frozen=True)
class AllocationPlan:
    """The units to reserve, by stock row.

    If `include_backorder` is true, units that have not arrived yet may be reserved.
    """

    quantities: Sequence[StockQuantity]
    include_backorder: bool = False


class AllocationFailed(Exception):
    """`missing` cannot be reserved: its stock row has too few units, or its product is not active.

    `requested` has the units of all products of the order, for the next plan. `must_be_active` is
    false if the next plan may contain products that are not active. This is an exception, because
    the transaction may already have reserved units in other stock rows and must be rolled back.
    """

    def __init__(
        self, requested: Mapping[UUID, int], missing: StockQuantity, *, must_be_active: bool = True
    ) -> None:
        super().__init__(missing)
        self.requested = requested
        self.missing = missing
        self.must_be_active = must_be_active


class AllocationRunner:
    """Run work that reserves stock: first without a plan, then with plans made from the stock."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        expiry: ReservationExpiry,
        strategy: AllocationStrategy,
        clock: Clock,
    ) -> None:
        self._database = database
        self._expiry = expiry
        self._strategy = strategy
        self._clock = clock

    async def run(self, work: Callable[[Store, AllocationPlan | None], Awaitable[T]]) -> T:
        """Run `work` in a transaction, first without a plan.

        If the plan is None, `work` chooses the stock rows itself. After AllocationFailed the
        transaction is rolled back, and `work` runs again with a plan made from the current stock.
        Raises OutOfStock, ProductNotFound.
        """
        plan: AllocationPlan | None = None
        for try_number in range(1, _MAX_TRIES + 1):
            try:
                async with self._database.transaction() as store:
                    return await work(store, plan)
            except AllocationFailed as error:
                # its traceback refers to this frame, and only a garbage collection would free both
                failure = error.with_traceback(None)
            if try_number < _MAX_TRIES:
                plan = await self._make_plan(failure)
        raise await self._contention_error(failure)

    async def _make_plan(self, failure: AllocationFailed) -> AllocationPlan:
        """Make a plan from the current stock. Raises ProductNotFound, OutOfStock.

        Try free stock only, then add stock of overdue reservations, then backorder instead, then
        both. If the plan includes stock of overdue reservations, expire the overdue reservations of
        the planned products.
        """
        availability = await self._get_availability(failure)
        for include_backorder, include_overdue in _PLAN_OPTIONS:
            free_stock = {
                product_id: product_availability.allocatable(
                    include_overdue=include_overdue, include_backorder=include_backorder
                )
                for product_id, product_availability in availability.items()
            }
            if quantities := self._strategy.plan(failure.requested, free_stock):
                if include_overdue:
                    await self._expiry.expire_reservations(
                        [stock_quantity.product_id for stock_quantity in quantities]
                    )
                return AllocationPlan(quantities, include_backorder)
        raise out_of_stock_error(_short_lines(failure.requested, availability))

    async def _get_availability(self, failure: AllocationFailed) -> Mapping[UUID, Availability]:
        """Raises ProductNotFound."""
        async with self._database.read_session() as reads:
            availability = await reads.get_availability(list(failure.requested), self._clock())
        unknown = [
            str(product_id)
            for product_id in failure.requested
            if not (
                product_id in availability
                and (availability[product_id].is_active or not failure.must_be_active)
            )
        ]
        if unknown:
            raise ProductNotFound(product_ids=unknown)
        return availability

    async def _contention_error(self, failure: AllocationFailed) -> OutOfStock:
        """Build the error after the last try. Other transactions took the planned stock each time.

        If stock was released since the last try, all products may have enough. Then the error names
        the product of the last failure, and `out_of_stock_error` reports one unit less than
        requested as available.
        """
        availability = await self._get_availability(failure)
        missing_line = _short_line(failure.missing.product_id, failure.requested, availability)
        return out_of_stock_error(_short_lines(failure.requested, availability) or [missing_line])


def _short_lines(
    requested: Mapping[UUID, int], availability: Mapping[UUID, Availability]
) -> list[ShortLine]:
    """Return the products that have too little stock."""
    lines = (_short_line(product_id, requested, availability) for product_id in requested)
    return [line for line in lines if line.available < line.quantity]


def _short_line(
    product_id: UUID, requested: Mapping[UUID, int], availability: Mapping[UUID, Availability]
) -> ShortLine:
    return ShortLine(product_id, requested[product_id], availability[product_id].available)


MAX_CONCURRENT_PER_PRODUCT: Final = 10
MAX_WAIT_SECONDS: Final = 0.2


class ProductConcurrencyLimiter:
    """Limit the concurrent reservations of one product in this process.

    Reservations of a product wait for the lock of one stock row. Without the limit, those of a
    popular product would occupy all database connections. Callers wait here in FIFO order, without
    a connection. After `max_wait_seconds` a caller proceeds without a slot, because the limit only
    protects the connection pool.
    """

    def __init__(
        self,
        max_concurrent: int = MAX_CONCURRENT_PER_PRODUCT,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._max_concurrent = max_concurrent
        self._max_wait_seconds = max_wait_seconds
        self._slots_by_product: dict[UUID, _ProductSlots] = {}

    @asynccontextmanager
    async def slot(self, product_id: UUID) -> AsyncIterator[None]:
        slots = self._slots_by_product.get(product_id)
        if slots is None:
            slots = self._slots_by_product[product_id] = _ProductSlots(self._max_concurrent)
        slots.users += 1
        try:
            is_acquired = await slots.acquire(self._max_wait_seconds)
            try:
                yield
            finally:
                if is_acquired:
                    slots.semaphore.release()
        finally:
            slots.users -= 1
            if not slots.users:
                del self._slots_by_product[product_id]


class _ProductSlots:
    def __init__(self, max_concurrent: int) -> None:
        self.semaphore = asyncio.Semaphore(max_concurrent)
        self.users = 0

    async def acquire(self, seconds: float) -> bool:
        """Wait for a slot. Return False after a timeout."""
        if not self.semaphore.locked():
            return await self.semaphore.acquire()
        try:
            async with asyncio.timeout(seconds):
                return await self.semaphore.acquire()
        except TimeoutError:
            return False
