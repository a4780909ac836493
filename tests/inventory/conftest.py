"""Fixtures of inventory: its services in memory, on Postgres, and over internal HTTP."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.catalogue.contract.categories import Categories
from markethall.inventory.catalogue.contract.families import Families
from markethall.inventory.catalogue.contract.products import (
    Catalogue,
    NewProduct,
    Price,
    ProductView,
)
from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import (
    Consume,
    Inventory,
    ListOffers,
    ProductOffer,
    ReleasePart,
    RequestedLine,
    ReservationView,
    Reserve,
)
from markethall.inventory.remote import RemoteInventory, routes
from markethall.inventory.reservations.contract import Reservations
from markethall.inventory.search.contract import FamilySearch, ProductSearch
from markethall.inventory.settings import InventorySettings
from markethall.inventory.stock.contract import (
    Adjustment,
    Movement,
    NewWarehouse,
    Stockroom,
    Warehouses,
    WarehouseView,
)
from markethall.shared.cache import CoherentCache
from markethall.shared.composition.settings import read_one
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    created_response,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import CATALOGUE_WRITE, STOCK_WRITE
from markethall.shared.persistence.postgres import Postgres
from markethall.testing import context_tools
from tests.rpc_loopback import over_rpc

ANYONE = CallContext(request_id="test")
STAFF = CallContext(
    request_id="test",
    actor=Actor(
        user_id=UUID(int=7), scopes=frozenset({CATALOGUE_WRITE, STOCK_WRITE}), roles=("staff",)
    ),
)
MAX_UNPAID_ORDERS, MAX_RESERVED_UNITS = 3, 100
PRESENT = created_response(lambda thing: f"/things/{thing}")


class FakeClock:
    """A clock that advances by 1 µs at each read, and when a test calls `advance`."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    def advance(self, **time: float) -> None:
        self.now += timedelta(**time)


def no_key(thing_id: UUID | None = None) -> IdempotentCommand:
    return IdempotentCommand("", thing_id or new_id(), IDEMPOTENCY_RETENTION_EXTENDED, PRESENT)


@dataclass
class InventoryApp:
    """The services of inventory, and methods that create test data."""

    inventory: Inventory
    catalogue: Catalogue
    product_search: ProductSearch
    family_search: FamilySearch
    categories: Categories
    families: Families
    stockroom: Stockroom
    reservations: Reservations
    warehouses: Warehouses
    clock: FakeClock
    container: InventoryContainer

    async def product(
        self, sku: str = "", stock: int = 0, thing_id: UUID | None = None, **fields: Any
    ) -> ProductView:
        """Create a product with `stock` units on hand in the main warehouse."""
        sku = sku or f"SKU-{new_id().hex}"
        usual = {"sku": sku, "name": sku.title(), "price": Price(amount=1250, currency="EUR")}
        command = NewProduct.model_validate(usual | fields)
        product = await self.catalogue.create(STAFF, command, no_key(thing_id))
        if stock:
            await self.adjust(product.product_id, delta=stock)
        return product

    async def adjust(self, product_id: UUID, reason: str = "received", **fields: Any) -> Movement:
        command = Adjustment.model_validate({"reason": reason} | fields)
        return await self.stockroom.adjust(STAFF, product_id, command, no_key())

    async def warehouse(self, name: str = "Rotterdam", **fields: Any) -> WarehouseView:
        command = NewWarehouse.model_validate({"name": name} | fields)
        return await self.warehouses.create(STAFF, command, no_key())

    def order(self, requested: dict[UUID, int], *, minutes: float = 30) -> Reserve:
        return Reserve(
            reservation_id=new_id(),
            order_id=new_id(),
            customer_id=new_id(),
            lines=tuple(RequestedLine(product_id=key, quantity=n) for key, n in requested.items()),
            expires_at=self.clock.now + timedelta(minutes=minutes),
            limited=True,
        )

    async def reserve(self, requested: dict[UUID, int], *, minutes: float = 30) -> ReservationView:
        return await self.inventory.reserve(ANYONE, self.order(requested, minutes=minutes))

    async def list_offers(
        self, *product_ids: UUID, currency: str | None = None
    ) -> tuple[ProductOffer, ...]:
        query = ListOffers(product_ids=product_ids, currency=currency)
        return (await self.inventory.list_offers(ANYONE, query)).items

    async def available(self, product_id: UUID) -> int:
        return (await self.catalogue.get_product(STAFF, product_id)).available

    async def main_stock(self, product_id: UUID) -> tuple[int, int]:
        """Return (on hand, reserved) in the main warehouse."""
        stock = await self.stockroom.get_stock(STAFF, product_id)
        return stock.warehouses[0].on_hand, stock.warehouses[0].reserved

    async def run_periodic_jobs(self) -> None:
        for job in self.container.periodic_jobs():
            await job()


def consume_command(
    reservation_id: UUID, requested: dict[UUID, int], fulfilment_id: UUID | None = None
) -> Consume:
    return Consume(
        reservation_id=reservation_id,
        fulfilment_id=fulfilment_id or new_id(),
        lines=tuple(RequestedLine(product_id=key, quantity=n) for key, n in requested.items()),
    )


def partial_release_command(reservation_id: UUID, requested: dict[UUID, int]) -> ReleasePart:
    return ReleasePart(
        reservation_id=reservation_id,
        release_id=new_id(),
        lines=tuple(RequestedLine(product_id=key, quantity=n) for key, n in requested.items()),
    )


def build_inventory_app(storage: str, postgres: Any = None) -> InventoryApp:
    clock = FakeClock()
    settings = read_one(
        InventorySettings,
        {
            "storage": storage,
            "idempotency_lease": 30,
            "max_unpaid_orders_per_customer": MAX_UNPAID_ORDERS,
            "max_reserved_units_per_customer": MAX_RESERVED_UNITS,
        },
    )
    container = InventoryContainer(
        settings=settings,
        tools=context_tools(clock=clock, postgres=postgres),
        cache=CoherentCache(),
    )
    return InventoryApp(
        container.inventory(),
        container.catalogue(),
        container.product_search(),
        container.family_search(),
        container.categories(),
        container.families(),
        container.stockroom(),
        container.reservations(),
        container.warehouses(),
        clock,
        container,
    )


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest) -> tuple[str, InventoryApp]:
    if request.param == "memory":
        return request.param, build_inventory_app("memory")
    return request.param, build_inventory_app("sql", request.getfixturevalue("postgres"))


@pytest.fixture
async def inventory_app(wiring: tuple[str, InventoryApp]) -> AsyncIterator[InventoryApp]:
    storage, inventory_app = wiring
    if storage != "remote":
        yield inventory_app
        return
    local = inventory_app.inventory
    async with over_rpc("inventory", routes.router, local, RemoteInventory) as remote:
        yield replace(inventory_app, inventory=remote)


@pytest.fixture
def sql_inventory_app(postgres: Postgres) -> InventoryApp:
    return build_inventory_app("sql", postgres)
