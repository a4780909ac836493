"""The base of the random tests of orders: it runs commands on the app and on the model."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from markethall.orders.carts.contract import CartView
from markethall.orders.contract import OrderView
from markethall.orders.promotions.contract import NewPromotion
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from tests.orders.carts.conftest import guest_context
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key, user_context
from tests.orders.lifecycle.amounts import (
    BULK_MIN_SUBTOTAL,
    BULK_PERCENT,
    PRICES,
    SHIPPING,
    VOUCHERS,
    Units,
    promotion_fields,
)
from tests.orders.lifecycle.model import BUYER, STOCK, ModelCart, ModelOrder, ShopModel
from tests.orders.test_totals import BERLIN, change_shop, configure

T = TypeVar("T")
ADDRESS: Final = BERLIN
MAX_ORDERS: Final = 6
MAX_CARTS: Final = 3
TAX: Final = {"country": "DE", "rate": "0.19"}
BULK: Final = {
    "name": "Bulk",
    "kind": "percent",
    "percent": str(BULK_PERCENT),
    "conditions": {"min_total": [{"amount": BULK_MIN_SUBTOTAL, "currency": "EUR"}]},
}
QUANTITIES = st.dictionaries(st.integers(0, 1), st.integers(1, 4), min_size=1)
PRODUCTS = st.integers(0, 1)
UNITS = st.integers(1, 3)
# usually selects a suitable order (values up to 12), and rarely any order
CHOICES = st.integers(0, 15)
_FIRST_OF_ALL: Final = 13


class Placed(NamedTuple):
    """An order, its model, and the ids of its shipments and returns.

    The ids are in the same order as the shipments and returns of the model.
    """

    order: OrderView
    expected: ModelOrder
    fulfilment_ids: list[UUID]
    return_ids: list[UUID]


class ShopMachine(RuleBasedStateMachine):
    build_app: ClassVar[Callable[[], OrdersApp]]
    loop: ClassVar[asyncio.AbstractEventLoop]

    @initialize()
    def start(self) -> None:
        self.app = type(self).build_app()
        self.model = ShopModel(self.app.clock())
        self.placed: list[Placed] = []
        self.carts: list[tuple[CartView, ModelCart]] = []
        self.customers: list[CallContext] = [
            self.app.buyer,
            user_context(new_id(), "customer"),
            guest_context(),
        ]
        self.products = [
            self.app.fake_inventory.add_product(stock, amount=price, tax_class="standard")
            for stock, price in zip(STOCK, PRICES, strict=True)
        ]
        self.run(self._configure())

    async def _configure(self) -> None:
        await configure(self.app, [TAX], SHIPPING)
        await change_shop(self.app, prices_include_tax=False)
        promotions = self.app.container.promotions()
        self.vouchers: dict[str, UUID] = {}
        for code in VOUCHERS:
            fields = NewPromotion.model_validate(promotion_fields(code, self.model.start))
            made = await promotions.create(STAFF, fields, attempt_without_key())
            self.vouchers[code] = made.promotion_id
        bulk = NewPromotion.model_validate(BULK)
        await promotions.create(STAFF, bulk, attempt_without_key())

    @precondition(lambda self: self.has(lambda order: order.status == "pending"))
    @rule(hours=st.sampled_from([0.3, 0.3, 48]))
    def wait(self, hours: float) -> None:
        self.app.advance_clock(timedelta(hours=hours))
        self.model.expire(self.app.clock())
        self.run(self.app.run_periodic_jobs())
        self.settle()

    def add_order(self, order: OrderView) -> None:
        """Remember this order with the last order of the model."""
        self.placed.append(Placed(order, self.model.orders[-1], [], []))

    def has(self, is_candidate: Callable[[ModelOrder], object]) -> bool:
        return any(is_candidate(one.expected) for one in self.placed)

    def pick(self, choice: int, is_candidate: Callable[[ModelOrder], object]) -> Placed:
        """Return a suitable order, or rarely any order, for which the command may be illegal."""
        candidates = [one for one in self.placed if is_candidate(one.expected)]
        pool = candidates if candidates and choice < _FIRST_OF_ALL else self.placed
        return pool[choice % len(pool)]

    def lines_of(self, units: Units) -> list[dict[str, Any]]:
        return [
            {"product_id": self.products[index], "quantity": number}
            for index, number in units.items()
        ]

    def line_id(self, placed: Placed, index: int) -> UUID:
        lines = self.read(placed.order).lines
        return next(one.line_id for one in lines if one.product_id == self.products[index])

    def pay_order(self, placed: Placed, is_authorized: bool) -> None:
        self.charge(placed, is_authorized)
        self.model.pay(placed.expected, "authorized" if is_authorized else "captured")
        self.settle()

    def charge(self, placed: Placed, is_authorized: bool) -> None:
        """Let the provider authorize or capture the payment."""
        payments, payment_id = self.app.fake_payments, placed.order.payment.payment_id
        if is_authorized:
            payments.authorize(payment_id)
        else:
            payments.capture(payment_id)

    def check(self, command: Coroutine[Any, Any, T], accepted: bool) -> T | None:
        """Run the command and handle all events. It must succeed if and only if `accepted`."""
        result = None
        if accepted:
            result = self.run(command)
        else:
            with pytest.raises(DomainError):
                self.run(command)
        self.settle()
        return result

    def settle(self) -> None:
        """Handle all events, including events that a handler has postponed by a second."""
        for _ in range(2):
            self.run(self.app.process_events())
            self.app.advance_clock(timedelta(seconds=2))

    def read(self, order: OrderView) -> OrderView:
        return self.run(self.app.read_order(order))

    def run(self, command: Awaitable[T]) -> T:
        return self.loop.run_until_complete(command)

    def buyer_context(self, customer: int) -> CallContext:
        return self.customers[customer]

    def claim(self, customer: int) -> None:
        """Transfer the orders and carts of this guest to the buyer."""
        for order in self.model.orders:
            order.customer = BUYER if order.customer == customer else order.customer
        for _, cart in self.carts:
            cart.customer = BUYER if cart.customer == customer else cart.customer
        self.customers[customer] = self.customers[BUYER]
