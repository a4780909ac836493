"""Entities as the world sees them."""

from markethall.orders.contract import (
    FulfilmentLine,
    FulfilmentView,
    OrderLineView,
    OrderPayment,
    OrderView,
    TimelineEntry,
)
from markethall.orders.domain import Entry, Fulfilment, Line, Order
from markethall.shared.money import Money


def order_view(order: Order) -> OrderView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=order.currency)

    return OrderView(
        order_id=order.order_id,
        number=f"MH-{order.number}",
        user_id=order.user_id,
        status=order.status,
        payment_status=order.payment_status,
        fulfilment_status=order.fulfilment_status,
        lines=tuple(_line_view(line, order.currency) for line in order.lines),
        subtotal=money(order.subtotal),
        discount=money(order.discount),
        shipping=money(order.shipping),
        tax=money(order.tax),
        total=money(order.total),
        shipping_address=order.shipping_address,
        billing_address=order.billing_address,
        note=order.note,
        payment=OrderPayment(payment_id=order.payment_id, status=order.payment_state),
        expires_at=order.expires_at,
        created_at=order.created_at,
        updated_at=order.updated_at,
        version=order.version,
    )


def _line_view(line: Line, currency: str) -> OrderLineView:
    return OrderLineView(
        line_id=line.line_id,
        product_id=line.product_id,
        sku=line.sku,
        name=line.name,
        unit_price=Money(amount=line.unit_price, currency=currency),
        quantity=line.quantity,
        fulfilled=line.fulfilled,
        total=Money(amount=line.total, currency=currency),
    )


def entry_view(entry: Entry) -> TimelineEntry:
    return TimelineEntry(
        version=entry.version,
        change=entry.change,
        actor=entry.actor,
        at=entry.at,
        reason=entry.reason,
        status=entry.status,
        payment_status=entry.payment_status,
        fulfilment_status=entry.fulfilment_status,
    )


def fulfilment_view(fulfilment: Fulfilment) -> FulfilmentView:
    lines = tuple(FulfilmentLine(**line._asdict()) for line in fulfilment.lines)
    return FulfilmentView(
        fulfilment_id=fulfilment.fulfilment_id,
        order_id=fulfilment.order_id,
        status=fulfilment.status,
        lines=lines,
        carrier=fulfilment.carrier,
        tracking_number=fulfilment.tracking_number,
        shipped_at=fulfilment.shipped_at,
        delivered_at=fulfilment.delivered_at,
    )
