"""Compare edits of discounted orders with worked_edits.md, which was calculated by hand."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest

from markethall.orders.contract import (
    EditPreview,
    OrderLineView,
    OrderPaymentStatus,
    OrderStatus,
    OrderView,
)
from tests.orders.conftest import SHIP, STAFF, OrdersApp, attempt_without_key
from tests.orders.edits.examples import REGIMES
from tests.orders.returns.test_worked_returns import Row, return_units
from tests.orders.test_order_edits import edit, pay

EDITS = [name for regime in REGIMES.values() for name in regime.edits]


def read_tables() -> dict[str, dict[str, list[int]]]:
    """Return the rows of each example by the name of the line, and the differences by example."""
    tables: dict[str, dict[str, list[int]]] = {}
    example = ""
    for line in Path(__file__).with_name("worked_edits.md").read_text().splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not line.startswith("|") or name.startswith("---"):
            continue
        if cells[0] in {"subtotal", "difference"}:
            example = name
            tables[example] = {}
        else:
            tables[example][name] = [int(cell) for cell in cells]
    return tables


TABLES = read_tables()
DIFFERENCES = {name: amounts[0] for name, amounts in TABLES.pop("edit").items()}


def test_each_edit_has_a_table() -> None:
    placed = [f"{name}0" for name in REGIMES]
    assert set(TABLES) == {*placed, *EDITS}
    assert list(DIFFERENCES) == EDITS


@pytest.mark.parametrize("name", EDITS)
def test_difference_by_hand_is_that_of_the_totals(name: str) -> None:
    before, after = TABLES[f"{name[0]}0"]["order"], TABLES[name]["order"]

    assert DIFFERENCES[name] == after[-1] - before[-1]


def amounts_of(
    order: OrderView | EditPreview, products: Mapping[str, UUID]
) -> dict[str, list[int]]:
    lines = {line.product_id: line for line in order.lines}
    rows = {
        name: line_amounts(lines[product_id])
        for name, product_id in products.items()
        if product_id in lines
    }
    money = (order.subtotal, order.discount, order.tax, order.included_tax, order.total)
    return rows | {"order": [part.amount for part in money]}


def line_amounts(line: OrderLineView) -> list[int]:
    money = (line.total, line.discount, line.tax, line.included_tax, line.charged)
    return [part.amount for part in money]


def kept_money(app: OrdersApp, order: OrderView) -> int:
    payments = app.fake_payments.payments_of(order.order_id)
    return sum(one.captured.amount - one.refunded.amount for one in payments)


@pytest.mark.parametrize("name", EDITS)
async def test_edit_of_a_pending_order_equals_the_calculation_by_hand(
    orders_app: OrdersApp, name: str
) -> None:
    regime = REGIMES[name[0]]
    products = await regime.set_up(orders_app)
    placed = await regime.place(orders_app, products)
    assert amounts_of(placed, products) == TABLES[f"{name[0]}0"]

    quantities = {products[product]: units for product, units in regime.edits[name].items()}
    edited = await edit(orders_app, placed, quantities)
    paid = await pay(orders_app, edited)

    assert amounts_of(edited, products) == amounts_of(paid, products) == TABLES[name]
    assert kept_money(orders_app, paid) == paid.total.amount


@pytest.mark.parametrize("name", EDITS)
async def test_edit_of_a_paid_order_equals_the_calculation_by_hand(
    orders_app: OrdersApp, name: str
) -> None:
    """The difference is charged or refunded, and the returns of all units sum to the total."""
    regime = REGIMES[name[0]]
    products = await regime.set_up(orders_app)
    placed = await pay(orders_app, await regime.place(orders_app, products))

    quantities = {products[product]: units for product, units in regime.edits[name].items()}
    edited = await edit(orders_app, placed, quantities)
    if edited.open_edit:
        assert edited.open_edit.amount.amount == DIFFERENCES[name] > 0
        assert amounts_of(edited, products) == TABLES[f"{name[0]}0"]
        orders_app.fake_payments.capture(edited.open_edit.payment_id)
    await orders_app.process_events(times=2)

    edited = await orders_app.read_order(edited)
    assert amounts_of(edited, products) == TABLES[name]
    assert kept_money(orders_app, edited) == edited.total.amount
    assert kept_money(orders_app, edited) - placed.total.amount == DIFFERENCES[name]
    await return_all(orders_app, edited)
    assert kept_money(orders_app, edited) == 0
    returned = await orders_app.read_order(edited)
    assert (returned.status, returned.payment_status) == (
        OrderStatus.COMPLETED,
        OrderPaymentStatus.REFUNDED,
    )


async def return_all(app: OrdersApp, order: OrderView) -> None:
    """Deliver all units, and return them one after the other, the last one with the shipping."""
    shipped = await app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    await app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await app.process_events()
    units = [Row(line.sku, 1, []) for line in order.lines for _ in range(line.quantity)]
    line_ids = {line.sku: line.line_id for line in order.lines}
    for number, row in enumerate(units, 1):
        shipping = [Row("shipping", 1, [])] if number == len(units) else []
        await return_units(app, order, [row, *shipping], line_ids)
