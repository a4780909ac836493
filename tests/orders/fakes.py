"""In-memory fakes of the contexts users, inventory and payments. Their calls can fail.

The fakes do what the docstrings of the three contracts say, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from markethall.contexts import topology
from markethall.inventory.contract import (
    Consume,
    Extend,
    ListOffers,
    ListReservationStates,
    MergeReservations,
    OutOfStock,
    ProductNotFound,
    ProductOffer,
    ProductOffers,
    ReleasePart,
    ReservationClosed,
    ReservationLineView,
    ReservationState,
    ReservationStates,
    ReservationStatus,
    ReservationView,
    Reserve,
    Restock,
)
from markethall.payments.contract import (
    ActivatePayments,
    CapturePayment,
    DisputeChanged,
    InvalidPaymentTransition,
    ListPaymentStates,
    OpenPayment,
    PaymentCaptured,
    PaymentFailed,
    PaymentInProgress,
    PaymentPartiallyCaptured,
    PaymentRefunded,
    PaymentState,
    PaymentStatus,
    PaymentStatusChanged,
    PaymentSummary,
    RefundExceedsCaptured,
    RefundPayment,
    RefundStatus,
    VoidPayment,
)
from markethall.payments.contract.errors import PaymentNotFound
from markethall.payments.contract.internal import PaymentList, PaymentStates, RefundView
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock, utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money
from markethall.shared.messaging.events import Event
from markethall.shared.rpc.client_interceptor import (
    AllowList,
    CallGuard,
    InFlightCalls,
)
from markethall.users.contract import (
    Customer,
    IssueOrderToken,
    OrderToken,
    UserInactive,
    UserNotFound,
)

ALLOWED = AllowList(topology().allowed_calls)

T = TypeVar("T")
PAYABLE = {PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.FAILED}
ENDED_STATUSES = {PaymentStatus.CANCELLED, PaymentStatus.EXPIRED, PaymentStatus.VOIDED}


class Killed(BaseException):
    """A simulated crash. It is a BaseException, so `except Exception` does not catch it."""


class CallFailures:
    """Makes calls fail with Unavailable, "before" or "after" their effect.

    A failure after the effect stands for a lost response. For "killed before" and "killed after",
    the call raises Killed, a simulated crash, instead of Unavailable.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._failures: dict[int, str] = {}

    def fail_call(self, number: int, when: str) -> None:
        """Fail a later call. The next call has the number 1."""
        self._failures[len(self.calls) + number] = when

    def start(self, name: str) -> str | None:
        self.calls.append(name)
        return self._failures.get(len(self.calls))


class _FailingProxy:
    def __init__(self, service: object, call_failures: CallFailures) -> None:
        self._service = service
        self._failures = call_failures

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)

        async def call_or_fail(*arguments: Any) -> Any:
            failure = self._failures.start(name) or ""
            if failure.endswith("before"):
                raise _failure(failure, name)
            answer = await method(*arguments)
            if failure.endswith("after"):
                raise _failure(failure, name)
            return answer

        call_or_fail.__qualname__ = name
        return call_or_fail


def _failure(failure: str, name: str) -> BaseException:
    return Killed() if failure.startswith("killed") else Unavailable(dependency=name)


def with_failures(service: T, call_failures: CallFailures) -> T:
    """Wrap a service, so that its calls can fail."""
    return cast("T", _FailingProxy(service, call_failures))


def orders_guard(target: str) -> CallGuard:
    return CallGuard("orders", target, ALLOWED, InFlightCalls(), utc_now, timeout_seconds=5)


class FakeUsers:
    """A fake of `Users`. Every user is active unless a test disables it."""

    def __init__(self) -> None:
        self.disabled: set[UUID] = set()
        self.unknown: set[UUID] = set()
        self.guests: set[UUID] = set()

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        if user_id in self.disabled:
            raise UserInactive(user_id=str(user_id))
        if user_id in self.unknown:
            raise UserNotFound(user_id=str(user_id))
        if user_id in self.guests:
            return Customer(user_id=user_id, email="", full_name=None, is_guest=True)
        return Customer(user_id=user_id, email="user@example.com", full_name=None)

    async def issue_order_token(self, ctx: CallContext, command: IssueOrderToken) -> OrderToken:
        if command.owner_id in self.disabled:
            raise UserInactive(user_id=str(command.owner_id))
        return OrderToken(order_token=f"token-of-{command.order_id}", expires_in=60)


