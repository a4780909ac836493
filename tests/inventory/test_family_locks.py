"""Test that concurrent imports and commands that create the same families do not deadlock."""

import asyncio

from markethall.inventory.catalogue.contract.families import FamilyChange, NewFamily
from markethall.inventory.catalogue.contract.products import ProductChange
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, no_key
from tests.inventory.import_client import ImportClient

FAMILIES = 12


def file_of(prefix: str, numbers: range | list[int]) -> str:
    """Return an import file whose rows name new categories and families in this order."""
    rows = [f"{prefix}{n},A,1,EUR,Top > C{n % 5},Family {n}" for n in numbers]
    return "\n".join(["sku,name,price,currency,category,family", *rows])


async def test_imports_and_commands_create_the_same_families_without_deadlock(
    sql_inventory_app: InventoryApp,
) -> None:
    """The rows and commands name the families in opposite orders, and with colliding slugs."""
    inventory_app = sql_inventory_app
    product = await inventory_app.product("CHANGED")
    numbers = list(range(FAMILIES))

    async def change() -> None:
        for number in numbers[::-1]:
            await inventory_app.catalogue.change(
                STAFF, product.product_id, ProductChange(family=f"family-{number}"), None
            )

    async def rename() -> None:
        family = await inventory_app.families.create(STAFF, NewFamily(name="Renamed"), no_key())
        for number in numbers:
            await inventory_app.families.change(
                STAFF, str(family.family_id), FamilyChange(slug=f"renamed-{number}"), None
            )

    await asyncio.gather(
        ImportClient(inventory_app).import_to_end(file_of("A", numbers)),
        ImportClient(inventory_app).import_to_end(file_of("B", numbers[::-1])),
        *(inventory_app.product(family=f"FAMILY {number}") for number in numbers),
        change(),
        rename(),
    )

    families = [
        await inventory_app.families.get_family(ANYONE, f"Family {number}") for number in numbers
    ]
    assert len({family.slug for family in families}) == FAMILIES
    # each family has two imported products and one created product; the first family also has the
    # changed product
    assert [family.product_count for family in families] == [4, *[3] * (FAMILIES - 1)]
