"""From which warehouses an order is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice
from typing import Final
from uuid import UUID

from markethall.inventory.domain.stock import Goods
from markethall.inventory.domain.warehouses import MAIN_WAREHOUSE

# sets of warehouses that are looked at before a good one will do instead of the best
_MOST_TRIED: Final = 500


@dataclass(frozen=True)
class Free:
    """Units of a product that can be taken from a warehouse. The lowest priority comes first."""

    warehouse_id: UUID
    priority: int
    units: int

    @property
    def rank(self) -> tuple[int, UUID]:
        return self.priority, self.warehouse_id


Shelves = Mapping[UUID, Sequence[Free]]


class FewestParcels:
    """A ports.Allocation: as few warehouses as will do, and of those the ones that come first."""

    def plan(self, wants: Mapping[UUID, int], shelves: Shelves) -> tuple[Goods, ...] | None:
        everywhere = _ranked(wants, shelves)
        if _taken_from(everywhere, wants, shelves) is None:
            return None
        for warehouses in chain(_small_sets(everywhere), (_thinned(everywhere, wants, shelves),)):
            if (goods := _taken_from(warehouses, wants, shelves)) is not None:
                return goods
        return None


def all_from_main(wants: Mapping[UUID, int]) -> tuple[Goods, ...]:
    """What is tried first: it needs no look at any shelf."""
    return tuple(Goods(product_id, MAIN_WAREHOUSE, units) for product_id, units in wants.items())


def _ranked(wants: Mapping[UUID, int], shelves: Shelves) -> tuple[UUID, ...]:
    ranks = {free.rank for key in wants for free in shelves.get(key, ()) if free.units > 0}
    return tuple(warehouse_id for _, warehouse_id in sorted(ranks))


def _small_sets(warehouses: Sequence[UUID]) -> Iterator[tuple[UUID, ...]]:
    """The smallest first; of one size, those with the first warehouses first."""
    sizes = (combinations(warehouses, size) for size in range(len(warehouses) + 1))
    return islice(chain.from_iterable(sizes), _MOST_TRIED)


def _thinned(
    warehouses: tuple[UUID, ...], wants: Mapping[UUID, int], shelves: Shelves
) -> tuple[UUID, ...]:
    """Of many warehouses a few that will do: the last are left out where the others have enough."""
    kept = warehouses
    for warehouse_id in reversed(warehouses):
        fewer = tuple(other for other in kept if other != warehouse_id)
        if _taken_from(fewer, wants, shelves) is not None:
            kept = fewer
    return kept


def _taken_from(
    warehouses: Sequence[UUID], wants: Mapping[UUID, int], shelves: Shelves
) -> tuple[Goods, ...] | None:
    """In the order of product ids, then of warehouse ids; None when these have too little."""
    goods: list[Goods] = []
    for product_id, units in wants.items():
        there = {free.warehouse_id: free.units for free in shelves.get(product_id, ())}
        portions = _portions(units, [(key, there.get(key, 0)) for key in warehouses])
        if portions is None:
            return None
        goods += (Goods(product_id, key, portions[key]) for key in sorted(portions))
    return tuple(goods)


def _portions(units: int, there: Sequence[tuple[UUID, int]]) -> dict[UUID, int] | None:
    """All of it from one warehouse where that can be, else what each one has, in their order."""
    whole = next((key for key, free in there if free >= units), None)
    if whole is not None:
        return {whole: units}
    portions: dict[UUID, int] = {}
    for key, free in there:
        if free > 0 and units:
            portions[key] = min(free, units)
            units -= portions[key]
    return None if units else portions
