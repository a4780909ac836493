"""The current totals of draft orders, and what prevents their completion. Runs on each storage."""

from typing import Any
from uuid import UUID

import pytest

from markethall.orders.drafts.contract import DraftOrderPreview, DraftOrderView
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from tests.orders.conftest import STAFF, OrdersApp
from tests.orders.promotions.shop import create as create_promotion
from tests.orders.promotions.shop import voucher
from tests.orders.test_draft_orders import complete, create, drafts_of
from tests.orders.test_totals import (
    BERLIN,
    GERMAN_TAXES,
    NEW_YORK,
    NEW_YORK_TAX,
    change_shop,
    configure,
)


async def read(app: OrdersApp, draft: DraftOrderView) -> DraftOrderPreview:
    return await drafts_of(app).get(STAFF, draft.draft_order_id)


def problems(preview: DraftOrderPreview) -> list[tuple[str, str]]:
    return [(problem.code, problem.field) for problem in preview.readiness]


def add_product(app: OrdersApp, stock: int = 9, amount: int = 1999) -> UUID:
    return app.fake_inventory.add_product(stock, amount=amount, tax_class="standard")


async def test_draft_shows_the_totals_that_its_order_will_have(orders_app: OrdersApp) -> None:
    await configure(orders_app, GERMAN_TAXES, 490)
    await change_shop(orders_app, prices_include_tax=False)
    await create_promotion(orders_app, voucher("SPRING"))
    fields = {"shipping_address": BERLIN, "voucher_code": "spring", "quantity": 3}
    draft = await create(orders_app, add_product(orders_app), **fields)

    preview = await read(orders_app, draft)
    order = await complete(orders_app, draft)

    assert preview.totals is not None
    assert problems(preview) == []
    # 5997 - 600 for the line, 490 for the shipping, and 19 % tax on each amount
    assert preview.totals.total.amount == 5397 + 1025 + 490 + 93
    for name in ("subtotal", "discount", "shipping", "tax", "total", "discounts", "tax_lines"):
        assert getattr(preview.totals, name) == getattr(order, name)
    completed = await read(orders_app, draft)
    assert (completed.totals, completed.readiness) == (None, ())


async def test_totals_follow_the_current_prices(orders_app: OrdersApp) -> None:
    product_id = add_product(orders_app, amount=1000)
    draft = await create(orders_app, product_id, quantity=2)

    orders_app.fake_inventory.reprice(product_id, 1100)
    preview = await read(orders_app, draft)

    assert preview.totals is not None
    assert (preview.totals.total.amount, preview.version) == (2200, draft.version)


async def test_draft_names_the_lines_without_enough_stock(orders_app: OrdersApp) -> None:
    """Units of one product in several lines are added up, as the completion of the draft does."""
    scarce, plenty, gone = (add_product(orders_app, stock) for stock in (3, 9, 9))
    lines = [{"product_id": one, "quantity": 2} for one in (plenty, scarce, scarce, gone)]
    draft = await create(orders_app, plenty, lines=lines)
    orders_app.fake_inventory.archive(gone)

    preview = await read(orders_app, draft)

    assert problems(preview) == [
        ("inventory.out_of_stock", "/lines/1/quantity"),
        ("inventory.out_of_stock", "/lines/2/quantity"),
        ("inventory.product_not_found", "/lines/3/product_id"),
    ]
    assert preview.totals is not None
    assert preview.totals.total.amount == 6 * 1999


async def test_draft_with_a_bad_voucher_shows_the_totals_without_it(orders_app: OrdersApp) -> None:
    draft = await create(orders_app, add_product(orders_app), voucher_code="NONE")

    preview = await read(orders_app, draft)

    assert problems(preview) == [("orders.voucher_invalid", "/voucher_code")]
    assert preview.totals is not None
    assert preview.totals.total.amount == 1999


async def test_draft_that_cannot_be_priced_has_no_totals(orders_app: OrdersApp) -> None:
    await change_shop(orders_app, countries=["CH"])
    draft = await create(orders_app, add_product(orders_app), shipping_address=BERLIN)

    preview = await read(orders_app, draft)

    assert problems(preview) == [("orders.country_not_served", "/shipping_address/country")]
    assert preview.totals is None


async def test_draft_without_the_region_of_its_tax_shows_its_totals(orders_app: OrdersApp) -> None:
    await configure(orders_app, NEW_YORK_TAX, None)
    address = NEW_YORK | {"region": None}
    draft = await create(orders_app, add_product(orders_app), shipping_address=address)

    preview = await read(orders_app, draft)

    assert problems(preview) == [("orders.region_required", "/shipping_address/region")]
    assert preview.totals is not None
    assert preview.totals.total.amount == 1999


async def test_voucher_of_a_draft_is_checked_for_its_customer(orders_app: OrdersApp) -> None:
    buyer = orders_app.buyer.user_id
    await create_promotion(orders_app, voucher("ONCE", per_customer_limit=1))
    product_id = add_product(orders_app)
    used = await create(orders_app, product_id, customer_id=buyer, voucher_code="ONCE")
    await complete(orders_app, used)

    async def read_for(customer_id: UUID) -> list[tuple[str, str]]:
        fields: dict[str, Any] = {"customer_id": customer_id, "voucher_code": "ONCE"}
        return problems(await read(orders_app, await create(orders_app, product_id, **fields)))

    assert await read_for(buyer) == [("orders.voucher_exhausted", "/voucher_code")]
    assert await read_for(new_id()) == []


async def test_draft_names_a_buyer_who_cannot_order(orders_app: OrdersApp) -> None:
    product_id = add_product(orders_app)
    disabled, unknown, guest = new_id(), new_id(), new_id()
    users = orders_app.fake_users
    users.disabled, users.unknown, users.guests = {disabled}, {unknown}, {guest}

    async def read_for(customer_id: UUID, **fields: Any) -> list[tuple[str, str]]:
        draft = await create(orders_app, product_id, customer_id=customer_id, **fields)
        found = problems(await read(orders_app, draft))
        if found:
            with pytest.raises(DomainError):
                await complete(orders_app, draft)
        return found

    assert await read_for(disabled) == [("users.inactive", "/customer_id")]
    assert await read_for(unknown) == [("users.not_found", "/customer_id")]
    assert await read_for(guest) == [("missing", "/email")]
    assert await read_for(guest, email="ada@example.com") == []
