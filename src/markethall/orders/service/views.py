"""Read orders as their owner or as staff, and convert entities of orders to DTOs."""

from uuid import UUID

from markethall.orders.contract import (
    AdditionalPaymentView,
    FulfilmentLineView,
    FulfilmentView,
    OpenEditView,
    OrderLineView,
    OrderNotFound,
    OrderPaymentView,
    OrderView,
    TimelineEntryView,
)
from markethall.orders.domain import Fulfilment, Order, OrderLine, TimelineEntry
from markethall.orders.ports import ReadStore
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
    TOTALS,
    money_fields,
    to_discount_views,
    to_shipping_line_view,
    to_tax_line_views,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.money import Money
from markethall.shared.kernel.scopes import ORDERS_MANAGE


async def get_visible_order(store: ReadStore, ctx: CallContext, order_id: UUID) -> Order:
    """Raises OrderNotFound when the order does not exist or the caller may not see it."""
    order = await store.get_order(order_id)
    if order is None or not ctx.can_view_order(order_id, order.user_id, ORDERS_MANAGE):
        raise OrderNotFound(order_id=str(order_id))
    return order


def is_staff(ctx: CallContext) -> bool:
    return ctx.actor.has_scope(ORDERS_MANAGE)


def check_staff(ctx: CallContext) -> None:
    """Raises Forbidden."""
    if not is_staff(ctx):
        raise Forbidden(scope=ORDERS_MANAGE)


def to_return_view(entity: Return, currency: str) -> ReturnView:
    return ReturnView(
        **vars(entity)
        | {
            "lines": tuple(_to_return_line_view(line, currency) for line in entity.lines),
            "receipts": tuple(map(_to_receipt_view, entity.receipts)),
            "refund": _to_refund_view(entity, currency),
        }
    )


def _to_return_line_view(line: ReturnLine, currency: str) -> ReturnLineView:
    amounts = ("price", "discount", "tax", "included_tax", "refund")
    return ReturnLineView(**vars(line) | money_fields(line, amounts, currency))


def _to_receipt_view(receipt: Receipt) -> ReceiptView:
    lines = tuple(ReceivedLineView(**vars(line)) for line in receipt.lines)
    return ReceiptView(**vars(receipt) | {"lines": lines})


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
    currency, shipping = order.currency, order.shipping_line
    return OrderView(
        **vars(order)
        | money_fields(order, TOTALS, currency)
        | {
            "number": f"{order.number_prefix}{order.number}",
            "lines": tuple(to_line_view(line, currency) for line in order.lines),
            "discounts": to_discount_views(order.discounts, currency),
            "tax_lines": to_tax_line_views(
                order.tax_lines, currency, included=order.prices_include_tax
            ),
            "shipping_line": shipping
            and to_shipping_line_view(shipping.code, shipping.name, shipping.breakdown, currency),
            "payment": OrderPaymentView(
                payment_id=order.payment_id, status=order.provider_payment_status
            ),
            "additional_payments": tuple(
                AdditionalPaymentView(
                    payment_id=payment.payment_id,
                    **money_fields(payment, ("amount", "refunded"), currency),
                )
                for payment in order.applied_payments
            ),
            "open_edit": _to_open_edit_view(order),
            "tags": order.tags if for_staff else None,
            "staff_note": order.staff_note if for_staff else None,
        }
    )


def _to_open_edit_view(order: Order) -> OpenEditView | None:
    payment, currency = order.open_edit, order.currency
    edit = payment.edit if payment else None
    if payment is None or edit is None:
        return None
    return OpenEditView(
        edit_id=payment.edit_id,
        payment_id=payment.payment_id,
        amount=order.money(payment.amount),
        expires_at=payment.expires_at,
        lines=tuple(to_line_view(line, currency) for line in edit.lines),
        **money_fields(edit, ("discount", "shipping", "tax", "total"), currency),
    )


def to_line_view(line: OrderLine, currency: str) -> OrderLineView:
    amounts = ("unit_price", "total", "discount", "tax", "included_tax", "charged")
    return OrderLineView(
        **vars(line)
        | money_fields(line, amounts, currency)
        | {
            "discounts": to_discount_views(line.discounts, currency),
            "tax_lines": to_tax_line_views(
                line.tax_lines, currency, included=line.prices_include_tax
            ),
        }
    )


def to_timeline_entry_view(entry: TimelineEntry) -> TimelineEntryView:
    return TimelineEntryView(**vars(entry))


def to_fulfilment_view(fulfilment: Fulfilment) -> FulfilmentView:
    lines = tuple(FulfilmentLineView(**line._asdict()) for line in fulfilment.lines)
    return FulfilmentView(**vars(fulfilment) | {"lines": lines})