@dataclass(frozen=True)
class Product:
    """A product. `totals` has the fields on which the totals of orders depend."""

    product_id: UUID
    sku: str
    price: Money
    prices: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=dict)

    def price_in(self, currency: str | None) -> Money:
        if currency is None or currency not in self.prices:
            return self.price
        return Money(amount=self.prices[currency], currency=currency)


@dataclass(frozen=True)
class FakeReservation:
    reservation: ReservationView
    consumed: Mapping[UUID, int] = field(default_factory=dict)
    released: Mapping[UUID, Mapping[UUID, int]] = field(default_factory=dict)
    fulfilments: frozenset[UUID] = frozenset()

    def remaining(self, product_id: UUID) -> int:
        """Return the units of the product that this reservation holds."""
        reserved = sum(r.quantity for r in self.reservation.lines if r.product_id == product_id)
        released = sum(quantities.get(product_id, 0) for quantities in self.released.values())
        return reserved - released - self.consumed.get(product_id, 0)


class FakeInventory:
    """A fake of `Inventory`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._products: dict[UUID, Product] = {}
        self._on_hand: dict[UUID, int] = {}
        self._reservations: dict[UUID, FakeReservation] = {}
        self.restock_ids: set[UUID] = set()

    def add_product(
        self,
        quantity: int,
        amount: int = 1000,
        currency: str = "EUR",
        prices: Mapping[str, int] | None = None,
        **totals: Any,
    ) -> UUID:
        """Create a product with stock. `prices` are its prices in other currencies."""
        product_id = new_id()
        price = Money(amount=amount, currency=currency)
        self._products[product_id] = Product(
            product_id, f"SKU-{len(self._products)}", price, prices or {}, totals
        )
        self._on_hand[product_id] = quantity
        return product_id

    def reprice(self, product_id: UUID, amount: int) -> None:
        product = self._products[product_id]
        price = Money(amount=amount, currency=product.price.currency)
        self._products[product_id] = replace(product, price=price)

    def change_product(self, product_id: UUID, **totals: Any) -> None:
        """Replace the fields that determine the totals, such as the tags."""
        product = self._products[product_id]
        self._products[product_id] = replace(product, totals={**product.totals, **totals})

    def archive(self, product_id: UUID) -> None:
        """Stop selling the product."""
        del self._products[product_id]

    def remove_stock(self, product_id: UUID, quantity: int) -> None:
        """Remove stock, as if another customer had bought it."""
        self._on_hand[product_id] -= quantity

    def receive_stock(self, product_id: UUID, quantity: int) -> None:
        self._on_hand[product_id] += quantity

    def on_hand(self, product_id: UUID) -> int:
        return self._on_hand[product_id]

    def available(self, product_id: UUID) -> int:
        reserved = sum(
            fake.remaining(product_id)
            for fake in self._reservations.values()
            if self._is_live(fake)
        )
        return self._on_hand[product_id] - reserved

    def status(self, reservation_id: UUID) -> ReservationStatus:
        return self._effective(self._reservations[reservation_id]).status

    def reservations_of(self, order_id: UUID) -> list[ReservationView]:
        return [
            self._effective(fake)
            for fake in self._reservations.values()
            if fake.reservation.order_id == order_id
        ]

    async def reserve(self, ctx: CallContext, command: Reserve) -> ReservationView:
        if command.reservation_id not in self._reservations:
            quantities: dict[UUID, int] = {}
            for line in command.lines:
                quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
            self._check(quantities)
            lines = tuple(
                ReservationLineView(
                    product_id=product_id,
                    sku=self._products[product_id].sku,
                    name="A thing",
                    unit_price=self._products[product_id].price_in(command.currency),
                    quantity=quantities[product_id],
                    **self._products[product_id].totals,
                )
                for product_id in sorted(quantities)
            )
            self._store(command, lines)
        return self._effective(self._reservations[command.reservation_id])

    async def list_offers(self, ctx: CallContext, query: ListOffers) -> ProductOffers:
        known = sorted(self._products.keys() & set(query.product_ids))
        return ProductOffers(
            items=tuple(
                ProductOffer(
                    product_id=product_id,
                    sku=self._products[product_id].sku,
                    name="A thing",
                    unit_price=self._products[product_id].price_in(query.currency),
                    available=self.available(product_id),
                    **self._products[product_id].totals,
                )
                for product_id in known
            )
        )

    async def commit(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        fake = self._get_open(reservation_id)
        status = self._effective(fake).status
        if status is ReservationStatus.EXPIRED:
            self._check({line.product_id: line.quantity for line in fake.reservation.lines})
        if status in {ReservationStatus.HELD, ReservationStatus.EXPIRED}:
            self._set_status(fake, ReservationStatus.COMMITTED)
        return self._effective(self._reservations[reservation_id])

    async def consume(self, ctx: CallContext, command: Consume) -> ReservationView:
        fake = self._get_open(command.reservation_id)
        if command.fulfilment_id not in fake.fulfilments:
            self._check_on_hand(command)
            consumed = dict(fake.consumed)
            for line in command.lines:
                consumed[line.product_id] = consumed.get(line.product_id, 0) + line.quantity
                self._on_hand[line.product_id] -= line.quantity
            fake = replace(
                fake,
                consumed=consumed,
                fulfilments=fake.fulfilments | {command.fulfilment_id},
            )
            is_consumed = all(
                fake.remaining(line.product_id) == 0 for line in fake.reservation.lines
            )
            self._set_status(
                fake, ReservationStatus.CONSUMED if is_consumed else ReservationStatus.COMMITTED
            )
        return self._effective(self._reservations[command.reservation_id])

    async def extend(self, ctx: CallContext, command: Extend) -> ReservationView:
        fake = self._reservations[command.reservation_id]
        status = self._effective(fake).status
        if status is not ReservationStatus.HELD:
            raise ReservationClosed(reservation_id=str(command.reservation_id), status=status.value)
        longer = {"expires_at": max(fake.reservation.expires_at, command.expires_at)}
        extended = replace(fake, reservation=fake.reservation.model_copy(update=longer))
        self._reservations[command.reservation_id] = extended
        return self._effective(extended)

    async def release_part(self, ctx: CallContext, command: ReleasePart) -> ReservationView:
        fake = self._get_open(command.reservation_id)
        quantities = {line.product_id: line.quantity for line in command.lines}
        fake = replace(fake, released={**fake.released, command.release_id: quantities})
        self._set_status(fake, fake.reservation.status)
        return self._effective(self._reservations[command.reservation_id])

    async def release(self, ctx: CallContext, reservation_id: UUID) -> ReservationView:
        fake = self._reservations.get(reservation_id)
        if fake is None:
            tombstone = ReservationView(
                reservation_id=reservation_id,
                order_id=None,
                status=ReservationStatus.RELEASED,
                lines=(),
                expires_at=self._clock(),
            )
            self._reservations[reservation_id] = FakeReservation(tombstone)
        elif self._effective(fake).status is not ReservationStatus.CONSUMED:
            self._set_status(fake, ReservationStatus.RELEASED)
        return self._effective(self._reservations[reservation_id])

    async def merge(self, ctx: CallContext, command: MergeReservations) -> ReservationView:
        merged = self._reservations[command.merged_reservation_id]
        if merged.reservation.status is not ReservationStatus.RELEASED:
            fake, _ = map(self._get_live, (command.reservation_id, command.merged_reservation_id))
            lines = {line.product_id: line for line in fake.reservation.lines}
            for line in merged.reservation.lines:
                units = merged.remaining(line.product_id)
                known = lines.get(line.product_id, line.model_copy(update={"quantity": 0}))
                lines[line.product_id] = known.model_copy(
                    update={"quantity": known.quantity + units}
                )
            update = {"lines": tuple(lines[product_id] for product_id in sorted(lines))}
            reservation = fake.reservation.model_copy(update=update)
            self._set_status(replace(fake, reservation=reservation), reservation.status)
            self._set_status(merged, ReservationStatus.RELEASED)
        return self._effective(self._reservations[command.reservation_id])

    async def restock(self, ctx: CallContext, command: Restock) -> None:
        if command.restock_id in self.restock_ids:
            return
        if unknown := [p for line in command.lines if (p := line.product_id) not in self._on_hand]:
            raise ProductNotFound(product_ids=list(map(str, unknown)))
        self.restock_ids.add(command.restock_id)
        for line in command.lines:
            self._on_hand[line.product_id] += line.quantity

    async def list_reservation_states(
        self, ctx: CallContext, page: ListReservationStates
    ) -> ReservationStates:
        after = (page.after_order_id or UUID(int=0), page.after_reservation_id or UUID(int=0))
        views = [self._effective(fake) for fake in self._reservations.values()]
        states = [
            ReservationState(
                reservation_id=view.reservation_id, order_id=view.order_id, status=view.status
            )
            for view in views
            if view.order_id and (view.order_id, view.reservation_id) > after
        ]
        states.sort(key=lambda state: (state.order_id, state.reservation_id))
        return ReservationStates(items=tuple(states[: page.limit]))

    def _store(self, command: Reserve, lines: tuple[ReservationLineView, ...]) -> None:
        reservation = ReservationView(
            reservation_id=command.reservation_id,
            order_id=command.order_id,
            status=ReservationStatus.HELD,
            lines=lines,
            expires_at=command.expires_at,
        )
        self._reservations[command.reservation_id] = FakeReservation(reservation)

    def _check(self, quantities: Mapping[UUID, int]) -> None:
        unknown = [str(product_id) for product_id in quantities if product_id not in self._products]
        if unknown:
            raise ProductNotFound(product_ids=unknown)
        missing = [
            {"product_id": str(p), "requested": n, "available": self.available(p)}
            for p, n in quantities.items()
            if n > self.available(p)
        ]
        if missing:
            raise OutOfStock(lines=missing)

    def _check_on_hand(self, command: Consume) -> None:
        missing = [
            {"product_id": str(w.product_id), "requested": w.quantity, "available": on_hand}
            for w in command.lines
            if w.quantity > (on_hand := self._on_hand[w.product_id])
        ]
        if missing:
            raise OutOfStock(lines=missing)

    def _get_open(self, reservation_id: UUID) -> FakeReservation:
        fake = self._reservations.get(reservation_id)
        if fake is None or fake.reservation.status is ReservationStatus.RELEASED:
            status = fake.reservation.status if fake else None
            raise ReservationClosed(reservation_id=str(reservation_id), status=status)
        return fake

    def _get_live(self, reservation_id: UUID) -> FakeReservation:
        fake = self._reservations[reservation_id]
        if not self._is_live(fake):
            status = self._effective(fake).status.value
            raise ReservationClosed(reservation_id=str(reservation_id), status=status)
        return fake

    def _set_status(self, fake: FakeReservation, status: ReservationStatus) -> None:
        reservation = fake.reservation.model_copy(update={"status": status})
        self._reservations[reservation.reservation_id] = replace(fake, reservation=reservation)

    def _effective(self, fake: FakeReservation) -> ReservationView:
        held = fake.reservation.status is ReservationStatus.HELD
        if held and fake.reservation.expires_at <= self._clock():
            return fake.reservation.model_copy(update={"status": ReservationStatus.EXPIRED})
        return fake.reservation

    def _is_live(self, fake: FakeReservation) -> bool:
        return self._effective(fake).status in {ReservationStatus.HELD, ReservationStatus.COMMITTED}


class FakePayments:
    """A fake of `Payments`, with methods that simulate the customer and the provider.

    `pending_events` are the events that are not published yet.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._payments: dict[UUID, PaymentSummary] = {}
        self._tombstones: set[UUID] = set()
        self.activated: set[UUID] = set()
        self._refunds: dict[UUID, RefundView] = {}
        self.pending_events: list[Event] = []
        self.captures_several_times = True
        self.rejects_captures = False
        self.rejects_voids = False
        self._capture_ids: set[UUID] = set()

    async def open(self, ctx: CallContext, command: OpenPayment) -> PaymentSummary:
        is_cancelled = command.payment_id in self._tombstones
        zero = Money.zero(command.amount.currency)
        payment = PaymentSummary(
            payment_id=command.payment_id,
            order_id=command.order_id,
            user_id=command.user_id,
            status=PaymentStatus.CANCELLED if is_cancelled else PaymentStatus.CREATED,
            amount=command.amount,
            authorized=zero,
            captured=zero,
            refunded=zero,
            provider="test",
            expires_at=command.expires_at,
            created_at=self._clock(),
            version=1,
        )
        return self._payments.setdefault(command.payment_id, payment)

    async def activate(self, ctx: CallContext, command: ActivatePayments) -> PaymentList:
        found = [self._payments.get(payment_id) for payment_id in command.payment_ids]
        payments = tuple(payment for payment in found if payment)
        self.activated |= {payment.payment_id for payment in payments}
        return PaymentList(items=payments)

    async def cancel(self, ctx: CallContext, payment_id: UUID) -> None:
        payment = self._payments.get(payment_id)
        if payment is None:
            self._tombstones.add(payment_id)
        elif payment.status is PaymentStatus.PROCESSING:
            raise PaymentInProgress(retry_after=1)
        elif payment.status in PAYABLE:
            self._change(payment_id, status=PaymentStatus.CANCELLED)
        elif payment.status not in ENDED_STATUSES:
            raise InvalidPaymentTransition(status=payment.status, allowed=[])

    async def capture_due(self, ctx: CallContext, command: CapturePayment) -> PaymentSummary:
        payment = self._payments[command.payment_id]
        if payment.status is PaymentStatus.CAPTURED or command.capture_id in self._capture_ids:
            return payment
        if payment.status is not PaymentStatus.AUTHORIZED:
            raise InvalidPaymentTransition(status=payment.status, allowed=[])
        if self.rejects_captures:
            return self._change(payment.payment_id, failure_code="expired_card")
        self._capture_ids.add(command.capture_id)
        if not self.captures_several_times and not command.due.amount and command.total.amount:
            return payment
        reached = command.due if self.captures_several_times else command.total
        if reached.amount < payment.captured.amount:  # a capture cannot be taken back
            reached = payment.captured
        if self.captures_several_times and command.due != command.total:
            return self._capture_part(payment, command.capture_id, reached)
        self._end(payment.payment_id, reached)
        return self._payments[payment.payment_id]

    async def void(self, ctx: CallContext, command: VoidPayment) -> PaymentSummary:
        payment = self._payments[command.payment_id]
        if payment.status is PaymentStatus.AUTHORIZED and not self.rejects_voids:
            if payment.captured.amount:
                self._end(payment.payment_id, payment.captured)
            else:
                self.change_status(payment.payment_id, PaymentStatus.VOIDED)
        return self._payments[command.payment_id]

    async def refund(self, ctx: CallContext, command: RefundPayment) -> RefundView:
        if command.refund_id in self._refunds:
            return self._refunds[command.refund_id]
        payment = self._payments.get(command.payment_id)
        if payment is None:
            raise PaymentNotFound(payment_id=str(command.payment_id))
        has_captures = payment.status is PaymentStatus.AUTHORIZED and payment.captured.amount
        if payment.status is not PaymentStatus.CAPTURED and not has_captures:
            raise InvalidPaymentTransition(status=payment.status, allowed=[])
        refundable = payment.captured - payment.refunded
        amount = command.amount or refundable
        if amount.amount > refundable.amount or not refundable.amount:
            raise RefundExceedsCaptured(
                requested=amount.model_dump(), refundable=refundable.model_dump()
            )
        return self._refund(payment, command, amount)

    async def list_payment_states(self, ctx: CallContext, page: ListPaymentStates) -> PaymentStates:
        after = page.after_payment_id or UUID(int=0)
        payments = [payment for key, payment in sorted(self._payments.items()) if key > after]
        return PaymentStates(
            items=tuple(PaymentState(**dict(payment)) for payment in payments[: page.limit])
        )

    def payment(self, payment_id: UUID) -> PaymentSummary:
        return self._payments[payment_id]

    def payments_of(self, order_id: UUID) -> list[PaymentSummary]:
        return [payment for payment in self._payments.values() if payment.order_id == order_id]

    def all_payments(self) -> list[PaymentSummary]:
        return list(self._payments.values())

    def reopen(self, payment_id: UUID) -> None:
        """Make the payment payable again, as if the provider had not received the cancellation."""
        self._change(payment_id, status=PaymentStatus.CREATED)

    def captured_minus_refunded(self, payment_id: UUID) -> int:
        """Return the captured amount minus the refunds, in minor units."""
        payment = self._payments[payment_id]
        return payment.captured.amount - payment.refunded.amount

    def start_processing(self, payment_id: UUID) -> None:
        """Confirm the payment. The provider does not respond yet."""
        assert self._payments[payment_id].status in PAYABLE
        self._change(payment_id, status=PaymentStatus.PROCESSING)

    def capture(self, payment_id: UUID) -> PaymentCaptured:
        """Capture the payment, and add the event to `pending_events`."""
        payment = self._payments[payment_id]
        assert payment_id in self.activated
        assert payment.status not in ENDED_STATUSES | {PaymentStatus.CAPTURED}
        self._change(payment_id, status=PaymentStatus.CAPTURED, captured=payment.amount)
        event = PaymentCaptured(
            payment_id=payment_id, order_id=payment.order_id, amount=payment.amount
        )
        self.pending_events.append(event)
        return event

    def authorize(self, payment_id: UUID) -> PaymentStatusChanged:
        """Authorize the payment, and add the event to `pending_events`."""
        amount = self._payments[payment_id].amount
        return self.change_status(payment_id, PaymentStatus.AUTHORIZED, authorized=amount)

    def _capture_part(
        self, payment: PaymentSummary, capture_id: UUID, reached: Money
    ) -> PaymentSummary:
        part = reached - payment.captured
        if part.amount:
            self.pending_events.append(
                PaymentPartiallyCaptured(
                    payment_id=payment.payment_id,
                    order_id=payment.order_id,
                    capture_id=capture_id,
                    amount=part,
                    captured=reached,
                )
            )
        return self._change(payment.payment_id, captured=reached)

    def _end(self, payment_id: UUID, captured: Money) -> None:
        """Capture up to this amount, and release the rest."""
        changes = {"captured": captured, "authorized": captured}
        payment = self._change(payment_id, status=PaymentStatus.CAPTURED, **changes)
        event = PaymentCaptured(payment_id=payment_id, order_id=payment.order_id, amount=captured)
        self.pending_events.append(event)

    def decline(self, payment_id: UUID) -> PaymentFailed:
        payment = self._change(payment_id, status=PaymentStatus.FAILED)
        event = PaymentFailed(
            payment_id=payment_id,
            order_id=payment.order_id,
            failure_code="declined",
            payment_version=payment.version,
        )
        self.pending_events.append(event)
        return event

    def change_status(
        self, payment_id: UUID, status: PaymentStatus, **changes: Any
    ) -> PaymentStatusChanged:
        """Set the status and add PaymentStatusChanged. `capture` and `decline` add other events."""
        payment = self._change(payment_id, status=status, **changes)
        event = PaymentStatusChanged(
            payment_id=payment_id,
            order_id=payment.order_id,
            status=status,
            payment_version=payment.version,
            expires_at=payment.expires_at,
        )
        self.pending_events.append(event)
        return event

    def dispute(self, payment_id: UUID, status: str) -> None:
        """Publish that the dispute of a payment has a new status."""
        payment = self._payments[payment_id]
        event = DisputeChanged(
            payment_id=payment_id,
            order_id=payment.order_id,
            status=status,
            reason="fraudulent",
            amount=payment.amount,
            provider_reference="dp_1",
            payment_version=payment.version,
        )
        self.pending_events.append(event)

    def _refund(self, payment: PaymentSummary, command: RefundPayment, amount: Money) -> RefundView:
        refund = RefundView(
            refund_id=command.refund_id,
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            amount=amount,
            status=RefundStatus.SUCCEEDED,
            reason=command.reason,
            created_at=self._clock(),
        )
        self._refunds[refund.refund_id] = refund
        refunded = payment.refunded + amount
        self._change(payment.payment_id, refunded=refunded)
        event = PaymentRefunded(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            refund_id=refund.refund_id,
            amount=amount,
            captured=payment.captured,
            refunded=refunded,
        )
        self.pending_events.append(event)
        return refund

    def _change(self, payment_id: UUID, **changes: Any) -> PaymentSummary:
        payment = self._payments[payment_id]
        changed = payment.model_copy(update=changes | {"version": payment.version + 1})
        self._payments[payment_id] = changed
        return changed


class FakeClock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
