"""Draft orders. The suite runs on each storage."""

from asyncio import gather
from typing import Any
from uuid import UUID

import pytest

from markethall.inventory.contract import OutOfStock
from markethall.orders.contract import OrderStatus, OrderView
from markethall.orders.drafts.contract import (
    ChangeDraftOrder,
    DraftOrderChanged,
    DraftOrderCompleted,
    DraftOrderNotFound,
    DraftOrderPreview,
    DraftOrderQuery,
    DraftOrders,
    DraftOrderView,
    DraftStatus,
    NewDraftOrder,
)
from markethall.shared.kernel.errors import (
    Forbidden,
    PreconditionFailed,
    Unavailable,
    ValidationFailed,
)
from markethall.shared.kernel.ids import new_id
from markethall.users.contract import UserInactive
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key
from tests.orders.fakes import Killed


def drafts_of(app: OrdersApp) -> DraftOrders:
    return app.container.draft_orders()


def draft_fields(product_id: UUID, quantity: int = 1, **more: Any) -> NewDraftOrder:
    line = {"product_id": product_id, "quantity": quantity}
    given = {"email": "buyer@example.com"} if "customer_id" not in more else {}
    return NewDraftOrder.model_validate(
        {"lines": [line], "shipping_address": "Market 1", **given, **more}
    )


async def create(app: OrdersApp, product_id: UUID, **more: Any) -> DraftOrderView:
    fields = draft_fields(product_id, **more)
    return await drafts_of(app).create(STAFF, fields, attempt_without_key())


async def change(app: OrdersApp, draft: DraftOrderView, **fields: Any) -> DraftOrderView:
    patch = ChangeDraftOrder.model_validate(fields)
    versions = frozenset({draft.version})
    return await drafts_of(app).change(STAFF, draft.draft_order_id, patch, versions)


async def complete(
    app: OrdersApp, draft: DraftOrderView, attempt_id: UUID | None = None
) -> OrderView:
    attempt = attempt_without_key(attempt_id)
    return await drafts_of(app).complete(STAFF, draft.draft_order_id, attempt)


def without_preview(draft: DraftOrderPreview) -> DraftOrderView:
    fields = dict(draft)
    return DraftOrderView(**{name: fields[name] for name in DraftOrderView.model_fields})


async def test_draft_reserves_nothing_and_can_be_read(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)

    draft = await create(orders_app, product_id, quantity=2, note="by phone")

    assert (draft.status, draft.order_id) == (DraftStatus.OPEN, None)
    assert draft.created_by == f"user:{STAFF.user_id}"
    read = await drafts_of(orders_app).get(STAFF, draft.draft_order_id)
    assert without_preview(read) == draft
    assert orders_app.fake_inventory.available(product_id) == 5


async def test_draft_of_a_customer_becomes_the_customers_order(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5, amount=1000)
    buyer = orders_app.buyer
    draft = await create(orders_app, product_id, quantity=2, customer_id=buyer.user_id)

    order = await complete(orders_app, draft)

    assert await orders_app.orders.get_order(buyer, order.order_id) == order
    assert (order.user_id, order.email) == (buyer.user_id, "user@example.com")
    assert (order.status, order.total.amount) == (OrderStatus.PENDING, 2000)
    (entry,) = (await orders_app.read_timeline(order)).items
    assert (entry.change, entry.actor) == ("placed", f"user:{STAFF.user_id}")
    orders_app.fake_payments.capture(order.payment.payment_id)
    await orders_app.process_events()
    assert (await orders_app.read_order(order)).status is OrderStatus.PROCESSING
    completed = await drafts_of(orders_app).get(STAFF, draft.draft_order_id)
    assert (completed.status, completed.order_id) == (DraftStatus.COMPLETED, order.order_id)


async def test_buyer_without_account_has_an_order_by_email(orders_app: OrdersApp) -> None:
    draft = await create(orders_app, orders_app.fake_inventory.add_product(5))

    order = await complete(orders_app, draft)

    assert (order.email, order.is_guest) == ("buyer@example.com", True)
    assert "get_active_customer" not in orders_app.call_failures.calls


async def test_buyer_must_be_named() -> None:
    with pytest.raises(ValueError, match="customer_id or an email"):
        draft_fields(new_id(), email=None)


