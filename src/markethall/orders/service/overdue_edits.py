"""Periodic job of orders: drop the edits whose additional payments were not paid in time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog

from markethall.orders.configuration.ports import ConcurrentUpdate
from markethall.orders.domain import AdditionalPayment, AuditInfo, Order
from markethall.orders.ports import ReadStore, Store
from markethall.orders.service.order_events import edit_dropped_event
from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    Payments,
    PaymentStatus,
)
from markethall.shared.kernel.call_context import CallContext, system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.orders")

BATCH_SIZE: Final = 50
_REASON: Final = "not paid in time"


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
        order.drop_open_edit(AuditInfo(ctx.actor.audit_name, self._clock(), _REASON))
        async with self._database.transaction() as store:
            await store.save_order(order)
            await store.publish(edit_dropped_event(order, payment, _REASON), ctx)
