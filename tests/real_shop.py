"""A shop of the real contexts in this process, with an optional slow database, for race tests."""

from asyncio import gather
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from markethall.container import ApplicationContainer
from markethall.inventory.catalogue.contract.products import NewProduct
from markethall.inventory.stock.contract import Adjustment
from markethall.orders.carts.contract import (
    CartPrecondition,
    CartView,
    CheckOutCart,
    NewCart,
)
from markethall.orders.contract import CancelOrder, OrderQuery, OrderView
from markethall.payments.contract.api import PaymentQuery, PaymentView
from markethall.payments.domain.operation import Succeeded
from markethall.payments.gateway.sandbox_webhooks import SandboxWebhooks
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import read_settings
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.integrity import Findings
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.kernel.scopes import GUEST_SCOPES
from markethall.shared.security.access_tokens import generate_private_key
from markethall.testing import deliver
from markethall.users.contract import GuestClaimed, GuestTokens, Register
from tests.containers import inventory_of, orders_of, payments_of, users_of
from tests.event_pump import EventPump
from tests.inventory.race_setup import slow_connection_to
from tests.orders.conftest import STAFF, attempt_without_key, order_command, user_context
from tests.orders.fakes import FakeClock
from tests.proxy import Mode

MANY: Final = 1_000_000
LARGE_STOCK: Final = 100_000


@dataclass
class Shop:
    container: ApplicationContainer
    user: CallContext
    product_id: UUID
    clock: FakeClock
    events: EventPump

    async def create_guest(self) -> tuple[GuestTokens, CallContext]:
        guest = await users_of(self.container).guests().create_guest(STAFF)
        actor = Actor(user_id=guest.guest_id, scopes=GUEST_SCOPES, is_guest=True)
        return guest, CallContext(actor=actor, request_id="test")

    async def place(
        self, ctx: CallContext, product_id: UUID | None = None, quantity: int = 1, **more: Any
    ) -> OrderView:
        command = order_command(
            product_id or self.product_id, quantity, email="guest@example.com", **more
        )
        return await orders_of(self.container).orders().place(ctx, command, attempt_without_key())

    async def create_cart(
        self, ctx: CallContext, *product_ids: UUID, quantity: int = 1
    ) -> CartView:
        command = NewCart.model_validate(
            {
                "lines": [
                    {"product_id": product_id, "quantity": quantity}
                    for product_id in product_ids or (self.product_id,)
                ],
                "shipping_address": "Market 1",
                "email": "guest@example.com",
            }
        )
        return await orders_of(self.container).carts().create(ctx, command, attempt_without_key())

    async def check_out(
        self,
        ctx: CallContext,
        cart: CartView,
        attempt: IdempotentCommand | None = None,
        **fields: Any,
    ) -> OrderView:
        return (
            await orders_of(self.container)
            .cart_checkouts()
            .check_out(
                ctx,
                cart.cart_id,
                CheckOutCart.model_validate(fields),
                CartPrecondition(is_given=False, expected_versions=None),
                attempt or attempt_without_key(),
            )
        )

    async def confirm(
        self, ctx: CallContext, order: OrderView, method: str = "sandbox_ok", **more: Any
    ) -> PaymentView:
        return await self.confirm_payment(ctx, order.payment.payment_id, method, **more)

    async def confirm_payment(
        self, ctx: CallContext, payment_id: UUID, method: str = "sandbox_ok", **more: Any
    ) -> PaymentView:
        attempt = IdempotentCommand("", new_id(), IDEMPOTENCY_RETENTION_EXTENDED, ok_response)
        api = payments_of(self.container).payment_api()
        return await api.confirm(ctx, payment_id, method, attempt, **more)

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

    async def pay_at_the_provider(self, order: OrderView) -> None:
        """Deliver the webhook that reports that the customer has done the required action."""
        payments = payments_of(self.container)
        payment_id = order.payment.payment_id
        page = await payments.payment_api().list_operations(STAFF, payment_id, PageQuery())
        operation_id = page.items[0].operation_id
        headers, body = SandboxWebhooks(payments.tools().secret_key).build_signed_event(
            operation_id, Succeeded(f"ch_{operation_id.hex}"), self.clock()
        )
        await payments.payment_api().receive_webhook(STAFF, "sandbox", headers, body)

    async def cancel(self, ctx: CallContext, order: OrderView, **fields: Any) -> OrderView:
        command = CancelOrder.model_validate({"reason": "changed my mind", **fields})
        orders = orders_of(self.container).orders()
        return await orders.cancel(ctx, order.order_id, command, attempt_without_key())

    async def run_periodic_jobs(self) -> None:
        for context in (orders_of(self.container), inventory_of(self.container)):
            for job in context.periodic_jobs():
                await job()

    async def end_overdue_payments(self) -> None:
        for job in payments_of(self.container).periodic_jobs():
            await job()

    async def read_order(self, order: OrderView) -> OrderView:
        return await orders_of(self.container).orders().get_order(STAFF, order.order_id)

    async def kept_money(self, order: OrderView) -> int:
        """Return the captured amount minus the refunded amount, of all payments of the order."""
        api = payments_of(self.container).payment_api()
        page = await api.list_payments(STAFF, PaymentQuery(order_id=order.order_id))
        return sum(one.captured.amount - one.refunded.amount for one in page.items)

    async def stock(self, product_id: UUID) -> tuple[int, int]:
        """Return the numbers of units on hand and of reserved units."""
        stock = await inventory_of(self.container).stockroom().get_stock(STAFF, product_id)
        return (
            sum(level.on_hand for level in stock.warehouses),
            sum(level.reserved for level in stock.warehouses),
        )

    async def find_offending_rows(self) -> list[str]:
        """Return the rows that the integrity checks report after one second."""
        self.clock.now += timedelta(seconds=1)
        findings = Findings()
        contexts = (orders_of(self.container), inventory_of(self.container))
        for context in (*contexts, payments_of(self.container)):
            for check in context.integrity_checks():
                await check.find(findings, timedelta())
        return [f"{found.row}: {found.problem}" for found in findings.rows]

    async def add_product(self, amount: int = 1000, stock: int = LARGE_STOCK) -> UUID:
        return await _add_product(self.container, amount, stock)


