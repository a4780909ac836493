"""The use cases of the shop."""

from typing import Final
from uuid import UUID

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind, apply_merge_patch
from markethall.orders.configuration.ports import ReadStore, Store
from markethall.orders.configuration.service import ConfigurationCache
from markethall.orders.shop.contract import ShopChange, ShopSettings, ShopView
from markethall.orders.shop.domain import check_default_currency
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.persistence.database import Database

# the id of the only item of its kind
SHOP_ID: Final = UUID(int=0)
_KEY: Final = "shop"


class ShopService:
    """Implementation of `Shop`. A shop that was never changed has the defaults and version 1."""

    def __init__(
        self, database: Database[ReadStore, Store], cache: ConfigurationCache, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._clock = clock

    async def get(self, ctx: CallContext) -> ShopView:
        items = await self._cache.list_all()
        item = next((item for item in items if item.kind is ItemKind.SHOP), None)
        return _to_view(parse_shop(item), item.version if item else 1)

    async def change(
        self, ctx: CallContext, patch: ShopChange, expected_versions: ExpectedVersions
    ) -> ShopView:
        async with self._database.transaction() as store:
            await store.lock_kind(ItemKind.SHOP)
            item = await store.get_item(ItemKind.SHOP, SHOP_ID)
            version = item.version if item else 1
            check_expected_version(expected_versions, version)
            current = parse_shop(item)
            settings = apply_merge_patch(ShopSettings, current, patch)
            check_default_currency(settings)
            if settings != current:
                version += 1
                await self._save(store, item, settings)
        self._cache.invalidate()
        return _to_view(settings, version)

    async def _save(
        self, store: Store, item: ConfigurationItem | None, settings: ShopSettings
    ) -> None:
        fields = settings.model_dump_json()
        if item:
            await store.save_item(item.change(_KEY, fields))
            return
        new = ConfigurationItem(ItemKind.SHOP, SHOP_ID, _KEY, fields, 2, self._clock())
        await store.insert_item(new)


def parse_shop(item: ConfigurationItem | None) -> ShopSettings:
    """Return the settings, or the defaults if there is no item."""
    return ShopSettings.model_validate_json(item.fields) if item else ShopSettings()


def _to_view(settings: ShopSettings, version: int) -> ShopView:
    return ShopView(
        **settings.model_dump(exclude={"address"}), address=settings.address, version=version
    )
