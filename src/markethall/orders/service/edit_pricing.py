"""Price an edit: existing lines keep their prices, new lines have the current prices.

The promotions of the order are applied to the new lines, with the terms of the time at which it was
placed. A promotion that gives no discount after the edit is dropped. No other promotion is looked
up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from markethall.inventory.contract import Inventory, OutOfStock, ProductOffer
from markethall.orders.contract import (
    MAX_LINES,
    EditNeedsCapture,
    EditOrder,
    EditPreview,
    TotalChanged,
)
from markethall.orders.domain import NewPayment, Order, OrderEdit, OrderLine
from markethall.orders.pricing.domain import Quote, QuotedLine
from markethall.orders.pricing.service import Pricing
from markethall.orders.service.quotes import (
    build_line,
    build_shipping_line,
    list_offers,
    quoted_line,
    requote_request,
)
from markethall.orders.service.views import to_line_view
from markethall.orders.totals.domain import Breakdown
from markethall.orders.totals.service import to_totals_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import derive_uuid7
from markethall.shared.kernel.money import Money


@dataclass(frozen=True)
class EditedLines:
    """The quantities of an order before and after an edit, and the products of its lines."""

    currency: str
    # the ids of new lines are derived from this id
    reservation_id: UUID
    lines: tuple[OrderLine, ...]
    quantities: Mapping[UUID, int]
    offers: Mapping[UUID, ProductOffer]

    @property
    def _previous(self) -> dict[UUID, OrderLine]:
        return {line.product_id: line for line in self.lines}

    @property
    def raised(self) -> dict[UUID, int]:
        """By product, the number of units by which the edit raises the quantity."""
        before = {line.product_id: line.quantity for line in self.lines}
        more = {key: units - before.get(key, 0) for key, units in self.quantities.items()}
        return {product_id: units for product_id, units in more.items() if units > 0}

    def check_stock(self) -> None:
        """Raise OutOfStock if the additional units cannot be reserved now."""
        available = {key: max(self.offers[key].available, 0) for key in self.raised}
        short = [
            {"product_id": str(key), "requested": units, "available": available[key]}
            for key, units in self.raised.items()
            if units > available[key]
        ]
        if short:
            raise OutOfStock(lines=short)

    def to_quoted_lines(self) -> tuple[QuotedLine, ...]:
        return tuple(
            self._quote(product_id, quantity) for product_id, quantity in self.quantities.items()
        )

    def _quote(self, product_id: UUID, quantity: int) -> QuotedLine:
        line, offer = self._previous.get(product_id), self.offers[product_id]
        if line is None:
            line_id = derive_uuid7(self.reservation_id, f"line {product_id}")
            return quoted_line(line_id, offer, offer.unit_price, quantity)
        price = Money(amount=line.unit_price, currency=self.currency)
        return quoted_line(line.line_id, offer, price, quantity)

    def to_order_lines(self, breakdown: Breakdown) -> tuple[OrderLine, ...]:
        products = dict(
            zip((line.line_id for line in self.to_quoted_lines()), self.quantities, strict=True)
        )
        previous = self._previous
        return tuple(
            build_line(part, previous.get(product_id) or self.offers[product_id])
            for part in breakdown.lines
            for product_id in [products[part.key]]
        )


@dataclass(frozen=True)
class EditPrice:
    """The lines and the amounts of an order after an edit."""

    lines: EditedLines
    quote: Quote

    @property
    def total(self) -> Money:
        return self.quote.total

    def to_order_lines(self) -> tuple[OrderLine, ...]:
        return self.lines.to_order_lines(self.quote.breakdown)

    def to_preview(self, order: Order) -> EditPreview:
        currency = order.currency
        return EditPreview(
            **dict(to_totals_view(self.quote.breakdown, currency)),
            lines=tuple(to_line_view(line, currency) for line in self.to_order_lines()),
            difference=self.total - order.money(order.total),
        )


@dataclass(frozen=True)
class PricedEdit(EditPrice):
    """An edit that is priced, but has no reservation and no payment yet."""

    edit_id: UUID

    def derive_id(self, order: Order, kind: str) -> UUID:
        """Derive an id that is the same in all attempts for this version of the order."""
        return derive_uuid7(self.edit_id, f"{kind} {order.version}")

    def to_order_edit(self, payment: NewPayment | None = None) -> OrderEdit:
        breakdown = self.quote.breakdown
        return OrderEdit(
            edit_id=self.edit_id,
            lines=self.to_order_lines(),
            shipping_line=build_shipping_line(breakdown),
            discount=breakdown.discount,
            shipping=breakdown.shipping,
            tax=breakdown.tax,
            included_tax=breakdown.included_tax,
            payment=payment,
        )


async def price_edit(
    inventory: Inventory, pricing: Pricing, ctx: CallContext, order: Order, command: EditOrder
) -> EditPrice:
    """Raises the errors of `OrderEdits.edit` that concern prices and quantities."""
    quantities = _new_quantities(order, command)
    offers = await list_offers(inventory, ctx, list(quantities), order.currency)
    lines = EditedLines(order.currency, order.reservation_id, order.lines, quantities, offers)
    request = requote_request(order, lines.to_quoted_lines(), order.shipping_address)
    quote = await pricing.quote(replace(request, promotions=order.applied_promotions))
    _check_amounts(order, command, quote)
    return EditPrice(lines, quote)


def _new_quantities(order: Order, command: EditOrder) -> dict[UUID, int]:
    """Return the quantities by product, existing lines first. Raises ValidationFailed."""
    quantities = {line.product_id: line.quantity for line in order.lines}
    quantities |= {line.product_id: line.quantity for line in command.lines}
    quantities = {product_id: number for product_id, number in quantities.items() if number}
    if not 1 <= len(quantities) <= MAX_LINES:
        message = f"must leave 1 to {MAX_LINES} lines in the order"
        raise ValidationFailed(
            message, errors=[{"field": "/lines", "code": "number_of_lines", "message": message}]
        )
    return quantities


def _check_amounts(order: Order, command: EditOrder, quote: Quote) -> None:
    """Raises TotalChanged, EditNeedsCapture."""
    expected = command.expected_total
    if expected and (expected.amount, expected.currency) != (quote.total.amount, quote.currency):
        raise TotalChanged(total=quote.total.model_dump())
    if order.is_paid and quote.total.amount > order.total and not order.is_captured:
        paid = order.money(order.total)
        raise EditNeedsCapture(total=quote.total.model_dump(), paid=paid.model_dump())
