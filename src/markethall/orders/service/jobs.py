"""Periodic jobs of orders: check the payments of pending orders, expire overdue orders and edits.

Normally an event reports a payment earlier. The jobs are needed when an event is late, and after a
crash between the commit of an order and the activation of its payment.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.contract import OrderExpired
from markethall.orders.domain import (
    AdditionalPayment,
    AuditInfo,
    Order,
    TimeSpan,
    due_check_spans,
    next_overdue_check,
)
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.invoices import InvoiceDrafts
from markethall.orders.service.order_events import edit_dropped_event
from markethall.orders.service.payment_changes import PaymentDeadlines, apply_payment
from markethall.payments.contract import (
    ActivatePayments,
    InvalidPaymentTransition,
    PaymentInProgress,
    Payments,
    PaymentStatus,
    PaymentSummary,
)
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.orders")

BATCH_SIZE = 50
_NOT_PAID: Final = "not paid in time"
_CHECK_INTERVAL: Final = timedelta(seconds=5)


class PendingOrdersJob:
    """Check the payments of pending orders: at CHECK_AGES, and when the orders are overdue."""

    def __init__(
        self,
        payments: Payments,
        deadlines: PaymentDeadlines,
        database: Database[ReadStore, Store],
        invoices: InvoiceDrafts,
        clock: Clock,
    ) -> None:
        self._payments = payments
        self._deadlines = deadlines
        self._database = database
        self._invoices = invoices
        self._clock = clock
        self._checked_at: datetime | None = None

    async def run_once(self) -> None:
        """Check all due orders, in batches. An order that fails does not stop the others."""
        now, since = self._clock(), self._checked_at
        if since is not None and since > now:
            since = None  # the clock of the database was set back
        if since is None or now - since >= _CHECK_INTERVAL:
            await self._check_pending_orders(due_check_spans(since, now), now)
            self._checked_at = now
        while orders := await self._claim_overdue_orders():
            await self._check(orders)

    async def _check_pending_orders(self, created: Sequence[TimeSpan], now: datetime) -> None:
        after: TimeKeyset | None = None
        while True:
            async with self._database.read_session() as reads:
                orders = await reads.list_pending_orders(created, now, after, BATCH_SIZE)
            if orders:
                await self._check(orders)
            if len(orders) < BATCH_SIZE:
                return
            after = TimeKeyset(orders[-1].created_at, orders[-1].order_id)

    async def _claim_overdue_orders(self) -> Sequence[Order]:
        """Return overdue orders. Postpone their next check, so the next call returns others."""
        now = self._clock()
        async with self._database.read_session() as reads:
            orders = await reads.list_overdue_orders(now, BATCH_SIZE)
        if orders:
            next_checks = {order.order_id: next_overdue_check(order, now) for order in orders}
            async with self._database.autocommit() as store:
                await store.postpone_overdue_checks(next_checks)
        return orders

    async def _check(self, orders: Sequence[Order]) -> None:
        ctx = system_context("orders.check_payments")
        command = ActivatePayments(payment_ids=tuple(order.payment_id for order in orders))
        try:
            found = await self._payments.activate(ctx, command)
        except Unavailable as error:
            log.info("order.payment_checks_deferred", count=len(orders), error=repr(error))
            return
        payments = {payment.payment_id: payment for payment in found.items}
        for order in orders:
            # a call context per order, so that each order's events have their own request id
            order_ctx = system_context("orders.check_payments")
            await self._try_settle(order_ctx, order, payments.get(order.payment_id))

    async def _try_settle(
        self, ctx: CallContext, order: Order, payment: PaymentSummary | None
    ) -> None:
        try:
            await self._settle(ctx, order, payment)
        except InvalidPaymentTransition:
            # the payment was captured after the context payments had reported its status; the
            # handler of PaymentCaptured or the next check marks the order as paid
            log.info("order.expiry_skipped_paid", order_id=str(order.order_id))
        except (PaymentInProgress, Unavailable, ConcurrentUpdate) as error:
            log.info("order.expiry_deferred", order_id=str(order.order_id), error=repr(error))
        except Exception:  # an order that fails must not stop the others
            log.exception("order.expiry_failed", order_id=str(order.order_id))

    async def _settle(self, ctx: CallContext, order: Order, payment: PaymentSummary | None) -> None:
        now = self._clock()
        audit = AuditInfo(ctx.actor.audit_name, now)
        event = apply_payment(order, payment, audit)
        if event is None and payment:
            event = await self._deadlines.follow(ctx, order, payment.expires_at, audit)
        if event is None and order.expires_at <= now:
            event = await self._expire(order, now)
        if not order.has_changed:
            return
        invoice = await self._invoices.draft_if_paid(order, [event] if event else [])
        async with self._database.transaction() as store:
            await store.save_order(order)
            if event:
                await store.publish(event, ctx)
            if invoice:
                await store.add_invoice(invoice)

    async def _expire(self, order: Order, now: datetime) -> OrderExpired:
        """Cancel the payment, then expire the order."""
        ctx = system_context("orders.expire")
        await self._payments.cancel(ctx, order.payment_id)
        order.expire(AuditInfo(ctx.actor.audit_name, now, _NOT_PAID))
        return OrderExpired(order_id=order.order_id, reservation_id=order.reservation_id)


class OverdueEditsJob:
    """Cancel the payments of overdue edits, then drop the edits. The orders stay as they are."""

    def __init__(
        self, payments: Payments, database: Database[ReadStore, Store], clock: Clock
    ) -> None:
        self._payments = payments
        self._database = database
        self._clock = clock

    async def run_once(self) -> None:
        """Check each overdue edit once. A failed edit does not stop the others."""
        now = self._clock()
        after: TimeKeyset | None = None
        while orders := await self._list(now, after):
            for order in orders:
                if payment := order.open_edit:
                    await self._try_drop(order, payment)
                    after = TimeKeyset(payment.expires_at, payment.edit_id)
            if len(orders) < BATCH_SIZE:
                return

    async def _list(self, now: datetime, after: TimeKeyset | None) -> Sequence[Order]:
        async with self._database.read_session() as reads:
            return await reads.list_overdue_edits(now, after, BATCH_SIZE)

    async def _try_drop(self, order: Order, payment: AdditionalPayment) -> None:
        ctx = system_context("orders.drop_edit")
        order_id = str(order.order_id)
        try:
            if await self._can_end(ctx, payment):
                await self._drop(ctx, order, payment)
        except (PaymentInProgress, Unavailable, ConcurrentUpdate) as error:
            log.info("order.edit_expiry_deferred", order_id=order_id, error=repr(error))
        except Exception:  # an edit that fails must not stop the others
            log.exception("order.edit_expiry_failed", order_id=order_id)

    async def _can_end(self, ctx: CallContext, payment: AdditionalPayment) -> bool:
        """Cancel the payment. Return False if it is captured, because the edit then takes effect.

        If the payment is authorized because its capture has failed, the handler of OrderEditDropped
        voids it.
        """
        try:
            await self._payments.cancel(ctx, payment.payment_id)
        except InvalidPaymentTransition as error:
            return bool(error.details["status"] == PaymentStatus.AUTHORIZED)
        return True

    async def _drop(self, ctx: CallContext, order: Order, payment: AdditionalPayment) -> None:
        order.drop_open_edit(AuditInfo(ctx.actor.audit_name, self._clock(), _NOT_PAID))
        async with self._database.transaction() as store:
            await store.save_order(order)
            await store.publish(edit_dropped_event(order, payment, _NOT_PAID), ctx)
