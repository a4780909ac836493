from datetime import datetime
from uuid import UUID

from markethall.inventory.catalogue.contract.products import (
    NewProduct,
    ProductChange,
    ProductView,
    RenderedResponse,
    SkuTaken,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.ports import (
    ProductCache,
    ProductIndex,
    ProductJson,
    ReadStore,
    Store,
)
from markethall.inventory.catalogue.service.categories import get_or_create_category
from markethall.inventory.catalogue.service.families import get_or_create_family
from markethall.inventory.contract import ProductNotFound
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version, content_digest
from markethall.shared.kernel.scopes import CATALOGUE_WRITE
from markethall.shared.persistence.database import Database


class CatalogueService:
    """Implementation of `Catalogue`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        cache: ProductCache,
        index: ProductIndex,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._index = index
        self._clock = clock

    async def get_product(self, ctx: CallContext, product_id: UUID) -> ProductView:
        return _parse_view(await self._get_visible_or_404(ctx, product_id))

    async def get_product_by_sku(self, ctx: CallContext, sku: str) -> ProductView:
        return _parse_view(await self._get_visible_by_sku_or_404(ctx, sku))

    async def render_product(self, ctx: CallContext, product_id: UUID) -> RenderedResponse:
        if ctx.actor.has_scope(CATALOGUE_WRITE):
            return _render(await self._get_visible_or_404(ctx, product_id), is_public=False)

        async def load() -> RenderedResponse | None:
            async with self._database.read_session() as reads:
                product_json = await reads.get_product_json(product_id, self._clock())
            return _render(product_json) if product_json and product_json.is_active else None

        rendered = await self._cache.get_or_load_product(product_id, load)
        if rendered is None:
            raise _product_not_found(product_id)
        return rendered

    async def render_product_by_sku(self, ctx: CallContext, sku: str) -> RenderedResponse:
        public = not ctx.actor.has_scope(CATALOGUE_WRITE)
        return _render(await self._get_visible_by_sku_or_404(ctx, sku), is_public=public)

    async def count(self) -> int:
        async with self._database.read_session() as reads:
            return await reads.count_products()

    async def _get_visible_or_404(self, ctx: CallContext, product_id: UUID) -> ProductJson:
        async with self._database.read_session() as reads:
            product_json = await reads.get_product_json(product_id, self._clock())
        if product_json is None or not _can_view(ctx, product_json):
            raise _product_not_found(product_id)
        return product_json

    async def _get_visible_by_sku_or_404(self, ctx: CallContext, sku: str) -> ProductJson:
        async with self._database.read_session() as reads:
            product_json = await reads.get_product_json_by_sku(sku, self._clock())
        if product_json is None or not _can_view(ctx, product_json):
            raise ProductNotFound(sku=sku)
        return product_json

    async def create(
        self, ctx: CallContext, command: NewProduct, attempt: IdempotentCommand
    ) -> ProductView:
        product = Product.new(attempt.id, command, self._clock())
        async with self._database.transaction() as store:
            if product.category is not None:
                product.category = await get_or_create_category(store, product.category)
            if product.family is not None:
                product.family = await get_or_create_family(
                    store, product.family, product.created_at
                )
            if await store.add_product(product):
                await store.ensure_main_stock_row(product.product_id)
                view = product.to_view(product.effective_backorder_limit, product.created_at)
            else:
                # an earlier attempt of this command has created the product with this id; if there
                # is none, another product has the SKU
                view = await _get_view(
                    store, product.product_id, self._clock(), SkuTaken(sku=product.sku)
                )
            await store.store_response(attempt, view)
        await self._index.index([product])
        self._cache.invalidate([product.product_id], pages=True)
        return view

    async def change(
        self,
        ctx: CallContext,
        product_id: UUID,
        command: ProductChange,
        expected_versions: ExpectedVersions,
    ) -> ProductView:
        now = self._clock()
        async with self._database.transaction() as store:
            command = await _with_stored_names(store, command, now)
            product = await _get_for_update_or_404(store, product_id, expected_versions)
            if product.change(command, now):
                await store.save_product(product)
            view = await _get_view(store, product_id, now, _product_not_found(product_id))
        await self._index.index([product])
        self._cache.invalidate([product_id], pages=True)
        return view

    async def archive(
        self, ctx: CallContext, product_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            product = await _get_for_update_or_404(store, product_id, expected_versions)
            if product.archive(self._clock()):
                await store.save_product(product)
        await self._index.index([product])
        self._cache.invalidate([product_id], pages=True)


async def _with_stored_names(store: Store, command: ProductChange, now: datetime) -> ProductChange:
    """Replace the category by its key and the family by its label; create them if missing.

    All transactions lock the category first, then the family, then the product, to avoid deadlocks.
    """
    names: dict[str, str] = {}
    if command.category is not None:
        names["category"] = await get_or_create_category(store, command.category)
    if command.family is not None:
        names["family"] = await get_or_create_family(store, command.family, now)
    return command.model_copy(update=names) if names else command


def _can_view(ctx: CallContext, product_json: ProductJson) -> bool:
    return product_json.is_active or ctx.actor.has_scope(CATALOGUE_WRITE)


def _product_not_found(product_id: UUID) -> ProductNotFound:
    return ProductNotFound(product_ids=[str(product_id)])


def _parse_view(product_json: ProductJson) -> ProductView:
    return ProductView.model_validate_json(product_json.json)


def _render(product_json: ProductJson, *, is_public: bool = True) -> RenderedResponse:
    body = product_json.json.encode()
    return RenderedResponse(body, f'"v{product_json.version}-{content_digest(body)}"', is_public)


async def _get_view(
    store: Store, product_id: UUID, now: datetime, missing: DomainError
) -> ProductView:
    """Raises `missing` if the product does not exist."""
    product_json = await store.get_product_json(product_id, now)
    if product_json is None:
        raise missing
    return _parse_view(product_json)


async def _get_for_update_or_404(
    store: Store, product_id: UUID, expected_versions: ExpectedVersions
) -> Product:
    """Raises ProductNotFound, PreconditionFailed."""
    product = await store.get_product_for_update(product_id)
    if product is None:
        raise _product_not_found(product_id)
    check_expected_version(expected_versions, product.version)
    return product
