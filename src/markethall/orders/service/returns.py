"""The use cases of returns behind the HTTP API."""

from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter

from markethall.orders.configuration.ports import ConcurrentUpdate, retry_on_conflict
from markethall.orders.contract import (
    FulfilledLine,
    OrderNotFound,
    ReturnClosed,
    ReturnReceived,
    ReturnStatusChanged,
)
from markethall.orders.domain import AuditInfo, Order
from markethall.orders.ports import ReadStore
from markethall.orders.returns.contract import (
    CloseReturn,
    Disposition,
    ReceiveReturn,
    RejectReturn,
    RequestReturn,
    ReturnNotFound,
    ReturnView,
    ShippingRefunded,
)
from markethall.orders.returns.domain import Receipt, ReceiptLine, Return, ReturnLine
from markethall.orders.service.order_events import additional_payment_ids
from markethall.orders.service.status_waits import ChangeReportingDatabase
from markethall.orders.service.views import check_staff, get_visible_order, to_return_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors, Page, PageQuery
from markethall.shared.messaging.events import Event

_RETURN_ID: Final = TypeAdapter(UUID)


class _Pair(NamedTuple):
    """A return and its order, which change in one transaction."""

    entity: Return
    order: Order


# changes the return and its order; returns the event to publish
Change = Callable[[_Pair], Event]


