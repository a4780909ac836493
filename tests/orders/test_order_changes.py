"""Changes of orders by staff and by the owner. The suite runs on each storage."""

from asyncio import gather
from typing import Any

import pytest

from markethall.inventory.contract import ProductNotFound
from markethall.orders.contract import (
    Address,
    AddressChangesPrice,
    ChangeOrder,
    InvalidTransition,
    OrderNotFound,
    OrderView,
)
from markethall.orders.shipping.contract import NewShippingMethod
from markethall.orders.shop.contract import ShopChange
from markethall.orders.tax.contract import NewTaxRate
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Forbidden, PreconditionFailed, ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from tests.orders.conftest import (
    CANCEL,
    SHIP,
    STAFF,
    OrdersApp,
    attempt_without_key,
    user_context,
)

BERLIN = {
    "recipient": "Ada Lovelace",
    "line1": "Linienstrasse 1",
    "city": "Berlin",
    "postal_code": "10119",
    "country": "DE",
}
HAMBURG = {**BERLIN, "city": "Hamburg", "postal_code": "20095"}
VIENNA = {**BERLIN, "city": "Wien", "postal_code": "1010", "country": "AT"}


async def change(
    app: OrdersApp, order: OrderView, ctx: CallContext = STAFF, **fields: Any
) -> OrderView:
    versions = frozenset({order.version})
    command = ChangeOrder.model_validate(fields)
    return await app.container.order_changes().change(ctx, order.order_id, command, versions)


