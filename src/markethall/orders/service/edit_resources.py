"""The units and the payment that an edit needs before it takes effect.

All ids are derived from the attempt's id and the version of the order, so a retry continues where
an earlier attempt stopped.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from markethall.orders.contract import Address
from markethall.orders.domain import NewPayment, Order
from markethall.orders.ports import ReadStore
from markethall.orders.service.checkout import ContextClients, ReservationPolicy
from markethall.orders.service.edit_pricing import PricedEdit
from markethall.payments.contract import OpenPayment, PaymentSummary
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database import ReadDatabase


class EditResources:
    def __init__(
        self,
        clients: ContextClients,
        database: ReadDatabase[ReadStore],
        policy: ReservationPolicy,
        clock: Clock,
    ) -> None:
        self._inventory = clients.inventory
        self._payments = clients.payments
        self._database = database
        self._policy = policy
        self._clock = clock

    @asynccontextmanager
    async def reserved(
        self, ctx: CallContext, order: Order, priced: PricedEdit
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
            if not may_succeed and not await self._is_saved(order, priced):
                await self._inventory.release(ctx, reservation_id)
            raise

    async def _is_saved(self, order: Order, priced: PricedEdit) -> bool:
        async with self._database.read_session() as reads:
            return await reads.get_edit_status(order.order_id, priced.edit_id) is not None

    async def _reserve(
        self, ctx: CallContext, order: Order, priced: PricedEdit, reservation_id: UUID
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
        # a pending order may stay pending for days, until the deadline of its payment method
        until = order.expires_at + self._policy.payment_safety_margin
        if until > reservation.expires_at:
            await self._inventory.extend(
                ctx, Extend(reservation_id=reservation_id, expires_at=until)
            )

    async def replace_payment(
        self, ctx: CallContext, order: Order, priced: PricedEdit
    ) -> NewPayment | None:
        """Cancel the payment of a pending order, and open one of the new total.

        Return None if the payment stays: the order is paid, or costs the same. The new payment can
        be confirmed only after the commit, so there are never two payments that can be paid.
        Raises PaymentInProgress, InvalidPaymentTransition.
        """
        if order.is_paid or priced.total.amount == order.total:
            return None
        await self._payments.cancel(ctx, order.payment_id)
        payment = await self._open_payment(
            ctx, order, priced, priced.total, order.expires_at, replaces=order.payment_id
        )
        return NewPayment(payment.payment_id, payment.version)

    async def open_additional_payment(
        self, ctx: CallContext, order: Order, priced: PricedEdit, expires_at: datetime
    ) -> PaymentSummary:
        """Open a payment of the amount that the edit costs more."""
        amount = priced.total - order.money(order.total)
        return await self._open_payment(ctx, order, priced, amount, expires_at)

    async def _open_payment(
        self,
        ctx: CallContext,
        order: Order,
        priced: PricedEdit,
        amount: Money,
        expires_at: datetime,
        *,
        replaces: UUID | None = None,
    ) -> PaymentSummary:
        address = order.shipping_address
        command = OpenPayment(
            payment_id=priced.derive_id(order, "payment"),
            order_id=order.order_id,
            user_id=order.user_id,
            amount=amount,
            expires_at=expires_at,
            country=address.country if isinstance(address, Address) else None,
            replaces=replaces,
            is_additional=replaces is None,
        )
        return await self._payments.open(ctx, command)
