"""Convert entities of orders to DTOs of the contract."""

from markethall.orders.contract import (
    FulfilmentLineView,
    FulfilmentView,
    OrderLineView,
    OrderPaymentView,
    OrderView,
    TimelineEntryView,
)
from markethall.orders.domain import Fulfilment, Order, OrderLine, TimelineEntry
from markethall.shared.kernel.money import Money


def to_order_view(order: Order) -> OrderView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=order.currency)

    return OrderView(
        order_id=order.order_id,
        number=f"MH-{order.number}",
        user_id=order.user_id,
        is_guest=order.is_guest,
        email=order.email,
        status=order.status,
        payment_status=order.payment_status,
        fulfilment_status=order.fulfilment_status,
        lines=tuple(_to_line_view(line, order.currency) for line in order.lines),
        subtotal=money(order.subtotal),
        discount=money(order.discount),
        shipping=money(order.shipping),
        tax=money(order.tax),
        total=money(order.total),
        shipping_address=order.shipping_address,
        billing_address=order.billing_address,
        note=order.note,
        payment=OrderPaymentView(payment_id=order.payment_id, status=order.provider_payment_status),
        expires_at=order.expires_at,
        created_at=order.created_at,
        updated_at=order.updated_at,
        version=order.version,
    )


def _to_line_view(line: OrderLine, currency: str) -> OrderLineView:
    return OrderLineView(
        line_id=line.line_id,
        product_id=line.product_id,
        sku=line.sku,
        name=line.name,
        unit_price=Money(amount=line.unit_price, currency=currency),
        quantity=line.quantity,
        fulfilled=line.fulfilled,
        cancelled=line.cancelled,
        total=Money(amount=line.total, currency=currency),
    )


def to_timeline_entry_view(entry: TimelineEntry) -> TimelineEntryView:
    return TimelineEntryView(
        version=entry.version,
        change=entry.change,
        actor=entry.actor,
        at=entry.at,
        reason=entry.reason,
        status=entry.status,
        payment_status=entry.payment_status,
        fulfilment_status=entry.fulfilment_status,
    )


def to_fulfilment_view(fulfilment: Fulfilment) -> FulfilmentView:
    lines = tuple(FulfilmentLineView(**line._asdict()) for line in fulfilment.lines)
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
