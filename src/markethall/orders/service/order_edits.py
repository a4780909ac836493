"""Edit the lines of an order: price them, reserve the units, replace the payment, save the order.

All ids are derived from the attempt's id and the version of the order, so a retry continues where
an earlier attempt stopped. Only the transaction that saves the order makes the edit effective. A
crash before this transaction leaves a reservation that expires. If the order is pending, it also
leaves a cancelled payment: the customer cannot pay until the edit is repeated, else the order
expires. After the transaction, the handler of OrderEdited adds the additional units to the
reservation of the order, releases units that are no longer needed, and refunds the difference.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Extend,
    RequestedLine,
    ReservationClosed,
    ReservationStatus,
    Reserve,
)
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.contract import (
    Address,
    EditApplied,
    EditNotFound,
    EditOrder,
    EditStatus,
    OrderEdited,
    OrderEditOpened,
    OrderView,
)
from markethall.orders.domain import AdditionalPayment, AuditInfo, NewPayment, Order, OrderEdit
from markethall.orders.ports import ReadStore, Store
from markethall.orders.pricing.domain import Quote
from markethall.orders.pricing.ports import Pricing
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.edit_pricing import EditedLines, price_edit
from markethall.orders.service.open_edits import (
    list_released_lines,
    start_open_edit,
    to_open_edit,
)
from markethall.orders.service.optimistic_retry import retry_on_conflict
from markethall.orders.service.order_events import additional_payment_ids, edit_dropped_event
from markethall.orders.service.quotes import build_shipping_line
from markethall.orders.service.views import to_order_view
from markethall.orders.service.visible_orders import check_staff, get_visible_order
from markethall.payments.contract import ActivatePayments, OpenPayment, PaymentSummary
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database import Database


@dataclass(frozen=True)
class _PricedEdit:
    """An edit that is priced, but has no reservation and no payment yet."""

    edit_id: UUID
    lines: EditedLines
    quote: Quote

    def derive_id(self, order: Order, kind: str) -> UUID:
        """Derive an id that is the same in all attempts for this version of the order."""
        return derive_uuid7(self.edit_id, f"{kind} {order.version}")


class OrderEditService:
    """Implementation of `OrderEdits`."""

    def __init__(
        self,
        clients: ContextClients,
        pricing: Pricing,
        database: Database[ReadStore, Store],
        policy: ReservationPolicy,
        clock: Clock,
    ) -> None:
        self._clients = clients
        self._inventory = clients.inventory
        self._payments = clients.payments
        self._pricing = pricing
        self._database = database
        self._policy = policy
        self._clock = clock

    async def edit(
        self, ctx: CallContext, order_id: UUID, command: EditOrder, attempt: IdempotentCommand
    ) -> OrderView:
        check_staff(ctx)
        return await retry_on_conflict(lambda: self._edit(ctx, order_id, command, attempt))

    async def _edit(
        self, ctx: CallContext, order_id: UUID, command: EditOrder, attempt: IdempotentCommand
    ) -> OrderView:
        async with self._database.read_session() as reads:
            order = await get_visible_order(reads, ctx, order_id)
            is_saved = await reads.has_edit(attempt.id)
        if not is_saved:
            order.check_editable(self._clock())
            lines, quote = await price_edit(self._inventory, self._pricing, ctx, order, command)
            priced = _PricedEdit(attempt.id, lines, quote)
            if order.is_paid and quote.total.amount > order.total:
                await self._open(ctx, order, command, priced)
            else:
                await self._apply(ctx, order, command, priced)
        return await self._activate_and_respond(ctx, order, attempt)

    async def _open(
        self, ctx: CallContext, order: Order, command: EditOrder, priced: _PricedEdit
    ) -> None:
        """Store an edit that takes effect when the customer has paid the difference.

        Raises ConcurrentUpdate if the order has changed meanwhile.
        """
        now = self._clock()
        expires_at = now + self._policy.edit_payment_ttl
        async with self._reserved(ctx, order, priced) as reservation_id:
            amount = _money(order, priced.quote.total.amount - order.total)
            payment = await self._open_payment(ctx, order, priced, amount, expires_at=expires_at)
            additional = AdditionalPayment(
                edit_id=priced.edit_id,
                payment_id=payment.payment_id,
                amount=amount.amount,
                expires_at=expires_at,
                reservation_id=reservation_id,
                edit=_to_order_edit(priced),
            )
            audit = AuditInfo(ctx.actor.audit_name, now, command.reason or "")
            order.open_for_payment(additional, audit)
            event = OrderEditOpened(
                order_id=order.order_id,
                edit_id=additional.edit_id,
                payment_id=additional.payment_id,
                reservation_id=reservation_id,
                amount=amount,
                expires_at=expires_at,
            )
            async with self._database.transaction() as store:
                await store.save_opened_edit(order, additional)
                await store.publish(event, ctx)

    async def _apply(
        self, ctx: CallContext, order: Order, command: EditOrder, priced: _PricedEdit
    ) -> None:
        """Raises ConcurrentUpdate if the order has changed meanwhile."""
        audit = AuditInfo(ctx.actor.audit_name, self._clock(), command.reason or "")
        previous_lines, previous_total = order.lines, order.total
        async with self._reserved(ctx, order, priced) as reservation_id:
            payment = await self._replace_payment(ctx, order, priced)
            order.edit(_to_order_edit(priced, payment), audit)
            event = OrderEdited(
                order_id=order.order_id,
                edit_id=priced.edit_id,
                reservation_id=order.reservation_id,
                merged_reservation_id=reservation_id,
                released_lines=list_released_lines(previous_lines, order.lines),
                payment_id=order.payment_id,
                refund=_money(order, previous_total - order.total if order.is_captured else 0),
                additional_payment_ids=additional_payment_ids(order),
            )
            async with self._database.transaction() as store:
                await store.save_edited_order(order, priced.edit_id)
                await store.publish(event, ctx)

    @asynccontextmanager
    async def _reserved(
        self, ctx: CallContext, order: Order, priced: _PricedEdit
    ) -> AsyncIterator[UUID | None]:
        """Reserve the additional units. Yield None if no quantity rises.

        If the edit is rejected, or the order has changed, release the new reservation. Keep it if a
        retry with the same key may succeed, or if a concurrent attempt has saved the edit.
        """
        if not priced.lines.raised:
            yield None
            return
        reservation_id = priced.derive_id(order, "reservation")
        await self._reserve(ctx, order, priced, reservation_id)
        try:
            yield reservation_id
        except (DomainError, ConcurrentUpdate) as error:
            may_succeed = isinstance(error, DomainError) and error.retryable
            if not may_succeed and not await self._is_saved(priced.edit_id):
                await self._inventory.release(ctx, reservation_id)
            raise

    async def _is_saved(self, edit_id: UUID) -> bool:
        async with self._database.read_session() as reads:
            return await reads.has_edit(edit_id)

    async def _reserve(
        self, ctx: CallContext, order: Order, priced: _PricedEdit, reservation_id: UUID
    ) -> None:
        """Raises ProductNotFound, OutOfStock, ReservationClosed."""
        lines = (
            RequestedLine(product_id=product_id, quantity=quantity)
            for product_id, quantity in priced.lines.raised.items()
        )
        command = Reserve(
            reservation_id=reservation_id,
            order_id=order.order_id,
            customer_id=order.user_id,
            lines=tuple(lines),
            expires_at=self._clock() + self._policy.reservation_ttl,
            currency=order.currency,
        )
        reservation = await self._inventory.reserve(ctx, command)
        if reservation.status is not ReservationStatus.HELD:
            raise ReservationClosed(
                reservation_id=str(reservation_id), status=reservation.status.value
            )
        if order.is_paid:
            return
        # a pending order may live for days, until the deadline of its payment method
        until = order.expires_at + self._policy.payment_safety_margin
        if until > reservation.expires_at:
            await self._inventory.extend(
                ctx, Extend(reservation_id=reservation_id, expires_at=until)
            )

    async def _replace_payment(
        self, ctx: CallContext, order: Order, priced: _PricedEdit
    ) -> NewPayment | None:
        """Cancel the payment of a pending order, and open one of the new total.

        Return None if the payment stays: the order is paid, or costs the same. The new payment can
        be confirmed only after the commit, so there are never two payments that can be paid.
        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        if order.is_paid or priced.quote.total.amount == order.total:
            return None
        await self._payments.cancel(ctx, order.payment_id)
        payment = await self._open_payment(
            ctx, order, priced, priced.quote.total, replaces=order.payment_id
        )
        return NewPayment(payment.payment_id, payment.version)

    async def _open_payment(
        self,
        ctx: CallContext,
        order: Order,
        priced: _PricedEdit,
        amount: Money,
        *,
        expires_at: datetime | None = None,
        replaces: UUID | None = None,
    ) -> PaymentSummary:
        """Open an additional payment, or one that replaces the payment of the order."""
        address = order.shipping_address
        command = OpenPayment(
            payment_id=priced.derive_id(order, "payment"),
            order_id=order.order_id,
            user_id=order.user_id,
            amount=amount,
            expires_at=expires_at or order.expires_at,
            country=address.country if isinstance(address, Address) else None,
            replaces=replaces,
            is_additional=replaces is None,
        )
        return await self._payments.open(ctx, command)

    async def cancel_edit(
        self, ctx: CallContext, order_id: UUID, edit_id: UUID, attempt: IdempotentCommand
    ) -> OrderView:
        check_staff(ctx)
        return await retry_on_conflict(lambda: self._cancel_edit(ctx, order_id, edit_id, attempt))

    async def _cancel_edit(
        self, ctx: CallContext, order_id: UUID, edit_id: UUID, attempt: IdempotentCommand
    ) -> OrderView:
        """Cancel the payment first, so that the customer cannot pay for a dropped edit."""
        async with self._database.read_session() as reads:
            order = await get_visible_order(reads, ctx, order_id)
            status = await reads.get_edit_status(order_id, edit_id)
        payment = order.open_edit
        if payment and payment.edit_id == edit_id:
            await self._payments.cancel(ctx, payment.payment_id)
            reason = "cancelled by staff"
            order.drop_open_edit(AuditInfo(ctx.actor.audit_name, self._clock(), reason))
            events = [edit_dropped_event(order, payment, reason)]
        elif status is EditStatus.DROPPED:
            events = []
        elif status is None:
            raise EditNotFound(edit_id=str(edit_id))
        else:
            raise EditApplied(edit_id=str(edit_id))
        view = to_order_view(order, for_staff=True)
        async with self._database.transaction() as store:
            await store.save_order(order)
            for event in events:
                await store.publish(event, ctx)
            await store.store_response(attempt, view)
        return view

    async def _activate_and_respond(
        self, ctx: CallContext, order: Order, attempt: IdempotentCommand
    ) -> OrderView:
        if order.open_edit:
            # ReservationClosed: the handler of OrderEditOpened drops the edit
            with suppress(ReservationClosed):
                await start_open_edit(
                    ctx, self._clients, self._policy, to_open_edit(order.open_edit)
                )
        else:
            await self._payments.activate(ctx, ActivatePayments(payment_ids=(order.payment_id,)))
        view = to_order_view(order, for_staff=True)
        async with self._database.transaction() as store:
            await store.store_response(attempt, view)
        return view


def _to_order_edit(priced: _PricedEdit, payment: NewPayment | None = None) -> OrderEdit:
    breakdown = priced.quote.breakdown
    return OrderEdit(
        edit_id=priced.edit_id,
        lines=priced.lines.to_order_lines(breakdown),
        shipping_line=build_shipping_line(breakdown),
        discount=breakdown.discount,
        shipping=breakdown.shipping,
        tax=breakdown.tax,
        included_tax=breakdown.included_tax,
        payment=payment,
    )


def _money(order: Order, amount: int) -> Money:
    return Money(amount=amount, currency=order.currency)
