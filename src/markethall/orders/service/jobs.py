"""Periodic job of orders: expire unpaid orders."""

import structlog

from markethall.orders.contract import OrderExpired
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.ports import ConcurrentUpdate, Database
from markethall.payments.contract import InvalidPaymentTransition, PaymentInProgress, Payments
from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.pagination import TimeKeyset

log = structlog.get_logger("markethall.orders")

BATCH_SIZE = 50


class OrderExpiryJob:
    """Cancel the payment of each overdue order, then expire the order."""

    def __init__(self, payments: Payments, database: Database, clock: Clock) -> None:
        self._payments = payments
        self._database = database
        self._clock = clock

    async def run_once(self) -> None:
        """Expire all overdue orders, in batches. An order that fails does not stop the others."""
        now = self._clock()
        after: TimeKeyset | None = None
        while True:
            async with self._database.read_session() as store:
                batch = await store.list_overdue_orders(now, after, BATCH_SIZE)
            for order in batch:
                await self._try_expire(order)
            if len(batch) < BATCH_SIZE:
                return
            after = TimeKeyset(batch[-1].expires_at, batch[-1].order_id)

    async def _try_expire(self, order: Order) -> None:
        try:
            await self._expire(order)
        except InvalidPaymentTransition:
            # the payment is captured, so the handler of PaymentCaptured marks the order as paid
            log.info("order.expiry_skipped_paid", order_id=str(order.order_id))
        except (PaymentInProgress, Unavailable, ConcurrentUpdate) as error:
            log.info("order.expiry_deferred", order_id=str(order.order_id), error=repr(error))
        except Exception:  # an order that fails must not stop the others
            log.exception("order.expiry_failed", order_id=str(order.order_id))

    async def _expire(self, order: Order) -> None:
        ctx = system_context("orders.expire")
        await self._payments.cancel(ctx, order.payment_id)
        async with self._database.transaction() as store:
            order.expire(AuditInfo(ctx.actor.audit_name, self._clock(), "not paid in time"))
            await store.save_order(order)
            await store.publish(_expired_event(order), ctx)


def _expired_event(order: Order) -> OrderExpired:
    return OrderExpired(order_id=order.order_id, reservation_id=order.reservation_id)
