"""The in-memory store of the configuration."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.shared.composition.memory import ContextTables, MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table

K = TypeVar("K", UUID, tuple[datetime, UUID])
R = TypeVar("R")


class ConfigurationTables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.configuration: Table[UUID, ConfigurationItem] = Table()


class MemoryConfigurationStore(MemoryUnitOfWork):
    def __init__(self, tables: ConfigurationTables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._items = tables.configuration

    async def lock_kind(self, kind: ItemKind) -> None:
        """Do nothing, because transactions in memory run one at a time."""

    async def get_item(self, kind: ItemKind, item_id: UUID) -> ConfigurationItem | None:
        item = self._items.get(item_id)
        return item if item and item.kind is kind else None

    # transactions in memory run one at a time, so no row needs a lock
    get_item_for_update = get_item

    async def list_items(
        self, kind: ItemKind, after: UUID | None, limit: int
    ) -> Sequence[ConfigurationItem]:
        items = self._items.where(lambda item: item.kind is kind)
        return sort_page(items, _id_of, after, limit)

    async def list_all_items(self) -> Sequence[ConfigurationItem]:
        return sorted(self._items.rows(), key=_id_of)

    async def count_items(self, kind: ItemKind) -> int:
        return len(self._items.where(lambda item: item.kind is kind))

    async def insert_item(self, item: ConfigurationItem) -> bool:
        return not self._is_key_taken(item) and self._items.add(item.item_id, item)

    async def save_item(self, item: ConfigurationItem) -> bool:
        if self._is_key_taken(item):
            return False
        self._items.put(item.item_id, item)
        return True

    async def delete_item(self, item_id: UUID) -> None:
        self._items.remove(item_id)

    def _is_key_taken(self, item: ConfigurationItem) -> bool:
        return bool(
            self._items.where(
                lambda other: (
                    (other.kind, other.unique_key) == (item.kind, item.unique_key)
                    and other.item_id != item.item_id
                )
            )
        )


def sort_page(
    rows: Iterable[R], key_of: Callable[[R], K], after: K | None, limit: int
) -> Sequence[R]:
    """Sort the rows by key. Return at most `limit` rows with greater keys than `after`."""
    later = (row for row in rows if after is None or key_of(row) > after)
    return sorted(later, key=key_of)[:limit]


def _id_of(item: ConfigurationItem) -> UUID:
    return item.item_id
