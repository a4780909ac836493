"""Edit the lines of an order: price them, reserve the units, replace the payment, save the order.

Only the transaction that saves the order makes the edit effective. A crash before this transaction
leaves a reservation that expires. If the order is pending, it also leaves a cancelled payment: the
customer cannot pay until the edit is repeated, else the order expires. After the transaction, the
handler of OrderEdited adds the additional units to the reservation of the order, releases units
that are no longer needed, and refunds the difference.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

from markethall.inventory.contract import ReservationClosed
from markethall.orders.configuration.ports import ConcurrentUpdate, retry_on_conflict
from markethall.orders.contract import (
    EditApplied,
    EditNotFound,
    EditOrder,
    EditPreview,
    EditStatus,
    OrderEditOpened,
    OrderView,
)
from markethall.orders.domain import AdditionalPayment, AuditInfo, Order
from markethall.orders.ports import ReadStore, Store
from markethall.orders.pricing.service import Pricing
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.edit_pricing import EditPrice, PricedEdit, price_edit
from markethall.orders.service.edit_resources import EditResources
from markethall.orders.service.open_edits import start_open_edit
from markethall.orders.service.order_events import edit_dropped_event, edited_event
from markethall.orders.service.views import check_staff, get_visible_order, to_order_view
from markethall.payments.contract import ActivatePayments
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.database import Database

_Change = Callable[[Order, EditStatus | None], Awaitable[OrderView]]


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
        self._pricing = pricing
        self._database = database
        self._policy = policy
        self._clock = clock
        self._resources = EditResources(clients, database, policy, clock)

    async def edit(
        self, ctx: CallContext, order_id: UUID, command: EditOrder, attempt: IdempotentCommand
    ) -> OrderView:
        async def change(order: Order, status: EditStatus | None) -> OrderView:
            if status is None:
                await self._edit(ctx, order, command, attempt.id)
            return await self._activate_and_respond(ctx, order, attempt)

        return await self._change(ctx, order_id, attempt.id, change)

    async def preview(self, ctx: CallContext, order_id: UUID, command: EditOrder) -> EditPreview:
        check_staff(ctx)
        async with self._database.read_session() as reads:
            order = await get_visible_order(reads, ctx, order_id)
        price = await self._price(ctx, order, command)
        price.lines.check_stock()
        return price.to_preview(order)

    async def cancel_edit(
        self, ctx: CallContext, order_id: UUID, edit_id: UUID, attempt: IdempotentCommand
    ) -> OrderView:
        async def change(order: Order, status: EditStatus | None) -> OrderView:
            return await self._cancel(ctx, order, edit_id, status, attempt)

        return await self._change(ctx, order_id, edit_id, change)

    @retry_on_conflict
    async def _change(
        self, ctx: CallContext, order_id: UUID, edit_id: UUID, change: _Change
    ) -> OrderView:
        """Let staff change the order. If another change is saved first, try again.

        `change` gets the order and the status of the edit, or None if the edit is not stored.
        """
        check_staff(ctx)
        async with self._database.read_session() as reads:
            order = await get_visible_order(reads, ctx, order_id)
            status = await reads.get_edit_status(order_id, edit_id)
            if status:
                # read again, because the edit may be newer than the order that was read
                order = await get_visible_order(reads, ctx, order_id)
        return await change(order, status)

    async def _edit(
        self, ctx: CallContext, order: Order, command: EditOrder, edit_id: UUID
    ) -> None:
        """Raises ConcurrentUpdate if the order has changed meanwhile."""
        price = await self._price(ctx, order, command)
        priced = PricedEdit(price.lines, price.quote, edit_id)
        audit = AuditInfo(ctx.actor.audit_name, self._clock(), command.reason or "")
        async with self._resources.reserved(ctx, order, priced) as reservation_id:
            if order.is_paid and priced.total.amount > order.total:
                await self._open(ctx, order, priced, reservation_id, audit)
            else:
                await self._apply(ctx, order, priced, reservation_id, audit)

    async def _price(self, ctx: CallContext, order: Order, command: EditOrder) -> EditPrice:
        order.check_editable(self._clock())
        return await price_edit(self._clients.inventory, self._pricing, ctx, order, command)

    async def _open(
        self,
        ctx: CallContext,
        order: Order,
        priced: PricedEdit,
        reservation_id: UUID | None,
        audit: AuditInfo,
    ) -> None:
        """Store an edit that takes effect when the customer has paid the difference."""
        expires_at = audit.at + self._policy.edit_payment_ttl
        payment = await self._resources.open_additional_payment(ctx, order, priced, expires_at)
        additional = AdditionalPayment(
            edit_id=priced.edit_id,
            payment_id=payment.payment_id,
            amount=priced.total.amount - order.total,
            expires_at=expires_at,
            reservation_id=reservation_id,
            edit=priced.to_order_edit(),
        )
        order.open_for_payment(additional, audit)
        event = OrderEditOpened(
            order_id=order.order_id,
            edit_id=additional.edit_id,
            payment_id=additional.payment_id,
            reservation_id=reservation_id,
            amount=order.money(additional.amount),
            expires_at=expires_at,
        )
        async with self._database.transaction() as store:
            await store.save_opened_edit(order, additional)
            await store.publish(event, ctx)

    async def _apply(
        self,
        ctx: CallContext,
        order: Order,
        priced: PricedEdit,
        reservation_id: UUID | None,
        audit: AuditInfo,
    ) -> None:
        previous_lines, previous_total = order.lines, order.total
        payment = await self._resources.replace_payment(ctx, order, priced)
        order.edit(priced.to_order_edit(payment), audit)
        refund = previous_total - order.total if order.is_captured else 0
        event = edited_event(order, previous_lines, priced.edit_id, reservation_id, refund)
        async with self._database.transaction() as store:
            await store.save_edited_order(order, priced.edit_id)
            await store.publish(event, ctx)

    async def _activate_and_respond(
        self, ctx: CallContext, order: Order, attempt: IdempotentCommand
    ) -> OrderView:
        if order.open_edit:
            # ReservationClosed: the handler of OrderEditOpened drops the edit
            with suppress(ReservationClosed):
                await start_open_edit(ctx, self._clients, self._policy, order.open_edit)
        else:
            activate = ActivatePayments(payment_ids=(order.payment_id,))
            await self._clients.payments.activate(ctx, activate)
        view = to_order_view(order, for_staff=True)
        async with self._database.transaction() as store:
            await store.store_response(attempt, view)
        return view

    async def _cancel(
        self,
        ctx: CallContext,
        order: Order,
        edit_id: UUID,
        status: EditStatus | None,
        attempt: IdempotentCommand,
    ) -> OrderView:
        """Cancel the payment first, so that the customer cannot pay for a dropped edit."""
        payment, events = order.open_edit, []
        if payment and payment.edit_id == edit_id:
            await self._clients.payments.cancel(ctx, payment.payment_id)
            reason = "cancelled by staff"
            order.drop_open_edit(AuditInfo(ctx.actor.audit_name, self._clock(), reason))
            events.append(edit_dropped_event(order, payment, reason))
        else:
            _check_dropped(edit_id, status)
        view = to_order_view(order, for_staff=True)
        async with self._database.transaction() as store:
            await store.save_order(order)
            for event in events:
                await store.publish(event, ctx)
            await store.store_response(attempt, view)
        return view


def _check_dropped(edit_id: UUID, status: EditStatus | None) -> None:
    """Raises EditNotFound, EditApplied; ConcurrentUpdate if the edit has ended just now."""
    if status is None:
        raise EditNotFound(edit_id=str(edit_id))
    if status is EditStatus.OPEN:
        raise ConcurrentUpdate
    if status is EditStatus.APPLIED:
        raise EditApplied(edit_id=str(edit_id))