@asynccontextmanager
async def open_real_shop(storage: str, latency: float, url: str) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        proxy = None
        if latency:
            url, proxy = await stack.enter_async_context(slow_connection_to(url, latency))
        clock = FakeClock(utc_now())
        container = ApplicationContainer(
            # long timeouts, because the test machine may be busy
            read_settings(
                storage=storage,
                database_url=url,
                cache="off",
                database_timeout=60,
                request_deadline_seconds=60,
                max_unpaid_orders_per_customer=1000,
                max_reserved_units_per_customer=MANY,
                max_open_carts_per_owner=1000,
            ),
            _secrets(),
            clock=clock,
        )
        stack.push_async_callback(container.close)
        shop = await _open_shop(container, clock)
        if proxy:
            proxy.mode = Mode.DELAY
        yield shop


def _secrets() -> ApplicationSecrets:
    return ApplicationSecrets(
        secret_key=b"a secret of the tests" * 2,
        access_token_private_key=generate_private_key(),
        service_token_private_key=generate_private_key(),
    )


async def _open_shop(container: ApplicationContainer, clock: FakeClock) -> Shop:
    name = f"buyer{new_id().hex[-8:]}"
    command = Register(username=name, email=f"{name}@example.com", password="a long enough one")
    accounts = users_of(container).accounts()
    user = await accounts.register(STAFF, command, attempt_without_key())
    product_id = await _add_product(container, 1000)
    return Shop(
        container,
        user_context(user.user_id, "customer"),
        product_id,
        clock,
        EventPump(container, clock),
    )


async def _add_product(
    container: ApplicationContainer, amount: int, stock: int = LARGE_STOCK
) -> UUID:
    fields = {
        "sku": f"SKU-{new_id().hex}",
        "name": "A thing",
        "price": {"amount": amount, "currency": "EUR"},
    }
    inventory = inventory_of(container)
    product = await inventory.catalogue().create(
        STAFF, NewProduct.model_validate(fields), attempt_without_key()
    )
    received = Adjustment(delta=stock, reason="received")
    await inventory.stockroom().adjust(STAFF, product.product_id, received, attempt_without_key())
    return product.product_id
