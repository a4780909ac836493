"""The list of own carts, on each storage."""

from datetime import timedelta

from markethall.orders.carts.contract import CartQuery, CartStatus, CartSummaryView
from markethall.shared.kernel.call_context import CallContext
from tests.orders.carts.conftest import check_out, create_cart, guest_context
from tests.orders.carts.test_merge import merge
from tests.orders.conftest import STAFF, OrdersApp


async def listed(
    app: OrdersApp, ctx: CallContext | None = None, status: CartStatus | None = None, limit: int = 2
) -> list[CartSummaryView]:
    """Read all pages."""
    found: list[CartSummaryView] = []
    cursor = None
    while True:
        query = CartQuery(status=status, limit=limit, cursor=cursor)
        page = await app.container.carts().list_page(ctx or app.buyer, query)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_owner_finds_all_own_carts_the_newest_first(orders_app: OrdersApp) -> None:
    tea, cup = orders_app.fake_inventory.add_product(5), orders_app.fake_inventory.add_product(5)
    carts = [await create_cart(orders_app, (tea, 2), (cup, 3)) for _ in range(5)]
    await create_cart(orders_app, ctx=guest_context())

    found = await listed(orders_app)

    assert [cart.cart_id for cart in found] == [cart.cart_id for cart in reversed(carts)]
    assert (found[0].line_count, found[0].unit_count, found[0].version) == (2, 5, 1)
    assert found[0].expires_at - found[0].updated_at == timedelta(days=90)
    assert await listed(orders_app, STAFF) == []


async def test_carts_are_filtered_by_status(orders_app: OrdersApp) -> None:
    tea = orders_app.fake_inventory.add_product(9)
    kept, source, ordered = [
        await create_cart(orders_app, (tea, 1), shipping_address="Market 1") for _ in range(3)
    ]
    await merge(orders_app, kept, source)
    order = await check_out(orders_app, ordered)

    opened = await listed(orders_app, status=CartStatus.OPEN)
    merged = await listed(orders_app, status=CartStatus.MERGED)
    checked_out = await listed(orders_app, status=CartStatus.CHECKED_OUT)

    assert [(cart.cart_id, cart.unit_count) for cart in opened] == [(kept.cart_id, 2)]
    assert [(cart.cart_id, cart.merged_into) for cart in merged] == [(source.cart_id, kept.cart_id)]
    assert [(cart.cart_id, cart.order_id) for cart in checked_out] == [
        (ordered.cart_id, order.order_id)
    ]
