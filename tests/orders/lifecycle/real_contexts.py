"""A random test with the real contexts. All stored data must have integrity after each step."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from markethall.contexts import topology
from markethall.event_workers import bind_event_handlers
from markethall.orders.contract import CancelOrder, FulfilOrder, OrderView, ReturnShipment
from markethall.orders.returns.contract import CloseReturn, ReceiveReturn, RequestReturn
from markethall.secret_keys import ApplicationSecrets
from markethall.settings import read_settings
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import DomainError, Unavailable
from markethall.shared.messaging.events import RetryLater
from markethall.shared.security.access_tokens import generate_private_key
from tests.containers import inventory_of, orders_of, payments_of
from tests.integrity_checks import find_violations
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.fakes import FakeClock
from tests.orders.lifecycle.amounts import PRICES
from tests.orders.lifecycle.machine import CHOICES, MAX_ORDERS, PRODUCTS, UNITS
from tests.orders.test_with_real_contexts import ContextsApp, FailingCallsContainer

T = TypeVar("T")
METHODS: Final = (
    "sandbox_ok",
    "sandbox_ok",
    "sandbox_declined",
    "sandbox_action_required",
    "sandbox_timeout_before",
    "sandbox_timeout_after",
)
STOCK: Final = 20


class ContextsMachine(RuleBasedStateMachine):
    """Random commands, which may be rejected. O2 compares payments with the sandbox's ledger."""

    build_app: ClassVar[Callable[[], ContextsApp]]
    loop: ClassVar[asyncio.AbstractEventLoop]

    @initialize()
    def start(self) -> None:
        self.app = type(self).build_app()
        self.run(self.app.open())
        self.products = [self.run(self.app.product(STOCK, price)) for price in PRICES]
        self.placed: list[OrderView] = []
        self.fulfilment_ids: list[UUID] = []

    @precondition(lambda self: len(self.placed) < MAX_ORDERS)
    @rule(index=PRODUCTS, quantity=st.integers(1, 4), method=st.sampled_from((None, *METHODS)))
    def place(self, index: int, quantity: int, method: str | None) -> None:
        order = self.attempt(self.app.place(self.products[index], quantity))
        if order:
            self.placed.append(order)
        if order and method:
            self.attempt(self.app.confirm(order, method))

    @precondition(lambda self: self.placed)
    @rule(choice=CHOICES, method=st.sampled_from(METHODS))
    def confirm(self, choice: int, method: str) -> None:
        self.attempt(self.app.confirm(self.pick(choice), method))

    @precondition(lambda self: self.placed)
    @rule(choice=CHOICES)
    def cancel(self, choice: int) -> None:
        self._cancel(self.pick(choice))

    @precondition(lambda self: self.placed)
    @rule(choice=CHOICES, units=UNITS)
    def cancel_units(self, choice: int, units: int) -> None:
        order = self.pick(choice)
        self._cancel(order, lines=[_line(order, units)])

    def _cancel(self, order: OrderView, **fields: Any) -> None:
        command = CancelOrder.model_validate({"reason": "changed my mind", **fields})
        attempt = attempt_without_key()
        self.attempt(self.app.orders.cancel(STAFF, order.order_id, command, attempt))

    @precondition(lambda self: self.placed)
    @rule(choice=CHOICES, units=UNITS, is_delivered=st.booleans())
    def ship(self, choice: int, units: int, is_delivered: bool) -> None:
        order = self.pick(choice)
        command = FulfilOrder.model_validate({"lines": [_line(order, units)]})
        shipping = self.app.fulfilments.fulfil(
            STAFF, order.order_id, command, attempt_without_key()
        )
        if shipped := self.attempt(shipping):
            self.fulfilment_ids.append(shipped.fulfilment_id)
            if is_delivered:
                self._end_shipment(shipped.fulfilment_id, "delivered")

    @precondition(lambda self: self.fulfilment_ids)
    @rule(choice=CHOICES, status=st.sampled_from(["delivered", "lost", "restocked", "scrapped"]))
    def end_shipment(self, choice: int, status: str) -> None:
        self._end_shipment(self.fulfilment_ids[choice % len(self.fulfilment_ids)], status)

    def _end_shipment(self, fulfilment_id: UUID, status: str) -> None:
        fulfilments, attempt = self.app.fulfilments, attempt_without_key()
        if status == "delivered":
            self.attempt(fulfilments.deliver(STAFF, fulfilment_id, attempt))
        elif status == "lost":
            self.attempt(fulfilments.mark_lost(STAFF, fulfilment_id, attempt))
        else:
            command = ReturnShipment(restock=status == "restocked")
            self.attempt(fulfilments.mark_returned(STAFF, fulfilment_id, command, attempt))

    @precondition(lambda self: self.fulfilment_ids)
    @rule(choice=CHOICES, units=UNITS, disposition=st.sampled_from(["restock", "scrap"]))
    def return_units(self, choice: int, units: int, disposition: str) -> None:
        """Return units, with all steps from the request to the refund."""
        order, returns = self.pick(choice), orders_of(self.app.container).returns()
        line = _line(order, units)
        request = RequestReturn.model_validate({"lines": [line], "reason": "does not fit"})
        requesting = returns.request(self.app.buyer, order.order_id, request, attempt_without_key())
        if made := self.attempt(requesting):
            received = line | {"condition": "opened", "disposition": disposition}
            receipt = ReceiveReturn.model_validate({"lines": [received]})
            return_id = made.return_id
            self.attempt(returns.approve(STAFF, return_id, attempt_without_key()))
            self.attempt(returns.receive(STAFF, return_id, receipt, attempt_without_key()))
            closing = returns.close(STAFF, return_id, CloseReturn(), attempt_without_key())
            self.attempt(closing)

    @precondition(lambda self: self.placed)
    @rule(minutes=st.sampled_from([1, 1, 20]))
    def wait(self, minutes: int) -> None:
        self.app.clock.now += timedelta(minutes=minutes)
        self.settle()

    @invariant()
    def all_data_has_integrity(self) -> None:
        """Checks O1 to O4, O6 and O7 of docs/integrity.md. O8 depends on real time."""
        container = self.app.container
        for context in (orders_of, inventory_of, payments_of):
            checks = [
                check
                for check in context(container).integrity_checks()
                if not check.check_id.startswith("O8")
            ]
            violations = self.run(find_violations(checks))
            assert not violations, violations

    def pick(self, choice: int) -> OrderView:
        return self.placed[choice % len(self.placed)]

    def attempt(self, command: Coroutine[Any, Any, T]) -> T | None:
        """Run the command, which may be rejected, and handle all events."""
        result = None
        with suppress(DomainError):
            result = self.run(command)
        self.settle()
        return result

    def settle(self) -> None:
        for _ in range(2):
            self.run(self._settle())
            self.app.clock.now += timedelta(seconds=2)

    async def _settle(self) -> None:
        container = self.app.container
        for context in (payments_of, orders_of, inventory_of):
            for job in context(container).periodic_jobs():
                await job()
        while await self.app._relay_events(True) + await self._handle_events():
            pass

    async def _handle_events(self) -> int:
        orders = orders_of(self.app.container)
        subscriptions = topology().subscriptions["orders"]
        handlers = bind_event_handlers("orders", subscriptions, orders.event_handlers())
        inbox, now = orders.persistence().inbox, self.app.clock()
        deliveries = await inbox.claim(now, timedelta(seconds=30), 16)
        for delivery in deliveries:
            try:
                await handlers[delivery.handler](delivery, delivery.envelope.decode())
            except (RetryLater, Unavailable) as error:
                await inbox.retry_later(delivery, repr(error), now + timedelta(seconds=1))
        return len(deliveries)

    def run(self, command: Awaitable[T]) -> T:
        return self.loop.run_until_complete(command)

    def teardown(self) -> None:
        if hasattr(self, "app"):
            self.run(self.app.container.close())


def _line(order: OrderView, units: int) -> dict[str, Any]:
    return {"line_id": order.lines[0].line_id, "quantity": units}


def build_contexts_app(capture: str = "automatic") -> ContextsApp:
    """Build the app in memory; `capture` is the setting `payments_capture`."""
    secrets = ApplicationSecrets(
        secret_key=b"a secret of the tests" * 2,
        access_token_private_key=generate_private_key(),
        service_token_private_key=generate_private_key(),
    )
    settings = read_settings(storage="memory", cache="off", payments_capture=capture)
    clock = FakeClock(utc_now())
    return ContextsApp(FailingCallsContainer(settings, secrets, clock), clock)
