"""Test sales without stock: by the policy "continue", or because inventory is not tracked."""

from typing import Any

import pytest

from markethall.inventory.catalogue.contract.products import ProductChange, ProductView
from markethall.inventory.contract import OutOfStock
from markethall.shared.kernel.pagination import PageQuery
from tests.inventory.conftest import (
    ANYONE,
    STAFF,
    InventoryApp,
    build_inventory_app,
    consume_command,
)
from tests.inventory.import_client import ImportClient

UNLIMITED = 1_000_000_000
HEADER = "Handle,Title,Variant SKU,Variant Inventory Tracker,Variant Inventory Qty,"
HEADER += "Variant Inventory Policy,Variant Price\n"
NEW_HEADER = "URL handle,Title,SKU,Inventory tracker,Inventory quantity,"
NEW_HEADER += "Continue selling when out of stock,Price\n"


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    if request.param == "memory":
        return build_inventory_app("memory")
    return build_inventory_app("sql", request.getfixturevalue("postgres"))


async def _change(inventory_app: InventoryApp, product: ProductView, **fields: Any) -> ProductView:
    current = await inventory_app.catalogue.get_product(STAFF, product.product_id)
    command = ProductChange.model_validate(fields)
    return await inventory_app.catalogue.change(
        STAFF, product.product_id, command, frozenset({current.version})
    )


async def test_tracked_stock_that_denies_is_never_oversold(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product(stock=2)

    assert (product.inventory_policy, product.track_inventory) == ("deny", True)
    with pytest.raises(OutOfStock):
        await inventory_app.reserve({product.product_id: 3})


async def test_continue_sells_without_limit_and_ships_what_arrives(
    inventory_app: InventoryApp,
) -> None:
    product = await inventory_app.product(stock=1, inventory_policy="continue")
    assert product.available == UNLIMITED
    reservation = await inventory_app.reserve({product.product_id: 99})
    await inventory_app.inventory.commit(ANYONE, reservation.reservation_id)
    assert await inventory_app.main_stock(product.product_id) == (1, 99)
    shipment = consume_command(reservation.reservation_id, {product.product_id: 99})

    with pytest.raises(OutOfStock):
        await inventory_app.inventory.consume(ANYONE, shipment)
    await inventory_app.adjust(product.product_id, delta=100)
    await inventory_app.inventory.consume(ANYONE, shipment)

    assert await inventory_app.main_stock(product.product_id) == (2, 0)


async def test_untracked_product_is_sold_and_shipped_without_stock(
    inventory_app: InventoryApp,
) -> None:
    product = await inventory_app.product(track_inventory=False)
    reservation = await inventory_app.reserve({product.product_id: 5})
    await inventory_app.inventory.commit(ANYONE, reservation.reservation_id)
    first = consume_command(reservation.reservation_id, {product.product_id: 2})
    rest = consume_command(reservation.reservation_id, {product.product_id: 3})

    await inventory_app.inventory.consume(ANYONE, first)
    await inventory_app.inventory.consume(ANYONE, first)
    assert await inventory_app.main_stock(product.product_id) == (0, 3)
    await inventory_app.inventory.consume(ANYONE, rest)

    assert await inventory_app.main_stock(product.product_id) == (0, 0)
    page = await inventory_app.stockroom.list_movements(STAFF, product.product_id, PageQuery())
    assert [(movement.delta, movement.reason) for movement in page.items] == [
        (-3, "sold"),
        (3, "adjusted"),
        (-2, "sold"),
        (2, "adjusted"),
    ]


async def test_release_gives_nothing_back_to_untracked_stock(inventory_app: InventoryApp) -> None:
    product = await inventory_app.product(track_inventory=False)
    reservation = await inventory_app.reserve({product.product_id: 5})

    await inventory_app.inventory.release(ANYONE, reservation.reservation_id)

    assert await inventory_app.main_stock(product.product_id) == (0, 0)


@pytest.mark.parametrize("fields", [{"inventory_policy": "continue"}, {"track_inventory": False}])
async def test_change_of_policy_changes_what_is_available(
    inventory_app: InventoryApp, fields: dict[str, Any]
) -> None:
    product = await inventory_app.product(stock=2, backorder_limit=3)

    opened = await _change(inventory_app, product, **fields)
    await inventory_app.reserve({product.product_id: 20})
    closed = await _change(inventory_app, product, inventory_policy="deny", track_inventory=True)

    assert (product.available, opened.available, closed.available) == (3, UNLIMITED + 2, 0)
    with pytest.raises(OutOfStock):
        await inventory_app.reserve({product.product_id: 1})


@pytest.mark.parametrize(
    ("file", "policy", "tracked"),
    [
        (HEADER + "m,M,M-1,shopify,0,continue,10\n", "continue", True),
        (HEADER + "m,M,M-1,shopify,0,deny,10\n", "deny", True),
        (HEADER + "m,M,M-1,,0,deny,10\n", "deny", False),
        (NEW_HEADER + "m,M,M-1,shopify,0,CONTINUE,10\n", "continue", True),
        (NEW_HEADER + "m,M,M-1,shopify,0,FALSE,10\n", "deny", True),
        ("Handle,Title,Variant SKU,Variant Price\nm,M,M-1,10\n", "deny", True),
        ("sku,name,price,track_inventory\nM-1,M,1,false\n", "deny", False),
        ("sku,name,price,inventory_policy,track_inventory\nM-1,M,1,continue,\n", "continue", True),
    ],
)
async def test_policy_and_tracking_are_imported_and_exported(
    inventory_app: InventoryApp, file: str, policy: str, tracked: bool
) -> None:
    import_client = ImportClient(inventory_app)

    done = await import_client.import_to_end(file)
    again = await import_client.import_to_end(await import_client.export())

    assert (done.rows.created, again.rows.unchanged) == (1, 1)
    made = await inventory_app.catalogue.get_product_by_sku(STAFF, "M-1")
    assert (made.inventory_policy, made.track_inventory) == (policy, tracked)
    is_unlimited = policy == "continue" or not tracked
    assert made.available == (UNLIMITED if is_unlimited else 0)
