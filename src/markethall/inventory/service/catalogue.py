"""What the world asks: products to look at, and for staff to change, with their stock."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Adjustment,
    Category,
    Movement,
    MovementNotFound,
    NewProduct,
    Product,
    ProductChange,
    ProductNotFound,
    ProductPage,
    ProductQuery,
    ProductStock,
    Reason,
    Rendered,
    Reservation,
    ReservationQuery,
    SkuTaken,
    StockLevel,
    WarehouseNotFound,
)
from markethall.inventory.domain import (
    MAIN_WAREHOUSE,
    Change,
    Item,
    Stock,
    check_adjustment,
    too_few,
)
from markethall.inventory.ports import Card, Database, ProductCache, Shelf, Store
from markethall.inventory.service.holds import ExpiredHolds
from markethall.inventory.service.lists import ProductLists, digest
from markethall.shared.auth import CATALOGUE_WRITE
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.errors import PreconditionFailed
from markethall.shared.idempotency import Attempt
from markethall.shared.pages import Cursors, Page, PageQuery


class CatalogueService:
    """A contract.Catalogue."""

    def __init__(  # noqa: PLR0917 - what it asks of stock goes elsewhere
        self,
        database: Database,
        cache: ProductCache,
        lists: ProductLists,
        expired: ExpiredHolds,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._lists = lists
        self._expired = expired
        self._cursors = cursors
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

    async def categories(self, call: Call, query: PageQuery) -> Page[Category]:  # noqa: ARG002 - the contract
        after = self._cursors.decode("categories", query.cursor) or [""]
        async with self._database.reading() as shelf:
            rows = await shelf.categories(after[0], query.limit + 1)
        return self._cursors.page("categories", rows, query.limit, lambda row: [row.category])

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
            product = item.seen_with(0) if new else await self._made_before(store, item)
            await store.finish(attempt, product)
        await self._lists.tell([item])
        await self._cache.forget([item.product_id], pages=True)
        return product

    async def change(
        self,
        call: Call,  # noqa: ARG002 - the contract
        product_id: UUID,
        command: ProductChange,
        version: int,
    ) -> Product:
        now = self._clock()
        async with self._database.transaction() as store:
            item = await _locked(store, product_id, version)
            if item.change(command, now):
                await store.save(item)
            available = _available(await store.levels(product_id, now))
        await self._lists.tell([item])
        await self._cache.forget([product_id], pages=True)
        return item.seen_with(available)

    async def archive(self, call: Call, product_id: UUID, version: int) -> None:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            item = await _locked(store, product_id, version)
            if item.archive(self._clock()):
                await store.save(item)
        await self._lists.tell([item])
        await self._cache.forget([product_id], pages=True)

    async def _made_before(self, store: Store, item: Item) -> Product:
        """By the same attempt. Raises SkuTaken."""
        card = await store.card(item.product_id, self._clock())
        if card is None:
            raise SkuTaken(sku=item.sku)
        return _product(card)

    # Stock

    async def stock(self, call: Call, product_id: UUID) -> ProductStock:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            levels = await _levels(shelf, product_id, self._clock())
        return ProductStock(
            product_id=product_id,
            available=_available(levels),
            warehouses=tuple(_level(level) for level in levels),
        )

    async def adjust(
        self, call: Call, product_id: UUID, command: Adjustment, attempt: Attempt
    ) -> Movement:
        check_adjustment(command)
        change = self._asked(call, product_id, command, attempt)

        async def move(store: Store) -> Movement:
            movement = await store.move(change) or await _refused(store, change)
            await store.finish(attempt, movement)
            return movement

        movement = await self._expired.without(move)
        await self._cache.forget([product_id], pages=False)
        return movement

    async def movements(
        self,
        call: Call,  # noqa: ARG002 - the contract
        product_id: UUID,
        query: PageQuery,
    ) -> Page[Movement]:
        name = f"movements:{product_id}"
        before = (self._cursors.decode(name, query.cursor) or [None])[0]
        async with self._database.reading() as shelf:
            rows = await shelf.movements(product_id, before, query.limit + 1)
            if not rows:
                await _levels(shelf, product_id, self._clock())
        page = self._cursors.page(name, rows, query.limit, lambda row: [row[0]])
        return Page(items=tuple(row[1] for row in page.items), next_cursor=page.next_cursor)

    async def movement(self, call: Call, product_id: UUID, movement_id: UUID) -> Movement:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            movement = await shelf.movement(movement_id)
        if movement is None or movement.product_id != product_id:
            raise MovementNotFound(movement_id=str(movement_id))
        return movement

    async def reservations(self, call: Call, query: ReservationQuery) -> Page[Reservation]:  # noqa: ARG002 - the contract
        name = f"reservations:{query.order_id}"
        after = self._cursors.decode(name, query.cursor)
        async with self._database.reading() as shelf:
            holds = await shelf.holds_of(
                query.order_id, UUID(after[0]) if after else None, query.limit + 1
            )
        views = [hold.view() for hold in holds]
        return self._cursors.page(name, views, query.limit, lambda row: [str(row.reservation_id)])

    def _asked(self, call: Call, product_id: UUID, command: Adjustment, attempt: Attempt) -> Change:
        return Change(
            movement_id=attempt.id,
            product_id=product_id,
            warehouse_id=command.warehouse_id or MAIN_WAREHOUSE,
            delta=command.delta,
            counted=command.counted,
            reason=Reason(command.reason),
            note=command.note,
            reference=None,
            actor=call.actor.known_as,
            created_at=self._clock(),
        )


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


async def _locked(store: Store, product_id: UUID, version: int) -> Item:
    """Raises ProductNotFound, PreconditionFailed."""
    item = await store.item(product_id)
    if item is None:
        raise _no_product(product_id)
    if item.version != version:
        raise PreconditionFailed(etag=f'"v{item.version}"')
    return item


async def _levels(shelf: Shelf, product_id: UUID, now: datetime) -> Sequence[Stock]:
    """Raises ProductNotFound."""
    levels = await shelf.levels(product_id, now)
    if not levels:
        raise _no_product(product_id)
    return levels


def _available(levels: Sequence[Stock]) -> int:
    return sum(level.available for level in levels)


def _level(level: Stock) -> StockLevel:
    return StockLevel(
        warehouse_id=level.warehouse_id,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
    )


async def _refused(store: Store, change: Change) -> Movement:
    """The same movement, when it was made before.

    Raises ProductNotFound, WarehouseNotFound, Shortage.
    """
    made = await store.movement(change.movement_id)
    if made is not None:
        return made
    levels = await _levels(store, change.product_id, change.created_at)
    level = next((level for level in levels if level.warehouse_id == change.warehouse_id), None)
    if level is None:
        raise WarehouseNotFound(warehouse_id=str(change.warehouse_id))
    raise too_few(level, change)
