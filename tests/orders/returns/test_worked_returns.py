"""Compare the refunds of returns with worked_returns.md, which was calculated by hand."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from markethall.inventory.contract import RequestedLine, Reserve
from markethall.orders.contract import OrderPlaced, OrderStatus, OrderView
from markethall.orders.domain import AuditInfo, Order, OrderLine, ShippingLine
from markethall.orders.returns.contract import (
    CloseReturn,
    ReceiveReturn,
    RequestReturn,
    ReturnLineView,
    ReturnView,
)
from markethall.payments.contract import ActivatePayments, OpenPayment
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from tests.orders.conftest import RESERVATION_TTL, SHIP, STAFF, OrdersApp, attempt_without_key
from tests.orders.totals.examples import EXAMPLES, Example

CURRENCIES = {"D": "EUR", "U": "USD", "J": "JPY", "K": "KWD"}


class Row(NamedTuple):
    line: str
    units: int
    amounts: list[int]


def read_tables() -> dict[str, dict[str, list[Row]]]:
    """Return the rows by the name of the order and the number of the return."""
    tables: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    text = Path(__file__).with_name("worked_returns.md").read_text()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in EXAMPLES:
            order, number, name, units, *amounts = cells
            tables[order][number].append(Row(name, int(units), [int(cell) for cell in amounts]))
    return tables


TABLES = read_tables()


def test_every_regime_and_kind_of_promotion_has_returns() -> None:
    assert set(EXAMPLES) - set(TABLES) == {"U4", "U5"}
    kinds: dict[str, set[str]] = defaultdict(set)
    for name in TABLES:
        kinds[name[0]] |= {rule.kind for rule in EXAMPLES[name].promotions}
    assert {"percent", "fixed", "free_shipping", "buy_x_get_y"} == kinds["D"]
    assert {"percent", "fixed", "buy_x_get_y"} == kinds["J"]
    assert {"percent", "fixed", "free_shipping"} == kinds["U"]


@pytest.mark.parametrize("name", TABLES)
def test_refunds_by_hand_sum_to_the_total(name: str) -> None:
    rows = [row for table in TABLES[name].values() for row in table]

    assert sum(row.amounts[-1] for row in rows) == EXAMPLES[name].breakdown().total


@pytest.mark.parametrize("name", TABLES)
async def test_refunds_of_returns_equal_the_calculation_by_hand(
    orders_app: OrdersApp, name: str
) -> None:
    example = EXAMPLES[name]
    order = await delivered_order(orders_app, example, CURRENCIES[name[0]])
    line_ids = dict(zip(example.lines, (line.line_id for line in order.lines), strict=True))

    for rows in TABLES[name].values():
        closed = await return_units(orders_app, order, rows, line_ids)

        found = {line.line_id: amounts(line) for line in closed.lines}
        expected = {line_ids[r.line]: r.amounts for r in rows if r.line != "shipping"}
        shipping = sum(row.amounts[-1] for row in rows if row.line == "shipping")
        total = Money(amount=sum(row.amounts[-1] for row in rows), currency=order.total.currency)
        assert found == expected
        assert closed.refund
        assert closed.refund.shipping.amount == shipping
        assert closed.refund.amount == closed.refund.refunded == total

    after = await orders_app.read_order(order)
    assert (after.status, after.payment_status) == (OrderStatus.COMPLETED, "refunded")
    assert orders_app.fake_payments.captured_minus_refunded(order.payment.payment_id) == 0


async def return_units(
    orders_app: OrdersApp, order: OrderView, rows: list[Row], line_ids: dict[str, UUID]
) -> ReturnView:
    returns = orders_app.container.returns()
    lines: list[dict[str, Any]] = [
        {"line_id": line_ids[row.line], "quantity": row.units}
        for row in rows
        if row.line != "shipping"
    ]
    arrived = [{**line, "condition": "new", "disposition": "restock"} for line in lines]
    request = RequestReturn.model_validate({"lines": lines, "reason": "does not fit"})
    made = await returns.request(STAFF, order.order_id, request, attempt_without_key())
    await returns.approve(STAFF, made.return_id, attempt_without_key())
    receive = ReceiveReturn.model_validate({"lines": arrived})
    await returns.receive(STAFF, made.return_id, receive, attempt_without_key())
    with_shipping = CloseReturn(refund_shipping=any(row.line == "shipping" for row in rows))
    await returns.close(STAFF, made.return_id, with_shipping, attempt_without_key())
    await orders_app.process_events()
    return await returns.get_return(STAFF, made.return_id)


async def delivered_order(orders_app: OrdersApp, example: Example, currency: str) -> OrderView:
    """Store the order of an example, pay it, and deliver all units."""
    order = build_order(orders_app, example, currency)
    ctx = system_context("test")
    await orders_app.fake_inventory.reserve(
        ctx,
        Reserve(
            reservation_id=order.reservation_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=tuple(
                RequestedLine(product_id=line.product_id, quantity=line.quantity)
                for line in order.lines
            ),
            expires_at=order.expires_at,
        ),
    )
    opened = OpenPayment(
        payment_id=order.payment_id,
        order_id=order.order_id,
        user_id=order.user_id,
        amount=Money(amount=order.total, currency=currency),
        expires_at=order.expires_at,
    )
    await orders_app.fake_payments.open(ctx, opened)
    await orders_app.fake_payments.activate(ctx, ActivatePayments(payment_ids=(order.payment_id,)))
    async with orders_app.container.database().transaction() as store:
        placed = OrderPlaced(order_id=order.order_id, user_id=order.user_id, total=opened.amount)
        await store.add_order(order, placed, ctx)
    orders_app.fake_payments.capture(order.payment_id)
    await orders_app.process_events()
    shipped = await orders_app.fulfilments.fulfil(
        STAFF, order.order_id, SHIP, attempt_without_key()
    )
    await orders_app.fulfilments.deliver(STAFF, shipped.fulfilment_id, attempt_without_key())
    await orders_app.process_events()
    return await orders_app.orders.get_order(STAFF, order.order_id)


def build_order(orders_app: OrdersApp, example: Example, currency: str) -> Order:
    breakdown, now = example.breakdown(), orders_app.clock.now
    order = Order(
        order_id=new_id(),
        user_id=new_id(),
        currency=currency,
        lines=tuple(
            OrderLine(
                line_id=new_id(),
                product_id=orders_app.fake_inventory.add_product(
                    line.quantity, line.unit_price, currency
                ),
                sku=name,
                name=name,
                unit_price=line.unit_price,
                quantity=line.quantity,
                discounts=line.discounts,
                tax_lines=line.tax_lines,
                prices_include_tax=line.prices_include_tax,
            )
            for name, line in zip(example.lines, breakdown.lines, strict=True)
        ),
        shipping_address="Market 1",
        billing_address=None,
        note=None,
        payment_id=new_id(),
        reservation_id=new_id(),
        expires_at=now + RESERVATION_TTL,
        overdue_check_at=now + RESERVATION_TTL,
        created_at=now,
        updated_at=now,
        discount=breakdown.discount,
        shipping=breakdown.shipping,
        tax=breakdown.tax,
        included_tax=breakdown.included_tax,
        shipping_line=(
            ShippingLine("post", "Post", replace(breakdown.shipping_line, tax_class=None))
            if breakdown.shipping_line
            else None
        ),
    )
    order.mark_placed(AuditInfo("test", now))
    return order


def amounts(line: ReturnLineView) -> list[int]:
    money = (line.price, line.discount, line.tax, line.included_tax, line.refund)
    return [part.amount for part in money]
