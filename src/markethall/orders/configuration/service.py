"""The use cases of configuration items, and the cache that orders read."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from markethall.orders.configuration.contract import MAX_ITEMS, ItemView, TooManyItems
from markethall.orders.configuration.domain import ConfigurationItem, ItemKind, apply_merge_patch
from markethall.orders.configuration.ports import InvalidatedCache, ReadStore, Store
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.persistence.database import Database

NAMESPACE: Final = "orders.configuration"
_KEY: Final = "all"
# A change invalidates the cached value in all processes. The TTL limits the age of the value if an
# invalidation message is lost.
TTL_SECONDS: Final = 10.0
_ITEM_ID: Final = TypeAdapter(UUID)
_ITEMS: Final = TypeAdapter(tuple[ConfigurationItem, ...])


class ConfigurationCache:
    """A cache of all items in this process. One statement reads all of them."""

    def __init__(self, database: Database[ReadStore, Store], cache: InvalidatedCache) -> None:
        self._database = database
        self._cache = cache
        self._value = b""
        self._items: tuple[ConfigurationItem, ...] = ()

    async def list_all(self) -> tuple[ConfigurationItem, ...]:
        """Return the items of all kinds, sorted by id. Without a change, return the same tuple."""
        value = await self._cache.get_or_load(NAMESPACE, _KEY, TTL_SECONDS, self._load)
        if value is not None and value is not self._value:
            self._value, self._items = value, _ITEMS.validate_json(value)
        return self._items

    def is_current(self, items: tuple[ConfigurationItem, ...]) -> bool:
        """Tell whether these items of `list_all` are still the cached ones."""
        return items is self._items and self._cache.is_current(NAMESPACE, _KEY, self._value)

    def invalidate(self) -> None:
        """Remove the items from the caches of all processes.

        Call this after the commit of a change.
        """
        self._cache.invalidate(NAMESPACE, [_KEY])

    async def _load(self) -> bytes:
        async with self._database.read_session() as store:
            return _ITEMS.dump_json(tuple(await store.list_all_items()))


F = TypeVar("F", bound=BaseModel)
V = TypeVar("V", bound=ItemView)


@dataclass(frozen=True)
class ItemType(Generic[F, V]):
    """The models and errors of one kind of item. `id_name` names the id in views and errors."""

    kind: ItemKind
    fields: type[F]
    view: type[V]
    id_name: str
    not_found: type[DomainError]
    taken: type[DomainError]
    key_of: Callable[[F], str]

    def parse(self, item: ConfigurationItem) -> F:
        return self.fields.model_validate_json(item.fields)

    def to_view(self, item: ConfigurationItem) -> V:
        values: dict[str, Any] = json.loads(item.fields)
        return self.view.model_validate(
            {
                **values,
                self.id_name: item.item_id,
                "version": item.version,
                "created_at": item.created_at,
            }
        )


class ItemService(Generic[F, V]):
    """Implementation of `Items`."""

    def __init__(
        self,
        item_type: ItemType[F, V],
        database: Database[ReadStore, Store],
        cache: ConfigurationCache,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._type = item_type
        self._database = database
        self._cache = cache
        self._cursors = cursors
        self._clock = clock

    async def get(self, ctx: CallContext, item_id: UUID) -> V:
        async with self._database.read_session() as store:
            item = await store.get_item(self._type.kind, item_id)
        return self._type.to_view(self._require(item, item_id))

    async def list_page(self, ctx: CallContext, query: PageQuery) -> Page[V]:
        after = self._cursors.decode(self._type.kind, query.cursor, _ITEM_ID)
        async with self._database.read_session() as store:
            items = await store.list_items(self._type.kind, after, query.limit + 1)
        views = [self._type.to_view(item) for item in items]
        return self._cursors.build_page(self._type.kind, views, query.limit, self._id_of)

    async def create(self, ctx: CallContext, fields: F, attempt: IdempotentCommand) -> V:
        item = self._new_item(fields, attempt.id, self._clock())
        async with self._database.transaction() as store:
            await store.lock_kind(self._type.kind)
            existing = await store.get_item(self._type.kind, attempt.id)
            if existing is None:
                await self._insert(store, item)
            view = self._type.to_view(existing or item)
            await store.store_response(attempt, view)
        self._cache.invalidate()
        return view

    async def change(
        self, ctx: CallContext, item_id: UUID, patch: BaseModel, expected_versions: ExpectedVersions
    ) -> V:
        async with self._database.transaction() as store:
            await store.lock_kind(self._type.kind)
            item = await self._get_for_update(store, item_id, expected_versions)
            current = self._type.parse(item)
            fields = apply_merge_patch(self._type.fields, current, patch)
            if fields != current:
                item = item.change(self._type.key_of(fields), fields.model_dump_json())
                if not await store.save_item(item):
                    raise self._type.taken(key=item.unique_key)
        self._cache.invalidate()
        return self._type.to_view(item)

    async def delete(
        self, ctx: CallContext, item_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            await self._get_for_update(store, item_id, expected_versions)
            await store.delete_item(item_id)
        self._cache.invalidate()

    async def _insert(self, store: Store, item: ConfigurationItem) -> None:
        if await store.count_items(item.kind) >= MAX_ITEMS:
            raise TooManyItems(limit=MAX_ITEMS)
        if not await store.insert_item(item):
            raise self._type.taken(key=item.unique_key)

    def _new_item(self, fields: F, item_id: UUID, now: datetime) -> ConfigurationItem:
        return ConfigurationItem(
            kind=self._type.kind,
            item_id=item_id,
            unique_key=self._type.key_of(fields),
            fields=fields.model_dump_json(),
            version=1,
            created_at=now,
        )

    async def _get_for_update(
        self, store: Store, item_id: UUID, expected_versions: ExpectedVersions
    ) -> ConfigurationItem:
        item = self._require(await store.get_item_for_update(self._type.kind, item_id), item_id)
        check_expected_version(expected_versions, item.version)
        return item

    def _require(self, item: ConfigurationItem | None, item_id: UUID) -> ConfigurationItem:
        if item is None:
            raise self._type.not_found(**{self._type.id_name: str(item_id)})
        return item

    def _id_of(self, view: V) -> UUID:
        item_id: UUID = getattr(view, self._type.id_name)
        return item_id


def items_by_kind(
    items: Sequence[ConfigurationItem],
) -> Mapping[ItemKind, Sequence[ConfigurationItem]]:
    """Group the items by kind. The order within a kind stays."""
    return {kind: [item for item in items if item.kind is kind] for kind in ItemKind}
