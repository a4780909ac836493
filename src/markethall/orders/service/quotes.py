"""Convert reservations and orders to requests for a price, and a price to the lines of an order."""

from collections.abc import Iterable
from uuid import UUID

from markethall.inventory.contract import (
    Inventory,
    ListOffers,
    ProductNotFound,
    ProductOffer,
    RequestedLine,
    ReservationLineView,
    ReservationView,
)
from markethall.orders.contract import (
    Address,
    FulfilledLine,
    OrderLineRequest,
    PlaceOrder,
    TotalChanged,
)
from markethall.orders.domain import Order, OrderLine, ShippingLine
from markethall.orders.pricing.domain import Quote, QuotedLine, QuoteRequest
from markethall.orders.totals.domain import Breakdown, LineBreakdown
from markethall.orders.totals.service import to_totals_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money


def to_requested_lines(
    lines: Iterable[OrderLineRequest | OrderLine | FulfilledLine],
) -> tuple[RequestedLine, ...]:
    return tuple(
        RequestedLine(product_id=line.product_id, quantity=line.quantity) for line in lines
    )


def check_expected_total(command: PlaceOrder, quote: Quote) -> None:
    """Raises TotalChanged."""
    expected = command.expected_total
    if expected and (expected.amount, expected.currency) != (quote.total.amount, quote.currency):
        breakdown = to_totals_view(quote.breakdown, quote.currency)
        raise TotalChanged(
            total=quote.total.model_dump(), breakdown=breakdown.model_dump(mode="json")
        )


def quote_request(
    ctx: CallContext, command: PlaceOrder, reservation: ReservationView
) -> QuoteRequest:
    """Build the request with one line per product, sorted as in the command."""
    reserved = {line.product_id: line for line in reservation.lines}
    products = dict.fromkeys(wanted.product_id for wanted in command.lines)
    return QuoteRequest(
        customer_id=ctx.user_id,
        lines=tuple(
            quoted_line(
                _line_id(reservation.reservation_id, line), line, line.unit_price, line.quantity
            )
            for line in (reserved[product_id] for product_id in products)
        ),
        shipping_address=command.shipping_address,
        currency=command.currency,
        shipping_method=command.shipping_method,
        voucher_code=command.voucher_code,
    )


def build_lines(reservation: ReservationView, breakdown: Breakdown) -> tuple[OrderLine, ...]:
    """Build the lines of an order, sorted as in the breakdown."""
    reserved = {_line_id(reservation.reservation_id, line): line for line in reservation.lines}
    return tuple(build_line(part, reserved[part.key]) for part in breakdown.lines)


def build_line(
    part: LineBreakdown, product: ReservationLineView | ProductOffer | OrderLine
) -> OrderLine:
    return OrderLine(
        line_id=part.key,
        product_id=product.product_id,
        sku=product.sku,
        name=product.name,
        unit_price=part.unit_price,
        quantity=part.quantity,
        discounts=part.discounts,
        tax_lines=part.tax_lines,
        prices_include_tax=part.prices_include_tax and bool(part.tax_lines),
    )


def build_shipping_line(breakdown: Breakdown) -> ShippingLine | None:
    charge, part = breakdown.shipping_charge, breakdown.shipping_line
    return ShippingLine(charge.code, charge.name, part) if charge and part else None


def quoted_line(
    line_id: UUID, product: ReservationLineView | ProductOffer, unit_price: Money, quantity: int
) -> QuotedLine:
    return QuotedLine(
        line_id=line_id,
        product_id=product.product_id,
        unit_price=unit_price,
        quantity=quantity,
        tax_class=product.tax_class,
        weight_grams=product.weight_grams or 0,
        category=product.category,
        tags=frozenset(product.tags),
    )


def _line_id(reservation_id: UUID, line: ReservationLineView) -> UUID:
    return derive_uuid7(reservation_id, f"line {line.product_id}")


def requote_request(
    order: Order, lines: tuple[QuotedLine, ...], shipping_address: str | Address
) -> QuoteRequest:
    """Build the request for a new price of an existing order."""
    return QuoteRequest(
        customer_id=order.user_id,
        lines=lines,
        shipping_address=shipping_address,
        currency=order.currency,
        shipping_method=order.shipping_line.code if order.shipping_line else None,
    )


async def quote_order_lines(
    inventory: Inventory, ctx: CallContext, order: Order
) -> tuple[QuotedLine, ...]:
    """Return the lines with their prices, and with the tax class and weight of the products.

    Raises ProductNotFound if a product is no longer active.
    """
    product_ids = [line.product_id for line in order.lines]
    offers = await list_offers(inventory, ctx, product_ids, order.currency)
    return tuple(
        quoted_line(
            line.line_id, offers[line.product_id], order.money(line.unit_price), line.quantity
        )
        for line in order.lines
    )


async def list_offers(
    inventory: Inventory, ctx: CallContext, product_ids: list[UUID], currency: str
) -> dict[UUID, ProductOffer]:
    """Raises ProductNotFound."""
    query = ListOffers(product_ids=tuple(product_ids), currency=currency)
    offers = {offer.product_id: offer for offer in (await inventory.list_offers(ctx, query)).items}
    if missing := [str(product_id) for product_id in product_ids if product_id not in offers]:
        raise ProductNotFound(product_ids=missing)
    return offers
