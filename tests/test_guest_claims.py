"""Claims of guests while the guests order and pay: each order and cart has one owner."""

from asyncio import gather
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import pytest

from markethall.orders.carts.contract import CartNotFound, CartView
from markethall.orders.contract import OrderView
from markethall.payments.contract.errors import PaymentNotFound
from markethall.shared.kernel.errors import Overloaded
from markethall.users.contract import UserInactive
from tests.containers import orders_of, payments_of
from tests.race_rounds import Place, place, race_database, race_rounds
from tests.real_shop import Shop, open_real_shop

__all__ = ["place", "race_database"]  # fixtures

ROUNDS: Final = race_rounds(200, memory=40, near=20, far=10)
# the number of guests that are claimed at the same time
BATCH: Final = 10


@pytest.fixture
async def shop(place: Place, race_database: str) -> AsyncIterator[Shop]:
    async with open_real_shop(*place, race_database) as shop:
        yield shop


async def test_claim_gives_orders_payments_and_saved_methods_to_the_user(shop: Shop) -> None:
    guest, ctx = await shop.create_guest()
    order = await shop.place(ctx)
    await shop.confirm(ctx, order, save_method=True)

    await shop.claim(guest)

    (claimed,) = await shop.orders_of(shop.user.user_id)
    (payment,) = await shop.payments_of(shop.user.user_id)
    assert (order.is_guest, order.user_id) == (True, guest.guest_id)
    assert (claimed.is_guest, claimed.order_id) == (False, order.order_id)
    assert (payment.order_id, payment.status) == (order.order_id, "captured")
    assert await shop.timeline(claimed) == [
        ("placed", f"guest:{guest.guest_id}", ""),
        ("claimed", f"user:{shop.user.user_id}", f"guest {guest.guest_id}"),
    ]
    with pytest.raises(UserInactive):
        await shop.place(ctx)
    with pytest.raises(PaymentNotFound):
        await shop.confirm(ctx, order)


async def test_guests_who_order_and_pay_while_they_are_claimed_leave_no_orphan(
    shop: Shop, place: Place
) -> None:
    for _ in range(0, ROUNDS[place], BATCH):
        rounds = await gather(*(race(shop) for _ in range(BATCH)))
        for guest_id, placed, carts in rounds:
            await assert_owned_by_the_user(shop, guest_id, placed)
            await assert_carts_follow_their_orders(shop, placed, carts)


async def race(shop: Shop) -> tuple[UUID, list[OrderView], list[CartView]]:
    """Claim a guest while it orders, checks out a cart, creates another and pays an earlier order.

    Return its orders and carts.
    """
    guest, ctx = await shop.create_guest()
    earlier, cart = await shop.place(ctx), await shop.create_cart(ctx)
    results = await gather(
        shop.place(ctx),
        shop.claim(guest),
        shop.confirm(ctx, earlier),
        shop.check_out(ctx, cart),
        shop.create_cart(ctx),
        return_exceptions=True,
    )
    expected = (UserInactive, PaymentNotFound, CartNotFound, Overloaded)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, expected):
            raise result
    assert not isinstance(results[1], BaseException)
    placed = [earlier, *(one for one in results if isinstance(one, OrderView))]
    return guest.guest_id, placed, [cart, *(one for one in results if isinstance(one, CartView))]


async def assert_owned_by_the_user(shop: Shop, guest_id: UUID, placed: list[OrderView]) -> None:
    user_id = shop.user.user_id
    assert await shop.orders_of(guest_id) == []
    assert await shop.payments_of(guest_id) == []
    orders, payments = (
        orders_of(shop.container).orders(),
        payments_of(shop.container).payment_api(),
    )
    for each in placed:
        order = await orders.get_order(shop.user, each.order_id)
        payment = await payments.get_payment(shop.user, each.payment.payment_id)
        assert (order.user_id, order.is_guest, payment.user_id) == (user_id, False, user_id)
        changes = [change for change, _, _ in await shop.timeline(order)]
        assert changes.count("claimed") == 1


async def assert_carts_follow_their_orders(
    shop: Shop, placed: list[OrderView], carts: list[CartView]
) -> None:
    """Check that the user owns the carts, and that exactly the carts with an order are closed."""
    order_ids = {order.cart_id: order.order_id for order in placed if order.cart_id}
    for cart in carts:
        found = await orders_of(shop.container).carts().get(shop.user, cart.cart_id)
        assert (found.user_id, found.is_guest) == (shop.user.user_id, False)
        assert found.order_id == order_ids.get(cart.cart_id)
