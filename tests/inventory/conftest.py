"""The inventory context, wired by its own container, on memory and on Postgres."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from dependency_injector import providers

from markethall.inventory.container import InventoryContainer
from markethall.inventory.contract import (
    Adjustment,
    Catalogue,
    Categories,
    Consume,
    Inventory,
    Movement,
    NewProduct,
    NewWarehouse,
    Price,
    Product,
    ReleasePart,
    Reservation,
    Reserve,
    Stockroom,
    Want,
    Warehouse,
    Warehouses,
)
from markethall.inventory.remote import RemoteInventory, router
from markethall.shared.auth import CATALOGUE_WRITE, STOCK_WRITE
from markethall.shared.cache import CoherentCache
from markethall.shared.call import Actor, Call
from markethall.shared.db import Postgres
from markethall.shared.http import MONEY, created
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id
from markethall.shared.pages import Cursors
from tests.remote import at_the_end_of_the_wire

ANYONE = Call(request_id="test")
STAFF = Call(
    request_id="test",
    actor=Actor(
        user_id=UUID(int=7), scopes=frozenset({CATALOGUE_WRITE, STOCK_WRITE}), roles=("staff",)
    ),
)
OPEN_HOLDS, HELD_UNITS = 3, 100
PRESENT = created(lambda thing: f"/things/{thing}")


class Watch:
    """A clock that stands still, and can be put forward."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    def forward(self, **time: float) -> None:
        self.now += timedelta(**time)


def no_key(thing_id: UUID | None = None) -> Attempt:
    return Attempt("", thing_id or new_id(), MONEY, PRESENT)


@dataclass
class House:
    """What a test asks, and the few things it has to hand."""

    inventory: Inventory
    catalogue: Catalogue
    categories: Categories
    stockroom: Stockroom
    warehouses: Warehouses
    watch: Watch
    container: InventoryContainer

    async def product(
        self, sku: str = "", stock: int = 0, thing_id: UUID | None = None, **fields: Any
    ) -> Product:
        """A product, with so many on hand."""
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

    async def warehouse(self, name: str = "Rotterdam", **fields: Any) -> Warehouse:
        command = NewWarehouse.model_validate({"name": name} | fields)
        return await self.warehouses.create(STAFF, command, no_key())

    def order(self, wants: dict[UUID, int], *, minutes: float = 30) -> Reserve:
        return Reserve(
            reservation_id=new_id(),
            order_id=new_id(),
            customer_id=new_id(),
            lines=tuple(Want(product_id=key, quantity=n) for key, n in wants.items()),
            expires_at=self.watch.now + timedelta(minutes=minutes),
            limited=True,
        )

    async def reserve(self, wants: dict[UUID, int], *, minutes: float = 30) -> Reservation:
        return await self.inventory.reserve(ANYONE, self.order(wants, minutes=minutes))

    async def available(self, product_id: UUID) -> int:
        return (await self.catalogue.product(STAFF, product_id)).available

    async def shelf(self, product_id: UUID) -> tuple[int, int]:
        """On hand, reserved."""
        stock = await self.stockroom.stock(STAFF, product_id)
        return stock.warehouses[0].on_hand, stock.warehouses[0].reserved

    async def sweep(self) -> None:
        for sweep in self.container.sweeps():
            await sweep()


def leaving(
    reservation_id: UUID, wants: dict[UUID, int], fulfilment_id: UUID | None = None
) -> Consume:
    return Consume(
        reservation_id=reservation_id,
        fulfilment_id=fulfilment_id or new_id(),
        lines=tuple(Want(product_id=key, quantity=n) for key, n in wants.items()),
    )


def giving_back(reservation_id: UUID, wants: dict[UUID, int]) -> ReleasePart:
    return ReleasePart(
        reservation_id=reservation_id,
        release_id=new_id(),
        lines=tuple(Want(product_id=key, quantity=n) for key, n in wants.items()),
    )


def build(storage: str, postgres: Any = None) -> House:
    watch = Watch()
    container = InventoryContainer(
        config={
            "where": "local",
            "storage": storage,
            "idempotency_lease": 30,
            "open_holds": OPEN_HOLDS,
            "held_units": HELD_UNITS,
        },
        postgres=providers.Object(postgres),
        clock=providers.Object(watch),
        cursors=providers.Object(Cursors(b"secret")),
        cache=providers.Singleton(CoherentCache),
    )
    return House(
        container.inventory(),
        container.catalogue(),
        container.categories(),
        container.stockroom(),
        container.warehouses(),
        watch,
        container,
    )


@pytest.fixture(params=["memory", "sql", "remote"])
def wiring(request: pytest.FixtureRequest) -> tuple[str, House]:
    if request.param == "memory":
        return request.param, build("memory")
    return request.param, build("sql", request.getfixturevalue("postgres"))


@pytest.fixture
async def house(wiring: tuple[str, House]) -> AsyncIterator[House]:
    where, house = wiring
    if where != "remote":
        yield house
        return
    here = house.inventory
    async with at_the_end_of_the_wire("inventory", router, here, RemoteInventory) as remote:
        yield replace(house, inventory=remote)


@pytest.fixture
def sql_house(postgres: Postgres) -> House:
    return build("sql", postgres)
