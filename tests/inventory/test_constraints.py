"""The database itself refuses lies, whoever tells them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from markethall.inventory.stock.domain.warehouses import MAIN_WAREHOUSE
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.inventory.conftest import ANYONE, InventoryApp, consume_command

if TYPE_CHECKING:
    from asyncpg.protocol import Record

    Driver = asyncpg.Connection[Record]


@dataclass
class RawSql:
    """Raw SQL on a shop with one product: 5 on hand, 2 held."""

    driver: "Driver"
    inventory_app: InventoryApp
    product_id: UUID
    reservation_id: UUID

    async def execute(self, *statements: str) -> None:
        """In one transaction, so that what is checked at commit is checked too."""
        async with self.driver.transaction():
            for statement in statements:
                await self.driver.execute(statement.format(**self.parameters()))

    def parameters(self) -> dict[str, str]:
        return {
            "p": f"'{self.product_id}'",
            "w": f"'{MAIN_WAREHOUSE}'",
            "r": f"'{self.reservation_id}'",
            "new": f"'{new_id()}'",
        }


@pytest.fixture
async def raw_sql(sql_inventory_app: InventoryApp, database_url: str) -> AsyncIterator[RawSql]:
    tea = await sql_inventory_app.product("TEA", stock=5)
    held = await sql_inventory_app.reserve({tea.product_id: 2})
    driver = await asyncpg.connect(plain(database_url))
    await driver.execute("SET search_path TO inventory")
    yield RawSql(driver, sql_inventory_app, tea.product_id, held.reservation_id)
    await driver.close()


MOVEMENT = (
    "INSERT INTO stock_movement (movement_id, product_id, warehouse_id, delta, on_hand_after,"
    " reason, note, reference, actor, created_at)"
    " VALUES ({{new}}, {{p}}, {{w}}, {delta}, {after}, '{reason}', '', {reference}, 'me', now())"
)
LINE = (
    "INSERT INTO reservation_line (reservation_id, product_id, warehouse_id, status, expires_at,"
    " quantity, consumed, sku, name, unit_amount, unit_currency)"
    " SELECT reservation_id, {{p}}, {{w}}, {status}, expires_at, {quantity}, {consumed},"
    " 's', 'n', 1, 'EUR' FROM reservation WHERE {which}"
)


def movement(delta: int, after: int, reason: str = "received", reference: str = "NULL") -> str:
    return MOVEMENT.format(delta=delta, after=after, reason=reason, reference=reference)


def line(quantity: int, *, status: str = "status", consumed: int = 0) -> str:
    which = "reservation_id <> {r}"
    return LINE.format(status=status, quantity=quantity, consumed=consumed, which=which)


OTHER = (
    "INSERT INTO reservation (reservation_id, order_id, status, expires_at)"
    " VALUES ({new}, {new}, 'held', now() + interval '10 minutes')"
)
CATEGORY = (
    "INSERT INTO category (category_id, category, name, parent, position, translations, version)"
    " VALUES ({{new}}, '{key}', 'n', {parent}, 0, '{{{{}}}}', 1)"
)
A = CATEGORY.format(key="a", parent="NULL")
B_BELOW_A = CATEGORY.format(key="b", parent="'a'")
RAISE = "UPDATE stock SET reserved = reserved + 1"

VIOLATIONS = {
    "more reserved than on hand": ["UPDATE stock SET reserved = 6"],
    "less than nothing reserved": ["UPDATE stock SET reserved = -1"],
    "reserved for nobody": [RAISE],
    "not reserved, though held": ["UPDATE stock SET reserved = 0"],
    "reserved_by_lines without lines": ["UPDATE stock SET reserved_by_lines = 3"],
    "reserved and reserved_by_lines without lines": [
        "UPDATE stock SET reserved = 3, reserved_by_lines = 3"
    ],
    "on hand without a movement": ["UPDATE stock SET on_hand = 100"],
    "on hand changed with reserved": ["UPDATE stock SET reserved = 2, on_hand = 100"],
    "a shelf that starts full": [
        "INSERT INTO warehouse (warehouse_id, name) VALUES ({r}, 'other')",
        "INSERT INTO stock (product_id, warehouse_id, on_hand, reserved) VALUES ({p}, {r}, 9, 0)",
    ],
    "a movement that cannot add": [movement(3, 9)],
    "a movement below zero": [movement(-6, -1, "lost")],
    "a movement below what is reserved": [movement(-4, 1, "lost")],
    "a movement of nothing": [movement(0, 5)],
    "a movement for no known reason": [movement(1, 6, "magic")],
    "a sale that adds": [movement(1, 6, "sold", "{new}")],
    "a sale without a fulfilment": [movement(-1, 4, "sold")],
    "a movement rewritten": ["UPDATE stock_movement SET delta = 6"],
    "a movement renoted": ["UPDATE stock_movement SET note = 'x'"],
    "a movement taken away": ["DELETE FROM stock_movement"],
    "a movement to another place that says not which": [movement(1, 6, "transferred")],
    "a main warehouse that is closed": ["UPDATE warehouse SET active = false"],
    "a warehouse closed with goods in it": [
        "INSERT INTO warehouse (warehouse_id, name) VALUES ({r}, 'other')",
        "INSERT INTO stock (product_id, warehouse_id, on_hand, reserved) VALUES ({p}, {r}, 0, 0)",
        movement(2, 2).replace("{w}", "{r}"),
        "UPDATE warehouse SET active = false WHERE warehouse_id = {r}",
    ],
    "goods that come where it is closed": [
        "INSERT INTO warehouse (warehouse_id, name, active) VALUES ({r}, 'other', false)",
        "INSERT INTO stock (product_id, warehouse_id, on_hand, reserved) VALUES ({p}, {r}, 0, 0)",
        movement(2, 2).replace("{w}", "{r}"),
    ],
    "a warehouse before the first": ["UPDATE warehouse SET priority = -1"],
    "more on order than the product allows": ["UPDATE stock SET backorder = 9"],
    "another limit than the product's": ["UPDATE stock SET backorder_limit = 9, backorder = 9"],
    "more reserved than is there and on order": [
        "UPDATE product SET backorder_limit = 2",
        OTHER,
        "UPDATE stock SET reserved = 8",
    ],
    "a movement below zero, on order or not": [
        "UPDATE product SET backorder_limit = 9",
        movement(-6, -1, "lost"),
    ],
    "a line that nobody reserved": [OTHER, line(1)],
    "a line larger than it was": ["UPDATE reservation_line SET quantity = 3"],
    "a line gone": ["DELETE FROM reservation_line"],
    "a released hold that still reserves": ["UPDATE reservation SET status = 'released'"],
    "an expired hold that still reserves": ["UPDATE reservation SET status = 'expired'"],
    "a consumed hold that still reserves": ["UPDATE reservation SET status = 'consumed'"],
    "a line that says committed of a hold": ["UPDATE reservation_line SET status = 'committed'"],
    "a line with a time of its own": ["UPDATE reservation_line SET expires_at = now()"],
    "goods gone from a hold": ["UPDATE reservation_line SET consumed = 1"],
    "more gone than was reserved": [
        "UPDATE reservation SET status = 'committed'",
        "UPDATE reservation_line SET consumed = 3",
    ],
    "a line of nothing": [OTHER, line(0)],
    "a status that is none": ["UPDATE reservation SET status = 'lost'"],
    "a hold of no order": ["UPDATE reservation SET order_id = NULL"],
    "a hold for an hour": ["UPDATE reservation SET expires_at = reserved_at + interval '1 hour'"],
    "a hold for longer than thirty minutes": [
        "UPDATE reservation SET reserved_at = expires_at - interval '31 minutes'"
    ],
    "less than nothing given back": ["UPDATE reservation_line SET released = -1"],
    "less wanted than nothing": ["UPDATE reservation_line SET quantity = -1, released = 9"],
    "a line of nothing that was never more": ["UPDATE reservation_line SET quantity = 0"],
    "given back, and still reserved": ["UPDATE reservation_line SET quantity = 1, released = 1"],
    "a part of no reservation given back": ["INSERT INTO partial_release VALUES ({new}, {new})"],
    "a price below zero": ["UPDATE product SET price_amount = -1"],
    "a category below itself": [A, "UPDATE category SET parent = 'a'"],
    "a ring of categories": [A, B_BELOW_A, "UPDATE category SET parent = 'b' WHERE category = 'a'"],
    "a category below nothing": [B_BELOW_A],
    "a category gone from its product": [
        "UPDATE product SET category = 'a'",
        "DELETE FROM category WHERE category = 'a'",
    ],
    "a category gone from above another": [
        A,
        B_BELOW_A,
        "DELETE FROM category WHERE parent IS NULL",
    ],
    "a category called otherwise than its product says": [
        "UPDATE product SET category = 'a'",
        "UPDATE category SET category = 'b'",
    ],
    "a category before the first": [A, "UPDATE category SET position = -1"],
    "a product status that is none": ["UPDATE product SET status = 'gone'"],
}


@pytest.mark.parametrize("lie", VIOLATIONS)
async def test_constraint_violation_is_rejected(raw_sql: RawSql, lie: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
        await raw_sql.execute(*VIOLATIONS[lie])

    assert refusal.value.sqlstate in {"23514", "23503"}  # check, foreign key
    assert await raw_sql.inventory_app.main_stock(raw_sql.product_id) == (5, 2)


@pytest.mark.parametrize("table", ["stock", "product", "reservation", "warehouse"])
async def test_referenced_row_cannot_be_deleted(raw_sql: RawSql, table: str) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await raw_sql.execute(f"DELETE FROM {table}")


async def test_sku_is_unique_ignoring_case(raw_sql: RawSql) -> None:
    copy = (
        "INSERT INTO product (product_id, sku, name, description, price_amount, price_currency,"
        " options, tags, images, attributes, status, version, created_at, updated_at, tax_class,"
        " prices, translations, backorder_limit)"
        " SELECT {new}, 'tea', name, description, price_amount, price_currency,"
        " options, tags, images, attributes, status, version, created_at, updated_at, tax_class,"
        " prices, translations, backorder_limit FROM product"
    )

    with pytest.raises(asyncpg.UniqueViolationError):
        await raw_sql.execute(copy)


async def test_line_cannot_change_product(raw_sql: RawSql) -> None:
    cup = await raw_sql.inventory_app.product(stock=5)

    with pytest.raises(asyncpg.CheckViolationError):
        await raw_sql.execute(f"UPDATE reservation_line SET product_id = '{cup.product_id}'")


async def test_fulfilment_records_one_sale_per_product(raw_sql: RawSql) -> None:
    part = consume_command(raw_sql.reservation_id, {raw_sql.product_id: 1})
    await raw_sql.inventory_app.inventory.consume(ANYONE, part)

    with pytest.raises(asyncpg.UniqueViolationError):
        await raw_sql.execute(movement(-1, 3, "sold", f"'{part.fulfilment_id}'"))


async def test_valid_changes_are_accepted(raw_sql: RawSql) -> None:
    await raw_sql.execute(
        movement(3, 8), OTHER, line(4), "UPDATE stock SET reserved = reserved + 4"
    )
    await raw_sql.execute("UPDATE reservation SET status = 'committed' WHERE reservation_id = {r}")
    await raw_sql.execute(
        "UPDATE reservation SET status = 'released' WHERE reservation_id = {r}",
        "UPDATE stock SET reserved = reserved - 2",
    )

    assert await raw_sql.inventory_app.main_stock(raw_sql.product_id) == (8, 4)


async def test_concurrent_transactions_cannot_both_reserve_last_unit(
    raw_sql: RawSql, database_url: str
) -> None:
    other = await asyncpg.connect(plain(database_url))
    await other.execute("SET search_path TO inventory")
    words = raw_sql.parameters()
    mine = raw_sql.driver.transaction()
    theirs = other.transaction(isolation="repeatable_read")
    await mine.start()
    await theirs.start()
    await other.fetchval("SELECT reserved FROM stock")

    await raw_sql.driver.execute(OTHER.format(**words))
    await raw_sql.driver.execute(line(3).format(**words))
    await raw_sql.driver.execute("UPDATE stock SET reserved = reserved + 3")
    await mine.commit()

    with pytest.raises(asyncpg.SerializationError):
        await other.execute("UPDATE stock SET reserved = reserved + 3")
    await other.close()
    assert await raw_sql.inventory_app.main_stock(raw_sql.product_id) == (5, 5)


async def test_stored_json_follows_direct_sql_changes(raw_sql: RawSql) -> None:
    await raw_sql.execute(
        "UPDATE product SET product_json = '{{}}', price_amount = 7, name = 'Gyokuro'"
    )

    shown = await raw_sql.inventory_app.catalogue.get_product(ANYONE, raw_sql.product_id)
    assert (shown.name, shown.price.amount, shown.available) == ("Gyokuro", 7, 3)


async def test_main_warehouse_cannot_be_deleted(database_url: str, postgres: Postgres) -> None:
    driver = await asyncpg.connect(plain(database_url))

    with pytest.raises(asyncpg.CheckViolationError):
        await driver.execute("DELETE FROM inventory.warehouse")
    await driver.close()
