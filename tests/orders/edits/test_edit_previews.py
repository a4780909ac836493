"""Previews of edits: the amounts and errors of the edit, without an effect. On each storage."""

from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import OutOfStock, ProductNotFound
from markethall.orders.contract import (
    EditNeedsCapture,
    EditOpen,
    EditOrder,
    EditPreview,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderNotFound,
    OrderView,
    TotalChanged,
)
from markethall.shared.kernel.errors import DomainError, Forbidden, ValidationFailed
from markethall.shared.kernel.ids import new_id
from tests.orders.conftest import CANCEL, STAFF, OrdersApp, attempt_without_key
from tests.orders.edits.examples import REGIMES
from tests.orders.edits.test_worked_edits import DIFFERENCES, EDITS, TABLES, amounts_of
from tests.orders.test_order_edits import edit, pay


def edit_command(quantities: dict[UUID, int], **more: Any) -> EditOrder:
    lines = [{"product_id": key, "quantity": quantity} for key, quantity in quantities.items()]
    return EditOrder.model_validate({"lines": lines, **more})


async def preview(
    app: OrdersApp, order: OrderView, quantities: dict[UUID, int], **more: Any
) -> EditPreview:
    command = edit_command(quantities, **more)
    return await app.container.order_edits().preview(STAFF, order.order_id, command)


@pytest.mark.parametrize("is_paid", [False, True])
@pytest.mark.parametrize("name", EDITS)
async def test_preview_equals_the_calculation_by_hand(
    orders_app: OrdersApp, name: str, is_paid: bool
) -> None:
    regime = REGIMES[name[0]]
    products = await regime.set_up(orders_app)
    order = await regime.place(orders_app, products)
    if is_paid:
        order = await pay(orders_app, order)
    quantities = {products[product]: units for product, units in regime.edits[name].items()}

    previewed = await preview(orders_app, order, quantities)

    assert amounts_of(previewed, products) == TABLES[name]
    assert (previewed.difference.amount, previewed.difference.currency) == (
        DIFFERENCES[name],
        regime.currency,
    )


@pytest.mark.parametrize("name", EDITS)
async def test_edit_has_the_parts_of_its_preview(orders_app: OrdersApp, name: str) -> None:
    regime = REGIMES[name[0]]
    products = await regime.set_up(orders_app)
    order = await regime.place(orders_app, products)
    quantities = {products[product]: units for product, units in regime.edits[name].items()}

    previewed = await preview(orders_app, order, quantities)
    edited = await edit(orders_app, order, quantities, expected_total=previewed.total.model_dump())

    fields = set(EditPreview.model_fields) - {"difference"}
    assert previewed.model_dump(include=fields) == edited.model_dump(include=fields)


async def test_preview_has_no_effect(orders_app: OrdersApp) -> None:
    regime = REGIMES["P"]
    products = await regime.set_up(orders_app)
    order = await pay(orders_app, await regime.place(orders_app, products))
    inventory, payments = orders_app.fake_inventory, orders_app.fake_payments
    before = (
        await orders_app.read_timeline(order),
        inventory.reservations_of(order.order_id),
        payments.payments_of(order.order_id),
    )

    await preview(orders_app, order, {products["mug"]: 20, products["lamp"]: 0})

    assert await orders_app.relay() == 0
    assert await orders_app.read_order(order) == order
    assert before == (
        await orders_app.read_timeline(order),
        inventory.reservations_of(order.order_id),
        payments.payments_of(order.order_id),
    )


async def test_preview_is_rejected_like_the_edit(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(5)
    dollars = orders_app.fake_inventory.add_product(5, currency="USD")
    order = await orders_app.place(tea, 2)
    wrong_total = {"expected_total": {"amount": 1, "currency": "EUR"}}
    attempts: list[tuple[dict[UUID, int], dict[str, Any], type[DomainError]]] = [
        ({tea: 6}, {}, OutOfStock),
        ({tea: 0}, {}, ValidationFailed),
        ({new_id(): 1}, {}, ProductNotFound),
        ({dollars: 1}, {}, OrderCurrencyMismatch),
        ({tea: 1}, wrong_total, TotalChanged),
    ]

    for quantities, more, error in attempts:
        with pytest.raises(error) as of_preview:
            await preview(orders_app, order, quantities, **more)
        with pytest.raises(error) as of_edit:
            await edit(orders_app, order, quantities, **more)
        assert of_preview.value.details == of_edit.value.details


async def test_preview_of_an_order_that_cannot_be_edited_is_rejected(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.fake_inventory.add_product(20)
    authorized, with_open_edit = [await orders_app.place(product_id, 2) for _ in range(2)]
    orders_app.fake_payments.authorize(authorized.payment.payment_id)
    cancelled = await orders_app.place(product_id, 2)
    await orders_app.orders.cancel(STAFF, cancelled.order_id, CANCEL, attempt_without_key())
    await pay(orders_app, with_open_edit)
    await edit(orders_app, with_open_edit, {product_id: 3})

    for order, error in (
        (authorized, EditNeedsCapture),
        (with_open_edit, EditOpen),
        (cancelled, InvalidTransition),
    ):
        with pytest.raises(error):
            await preview(orders_app, order, {product_id: 4})


async def test_only_staff_preview_an_edit(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, 2)
    edits, command = orders_app.container.order_edits(), edit_command({product_id: 1})

    with pytest.raises(Forbidden):
        await edits.preview(orders_app.buyer, order.order_id, command)
    with pytest.raises(OrderNotFound):
        await edits.preview(STAFF, new_id(), command)