async def test_staff_change_tags_note_and_metadata(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    changed = await change(
        orders_app,
        order,
        tags=["vip", "gift"],
        staff_note="call first",
        metadata={"source": "fair"},
    )

    assert changed == await orders_app.read_order(order)
    assert (changed.tags, changed.staff_note) == (("vip", "gift"), "call first")
    assert changed.metadata == {"source": "fair"}
    assert changed.version == order.version + 1


async def test_tags_and_staff_note_are_hidden_from_the_owner(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    await change(orders_app, order, tags=["fraud?"], staff_note="check", metadata={"a": "b"})

    seen = await orders_app.orders.get_order(orders_app.buyer, order.order_id)

    assert (seen.tags, seen.staff_note, seen.metadata) == (None, None, {"a": "b"})


async def test_change_is_on_the_timeline_with_actor_and_reason(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    await change(orders_app, order, tags=["vip"], on_hold=True, reason="asked by phone")

    entries = (await orders_app.read_timeline(order)).items[-2:]
    assert [entry.change for entry in entries] == ["details_changed", "put_on_hold"]
    assert {(entry.actor, entry.reason) for entry in entries} == {
        (f"user:{STAFF.user_id}", "asked by phone")
    }


async def test_absent_fields_stay_and_null_clears(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    order = await change(
        orders_app, order, tags=["vip"], staff_note="x", metadata={"a": "1", "b": "2"}
    )

    order = await change(orders_app, order, metadata={"a": None, "c": "3"})
    assert (order.tags, order.staff_note) == (("vip",), "x")
    assert order.metadata == {"b": "2", "c": "3"}

    order = await change(orders_app, order, tags=None, staff_note=None, metadata=None)
    assert (order.tags, order.staff_note, order.metadata) == ((), None, {})


async def test_change_without_effect_keeps_the_version(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    same = await change(
        orders_app, order, tags=[], on_hold=False, shipping_address=order.shipping_address
    )

    assert same.version == order.version


async def test_metadata_has_at_most_50_entries(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    order = await change(orders_app, order, metadata={f"name{n}": "x" for n in range(50)})

    with pytest.raises(ValidationFailed):
        await change(orders_app, order, metadata={"one-more": "x"})


async def test_outdated_version_is_rejected(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    await change(orders_app, order, tags=["vip"])

    with pytest.raises(PreconditionFailed):
        await change(orders_app, order, tags=["late"])


async def test_one_of_two_concurrent_changes_wins(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    results = await gather(
        *(change(orders_app, order, tags=[f"tag{n}"]) for n in range(5)), return_exceptions=True
    )

    assert [type(one) for one in results if not isinstance(one, OrderView)] == (
        [PreconditionFailed] * 4
    )


async def test_order_on_hold_is_not_shipped(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    held = await change(orders_app, order, on_hold=True)
    assert held.on_hold

    with pytest.raises(InvalidTransition) as rejected:
        await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())
    assert rejected.value.details["allowed"] == ["cancel", "change_address", "edit", "cancel_lines"]

    await change(orders_app, held, on_hold=False)
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())


async def test_order_on_hold_can_be_cancelled(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    await change(orders_app, order, on_hold=True)

    cancelled = await orders_app.orders.cancel(
        orders_app.buyer, order.order_id, CANCEL, attempt_without_key()
    )

    assert (cancelled.status, cancelled.on_hold) == ("cancelled", True)


async def test_owner_changes_only_the_metadata_of_a_pending_order(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))
    buyer = orders_app.buyer

    changed = await change(orders_app, order, buyer, metadata={"gift": "yes"})
    assert changed.metadata == {"gift": "yes"}
    for fields in ({"tags": ["vip"]}, {"on_hold": True}, {"shipping_address": "Market 2"}):
        with pytest.raises(Forbidden):
            await change(orders_app, changed, buyer, **fields)
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()
    with pytest.raises(InvalidTransition):
        await change(orders_app, await orders_app.read_order(order), buyer, metadata={"gift": "no"})


async def test_order_of_another_customer_is_not_found(orders_app: OrdersApp) -> None:
    order = await orders_app.place(orders_app.fake_inventory.add_product(5))

    with pytest.raises(OrderNotFound):
        await change(orders_app, order, user_context(new_id(), "customer"), metadata={"a": "b"})


async def test_shipping_address_with_the_same_price_changes(orders_app: OrdersApp) -> None:
    await _charge_tax_and_shipping(orders_app)
    order = await orders_app.place(
        orders_app.fake_inventory.add_product(5), shipping_address=BERLIN
    )

    changed = await change(orders_app, order, shipping_address=HAMBURG)

    assert changed == await orders_app.read_order(order)
    assert isinstance(changed.shipping_address, Address)
    assert changed.shipping_address.city == "Hamburg"
    assert changed.total == order.total
    assert (await orders_app.changes(order))[-1] == "shipping_address_changed"


async def test_shipping_address_with_another_price_is_rejected(orders_app: OrdersApp) -> None:
    await _charge_tax_and_shipping(orders_app)
    exclusive = ShopChange(prices_include_tax=False)
    await orders_app.container.shop().change(STAFF, exclusive, None)
    order = await orders_app.place(
        orders_app.fake_inventory.add_product(5, amount=10_000), shipping_address=BERLIN
    )

    with pytest.raises(AddressChangesPrice) as rejected:
        await change(orders_app, order, shipping_address=VIENNA)

    # the tax is 20 % instead of 19 %
    assert rejected.value.details["total"] == {
        "amount": order.total.amount + 100,
        "currency": "EUR",
    }
    assert (await orders_app.read_order(order)).shipping_address == order.shipping_address


async def test_shipping_address_with_other_included_taxes_is_rejected(
    orders_app: OrdersApp,
) -> None:
    await _charge_tax_and_shipping(orders_app)
    order = await orders_app.place(
        orders_app.fake_inventory.add_product(5), shipping_address=BERLIN
    )

    with pytest.raises(AddressChangesPrice) as rejected:
        await change(orders_app, order, shipping_address=VIENNA)

    assert rejected.value.details["total"] == order.total.model_dump()


async def test_setting_that_changed_since_the_order_makes_no_difference(
    orders_app: OrdersApp,
) -> None:
    await _charge_tax_and_shipping(orders_app)
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, shipping_address=BERLIN)
    orders_app.fake_inventory.reprice(product_id, 99)
    await _add_tax_rate(orders_app, "DE", "0.21", tax_class="reduced")

    changed = await change(orders_app, order, shipping_address=HAMBURG)

    assert changed.total == order.total


async def test_destination_of_an_order_with_an_archived_product_stays(
    orders_app: OrdersApp,
) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, shipping_address=BERLIN)
    orders_app.fake_inventory.archive(product_id)

    with pytest.raises(ProductNotFound):
        await change(orders_app, order, shipping_address=HAMBURG)


async def test_street_is_corrected_although_product_and_method_are_gone(
    orders_app: OrdersApp,
) -> None:
    await _charge_tax_and_shipping(orders_app)
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id, shipping_address=BERLIN)
    orders_app.fake_inventory.archive(product_id)
    [method] = (await orders_app.container.shipping_methods().list_page(STAFF, PageQuery())).items
    await orders_app.container.shipping_methods().delete(STAFF, method.shipping_method_id, None)
    no_germany = ShopChange.model_validate({"countries": ["AT"]})
    await orders_app.container.shop().change(STAFF, no_germany, None)

    changed = await change(
        orders_app, order, shipping_address=BERLIN | {"line1": "Linienstrasse 100"}
    )

    assert isinstance(changed.shipping_address, Address)
    assert changed.shipping_address.line1 == "Linienstrasse 100"
    assert changed.total == order.total


async def test_free_text_is_corrected_although_the_product_is_gone(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    order = await orders_app.place(product_id)
    orders_app.fake_inventory.archive(product_id)

    changed = await change(orders_app, order, shipping_address="Market 2")

    assert (changed.shipping_address, changed.total) == ("Market 2", order.total)


async def test_shipping_address_of_a_shipped_order_stays(orders_app: OrdersApp) -> None:
    order = await orders_app.paid(orders_app.fake_inventory.add_product(5))
    await orders_app.fulfilments.fulfil(STAFF, order.order_id, SHIP, attempt_without_key())

    with pytest.raises(InvalidTransition):
        await change(orders_app, await orders_app.read_order(order), shipping_address="Market 2")


async def _charge_tax_and_shipping(app: OrdersApp) -> None:
    method = NewShippingMethod.model_validate(
        {
            "code": "parcel",
            "name": "Parcel",
            "rate": {"kind": "flat", "currency": "EUR", "price": 490},
            "zones": [{"countries": ["DE", "AT"]}],
        }
    )
    await app.container.shipping_methods().create(STAFF, method, attempt_without_key())
    await _add_tax_rate(app, "DE", "0.19")
    await _add_tax_rate(app, "AT", "0.20")


async def _add_tax_rate(
    app: OrdersApp, country: str, rate: str, tax_class: str = "standard"
) -> None:
    new = {"country": country, "tax_class": tax_class, "rate": rate, "name": "VAT"}
    await app.container.tax_rates().create(
        STAFF, NewTaxRate.model_validate(new), attempt_without_key()
    )
