"""Convert returns to DTOs of the contract."""

from markethall.orders.returns.contract import (
    ReceiptView,
    ReceivedLineView,
    ReturnLineView,
    ReturnRefundView,
    ReturnStatus,
    ReturnView,
)
from markethall.orders.returns.domain import Receipt, Return, ReturnLine
from markethall.shared.kernel.money import Money


def to_return_view(entity: Return, currency: str) -> ReturnView:
    return ReturnView(
        return_id=entity.return_id,
        order_id=entity.order_id,
        status=entity.status,
        reason=entity.reason,
        lines=tuple(_to_line_view(line, currency) for line in entity.lines),
        receipts=tuple(map(_to_receipt_view, entity.receipts)),
        refund=_to_refund_view(entity, currency),
        created_at=entity.created_at,
        updated_at=entity.updated_at,
        version=entity.version,
    )


def _to_line_view(line: ReturnLine, currency: str) -> ReturnLineView:
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
