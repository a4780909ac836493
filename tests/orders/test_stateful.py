"""Random sequences of commands over the whole life of orders agree with a model."""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from markethall.orders.contract import (
    CancelOrder,
    ChangeOrder,
    EditOrder,
    FulfilOrder,
    OrderView,
    PlaceOrder,
)
from markethall.orders.drafts.contract import NewDraftOrder
from markethall.payments.contract import PaymentStatus
from markethall.shared.kernel.errors import DomainError
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.orders.conftest import STAFF, OrdersApp, attempt_without_key, build_orders_app
from tests.orders.fakes import PAYABLE
from tests.orders.order_model import PRICES, STOCK, ModelOrder, OrderModel, Quantities

T = TypeVar("T")
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# the number of random sequences
EXAMPLES: Final = [("memory", 500), ("sql", 100)] if FULL else [("memory", 40), ("sql", 8)]
MAX_ORDERS: Final = 4
QUANTITIES = st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any)
PRODUCTS = st.integers(0, 1)
UNITS = st.integers(1, 3)
ORDERS = st.integers(0, MAX_ORDERS - 1)
AFTER_EXPIRY = timedelta(minutes=16)


class OrderMachine(RuleBasedStateMachine):
    storage: ClassVar[str]
    postgres: ClassVar[Postgres | None]
    loop: ClassVar[asyncio.AbstractEventLoop]

    @initialize()
    def start(self) -> None:
        self.app: OrdersApp = build_orders_app(self.storage, self.postgres)
        self.model = OrderModel()
        self.placed: list[OrderView] = []
        self.shipments: dict[UUID, list[UUID]] = {}
        self.products = [
            self.app.fake_inventory.add_product(stock, amount=price)
            for stock, price in zip(STOCK, PRICES, strict=True)
        ]

    @precondition(lambda self: len(self.placed) < MAX_ORDERS)
    @rule(quantities=QUANTITIES, by_staff=st.booleans())
    def place(self, quantities: Quantities, by_staff: bool) -> None:
        """Place an order, or let staff create and complete a draft order."""
        fields = {
            "lines": [
                {"product_id": self.products[index], "quantity": number}
                for index, number in enumerate(quantities)
                if number
            ],
            "shipping_address": "Market 1",
            "email": "buyer@example.com",
        }
        placing = self._complete_draft(fields) if by_staff else self._place(fields)
        order = self.check(placing, self.model.place(quantities))
        if order:
            self.placed.append(order)
            self.shipments[order.order_id] = []

    async def _place(self, fields: dict[str, Any]) -> OrderView:
        command = PlaceOrder.model_validate(fields)
        return await self.app.orders.place(self.app.buyer, command, attempt_without_key())

    async def _complete_draft(self, fields: dict[str, Any]) -> OrderView:
        drafts = self.app.container.draft_orders()
        new = NewDraftOrder.model_validate(fields)
        draft = await drafts.create(STAFF, new, attempt_without_key())
        return await drafts.complete(STAFF, draft.draft_order_id, attempt_without_key())

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS)
    def pay(self, number: int) -> None:
        order, expected = self.pick(number)
        if expected.status == "pending":
            self.app.fake_payments.capture(self.read(order).payment.payment_id)
            self.model.pay(expected)
            self.run(self.app.process_events())

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS, index=PRODUCTS, quantity=st.integers(0, 4), pays=st.booleans())
    def edit(self, number: int, index: int, quantity: int, pays: bool) -> None:
        """Edit an order. If the edit must be paid, pay or cancel it."""
        order, expected = self.pick(number)
        line = {"product_id": self.products[index], "quantity": quantity}
        command = EditOrder.model_validate({"lines": [line]})
        edits = self.app.container.order_edits()
        edited = self.check(
            edits.edit(STAFF, order.order_id, command, attempt_without_key()),
            self.model.edit(expected, index, quantity, pays=pays),
        )
        if edited is None or edited.open_edit is None:
            return
        if pays:
            self.app.fake_payments.capture(edited.open_edit.payment_id)
        else:
            edit_id = edited.open_edit.edit_id
            self.run(edits.cancel_edit(STAFF, order.order_id, edit_id, attempt_without_key()))
        self.run(self.app.process_events())

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS, on_hold=st.booleans())
    def put_on_hold(self, number: int, on_hold: bool) -> None:
        order, expected = self.pick(number)
        command = ChangeOrder.model_validate({"on_hold": on_hold})
        changes = self.app.container.order_changes()
        expected.on_hold = on_hold
        self.check(changes.change(STAFF, order.order_id, command, None), accepted=True)

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS)
    def cancel(self, number: int) -> None:
        order, expected = self.pick(number)
        self.check(self._cancel(order), self.model.cancel(expected))

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS, index=PRODUCTS, units=UNITS)
    def cancel_units(self, number: int, index: int, units: int) -> None:
        order, expected = self.pick(number)
        if line := self._line(order, index, units):
            self.check(
                self._cancel(order, lines=[line]), self.model.cancel_units(expected, index, units)
            )

    def _cancel(self, order: OrderView, **fields: Any) -> Coroutine[Any, Any, OrderView]:
        command = CancelOrder.model_validate({"reason": "changed my mind", **fields})
        return self.app.orders.cancel(STAFF, order.order_id, command, attempt_without_key())

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS, index=PRODUCTS, units=UNITS)
    def ship(self, number: int, index: int, units: int) -> None:
        order, expected = self.pick(number)
        line = self._line(order, index, units)
        if line is None:
            return
        command = FulfilOrder.model_validate(
            {"lines": [line], "carrier": "DHL", "tracking_number": "JD01"}
        )
        shipped = self.check(
            self.app.fulfilments.fulfil(STAFF, order.order_id, command, attempt_without_key()),
            self.model.ship(expected, index, units),
        )
        if shipped:
            self.shipments[order.order_id].append(shipped.fulfilment_id)

    @precondition(lambda self: self.placed)
    @rule(number=ORDERS)
    def deliver_all(self, number: int) -> None:
        order, expected = self.pick(number)
        shipments, self.shipments[order.order_id] = self.shipments[order.order_id], []
        for fulfilment_id in shipments:
            delivering = self.app.fulfilments.deliver(STAFF, fulfilment_id, attempt_without_key())
            self.check(delivering, accepted=True)
        if shipments:
            self.model.deliver_all(expected)

    @rule()
    def expire(self) -> None:
        self.app.advance_clock(AFTER_EXPIRY)
        self.run(self.app.run_periodic_jobs())
        self.run(self.app.process_events())
        self.model.expire_all()

    @invariant()
    def orders_agree_with_the_model(self) -> None:
        for order, expected in zip(self.placed, self.model.orders, strict=True):
            now = self.read(order)
            assert (now.status.value, now.on_hold) == (expected.status, expected.on_hold)
            assert now.total.amount == expected.total
            assert {
                self.products.index(line.product_id): (
                    line.quantity,
                    line.fulfilled,
                    line.cancelled,
                )
                for line in now.lines
            } == {
                i: (one.quantity, one.shipped, one.cancelled) for i, one in expected.lines.items()
            }

    @invariant()
    def money_agrees_with_the_model(self) -> None:
        """The shop keeps as much money as the model. At most one payment of an order is payable."""
        for order, expected in zip(self.placed, self.model.orders, strict=True):
            payments = self.app.fake_payments.payments_of(order.order_id)
            assert sum(one.captured.amount - one.refunded.amount for one in payments) == (
                expected.kept
            )
            found = self.read(order)
            known = {found.payment.payment_id, *(p.payment_id for p in found.additional_payments)}
            captured = {one.payment_id for one in payments if one.status is PaymentStatus.CAPTURED}
            assert captured <= known
            activated = self.app.fake_payments.activated
            payable = [
                one.payment_id
                for one in payments
                if one.status in PAYABLE and one.payment_id in activated
            ]
            is_pending = expected.status == "pending"
            assert payable == ([self.read(order).payment.payment_id] if is_pending else [])

    @invariant()
    def stock_agrees_with_the_model(self) -> None:
        for index, product_id in enumerate(self.products):
            available = self.app.fake_inventory.available(product_id)
            assert available == self.model.available(index)

    def pick(self, number: int) -> tuple[OrderView, ModelOrder]:
        index = number % len(self.placed)
        return self.placed[index], self.model.orders[index]

    def _line(self, order: OrderView, index: int, units: int) -> dict[str, Any] | None:
        """Return a request line for units of this product, or None if the order lacks it."""
        found = (
            line.line_id
            for line in self.read(order).lines
            if line.product_id == self.products[index]
        )
        line_id = next(found, None)
        return {"line_id": line_id, "quantity": units} if line_id else None

    def check(self, command: Coroutine[Any, Any, T], accepted: bool) -> T | None:
        """Run the command and handle all events. It must succeed if and only if `accepted`."""
        result = None
        if accepted:
            result = self.run(command)
        else:
            with pytest.raises(DomainError):
                self.run(command)
        self.run(self.app.process_events())
        return result

    def read(self, order: OrderView) -> OrderView:
        return self.run(self.app.read_order(order))

    def run(self, command: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(command)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Create an event loop for the machine, because Hypothesis rules cannot be coroutines."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize(("storage", "examples"), EXAMPLES)
def test_any_life_of_orders_agrees_with_the_model(
    storage: str,
    examples: int,
    loop: asyncio.AbstractEventLoop,
    request: pytest.FixtureRequest,
) -> None:
    postgres = None
    if storage == "sql":
        url = request.getfixturevalue("database_url")
        postgres = Postgres(url, PoolSize(min_size=1, max_size=5, timeout=10))
    configuration = {"storage": storage, "postgres": postgres, "loop": loop}
    machine = type("Machine", (OrderMachine,), configuration)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )

    if postgres:
        loop.run_until_complete(postgres.close())
