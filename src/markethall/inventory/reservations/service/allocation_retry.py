"""Taking goods off the shelves, wherever they are, while others do the same."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.contract import OutOfStock, ProductNotFound
from markethall.inventory.reservations.ports import AllocationStrategy, Availability
from markethall.inventory.reservations.service.jobs import ReservationExpiry
from markethall.inventory.stock.domain.stock import ShortLine, StockQuantity, out_of_stock_error
from markethall.inventory.store_ports import Database, Store
from markethall.shared.kernel.clock import Clock

T = TypeVar("T")

# so often others may be faster, before the goods count as gone
_MAX_ATTEMPTS: Final = 4


@dataclass(frozen=True)
class AllocationPlan:
    """From where goods are taken; `ahead`: also such as are not there yet."""

    quantities: Sequence[StockQuantity]
    include_backorder: bool = False


class AllocationFailed(Exception):
    """Of the goods that are wanted, units per product, these are not where we looked."""

    def __init__(
        self, requested: Mapping[UUID, int], missing: StockQuantity, *, must_be_active: bool = True
    ) -> None:
        super().__init__(missing)
        self.requested = requested
        self.missing = missing
        self.must_be_active = must_be_active


class AllocationRunner:
    """Who takes goods looks at the shelves only after they were not in the main warehouse."""

    def __init__(
        self,
        database: Database,
        expiry: ReservationExpiry,
        strategy: AllocationStrategy,
        clock: Clock,
    ) -> None:
        self._database = database
        self._expiry = expiry
        self._strategy = strategy
        self._clock = clock

    async def run(self, work: Callable[[Store, AllocationPlan | None], Awaitable[T]]) -> T:
        """The work, in a transaction: first without a plan, then with one for the products of AllocationFailed.

        A transaction that did not find all its goods leaves nothing behind. Raises OutOfStock,
        ProductNotFound.
        """
        plan: AllocationPlan | None = None
        for _ in range(_MAX_ATTEMPTS):
            try:
                async with self._database.transaction() as store:
                    return await work(store, plan)
            except AllocationFailed as error:
                failure = error
            plan = await self._make_plan(failure)
        raise await self._out_of_stock(failure)

    async def _make_plan(self, failure: AllocationFailed) -> AllocationPlan:
        """Raises ProductNotFound, OutOfStock."""
        availability = await self._get_availability(failure)
        # what is there goes before what is promised, even if expired holds have it
        for include_backorder, include_expired in product((False, True), repeat=2):
            free_stock = {
                product_id: stock_quantity.allocatable(
                    include_expired=include_expired, include_backorder=include_backorder
                )
                for product_id, stock_quantity in availability.items()
            }
            if quantities := self._strategy.plan(failure.requested, free_stock):
                if include_expired:
                    await self._expiry.expire_reservations([some.product_id for some in quantities])
                return AllocationPlan(quantities, include_backorder)
        raise _out_of_stock_error(failure.requested, availability)

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

    async def _out_of_stock(self, failure: AllocationFailed) -> OutOfStock:
        availability = await self._get_availability(failure)
        return out_of_stock_error(
            [_short_line(failure.missing.product_id, failure.requested, availability)]
        )


def _out_of_stock_error(
    requested: Mapping[UUID, int], availability: Mapping[UUID, Availability]
) -> OutOfStock:
    """All lines that there is too little of."""
    lines = (_short_line(product_id, requested, availability) for product_id in requested)
    return out_of_stock_error([line for line in lines if line.available < line.quantity])


def _short_line(
    product_id: UUID, requested: Mapping[UUID, int], availability: Mapping[UUID, Availability]
) -> ShortLine:
    return ShortLine(product_id, requested[product_id], availability[product_id].available)
