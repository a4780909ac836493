"""Ports of the configuration: its storage and its cache."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import UUID

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.shared.idempotency.records import ResponseStore

P = ParamSpec("P")
T = TypeVar("T")


class ConcurrentUpdate(Exception):
    """Another transaction saved the data after they were read. The caller must read them again."""


def retry_on_conflict(
    change: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let the function repeat until it does not raise ConcurrentUpdate. It must read the data.

    There is no limit, because each conflict means that another change of the data succeeded.
    """

    @wraps(change)
    async def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await change(*args, **kwargs)
            except ConcurrentUpdate:
                continue

    return repeat


class ReadStore(Protocol):
    """Reads without locks."""

    async def get_item(self, kind: ItemKind, item_id: UUID) -> ConfigurationItem | None: ...

    async def list_items(
        self, kind: ItemKind, after: UUID | None, limit: int
    ) -> Sequence[ConfigurationItem]:
        """Return at most `limit` items that follow the id `after`, sorted by id."""

    async def list_all_items(self) -> Sequence[ConfigurationItem]:
        """Return the items of all kinds, sorted by id."""


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def lock_kind(self, kind: ItemKind) -> None:
        """Wait until no other transaction has locked this kind, and lock it.

        The lock prevents concurrent transactions from passing the checks of unique keys and of the
        number of items together.
        """

    async def get_item_for_update(
        self, kind: ItemKind, item_id: UUID
    ) -> ConfigurationItem | None: ...

    async def count_items(self, kind: ItemKind) -> int: ...

    async def insert_item(self, item: ConfigurationItem) -> bool:
        """Insert the item. Return False if the id or the unique key exists."""

    async def save_item(self, item: ConfigurationItem) -> bool:
        """Update the item. Return False if another item has the unique key."""

    async def delete_item(self, item_id: UUID) -> None: ...


class InvalidatedCache(Protocol):
    """A cache of bytes. See `shared.cache.CoherentCache`."""

    async def get_or_load(
        self, namespace: str, key: str, ttl: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None: ...

    def is_current(self, namespace: str, key: str, value: bytes) -> bool: ...

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None: ...
