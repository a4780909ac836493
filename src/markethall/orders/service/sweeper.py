"""An unpaid order reaches its end by itself."""

import structlog

from markethall.orders.contract import OrderExpired
from markethall.orders.domain import By, Order
from markethall.orders.ports import Changed, Database, Place
from markethall.payments.contract import InvalidPaymentTransition, PaymentInProgress, Payments
from markethall.shared.call import system_call
from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable

log = structlog.get_logger("markethall.orders")

BATCH = 50


class OverdueOrders:
    """Expires orders whose time to pay is over, the payment first."""

    def __init__(self, payments: Payments, database: Database, clock: Clock) -> None:
        self._payments = payments
        self._database = database
        self._clock = clock

    async def sweep(self) -> None:
        """All that are overdue now, in batches; one that cannot end yet stops no other."""
        now = self._clock()
        after: Place | None = None
        while True:
            async with self._database.reading() as store:
                batch = await store.overdue(now, after, BATCH)
            for order in batch:
                await self._try_to_end(order)
            if len(batch) < BATCH:
                return
            after = Place(batch[-1].expires_at, batch[-1].order_id)

    async def _try_to_end(self, order: Order) -> None:
        try:
            await self._end(order)
        except InvalidPaymentTransition:
            # the money is taken: the event that says so is on its way
            log.info("order.paid_at_the_end", order_id=str(order.order_id))
        except (PaymentInProgress, Unavailable, Changed) as error:
            log.info("order.ends_later", order_id=str(order.order_id), error=repr(error))
        except Exception:  # whatever it is, the others must end too
            log.exception("order.cannot_end", order_id=str(order.order_id))

    async def _end(self, order: Order) -> None:
        call = system_call("orders.expire")
        await self._payments.cancel(call, order.payment_id)
        async with self._database.transaction() as store:
            order.expire(By(call.actor.known_as, self._clock(), "not paid in time"))
            await store.save(order)
            await store.publish(_expired(order), call)


def _expired(order: Order) -> OrderExpired:
    return OrderExpired(order_id=order.order_id, reservation_id=order.reservation_id)