async def test_draft_changes_by_a_merge_patch(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    draft = await create(orders_app, product_id, note="x")

    changed = await change(
        orders_app, draft, note=None, lines=[{"product_id": product_id, "quantity": 3}]
    )

    assert (changed.note, changed.lines[0].quantity, changed.version) == (None, 3, 2)
    assert await change(orders_app, changed, note=None) == changed
    with pytest.raises(PreconditionFailed):
        await change(orders_app, draft, note="late")
    with pytest.raises(ValidationFailed):
        await change(orders_app, changed, email=None)


async def test_completed_draft_never_changes(orders_app: OrdersApp) -> None:
    draft = await create(orders_app, orders_app.fake_inventory.add_product(5))
    order = await complete(orders_app, draft)
    draft = await drafts_of(orders_app).get(STAFF, draft.draft_order_id)

    with pytest.raises(DraftOrderCompleted) as rejected:
        await change(orders_app, draft, note="x")
    with pytest.raises(DraftOrderCompleted):
        await complete(orders_app, draft)
    with pytest.raises(DraftOrderCompleted):
        await drafts_of(orders_app).delete(STAFF, draft.draft_order_id, None)

    assert rejected.value.details["order_id"] == str(order.order_id)
    assert await orders_app.orders.count() == 1


async def test_deleted_draft_is_not_found(orders_app: OrdersApp) -> None:
    draft = await create(orders_app, orders_app.fake_inventory.add_product(5))

    await drafts_of(orders_app).delete(STAFF, draft.draft_order_id, frozenset({1}))

    with pytest.raises(DraftOrderNotFound):
        await drafts_of(orders_app).get(STAFF, draft.draft_order_id)
    with pytest.raises(DraftOrderNotFound):
        await complete(orders_app, draft)


async def test_failed_completion_leaves_the_draft_open(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(1)
    draft = await create(orders_app, product_id, quantity=2)
    with pytest.raises(OutOfStock):
        await complete(orders_app, draft)

    orders_app.fake_inventory.receive_stock(product_id, 1)

    assert (await complete(orders_app, draft)).status is OrderStatus.PENDING


async def test_disabled_customer_gets_no_order(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    draft = await create(orders_app, product_id, customer_id=orders_app.buyer.user_id)
    orders_app.fake_users.disabled.add(orders_app.buyer.user_id)

    with pytest.raises(UserInactive):
        await complete(orders_app, draft)


async def test_racing_completions_place_one_order(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(50)
    draft = await create(orders_app, product_id, quantity=2)

    results = await gather(
        *(complete(orders_app, draft) for _ in range(10)), return_exceptions=True
    )

    placed = [one for one in results if isinstance(one, OrderView)]
    assert len(placed) == 1
    rejected = {type(one) for one in results if not isinstance(one, OrderView)}
    assert rejected <= {DraftOrderCompleted}
    assert await orders_app.orders.count() == 1
    assert orders_app.fake_inventory.available(product_id) == 48
    activated = orders_app.fake_payments.activated
    assert activated == {placed[0].payment.payment_id}


async def test_change_during_completion_is_never_mixed_in(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(50)
    for _ in range(10):
        draft = await create(orders_app, product_id, quantity=2)
        lines = [{"product_id": product_id, "quantity": 3}]

        order, changed = await gather(
            complete(orders_app, draft),
            change(orders_app, draft, lines=lines),
            return_exceptions=True,
        )

        stored = await drafts_of(orders_app).get(STAFF, draft.draft_order_id)
        if isinstance(order, OrderView):
            assert order.lines[0].quantity == stored.lines[0].quantity
        else:
            assert isinstance(order, DraftOrderChanged)
            assert without_preview(stored) == changed


@pytest.mark.parametrize("when", ["before", "after", "killed before", "killed after"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_retry_of_a_failed_completion_gives_one_order(
    orders_app: OrdersApp, number: int, when: str
) -> None:
    """One of these calls fails: reserve, open, activate. The buyer has no account."""
    product_id = orders_app.fake_inventory.add_product(5)
    draft = await create(orders_app, product_id, quantity=2)
    attempt_id = new_id()
    orders_app.call_failures.fail_call(number, when)

    with pytest.raises((Unavailable, Killed)):
        await complete(orders_app, draft, attempt_id)
    order = await complete(orders_app, draft, attempt_id)

    assert order.order_id == attempt_id
    assert await orders_app.orders.count() == 1
    assert orders_app.fake_inventory.available(product_id) == 3
    assert orders_app.fake_payments.activated == {order.payment.payment_id}


async def test_drafts_are_listed_by_status_the_newest_first(orders_app: OrdersApp) -> None:
    product_id = orders_app.fake_inventory.add_product(5)
    drafts = [await create(orders_app, product_id) for _ in range(3)]
    await complete(orders_app, drafts[1])

    first = await drafts_of(orders_app).list_page(STAFF, DraftOrderQuery(limit=2))
    rest = await drafts_of(orders_app).list_page(
        STAFF, DraftOrderQuery(limit=2, cursor=first.next_cursor)
    )
    still_open = await drafts_of(orders_app).list_page(
        STAFF, DraftOrderQuery(status=DraftStatus.OPEN)
    )

    ids = [draft.draft_order_id for draft in (*first.items, *rest.items)]
    assert ids == [draft.draft_order_id for draft in reversed(drafts)]
    assert rest.next_cursor is None
    assert {one.draft_order_id for one in still_open.items} == {
        drafts[0].draft_order_id,
        drafts[2].draft_order_id,
    }


async def test_customers_have_no_access_to_drafts(orders_app: OrdersApp) -> None:
    buyer, drafts = orders_app.buyer, drafts_of(orders_app)
    draft = await create(orders_app, orders_app.fake_inventory.add_product(5))
    fields = draft_fields(new_id())
    calls = [
        drafts.create(buyer, fields, attempt_without_key()),
        drafts.get(buyer, draft.draft_order_id),
        drafts.list_page(buyer, DraftOrderQuery()),
        drafts.change(buyer, draft.draft_order_id, ChangeDraftOrder(), None),
        drafts.delete(buyer, draft.draft_order_id, None),
        drafts.complete(buyer, draft.draft_order_id, attempt_without_key()),
    ]

    results = await gather(*calls, return_exceptions=True)

    assert {type(one) for one in results} == {Forbidden}
