"""Rows of a file become products: what is new, what changes, what was counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.inventory.contract import Reason
from markethall.inventory.domain import MAIN_WAREHOUSE, Change, Item, Stock
from markethall.inventory.domain.importing import (
    CREATED,
    FAILED,
    UNCHANGED,
    UPDATED,
    Draft,
    Flaw,
    Job,
    Row,
)
from markethall.inventory.ports import Store
from markethall.shared.ids import new_id

_NOTHING: Final[Mapping[UUID, Stock]] = {}
_NO_ID: Final = UUID(int=0)
_OF_SHELVES: Final = frozenset({"backorder_limit", "low_stock_threshold"})


class Overtaken(Exception):
    """Somebody else has made a product of a sku of ours meanwhile: look again."""


class Late(Exception):
    """Rows were refused for the sake of holds that have expired."""

    def __init__(self, product_ids: Sequence[UUID]) -> None:
        super().__init__()
        self.product_ids = product_ids


@dataclass
class Merge:
    """What a batch comes to. Rows of the same sku come one after the other: the later wins."""

    job: Job
    now: datetime
    items: dict[str, Item]
    shelves: Mapping[UUID, Stock]
    fresh: dict[UUID, Item] = field(default_factory=dict)
    changed: dict[UUID, Item] = field(default_factory=dict)
    counted: dict[UUID, int] = field(default_factory=dict)
    # of which fewer were counted than are reserved
    short: set[UUID] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    flaws: list[Flaw] = field(default_factory=list)
    last_id: UUID = _NO_ID

    def take(self, row: Row) -> None:
        flaws = row if isinstance(row, tuple) else self._against(row)
        if flaws or isinstance(row, tuple):
            self.outcomes[FAILED] += 1
            self.flaws += flaws
        else:
            self.outcomes[self._apply(row)] += 1

    @property
    def touched(self) -> list[UUID]:
        return sorted({*self.fresh, *self.changed, *self.counted})

    @property
    def written(self) -> list[Item]:
        """Products that are new or have changed."""
        return [*self.fresh.values(), *self.changed.values()]

    def movements(self, *, fresh: bool) -> list[Change]:
        """Of new products, or of those that were there."""
        return [
            self._movement(product_id, self.counted[product_id] - self._on_hand(product_id))
            for product_id in sorted(self.counted)
            if self.counted[product_id] != self._on_hand(product_id)
            and (product_id in self.fresh) == fresh
        ]

    def _against(self, draft: Draft) -> Sequence[Flaw]:
        item = self.items.get(draft.key)
        if item is None:
            return draft.missing
        stock = self.shelves.get(item.product_id)
        counted = draft.on_hand
        if stock is None or counted is None or counted + stock.backorder >= stock.reserved:
            return ()
        self.short.add(item.product_id)
        message = f"{stock.reserved} are reserved"
        return (Flaw(draft.line, "on_hand", "inventory.would_go_negative", message),)

    def _apply(self, draft: Draft) -> str:
        item = self.items.get(draft.key)
        if item is None:
            item = draft.new(self._next_id(), self.now)
            self.items[draft.key] = self.fresh[item.product_id] = item
            self._count(item.product_id, draft.on_hand)
            return CREATED
        changed = draft.change(item, self.now)
        if changed and item.product_id not in self.fresh:
            self.changed[item.product_id] = item
        recounted = self._count(item.product_id, draft.on_hand)
        return UPDATED if changed or recounted else UNCHANGED

    def _next_id(self) -> UUID:
        """Later than the one before: what came at the same time is in the order of the file."""
        self.last_id = max(new_id(), UUID(int=self.last_id.int + 1))
        return self.last_id

    def _count(self, product_id: UUID, on_hand: int | None) -> bool:
        """True when that is another number than we know."""
        known = self.counted.get(product_id, self._on_hand(product_id))
        if on_hand is None:
            return False
        self.counted[product_id] = on_hand
        return on_hand != known

    def _on_hand(self, product_id: UUID) -> int:
        stock = self.shelves.get(product_id)
        return stock.on_hand if stock else 0

    def _movement(self, product_id: UUID, delta: int) -> Change:
        return Change(
            movement_id=new_id(),
            product_id=product_id,
            warehouse_id=MAIN_WAREHOUSE,
            delta=delta,
            counted=None,
            reason=Reason.COUNTED,
            note=f"import {self.job.import_id}",
            reference=None,
            actor=self.job.actor,
            created_at=self.now,
        )


async def merged(store: Store, job: Job, rows: Sequence[Row], now: datetime) -> Merge:
    """What the rows come to, beside what is there. Products and shelves are locked."""
    drafts = [row for row in rows if isinstance(row, Draft)]
    items = {item.sku.lower(): item for item in await _known(store, drafts)}
    moved = {draft.key for draft in drafts if _moves_shelves(draft)}
    ids = [items[key].product_id for key in moved & items.keys()]
    shelves = await store.main_shelves(sorted(ids)) if ids else _NOTHING
    merge = Merge(job, now, items, shelves)
    for row in rows:
        merge.take(row)
    return merge


async def check_late(store: Store, merge: Merge) -> None:
    """Raises Late."""
    if merge.short:
        shelves = await store.shelves(sorted(merge.short), MAIN_WAREHOUSE, merge.now)
        if late := [shelf.product_id for shelf in shelves if shelf.overdue]:
            raise Late(late)


async def keep(store: Store, merge: Merge) -> None:
    """Raises Overtaken."""
    # what was counted goes by the backorder limit that we saw, and not by one of this file
    if movements := merge.movements(fresh=False):
        await store.move_all(movements)
    fresh, changed = list(merge.fresh.values()), list(merge.changed.values())
    if (fresh or changed) and not await store.put_items(fresh, changed):
        raise Overtaken
    if movements := merge.movements(fresh=True):
        await store.move_all(movements)


async def _known(store: Store, drafts: Iterable[Draft]) -> Sequence[Item]:
    skus = {draft.key for draft in drafts}
    return await store.known_items(skus) if skus else ()


def _moves_shelves(draft: Draft) -> bool:
    """Shelves are counted, or follow a limit of their product."""
    return draft.on_hand is not None or bool(draft.given & _OF_SHELVES)
