"""Convert entities of orders to DTOs of the contract."""

from markethall.orders.contract import (
    AdditionalPaymentView,
    FulfilmentLineView,
    FulfilmentView,
    OpenEditView,
    OrderLineView,
    OrderPaymentView,
    OrderView,
    ShippingLineView,
    TimelineEntryView,
)
from markethall.orders.domain import Fulfilment, Order, OrderLine, ShippingLine, TimelineEntry
from markethall.orders.returns.contract import (
    ReceiptView,
    ReceivedLineView,
    ReturnLineView,
    ReturnRefundView,
    ReturnStatus,
    ReturnView,
)
from markethall.orders.returns.domain import Receipt, Return, ReturnLine
from markethall.orders.totals.service import (
    to_discount_views,
    to_shipping_line_view,
    to_tax_line_views,
)
from markethall.shared.kernel.money import Money


def to_return_view(entity: Return, currency: str) -> ReturnView:
    return ReturnView(
        return_id=entity.return_id,
        order_id=entity.order_id,
        status=entity.status,
        reason=entity.reason,
        lines=tuple(_to_return_line_view(line, currency) for line in entity.lines),
        receipts=tuple(map(_to_receipt_view, entity.receipts)),
        refund=_to_refund_view(entity, currency),
        created_at=entity.created_at,
        updated_at=entity.updated_at,
        version=entity.version,
    )


def _to_return_line_view(line: ReturnLine, currency: str) -> ReturnLineView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=currency)

    return ReturnLineView(
        line_id=line.line_id,
        product_id=line.product_id,
        quantity=line.quantity,
        restocked=line.restocked,
        scrapped=line.scrapped,
        price=money(line.price),
        discount=money(line.discount),
        tax=money(line.tax),
        included_tax=money(line.included_tax),
        refund=money(line.refund),
    )


def _to_receipt_view(receipt: Receipt) -> ReceiptView:
    return ReceiptView(
        receipt_id=receipt.receipt_id,
        received_at=receipt.received_at,
        actor=receipt.actor,
        lines=tuple(ReceivedLineView(**vars(line)) for line in receipt.lines),
    )


def _to_refund_view(entity: Return, currency: str) -> ReturnRefundView | None:
    if entity.status is not ReturnStatus.CLOSED:
        return None
    refunded = entity.refunded
    return ReturnRefundView(
        amount=Money(amount=entity.refund, currency=currency),
        shipping=Money(amount=entity.shipping_refund, currency=currency),
        refunded=None if refunded is None else Money(amount=refunded, currency=currency),
    )


def to_order_view(order: Order, *, for_staff: bool = False) -> OrderView:
    """Convert the order. The fields that only staff may see are None unless `for_staff`."""

    money = order.money
    return OrderView(
        order_id=order.order_id,
        number=f"{order.number_prefix}{order.number}",
        user_id=order.user_id,
        is_guest=order.is_guest,
        email=order.email,
        status=order.status,
        payment_status=order.payment_status,
        fulfilment_status=order.fulfilment_status,
        lines=tuple(to_line_view(line, order.currency) for line in order.lines),
        subtotal=money(order.subtotal),
        discount=money(order.discount),
        shipping=money(order.shipping),
        tax=money(order.tax),
        total=money(order.total),
        included_tax=money(order.included_tax),
        discounts=to_discount_views(order.discounts, order.currency),
        tax_lines=to_tax_line_views(
            order.tax_lines, order.currency, included=order.prices_include_tax
        ),
        shipping_line=_to_shipping_line_view(order.shipping_line, order.currency),
        shipping_address=order.shipping_address,
        billing_address=order.billing_address,
        note=order.note,
        payment=OrderPaymentView(payment_id=order.payment_id, status=order.provider_payment_status),
        additional_payments=tuple(
            AdditionalPaymentView(
                payment_id=payment.payment_id,
                amount=money(payment.amount),
                refunded=money(payment.refunded),
            )
            for payment in order.applied_payments
        ),
        open_edit=_to_open_edit_view(order),
        on_hold=order.on_hold,
        metadata=order.metadata,
        tags=order.tags if for_staff else None,
        staff_note=order.staff_note if for_staff else None,
        cart_id=order.cart_id,
        expires_at=order.expires_at,
        created_at=order.created_at,
        updated_at=order.updated_at,
        version=order.version,
    )


def _to_open_edit_view(order: Order) -> OpenEditView | None:
    payment, currency = order.open_edit, order.currency
    edit = payment.edit if payment else None
    if payment is None or edit is None:
        return None

    money = order.money
    return OpenEditView(
        edit_id=payment.edit_id,
        payment_id=payment.payment_id,
        amount=money(payment.amount),
        expires_at=payment.expires_at,
        lines=tuple(to_line_view(line, currency) for line in edit.lines),
        discount=money(edit.discount),
        shipping=money(edit.shipping),
        tax=money(edit.tax),
        total=money(edit.total),
    )


def to_line_view(line: OrderLine, currency: str) -> OrderLineView:
    def money(amount: int) -> Money:
        return Money(amount=amount, currency=currency)

    return OrderLineView(
        line_id=line.line_id,
        product_id=line.product_id,
        sku=line.sku,
        name=line.name,
        unit_price=money(line.unit_price),
        quantity=line.quantity,
        fulfilled=line.fulfilled,
        delivered=line.delivered,
        failed=line.failed,
        cancelled=line.cancelled,
        in_return=line.in_return,
        returned=line.returned,
        total=money(line.total),
        discount=money(line.discount),
        tax=money(line.tax),
        included_tax=money(line.included_tax),
        charged=money(line.charged),
        discounts=to_discount_views(line.discounts, currency),
        tax_lines=to_tax_line_views(line.tax_lines, currency, included=line.prices_include_tax),
    )


def _to_shipping_line_view(shipping: ShippingLine | None, currency: str) -> ShippingLineView | None:
    if shipping is None:
        return None
    return to_shipping_line_view(shipping.code, shipping.name, shipping.breakdown, currency)


def to_timeline_entry_view(entry: TimelineEntry) -> TimelineEntryView:
    return TimelineEntryView(**vars(entry))


def to_fulfilment_view(fulfilment: Fulfilment) -> FulfilmentView:
    lines = tuple(FulfilmentLineView(**line._asdict()) for line in fulfilment.lines)
    return FulfilmentView(**vars(fulfilment) | {"lines": lines})
