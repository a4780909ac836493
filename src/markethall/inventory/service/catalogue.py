"""What the world asks: products to look at, and for staff to change, with their stock."""

from uuid import UUID

from markethall.inventory.contract import (
    Family,
    NewProduct,
    Product,
    ProductChange,
    ProductNotFound,
    ProductPage,
    ProductQuery,
    Rendered,
    SkuTaken,
)
from markethall.inventory.domain import (
    Item,
    available_of,
)
from markethall.inventory.ports import Card, Database, ProductCache, Store
from markethall.inventory.service.families import FamilyPages
from markethall.inventory.service.lists import ProductLists
from markethall.shared.auth import CATALOGUE_WRITE
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.idempotency import Attempt
from markethall.shared.pages import PageQuery
from markethall.shared.versions import Seen, check_seen, digest


class CatalogueService:
    """A contract.Catalogue."""

    def __init__(
        self,
        database: Database,
        cache: ProductCache,
        lists: ProductLists,
        families: FamilyPages,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._lists = lists
        self._families = families
        self._clock = clock

    # Reading

    async def product(self, call: Call, product_id: UUID) -> Product:
        return _product(await self._card(call, product_id))

    async def product_by_sku(self, call: Call, sku: str) -> Product:
        return _product(await self._card_by_sku(call, sku))

    async def products(self, call: Call, query: ProductQuery) -> ProductPage:
        return await self._lists.products(call, query)

    async def product_body(self, call: Call, product_id: UUID) -> Rendered:
        if call.actor.may(CATALOGUE_WRITE):
            return _rendered(await self._card(call, product_id), public=False)

        async def load() -> Rendered | None:
            async with self._database.reading() as shelf:
                card = await shelf.card(product_id, self._clock())
            return _rendered(card) if card and card.active else None

        rendered = await self._cache.product(product_id, load)
        if rendered is None:
            raise _no_product(product_id)
        return rendered

    async def sku_body(self, call: Call, sku: str) -> Rendered:
        public = not call.actor.may(CATALOGUE_WRITE)
        return _rendered(await self._card_by_sku(call, sku), public=public)

    async def page_body(self, call: Call, query: ProductQuery) -> Rendered:
        return await self._lists.page_body(call, query)

    async def family(self, call: Call, family: str, query: PageQuery) -> Family:
        return await self._families.family(call, family, query)

    async def family_body(self, call: Call, family: str, query: PageQuery) -> Rendered:
        return await self._families.body(call, family, query)

    async def count(self) -> int:
        async with self._database.reading() as shelf:
            return await shelf.count()

    async def _card(self, call: Call, product_id: UUID) -> Card:
        async with self._database.reading() as shelf:
            card = await shelf.card(product_id, self._clock())
        if card is None or not _sees(call, card):
            raise _no_product(product_id)
        return card

    async def _card_by_sku(self, call: Call, sku: str) -> Card:
        async with self._database.reading() as shelf:
            card = await shelf.card_by_sku(sku, self._clock())
        if card is None or not _sees(call, card):
            raise ProductNotFound(sku=sku)
        return card

    # Changing

    async def create(self, call: Call, command: NewProduct, attempt: Attempt) -> Product:  # noqa: ARG002 - the contract
        item = Item.new(attempt.id, command, self._clock())
        async with self._database.transaction() as store:
            new = await store.add(item)
            product = (
                item.seen_with(item.backorder_limit, item.created_at)
                if new
                else await self._made_before(store, item)
            )
            await store.finish(attempt, product)
        await self._lists.tell([item])
        self._cache.invalidate([item.product_id], pages=True)
        return product

    async def change(
        self,
        call: Call,  # noqa: ARG002 - the contract
        product_id: UUID,
        command: ProductChange,
        seen: Seen,
    ) -> Product:
        now = self._clock()
        async with self._database.transaction() as store:
            item = await _locked(store, product_id, seen)
            if item.change(command, now):
                await store.save(item)
            available = available_of(await store.levels(product_id, now))
        await self._lists.tell([item])
        self._cache.invalidate([product_id], pages=True)
        return item.seen_with(available, self._clock())

    async def archive(self, call: Call, product_id: UUID, seen: Seen) -> None:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            item = await _locked(store, product_id, seen)
            if item.archive(self._clock()):
                await store.save(item)
        await self._lists.tell([item])
        self._cache.invalidate([product_id], pages=True)

    async def _made_before(self, store: Store, item: Item) -> Product:
        """By the same attempt. Raises SkuTaken."""
        card = await store.card(item.product_id, self._clock())
        if card is None:
            raise SkuTaken(sku=item.sku)
        return _product(card)


# Cards


def _sees(call: Call, card: Card) -> bool:
    return card.active or call.actor.may(CATALOGUE_WRITE)


def _no_product(product_id: UUID) -> ProductNotFound:
    return ProductNotFound(product_ids=[str(product_id)])


def _product(card: Card) -> Product:
    return Product.model_validate_json(card.json)


def _rendered(card: Card, *, public: bool = True) -> Rendered:
    body = card.json.encode()
    return Rendered(body, f'"v{card.version}-{digest(body)}"', public)


# Items and stock


async def _locked(store: Store, product_id: UUID, seen: Seen) -> Item:
    """Raises ProductNotFound, PreconditionFailed."""
    item = await store.item(product_id)
    if item is None:
        raise _no_product(product_id)
    check_seen(seen, item.version)
    return item
