"""Edit the lines of an order: price them, reserve the units, replace the payment, save the order.

All ids are derived from the attempt's id and the version of the order, so a retry continues where
an earlier attempt stopped. Only the transaction that saves the order makes the edit effective. A
crash before it leaves a reservation that expires, and of a pending order a cancelled payment: the
customer cannot pay then until the edit is repeated, else the order expires. After it, the handler
of OrderEdited releases what is no longer needed and refunds the difference.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from markethall.inventory.contract import (
    Extend,
    RequestedLine,
    ReservationClosed,
    ReservationStatus,
    Reserve,
)
from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.contract import Address, EditOrder, OrderEdited, OrderView
from markethall.orders.domain import AuditInfo, NewPayment, Order, OrderEdit
from markethall.orders.ports import ReadStore, Store
from markethall.orders.pricing.domain import Quote
from markethall.orders.pricing.ports import Pricing
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.edit_pricing import EditedLines, price_edit
from markethall.orders.service.optimistic_retry import retry_on_conflict
from markethall.orders.service.quotes import build_shipping_line
from markethall.orders.service.views import to_order_view
from markethall.orders.service.visible_orders import check_staff, get_visible_order
from markethall.payments.contract import ActivatePayments, OpenPayment
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
            await self._apply(ctx, order, command, _PricedEdit(attempt.id, lines, quote))
        return await self._activate_and_respond(ctx, order, attempt)

    async def _apply(
        self, ctx: CallContext, order: Order, command: EditOrder, priced: _PricedEdit
    ) -> None:
        """Raises ConcurrentUpdate if the order has changed meanwhile."""
        audit = AuditInfo(ctx.actor.audit_name, self._clock(), command.reason or "")
        previous_reservation_id, previous_total = order.reservation_id, order.total
        async with self._reserved(ctx, order, priced) as reservation_id:
            payment = await self._replace_payment(ctx, order, priced)
            breakdown = priced.quote.breakdown
            edit = OrderEdit(
                edit_id=priced.edit_id,
                lines=priced.lines.to_order_lines(breakdown),
                shipping_line=build_shipping_line(breakdown),
                discount=breakdown.discount,
                shipping=breakdown.shipping,
                tax=breakdown.tax,
                included_tax=breakdown.included_tax,
                reservation_id=reservation_id,
                payment=payment,
            )
            order.edit(edit, audit)
            event = OrderEdited(
                order_id=order.order_id,
                edit_id=priced.edit_id,
                reservation_id=order.reservation_id,
                released_reservation_id=previous_reservation_id if reservation_id else None,
                released_lines=() if reservation_id else priced.lines.released,
                payment_id=order.payment_id,
                refund=_money(order, previous_total - order.total if order.is_captured else 0),
            )
            async with self._database.transaction() as store:
                await store.save_edited_order(order, priced.edit_id)
                await store.publish(event, ctx)

    @asynccontextmanager
    async def _reserved(
        self, ctx: CallContext, order: Order, priced: _PricedEdit
    ) -> AsyncIterator[UUID | None]:
        """Reserve all units again if a quantity rises. Yield None if none does.

        If the edit is rejected, or the order has changed, release the new reservation. If a retry
        with the same key may succeed, keep it.
        """
        if not priced.lines.has_raise:
            yield None
            return
        reservation_id = priced.derive_id(order, "reservation")
        await self._reserve(ctx, order, priced, reservation_id)
        try:
            yield reservation_id
        except (DomainError, ConcurrentUpdate) as error:
            if not (isinstance(error, DomainError) and error.retryable):
                await self._inventory.release(ctx, reservation_id)
            raise

    async def _reserve(
        self, ctx: CallContext, order: Order, priced: _PricedEdit, reservation_id: UUID
    ) -> None:
        """Raises ProductNotFound, OutOfStock, ReservationClosed."""
        lines = (
            RequestedLine(product_id=product_id, quantity=quantity)
            for product_id, quantity in priced.lines.quantities.items()
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
        address = order.shipping_address
        command = OpenPayment(
            payment_id=priced.derive_id(order, "payment"),
            order_id=order.order_id,
            user_id=order.user_id,
            amount=priced.quote.total,
            expires_at=order.expires_at,
            country=address.country if isinstance(address, Address) else None,
            replaces=order.payment_id,
        )
        payment = await self._payments.open(ctx, command)
        return NewPayment(payment.payment_id, payment.version)

    async def _activate_and_respond(
        self, ctx: CallContext, order: Order, attempt: IdempotentCommand
    ) -> OrderView:
        await self._payments.activate(ctx, ActivatePayments(payment_ids=(order.payment_id,)))
        view = to_order_view(order, for_staff=True)
        async with self._database.transaction() as store:
            await store.store_response(attempt, view)
        return view


def _money(order: Order, amount: int) -> Money:
    return Money(amount=amount, currency=order.currency)
