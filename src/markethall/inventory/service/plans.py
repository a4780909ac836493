"""Taking goods off the shelves, wherever they are, while others do the same."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeVar
from uuid import UUID

from markethall.inventory.contract import OutOfStock, ProductNotFound
from markethall.inventory.domain import Goods, Missing, not_enough
from markethall.inventory.ports import Allocation, Database, Store, Supply
from markethall.inventory.service.holds import ExpiredHolds
from markethall.shared.clock import Clock

T = TypeVar("T")

# so often others may be faster, before the goods count as gone
_MOST_TRIES: Final = 4


@dataclass(frozen=True)
class Plan:
    """From where goods are taken; `ahead`: also such as are not there yet."""

    goods: Sequence[Goods]
    ahead: bool = False


class Gone(Exception):
    """Of the goods that are wanted, units per product, these are not where we looked."""

    def __init__(self, wants: Mapping[UUID, int], missing: Goods, *, for_sale: bool = True) -> None:
        super().__init__(missing)
        self.wants = wants
        self.missing = missing
        self.for_sale = for_sale


class Plans:
    """Who takes goods looks at the shelves only after they were not in the main warehouse."""

    def __init__(
        self, database: Database, expired: ExpiredHolds, allocation: Allocation, clock: Clock
    ) -> None:
        self._database = database
        self._expired = expired
        self._allocation = allocation
        self._clock = clock

    async def carry_out(self, work: Callable[[Store, Plan | None], Awaitable[T]]) -> T:
        """The work, in a transaction: first without a plan, then with one for what was Gone.

        A transaction that did not find all its goods leaves nothing behind. Raises OutOfStock,
        ProductNotFound.
        """
        plan: Plan | None = None
        for _ in range(_MOST_TRIES):
            try:
                async with self._database.transaction() as store:
                    return await work(store, plan)
            except Gone as error:
                gone = error
            plan = await self._plan(gone)
        raise await self._not_to_be_had(gone)

    async def _plan(self, gone: Gone) -> Plan:
        """Raises ProductNotFound, OutOfStock."""
        supply = await self._supply(gone)
        # what is there goes before what is promised, even if expired holds have it
        for ahead, soon in product((False, True), repeat=2):
            shelves = {key: some.shelves(soon=soon, ahead=ahead) for key, some in supply.items()}
            if goods := self._allocation.plan(gone.wants, shelves):
                if soon:
                    await self._expired.give_back([some.product_id for some in goods])
                return Plan(goods, ahead)
        raise _short(gone.wants, supply)

    async def _supply(self, gone: Gone) -> Mapping[UUID, Supply]:
        """Raises ProductNotFound."""
        async with self._database.reading() as shelf:
            supply = await shelf.supply(list(gone.wants), self._clock())
        unknown = [
            str(product_id)
            for product_id in gone.wants
            if not (product_id in supply and (supply[product_id].for_sale or not gone.for_sale))
        ]
        if unknown:
            raise ProductNotFound(product_ids=unknown)
        return supply

    async def _not_to_be_had(self, gone: Gone) -> OutOfStock:
        supply = await self._supply(gone)
        return not_enough([_missing(gone.missing.product_id, gone.wants, supply)])


def _short(wants: Mapping[UUID, int], supply: Mapping[UUID, Supply]) -> OutOfStock:
    """All lines that there is too little of."""
    missing = (_missing(product_id, wants, supply) for product_id in wants)
    return not_enough([some for some in missing if some.available < some.quantity])


def _missing(product_id: UUID, wants: Mapping[UUID, int], supply: Mapping[UUID, Supply]) -> Missing:
    return Missing(product_id, wants[product_id], supply[product_id].available)
