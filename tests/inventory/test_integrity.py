"""Test that the integrity checks of inventory report each tampered row, and no sound row."""

import re
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import ListReservationStates
from markethall.inventory.memory import InventoryTables
from markethall.inventory.stock.domain import MAIN_WAREHOUSE, Stock
from markethall.shared.kernel.ids import new_id
from tests.integrity_checks import find_violations, tamper
from tests.inventory.conftest import (
    ANYONE,
    InventoryApp,
    build_inventory_app,
    consume_command,
    partial_release_command,
)


async def sell_in_all_ways(inventory_app: InventoryApp) -> tuple[UUID, UUID]:
    """Make a consumed, a released and a held reservation of a new product.

    Return the ids of the product and of the order of the held reservation of three units.
    """
    product_id = (await inventory_app.product(stock=50)).product_id
    committed = await inventory_app.reserve({product_id: 5})
    await inventory_app.inventory.commit(ANYONE, committed.reservation_id)
    command = consume_command(committed.reservation_id, {product_id: 2})
    await inventory_app.inventory.consume(ANYONE, command)
    part = partial_release_command(committed.reservation_id, {product_id: 1})
    await inventory_app.inventory.release_part(ANYONE, part)
    released = await inventory_app.reserve({product_id: 4})
    await inventory_app.inventory.release(ANYONE, released.reservation_id)
    held = await inventory_app.reserve({product_id: 3}, minutes=10)
    assert held.order_id
    return product_id, held.order_id


async def test_stock_sold_in_all_ways_has_no_violation(inventory_app: InventoryApp) -> None:
    await sell_in_all_ways(inventory_app)
    backorder = (await inventory_app.product(stock=1, backorder_limit=5)).product_id
    await inventory_app.reserve({backorder: 4})

    assert await find_violations(inventory_app.container.integrity_checks()) == {}


@pytest.mark.parametrize(
    ("change", "check", "problem"),
    [
        (
            {"on_hand": 47},
            "O1.on_hand_equals_movements",
            "on_hand is 47, the sum of its movements is 48",
        ),
        (
            {"reserved": 6},
            "O1.reserved_equals_reservations",
            "reserved is 6, its live reservations have 5",
        ),
        ({"reserved": 49}, "O1.reserved_within_stock", "reserved is 49, on_hand 48, backorder 0"),
        ({"reserved": -1}, "O1.reserved_within_stock", "reserved is -1, on_hand 48, backorder 0"),
    ],
)
async def test_changed_stock_row_is_named_in_memory(
    change: dict[str, int], check: str, problem: str
) -> None:
    inventory_app = build_inventory_app("memory")
    product_id, _ = await sell_in_all_ways(inventory_app)
    database: Any = inventory_app.container.database()
    async with database.write_transaction() as tables:
        change_stock(tables, product_id, change)

    violations = await find_violations(inventory_app.container.integrity_checks())

    (row,) = violations[check]
    assert row.row == f"stock product_id={product_id} warehouse_id={MAIN_WAREHOUSE}"
    assert row.problem == problem


def change_stock(tables: InventoryTables, product_id: UUID, change: dict[str, Any]) -> None:
    key = product_id, MAIN_WAREHOUSE
    stock = tables.stock.get(key)
    assert isinstance(stock, Stock)
    tables.stock.put(key, replace(stock, **change))


@pytest.mark.parametrize(
    ("statement", "check", "problem"),
    [
        (
            "UPDATE inventory.stock SET on_hand = on_hand - 1",
            "O1.on_hand_equals_movements",
            "on_hand is 47, the sum of its movements is 48",
        ),
        (
            "DELETE FROM inventory.stock_movement WHERE reason = 'sold'",
            "O1.on_hand_equals_movements",
            "on_hand is 48, the sum of its movements is 50",
        ),
        (
            "UPDATE inventory.stock SET reserved = reserved + 1",
            "O1.reserved_equals_reservations",
            "reserved is 6, its live reservations have 5",
        ),
        (
            "UPDATE inventory.reservation_line SET status = 'released' WHERE status = 'held'",
            "O1.reserved_equals_reservations",
            "reserved is 5, its live reservations have 2",
        ),
    ],
)
async def test_tampered_row_is_named(
    sql_inventory_app: InventoryApp, database_url: str, statement: str, check: str, problem: str
) -> None:
    product_id, _ = await sell_in_all_ways(sql_inventory_app)
    await tamper(database_url, statement)

    violations = await find_violations(sql_inventory_app.container.integrity_checks())

    assert set(violations) == {check}
    (row,) = violations[check]
    assert row.row == f"stock product_id={product_id} warehouse_id={MAIN_WAREHOUSE}"
    assert row.problem == problem


async def test_overdue_reservation_is_named_and_expired_by_the_repair(
    inventory_app: InventoryApp,
) -> None:
    product_id, order_id = await sell_in_all_ways(inventory_app)
    inventory_app.clock.advance(minutes=12)
    checks = {check.check_id: check for check in inventory_app.container.integrity_checks()}
    before = await find_violations(checks.values())

    repair = checks["O8.reservations_end"].repair
    assert repair
    await repair.run()
    await repair.run()

    assert set(before) == {"O8.reservations_end"}
    (row,) = before["O8.reservations_end"]
    assert re.fullmatch(r"reservation reservation_id=[0-9a-f-]{36}", row.row)
    assert str(order_id) in row.problem
    assert await find_violations(checks.values()) == {}
    assert await inventory_app.main_stock(product_id) == (48, 2)


async def test_all_pages_are_checked(inventory_app: InventoryApp, monkeypatch: Any) -> None:
    monkeypatch.setattr("markethall.shared.kernel.integrity.PAGE_SIZE", 2)
    for _ in range(5):
        product_id = (await inventory_app.product(stock=9)).product_id
        await inventory_app.reserve({product_id: 1}, minutes=10)
    inventory_app.clock.advance(minutes=12)

    violations = await find_violations(inventory_app.container.integrity_checks())

    assert len(violations["O8.reservations_end"]) == 5


async def test_reservation_states_are_listed_in_pages_without_tombstones(
    inventory_app: InventoryApp,
) -> None:
    product_id = (await inventory_app.product(stock=9)).product_id
    reservations = [await inventory_app.reserve({product_id: 1}) for _ in range(3)]
    await inventory_app.inventory.commit(ANYONE, reservations[0].reservation_id)
    await inventory_app.inventory.release(ANYONE, new_id())

    first = await inventory_app.inventory.list_reservation_states(
        ANYONE, ListReservationStates(limit=2)
    )
    last = first.items[-1]
    rest = await inventory_app.inventory.list_reservation_states(
        ANYONE,
        ListReservationStates(
            after_order_id=last.order_id, after_reservation_id=last.reservation_id, limit=2
        ),
    )

    states = [*first.items, *rest.items]
    assert len(first.items) == 2
    assert [state.order_id for state in states] == sorted(
        r.order_id for r in reservations if r.order_id
    )
    assert Counter(state.status for state in states) == {"held": 2, "committed": 1}
