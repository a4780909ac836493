"""The demo data of the catalogue."""

from markethall.inventory.search.contract import ProductQuery
from markethall.local.demo import shop
from markethall.shared.kernel.call_context import system_context
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp

CALL = system_context("demo")


async def test_demo_data_is_created_once(inventory_app: InventoryApp) -> None:
    first = await shop.fill(inventory_app.catalogue, inventory_app.stockroom, CALL)
    again = await shop.fill(inventory_app.catalogue, inventory_app.stockroom, CALL)

    page = await inventory_app.product_search.list_products(ANYONE, ProductQuery(limit=100))
    assert (first, again, len(page.items)) == (24, 0, 24)
    assert all(product.available > 0 for product in page.items)
    assert all(product.product_id.version == 7 for product in page.items)


async def test_refill_keeps_changes_of_staff(inventory_app: InventoryApp) -> None:
    await shop.fill(inventory_app.catalogue, inventory_app.stockroom, CALL)
    cup = await inventory_app.catalogue.get_product_by_sku(ANYONE, "CUP-STONE-BLUE")
    await inventory_app.catalogue.archive(STAFF, cup.product_id, {1})
    await inventory_app.adjust(cup.product_id, "counted", counted=1)

    assert await shop.fill(inventory_app.catalogue, inventory_app.stockroom, CALL) == 0

    product = await inventory_app.catalogue.get_product(STAFF, cup.product_id)
    assert (product.status, product.available) == ("archived", 1)


async def test_existing_product_with_demo_sku_is_kept(inventory_app: InventoryApp) -> None:
    existing = await inventory_app.product("tea-sencha-100", stock=2)

    assert await shop.fill(inventory_app.catalogue, inventory_app.stockroom, CALL) == 23

    assert (await inventory_app.catalogue.get_product_by_sku(ANYONE, "TEA-SENCHA-100")) == (
        await inventory_app.catalogue.get_product(ANYONE, existing.product_id)
    )
