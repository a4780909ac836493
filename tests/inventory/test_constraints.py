"""Test that database constraints reject inconsistent stock, reservations and categories."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.inventory.conftest import ANYONE, InventoryApp, consume_command

if TYPE_CHECKING:
    from asyncpg.protocol import Record

    Driver = asyncpg.Connection[Record]


@dataclass
class RawSql:
    """Direct SQL on a database with one product: 5 units on hand, 2 of them reserved."""

    driver: "Driver"
    inventory_app: InventoryApp
    product_id: UUID
    reservation_id: UUID

    async def execute(self, *statements: str) -> None:
        """Execute the statements in one transaction, whose commit checks deferred constraints."""
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
    " 's', 'n', 1, 'EUR' FROM reservation WHERE {condition}"
)


def movement(delta: int, after: int, reason: str = "received", reference: str = "NULL") -> str:
    return MOVEMENT.format(delta=delta, after=after, reason=reason, reference=reference)


def line(quantity: int, *, status: str = "status", consumed: int = 0) -> str:
    condition = "reservation_id <> {r}"
    return LINE.format(status=status, quantity=quantity, consumed=consumed, condition=condition)


OTHER_RESERVATION = (
    "INSERT INTO reservation (reservation_id, order_id, status, expires_at)"
    " VALUES ({new}, {new}, 'held', now() + interval '10 minutes')"
)


def category(text: str, parent: str = "NULL", label: str = "", key: str = "") -> str:
    return (
        "INSERT INTO category (category_id, category, category_key, label_key, name, parent,"
        f" position, translations, version) VALUES ({{new}}, '{text}', '{key or text}',"
        f" '{label or text}', 'n', {parent}, 0, '{{{{}}}}', 1)"
    )


A = category("a")
B_BELOW_A = category("b", parent="'a'")
RESERVE_ONE_MORE = "UPDATE stock SET reserved = reserved + 1"

VIOLATIONS = {
    "more reserved than on hand": ["UPDATE stock SET reserved = 6"],
    "negative reserved": ["UPDATE stock SET reserved = -1"],
    "reserved without a line": [RESERVE_ONE_MORE],
    "reserved below the held lines": ["UPDATE stock SET reserved = 0"],
    "reserved_by_lines without lines": ["UPDATE stock SET reserved_by_lines = 3"],
    "reserved and reserved_by_lines without lines": [
        "UPDATE stock SET reserved = 3, reserved_by_lines = 3"
    ],
    "on hand without a movement": ["UPDATE stock SET on_hand = 100"],
    "on hand changed with reserved": ["UPDATE stock SET reserved = 2, on_hand = 100"],
    "a stock row that starts with stock": [
        "INSERT INTO warehouse (warehouse_id, name) VALUES ({r}, 'other')",
        "INSERT INTO stock (product_id, warehouse_id, on_hand, reserved) VALUES ({p}, {r}, 9, 0)",
    ],
    "a movement with a wrong on_hand_after": [movement(3, 9)],
    "a movement below zero": [movement(-6, -1, "lost")],
    "a movement below reserved": [movement(-4, 1, "lost")],
    "a movement without a delta": [movement(0, 5)],
    "a movement with an unknown reason": [movement(1, 6, "magic")],
    "a sale that adds stock": [movement(1, 6, "sold", "{new}")],
    "a sale without a fulfilment": [movement(-1, 4, "sold")],
    "a movement with a changed delta": ["UPDATE stock_movement SET delta = 6"],
    "a movement with a changed note": ["UPDATE stock_movement SET note = 'x'"],
    "a deleted movement": ["DELETE FROM stock_movement"],
    "a transfer without a reference": [movement(1, 6, "transferred")],
    "an inactive main warehouse": ["UPDATE warehouse SET active = false"],
    "an inactive warehouse with stock": [
        "INSERT INTO warehouse (warehouse_id, name) VALUES ({r}, 'other')",
        "INSERT INTO stock (product_id, warehouse_id, on_hand, reserved) VALUES ({p}, {r}, 0, 0)",
        movement(2, 2).replace("{w}", "{r}"),
        "UPDATE warehouse SET active = false WHERE warehouse_id = {r}",
    ],
    "a receipt in an inactive warehouse": [
        "INSERT INTO warehouse (warehouse_id, name, active) VALUES ({r}, 'other', false)",
        "INSERT INTO stock (product_id, warehouse_id, on_hand, reserved) VALUES ({p}, {r}, 0, 0)",
        movement(2, 2).replace("{w}", "{r}"),
    ],
    "a negative priority": ["UPDATE warehouse SET priority = -1"],
    "backorder above the product's limit": ["UPDATE stock SET backorder = 9"],
    "a backorder limit other than the product's": [
        "UPDATE stock SET backorder_limit = 9, backorder = 9"
    ],
    "more reserved than on hand and backorder": [
        "UPDATE product SET backorder_limit = 2",
        OTHER_RESERVATION,
        "UPDATE stock SET reserved = 8",
    ],
    "a movement below zero in spite of backorder": [
        "UPDATE product SET backorder_limit = 9",
        movement(-6, -1, "lost"),
    ],
    "a line without reserved stock": [OTHER_RESERVATION, line(1)],
    "a line with a larger quantity": ["UPDATE reservation_line SET quantity = 3"],
    "a deleted line": ["DELETE FROM reservation_line"],
    "a released reservation with reserved stock": ["UPDATE reservation SET status = 'released'"],
    "an expired reservation with reserved stock": ["UPDATE reservation SET status = 'expired'"],
    "a consumed reservation with reserved stock": ["UPDATE reservation SET status = 'consumed'"],
    "a line with another status than its reservation": [
        "UPDATE reservation_line SET status = 'committed'"
    ],
    "a line with another expiry than its reservation": [
        "UPDATE reservation_line SET expires_at = now()"
    ],
    "units consumed from a held reservation": ["UPDATE reservation_line SET consumed = 1"],
    "more consumed than reserved": [
        "UPDATE reservation SET status = 'committed'",
        "UPDATE reservation_line SET consumed = 3",
    ],
    "a line without a quantity": [OTHER_RESERVATION, line(0)],
    "an unknown reservation status": ["UPDATE reservation SET status = 'lost'"],
    "a reservation without an order": ["UPDATE reservation SET order_id = NULL"],
    "a reservation that expires after more than 91 days": [
        "UPDATE reservation SET expires_at = reserved_at + interval '91 days 1 second'"
    ],
    "a reservation that was made more than 91 days before it expires": [
        "UPDATE reservation SET reserved_at = expires_at - interval '91 days 1 second'"
    ],
    "a negative released quantity": ["UPDATE reservation_line SET released = -1"],
    "a negative quantity": ["UPDATE reservation_line SET quantity = -1, released = 9"],
    "a quantity of zero without a release": ["UPDATE reservation_line SET quantity = 0"],
    "a released quantity that is still reserved": [
        "UPDATE reservation_line SET quantity = 1, released = 1"
    ],
    "a partial release of no reservation": ["INSERT INTO partial_release VALUES ({new}, {new})"],
    "a negative price": ["UPDATE product SET price_amount = -1"],
    "a category below itself": [A, "UPDATE category SET parent = 'a'"],
    "a cycle of categories": [
        A,
        B_BELOW_A,
        "UPDATE category SET parent = 'b' WHERE category = 'a'",
    ],
    "a category with an unknown parent": [B_BELOW_A],
    "a deleted category with products": [
        A,
        "UPDATE product SET category = 'a'",
        "DELETE FROM category WHERE category = 'a'",
    ],
    "a deleted category with children": [
        A,
        B_BELOW_A,
        "DELETE FROM category WHERE parent IS NULL",
    ],
    "a renamed category with products": [
        A,
        "UPDATE product SET category = 'a'",
        "UPDATE category SET category = 'b'",
    ],
    "a negative category position": [A, "UPDATE category SET position = -1"],
    "an unknown product status": ["UPDATE product SET status = 'gone'"],
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_constraint_violation_is_rejected(raw_sql: RawSql, violation: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as raised:
        await raw_sql.execute(*VIOLATIONS[violation])

    assert raised.value.sqlstate in {"23514", "23503"}  # check constraint or foreign key
    assert await raw_sql.inventory_app.main_stock(raw_sql.product_id) == (5, 2)


@pytest.mark.parametrize("table", ["stock", "product", "reservation", "warehouse"])
async def test_referenced_row_cannot_be_deleted(raw_sql: RawSql, table: str) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await raw_sql.execute(f"DELETE FROM {table}")


async def test_sku_is_unique_ignoring_case(raw_sql: RawSql) -> None:
    copy = (
        "INSERT INTO product (product_id, sku, sku_key, name, name_key, description, price_amount,"
        " price_currency,"
        " options, option_keys, tags, tag_keys, images, attributes, status, version, created_at,"
        " updated_at, attribute_keys, tax_class,"
        " prices, translations, backorder_limit)"
        " SELECT {new}, 'tea', sku_key, name, name_key, description, price_amount, price_currency,"
        " options, option_keys, tags, tag_keys, images, attributes, status, version, created_at,"
        " updated_at, attribute_keys, tax_class,"
        " prices, translations, backorder_limit FROM product"
    )

    with pytest.raises(asyncpg.UniqueViolationError):
        await raw_sql.execute(copy)


LOOK_ALIKE_CATEGORIES = {
    "key": category("A", key="a", label="other"),
    "root name": category("A", key="b > a", label="a"),
    "name below a parent": category("B", key="a > b", label="b", parent="'a'"),
}


@pytest.mark.parametrize("violation", LOOK_ALIKE_CATEGORIES)
async def test_look_alike_category_is_rejected(raw_sql: RawSql, violation: str) -> None:
    await raw_sql.execute(A, B_BELOW_A)

    with pytest.raises(asyncpg.UniqueViolationError):
        await raw_sql.execute(LOOK_ALIKE_CATEGORIES[violation])


async def test_same_name_below_another_parent_is_accepted(raw_sql: RawSql) -> None:
    same_name = category("c > b", label="b", parent="'c'")

    await raw_sql.execute(A, B_BELOW_A, category("c"), same_name)


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
        movement(3, 8), OTHER_RESERVATION, line(4), "UPDATE stock SET reserved = reserved + 4"
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
    parameters = raw_sql.parameters()
    first = raw_sql.driver.transaction()
    second = other.transaction(isolation="repeatable_read")
    await first.start()
    await second.start()
    await other.fetchval("SELECT reserved FROM stock")

    await raw_sql.driver.execute(OTHER_RESERVATION.format(**parameters))
    await raw_sql.driver.execute(line(3).format(**parameters))
    await raw_sql.driver.execute("UPDATE stock SET reserved = reserved + 3")
    await first.commit()

    with pytest.raises(asyncpg.SerializationError):
        await other.execute("UPDATE stock SET reserved = reserved + 3")
    await other.close()
    assert await raw_sql.inventory_app.main_stock(raw_sql.product_id) == (5, 5)


async def test_stored_json_follows_direct_sql_changes(raw_sql: RawSql) -> None:
    await raw_sql.execute(
        "UPDATE product SET product_json = '{{}}', price_amount = 7, name = 'Gyokuro'"
    )

    product = await raw_sql.inventory_app.catalogue.get_product(ANYONE, raw_sql.product_id)
    assert (product.name, product.price.amount, product.available) == ("Gyokuro", 7, 3)


async def test_main_warehouse_cannot_be_deleted(database_url: str, postgres: Postgres) -> None:
    driver = await asyncpg.connect(plain(database_url))

    with pytest.raises(asyncpg.CheckViolationError):
        await driver.execute("DELETE FROM inventory.warehouse")
    await driver.close()


async def test_save_of_product_does_not_block_foreign_keys(raw_sql: RawSql) -> None:
    """A save of a product must not block the foreign key check of a new reservation line."""
    database = raw_sql.inventory_app.container.database()
    async with database.transaction() as store:
        product = await store.get_product_for_update(raw_sql.product_id)
        assert product is not None
        await store.save_product(product)

        await raw_sql.execute("SELECT FROM product WHERE product_id = {p} FOR KEY SHARE NOWAIT")


async def test_save_of_category_does_not_block_foreign_keys(raw_sql: RawSql) -> None:
    """A rename or move of a category must not block the foreign key check of a new product."""
    await raw_sql.execute(A, B_BELOW_A, category("c"))
    database = raw_sql.inventory_app.container.database()
    async with database.transaction() as store:
        row = await raw_sql.driver.fetchrow("SELECT * FROM category WHERE category = 'b'")
        assert row is not None
        moved = await store.get_category_for_update(row["category_id"])
        assert moved is not None
        await store.save_category(replace(moved, name="other", parent="c"))

        await raw_sql.execute("SELECT FROM category WHERE category = 'b' FOR KEY SHARE NOWAIT")
