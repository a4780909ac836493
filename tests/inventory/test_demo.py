"""The small shop of the demo."""

from markethall.inventory.search.contract import ProductQuery
from markethall.local import demo
from markethall.shared.kernel.call_context import system_context
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp

CALL = system_context("demo")


async def test_demo_data_is_created_once(inventory_app: InventoryApp) -> None:
    first = await demo.fill(inventory_app.catalogue, inventory_app.stockroom, CALL)
    again = await demo.fill(inventory_app.catalogue, inventory_app.stockroom, CALL)

    page = await inventory_app.product_search.list_products(ANYONE, ProductQuery(limit=100))
    assert (first, again, len(page.items)) == (24, 0, 24)
    assert all(product.available > 0 for product in page.items)
    assert all(product.product_id.version == 7 for product in page.items)


async def test_changes_by_staff_are_kept(house: InventoryApp) -> None:
    await demo.fill(house.catalogue, house.stockroom, CALL)
    cup = await house.catalogue.get_product_by_sku(ANYONE, "CUP-STONE-BLUE")
    await house.catalogue.archive(STAFF, cup.product_id, {1})
    await house.adjust(cup.product_id, "counted", counted=1)

    assert await demo.fill(house.catalogue, house.stockroom, CALL) == 0

    kept = await house.catalogue.get_product(STAFF, cup.product_id)
    assert (kept.status, kept.available) == ("archived", 1)


async def test_a_product_with_a_sku_of_the_demo_keeps_it(house: InventoryApp) -> None:
    own = await house.product("tea-sencha-100", stock=2)

    assert await demo.fill(house.catalogue, house.stockroom, CALL) == 23

    assert (await house.catalogue.get_product_by_sku(ANYONE, "TEA-SENCHA-100")) == (
        await house.catalogue.get_product(ANYONE, own.product_id)
    )
