"""Place an order: reserve the stock, price the lines, open the payment, write the order.

The customer can confirm the payment only after the call `payments.activate`. This call comes after
the order is committed, and before the response, also in a retry. A crash between these steps is
repaired by a retry with the same idempotency key or by the job that checks pending orders.

All ids are derived from the attempt's id, so a retry continues where an earlier attempt stopped.
When no retry follows, the reservation and the payment expire, and the customer is not charged.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from markethall.inventory.contract import (
    Inventory,
    ReservationClosed,
    ReservationStatus,
    ReservationView,
    Reserve,
)
from markethall.orders.configuration.ports import retry_on_conflict
from markethall.orders.contract import OrderView, PlaceOrder, TotalChanged
from markethall.orders.domain import ENDED_PAYMENT_STATUSES, AuditInfo, Order
from markethall.orders.ports import ReadStore, Store
from markethall.orders.pricing.domain import Quote
from markethall.orders.pricing.service import Pricing
from markethall.orders.promotions.domain import RedemptionFailed, find_voucher_error
from markethall.orders.service.checkout_parts import (
    SOURCE_CONFLICTS,
    CartSource,
    DraftSource,
    choose_email,
    open_payment_command,
    reserves_other_lines,
)
from markethall.orders.service.guest_orders import claim_audit
from markethall.orders.service.order_events import placed_event
from markethall.orders.service.quotes import (
    build_lines,
    build_shipping_line,
    check_expected_total,
    quote_request,
    to_requested_lines,
)
from markethall.orders.service.views import to_order_view
from markethall.payments.contract import (
    ActivatePayments,
    Payments,
    PaymentSummary,
    UnknownPaymentMethod,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError, Unavailable
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.persistence.database import Database
from markethall.users.contract import Users


@dataclass(frozen=True)
class ContextClients:
    """The other contexts that orders calls."""

    users: Users
    inventory: Inventory
    payments: Payments


@dataclass(frozen=True)
class ReservationPolicy:
    """Time limits of the reservations of unpaid orders, and of edits that wait for a payment."""

    reservation_ttl: timedelta
    edit_payment_ttl: timedelta = timedelta(hours=24)

    @property
    def payment_safety_margin(self) -> timedelta:
        """The time between the expiry of the payment and the later expiry of the reservation.

        The stock is then still reserved when a customer pays in the last second.
        """
        return min(timedelta(seconds=60), self.reservation_ttl / 10)


class Checkout:
    def __init__(
        self,
        clients: ContextClients,
        database: Database[ReadStore, Store],
        pricing: Pricing,
        policy: ReservationPolicy,
        clock: Clock,
    ) -> None:
        self._pricing = pricing
        self._users = clients.users
        self._inventory = clients.inventory
        self._payments = clients.payments
        self._database = database
        self._policy = policy
        self._clock = clock

    async def place(
        self,
        ctx: CallContext,
        command: PlaceOrder,
        attempt: IdempotentCommand,
        source: CartSource | DraftSource | None = None,
    ) -> OrderView:
        """Place an order. If it has a source, close the source in the same transaction.

        Raises the errors of `Orders.place`, and SOURCE_CONFLICTS.
        """
        draft = source if isinstance(source, DraftSource) else None
        customer = draft.buyer if draft else None
        if customer is None:
            customer = await self._users.get_active_customer(ctx, ctx.user_id)
        email = choose_email(command, customer)
        currency = await self._pricing.choose_currency(command.currency)
        command = command.model_copy(update={"currency": currency})
        reservation = await self._inventory.reserve(
            ctx, self._reserve_command(ctx, command, attempt.id)
        )
        try:
            if source and reservation.lines and reserves_other_lines(command, reservation):
                raise source.changed_error()
            quote = await self._quote(ctx, command, reservation)
        except Unavailable:
            raise  # the reservation is kept, because a retry with the same key may succeed
        except DomainError as error:
            return await self._resume_or_raise(ctx, reservation, attempt, error)
        payment_deadline = reservation.expires_at - self._policy.payment_safety_margin
        is_too_late_to_pay = payment_deadline <= self._clock()
        is_held = reservation.status is ReservationStatus.HELD
        if quote is None or not is_held or is_too_late_to_pay:
            return await self._resume_or_raise(ctx, reservation, attempt)
        try:
            payment = await self._payments.open(
                ctx, open_payment_command(ctx, command, attempt.id, quote, payment_deadline)
            )
        except UnknownPaymentMethod as error:
            return await self._resume_or_raise(ctx, reservation, attempt, error)
        order = self._build_order(ctx, command, reservation, quote, payment)
        order.email, order.is_guest = email, customer.is_guest
        order.cart_id = source.ref.cart_id if isinstance(source, CartSource) else None
        placed_by = draft.completed_by if draft else ctx.actor.audit_name
        order.mark_placed(AuditInfo(placed_by, order.created_at))
        has_payment_expired = payment.expires_at <= order.created_at
        # true if the settings of the shop have changed since an earlier attempt opened the payment
        has_other_amount = payment.amount != quote.total
        if payment.status in ENDED_PAYMENT_STATUSES or has_payment_expired or has_other_amount:
            return await self._resume_or_raise(ctx, reservation, attempt)
        try:
            return await self._persist(ctx, order, attempt, source)
        except RedemptionFailed as failure:
            failed = find_voucher_error(failure, order.discounts) or await self._total_changed(
                ctx, command, reservation
            )
            return await self._resume_or_raise(ctx, reservation, attempt, failed)

    def _reserve_command(self, ctx: CallContext, command: PlaceOrder, order_id: UUID) -> Reserve:
        return Reserve(
            reservation_id=derive_uuid7(order_id, "reservation"),
            order_id=order_id,
            customer_id=ctx.user_id,
            lines=to_requested_lines(command.lines),
            expires_at=self._clock() + self._policy.reservation_ttl,
            limited=True,  # apply the limits of unpaid orders and reserved units per customer
            currency=command.currency,
        )

    async def _quote(
        self, ctx: CallContext, command: PlaceOrder, reservation: ReservationView
    ) -> Quote | None:
        """Return the price of the order.

        Return None if the reservation has no lines: it is a tombstone, which only records that the
        reservation was released before it was made.
        """
        if not reservation.lines:
            return None
        quote = await self._pricing.quote(quote_request(ctx, command, reservation))
        check_expected_total(command, quote)
        return quote

    async def _total_changed(
        self, ctx: CallContext, command: PlaceOrder, reservation: ReservationView
    ) -> DomainError:
        """Price the order again, because its automatic promotions have no use left.

        The payment is open with the earlier total, so the customer must place the order again.
        """
        self._pricing.refresh()
        try:
            quote = await self._pricing.quote(quote_request(ctx, command, reservation))
        except Unavailable:
            raise
        except DomainError as error:
            return error
        return TotalChanged(total=quote.total.model_dump())

    def _build_order(
        self,
        ctx: CallContext,
        command: PlaceOrder,
        reservation: ReservationView,
        quote: Quote,
        payment: PaymentSummary,
    ) -> Order:
        now = self._clock()
        breakdown = quote.breakdown
        return Order(
            order_id=payment.order_id,  # equals the attempt's id
            user_id=ctx.user_id,
            currency=quote.currency,
            lines=build_lines(reservation, breakdown),
            discount=breakdown.discount,
            shipping=breakdown.shipping,
            tax=breakdown.tax,
            included_tax=breakdown.included_tax,
            shipping_line=build_shipping_line(breakdown),
            number_prefix=quote.number_prefix,
            promotions=quote.promotions,
            shipping_address=command.shipping_address,
            billing_address=command.billing_address,
            note=command.note,
            payment_id=payment.payment_id,
            payment_version=payment.version,
            reservation_id=reservation.reservation_id,
            expires_at=payment.expires_at,
            created_at=now,
            updated_at=now,
            overdue_check_at=payment.expires_at,
        )

    @retry_on_conflict
    async def _persist(
        self,
        ctx: CallContext,
        order: Order,
        attempt: IdempotentCommand,
        source: CartSource | DraftSource | None,
    ) -> OrderView:
        try:
            order = await self._write(ctx, order, source)
        except SOURCE_CONFLICTS:
            await self._inventory.release(ctx, order.reservation_id)
            raise
        return await self._activate_and_respond(ctx, order, attempt)

    async def _write(
        self, ctx: CallContext, order: Order, source: CartSource | DraftSource | None
    ) -> Order:
        """Write the order and close its source; or return the order of an earlier attempt.

        Raises SOURCE_CONFLICTS.
        """
        if not (order.is_guest or source or order.discounts):
            async with self._database.autocommit() as store:
                return await _add_or_get(store, ctx, order)
        async with self._database.transaction() as store:
            if order.is_guest:
                await self._follow_claim(store, order)
            if source and not await source.close(store, order):
                # an earlier attempt has closed the source, or another request has changed it
                existing = await store.get_order(order.order_id)
                if existing is None:
                    raise await source.find_conflict(store)
                return existing
            return await _add_or_get(store, ctx, order)

    async def _follow_claim(self, store: Store, order: Order) -> None:
        """Change the owner to the user, if a user has claimed the guest after this checkout began.

        The row lock serializes this transaction and the handler of the claim. Either the handler
        waits for this commit and then finds the order, or this transaction finds the claim.
        """
        guest_id = order.user_id
        user_id = await store.get_guest_owner_for_update(guest_id)
        if user_id:
            order.change_owner(user_id, claim_audit(guest_id, user_id, order.created_at))

    async def _activate_and_respond(
        self, ctx: CallContext, order: Order, attempt: IdempotentCommand
    ) -> OrderView:
        """Activate the payment, so that the customer can pay. Then store the response.

        The response is stored in a second transaction, because payments must be called after the
        commit of the order and before the response (docs/decisions/0018).
        """
        await self._payments.activate(ctx, ActivatePayments(payment_ids=(order.payment_id,)))
        view = to_order_view(order)
        async with self._database.autocommit() as store:
            await store.store_response(attempt, view)
        return view

    async def _resume_or_raise(
        self,
        ctx: CallContext,
        reservation: ReservationView,
        attempt: IdempotentCommand,
        error: DomainError | None = None,
    ) -> OrderView:
        """Return the order of an earlier attempt. If there is none, release the stock and raise.

        An earlier attempt may have placed the order before the settings of the shop changed.

        Without an error, raise ReservationClosed, for one of five reasons: the reservation is a
        tombstone, it is not held, it expires too soon for a payment, the payment has ended or has
        expired, or the payment has another total, because the settings of the shop have changed
        since an earlier attempt opened it. For each of these reasons, an earlier attempt may
        already have placed the order.
        """
        async with self._database.read_session() as store:
            existing = await store.get_order(attempt.id)
        if existing is not None:
            return await self._activate_and_respond(ctx, existing, attempt)
        released = await self._inventory.release(ctx, reservation.reservation_id)
        raise error or ReservationClosed(
            "The time to place this order is over; please order again.",
            reservation_id=str(released.reservation_id),
            status=released.status.value,
        )


async def _add_or_get(store: Store, ctx: CallContext, order: Order) -> Order:
    number = await store.add_order(order, placed_event(order), ctx)
    if number is None:
        # an earlier attempt wrote the order, and the order may have changed since then
        existing = await store.get_order(order.order_id)
        if existing is None:
            raise LookupError(f"order {order.order_id} has disappeared")
        return existing
    order.number = number
    if order.discounts:
        # last, because other orders with these promotions wait until the commit
        await store.redeem_promotions(order.to_redemption())
    return order
