"""Claims of guests while the guests order and pay: each order has one owner, none is orphaned."""

import os
from asyncio import gather
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pytest

from markethall.container import ApplicationContainer
from markethall.inventory.catalogue.contract.products import NewProduct
from markethall.inventory.stock.contract import Adjustment
from markethall.orders.contract import OrderQuery, OrderView
from markethall.payments.contract import PaymentNotFound, PaymentQuery, PaymentView
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import read_settings
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.errors import Overloaded
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import GUEST_SCOPES
from markethall.shared.security.access_tokens import generate_private_key
from markethall.testing import deliver
from markethall.users.contract import GuestClaimed, GuestTokens, Register, UserInactive
from tests.containers import inventory_of, orders_of, payments_of, users_of
from tests.inventory.race_setup import slow_connection_to
from tests.orders.conftest import STAFF, attempt_without_key, order_command, user_context
from tests.proxy import Mode

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# the storage, and the latency of its connection in each direction in seconds
MEMORY, NEAR, FAR = ("memory", 0.0), ("sql", 0.0), ("sql", 0.02)
ROUNDS: Final = dict.fromkeys((MEMORY, NEAR, FAR), 200) if FULL else {MEMORY: 40, NEAR: 20, FAR: 10}
# the number of guests that are claimed at the same time
BATCH: Final = 10


@dataclass
class Shop:
    container: ApplicationContainer
    user: CallContext
    product_id: UUID

    async def create_guest(self) -> tuple[GuestTokens, CallContext]:
        guest = await users_of(self.container).guests().create_guest(STAFF)
        actor = Actor(user_id=guest.guest_id, scopes=GUEST_SCOPES, is_guest=True)
        return guest, CallContext(actor=actor, request_id="test")

    async def place(self, ctx: CallContext, **more: Any) -> OrderView:
        command = order_command(self.product_id, email="guest@example.com", **more)
        return await orders_of(self.container).orders().place(ctx, command, attempt_without_key())

    async def confirm(self, ctx: CallContext, order: OrderView, **more: Any) -> PaymentView:
        attempt = IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_EXTENDED, ok_response)
        api = payments_of(self.container).payment_api()
        return await api.confirm(ctx, order.payment.payment_id, "sandbox_ok", attempt, **more)

    async def claim(self, guest: GuestTokens) -> None:
        """Claim the guest, then deliver the event to both contexts, more than once."""
        guests = users_of(self.container).guests()
        await guests.claim_guest(self.user, guest.access_token, attempt_without_key())
        event = GuestClaimed(guest_id=guest.guest_id, user_id=self.user.user_id)
        orders, payments = orders_of(self.container), payments_of(self.container)
        await gather(
            deliver("orders", orders, event, times=2),
            deliver("payments", payments, event),
            deliver("orders", orders, event),
            deliver("payments", payments, event, times=2),
        )

    async def orders_of(self, owner_id: UUID) -> list[OrderView]:
        query = OrderQuery(user_id=owner_id, limit=100)
        return list((await orders_of(self.container).orders().list_orders(STAFF, query)).items)

    async def payments_of(self, owner_id: UUID) -> list[PaymentView]:
        api = payments_of(self.container).payment_api()
        return list((await api.list_payments(STAFF, PaymentQuery(user_id=owner_id))).items)

    async def timeline(self, order: OrderView) -> list[tuple[str, str, str]]:
        view = await orders_of(self.container).orders().get_timeline(STAFF, order.order_id)
        return [(entry.change, entry.actor, entry.reason) for entry in view.items]


@pytest.fixture(params=ROUNDS, ids=lambda place: f"{place[0]}-{place[1] * 1000:.0f}ms")
def place(request: pytest.FixtureRequest) -> tuple[str, float]:
    return request.param  # type: ignore[no-any-return]  # pytest does not type parameters


@pytest.fixture
def database(request: pytest.FixtureRequest, place: tuple[str, float]) -> str:
    """The URL of the database, empty for the memory storage."""
    return request.getfixturevalue("database_url") if place[0] == "sql" else ""


@pytest.fixture
async def shop(place: tuple[str, float], database: str) -> AsyncIterator[Shop]:
    (storage, latency), url = place, database
    async with AsyncExitStack() as stack:
        proxy = None
        if latency:
            url, proxy = await stack.enter_async_context(slow_connection_to(url, latency))
        container = ApplicationContainer(
            # long timeouts, because the test machine may be busy
            read_settings(
                storage=storage,
                database_url=url,
                cache="off",
                database_timeout=60,
                request_deadline_seconds=60,
            ),
            _secrets(),
        )
        stack.push_async_callback(container.close)
        shop = await _open_shop(container)
        if proxy:
            proxy.mode = Mode.DELAY
        yield shop


def _secrets() -> ApplicationSecrets:
    return ApplicationSecrets(
        secret_key=b"a secret of the tests" * 2,
        access_token_private_key=generate_private_key(),
        service_token_private_key=generate_private_key(),
    )


async def _open_shop(container: ApplicationContainer) -> Shop:
    name = f"buyer{new_id().hex[-8:]}"
    command = Register(username=name, email=f"{name}@example.com", password="a long enough one")
    accounts = users_of(container).accounts()
    user = await accounts.register(STAFF, command, attempt_without_key())
    price = {"amount": 1000, "currency": "EUR"}
    product = NewProduct.model_validate({"sku": name, "name": "A thing", "price": price})
    inventory = inventory_of(container)
    product_id = (
        await inventory.catalogue().create(STAFF, product, attempt_without_key())
    ).product_id
    received = Adjustment(delta=100_000, reason="received")
    await inventory.stockroom().adjust(STAFF, product_id, received, attempt_without_key())
    return Shop(container, user_context(user.user_id, "customer"), product_id)


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
    shop: Shop, place: tuple[str, float]
) -> None:
    for _ in range(0, ROUNDS[place], BATCH):
        rounds = await gather(*(race(shop) for _ in range(BATCH)))
        for guest_id, placed in rounds:
            await assert_owned_by_the_user(shop, guest_id, placed)


async def race(shop: Shop) -> tuple[UUID, list[OrderView]]:
    """Claim a guest while it orders twice and pays an earlier order; return its orders."""
    guest, ctx = await shop.create_guest()
    earlier = await shop.place(ctx)
    results = await gather(
        shop.place(ctx),
        shop.claim(guest),
        shop.confirm(ctx, earlier),
        shop.place(ctx),
        return_exceptions=True,
    )
    expected = (UserInactive, PaymentNotFound, Overloaded)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, expected):
            raise result
    assert not isinstance(results[1], BaseException)
    return guest.guest_id, [earlier, *(one for one in results if isinstance(one, OrderView))]


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