class ReturnService:
    """Implementation of `Returns`.

    Each change of a return also saves its order, whose version then differs. So changes of the
    returns of one order are serialized, and units are never in two returns.
    """

    def __init__(self, database: ChangeReportingDatabase, cursors: Cursors, clock: Clock) -> None:
        self._database = database
        self._cursors = cursors
        self._clock = clock

    @retry_on_conflict
    async def request(
        self, ctx: CallContext, order_id: UUID, command: RequestReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        async with self._database.transaction() as store:
            order = await get_visible_order(store, ctx, order_id)
            requested = await store.get_return(attempt.id)
            if requested is None:
                requested = self._start(ctx, order, command, attempt.id)
                await store.save_order(order)
                await store.add_return(requested)
                await store.publish(_status_event(requested), ctx)
            view = to_return_view(requested, order.currency)
            await store.store_response(attempt, view)
        return view

    def _start(
        self, ctx: CallContext, order: Order, command: RequestReturn, return_id: UUID
    ) -> Return:
        audit = self._audit(ctx, command.reason)
        quantities = {line.line_id: line.quantity for line in command.lines}
        order.start_return(quantities, audit)
        return Return(
            return_id=return_id,
            order_id=order.order_id,
            reason=command.reason,
            lines=tuple(
                ReturnLine(line.line_id, line.product_id, quantities[line.line_id])
                for line in sorted(order.lines, key=lambda line: line.line_id)
                if line.line_id in quantities
            ),
            created_at=audit.at,
            updated_at=audit.at,
        )

    async def list_returns(
        self, ctx: CallContext, order_id: UUID, query: PageQuery
    ) -> Page[ReturnView]:
        listing = f"returns {order_id}"
        after = self._cursors.decode(listing, query.cursor, _RETURN_ID)
        async with self._database.read_session() as store:
            order = await get_visible_order(store, ctx, order_id)
            found = await store.list_returns(order_id, after, query.limit + 1)
        views = [to_return_view(entity, order.currency) for entity in found]
        return self._cursors.build_page(listing, views, query.limit, lambda view: view.return_id)

    async def get_return(self, ctx: CallContext, return_id: UUID) -> ReturnView:
        async with self._database.read_session() as store:
            entity, order = await _get_pair(store, ctx, return_id)
        return to_return_view(entity, order.currency)

    async def approve(
        self, ctx: CallContext, return_id: UUID, attempt: IdempotentCommand
    ) -> ReturnView:
        def approve(pair: _Pair) -> Event:
            audit = self._audit(ctx)
            pair.entity.approve(audit.at)
            pair.order.record_return("return_approved", audit)
            return _status_event(pair.entity)

        check_staff(ctx)
        return await self._change(ctx, return_id, approve, attempt)

    async def reject(
        self, ctx: CallContext, return_id: UUID, command: RejectReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        def reject(pair: _Pair) -> Event:
            audit = self._audit(ctx, command.reason)
            pair.entity.reject(audit.at)
            pair.order.end_return(pair.entity.quantities, "return_rejected", audit)
            return _status_event(pair.entity)

        check_staff(ctx)
        return await self._change(ctx, return_id, reject, attempt)

    async def cancel(
        self, ctx: CallContext, return_id: UUID, attempt: IdempotentCommand
    ) -> ReturnView:
        def cancel(pair: _Pair) -> Event:
            audit = self._audit(ctx)
            pair.entity.cancel(audit.at)
            pair.order.end_return(pair.entity.quantities, "return_cancelled", audit)
            return _status_event(pair.entity)

        return await self._change(ctx, return_id, cancel, attempt)

    async def receive(
        self, ctx: CallContext, return_id: UUID, command: ReceiveReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        def receive(pair: _Pair) -> Event:
            audit = self._audit(ctx)
            lines = tuple(ReceiptLine(**dict(line)) for line in command.lines)
            receipt = Receipt(attempt.id, audit.at, audit.actor, lines)
            pair.entity.receive(receipt)
            pair.order.record_return("return_received", audit)
            return _received_event(pair.entity, receipt)

        check_staff(ctx)
        return await self._change(ctx, return_id, receive, attempt)

    async def close(
        self, ctx: CallContext, return_id: UUID, command: CloseReturn, attempt: IdempotentCommand
    ) -> ReturnView:
        def close(pair: _Pair) -> Event:
            entity, order = pair
            audit = self._audit(ctx)
            entity.close(audit.at)
            shares = order.close_return(entity.quantities, entity.received_quantities, audit)
            entity.set_refund(shares, order.shipping_charged if command.refund_shipping else 0)
            return _closed_event(pair)

        check_staff(ctx)
        return await self._change(
            ctx, return_id, close, attempt, refunds_shipping=command.refund_shipping
        )

    @retry_on_conflict
    async def _change(
        self,
        ctx: CallContext,
        return_id: UUID,
        change: Change,
        attempt: IdempotentCommand,
        *,
        refunds_shipping: bool = False,
    ) -> ReturnView:
        async with self._database.transaction() as store:
            pair = await _get_pair(store, ctx, return_id)
            event = change(pair)
            if refunds_shipping and await store.has_shipping_refund(pair.order.order_id):
                raise ShippingRefunded(order_id=str(pair.order.order_id))
            # save the return first, which checks its version: the order was read after the
            # return, and may be newer
            if not await store.save_return(pair.entity):
                raise ConcurrentUpdate
            await store.save_order(pair.order)
            await store.publish(event, ctx)
            view = to_return_view(pair.entity, pair.order.currency)
            await store.store_response(attempt, view)
        return view

    def _audit(self, ctx: CallContext, reason: str = "") -> AuditInfo:
        return AuditInfo(ctx.actor.audit_name, self._clock(), reason)


async def _get_pair(store: ReadStore, ctx: CallContext, return_id: UUID) -> _Pair:
    """Raises ReturnNotFound when the return does not exist or the caller may not see it."""
    entity = await store.get_return(return_id)
    if entity is None:
        raise ReturnNotFound(return_id=str(return_id))
    try:
        return _Pair(entity, await get_visible_order(store, ctx, entity.order_id))
    except OrderNotFound:
        raise ReturnNotFound(return_id=str(return_id)) from None


def _status_event(entity: Return) -> ReturnStatusChanged:
    return ReturnStatusChanged(
        order_id=entity.order_id, return_id=entity.return_id, status=entity.status
    )


def _received_event(entity: Return, receipt: Receipt) -> ReturnReceived:
    products = {line.line_id: line.product_id for line in entity.lines}
    return ReturnReceived(
        order_id=entity.order_id,
        return_id=entity.return_id,
        receipt_id=receipt.receipt_id,
        restocked=tuple(
            FulfilledLine(product_id=products[line.line_id], quantity=line.quantity)
            for line in receipt.lines
            if line.disposition is Disposition.RESTOCK
        ),
    )


def _closed_event(pair: _Pair) -> ReturnClosed:
    return ReturnClosed(
        order_id=pair.order.order_id,
        return_id=pair.entity.return_id,
        payment_id=pair.order.payment_id,
        refund=pair.order.money(pair.entity.refund),
        additional_payment_ids=additional_payment_ids(pair.order),
    )
