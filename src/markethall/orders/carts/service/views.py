"""Convert carts to DTOs of the contract."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from markethall.orders.carts.contract import (
    CartClosed,
    CartLineView,
    CartStatus,
    CartSummaryView,
    CartView,
    LineChangeView,
    ReadinessProblem,
    ShippingOptionsView,
    ShippingOptionView,
)
from markethall.orders.carts.domain import (
    Cart,
    CartLine,
    Offer,
    find_missing_fields,
    find_unavailable_lines,
    pricing_problem,
)
from markethall.orders.carts.service.previews import Preview
from markethall.orders.contract import RegionRequired, ShippingUnavailable
from markethall.orders.totals.domain import LineBreakdown
from markethall.orders.totals.service import (
    money_fields,
    to_discount_views,
    to_tax_line_views,
    to_totals_view,
)
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.shared.kernel.money import Money


def to_cart_view(
    cart: Cart, preview: Preview, changes: Sequence[LineChangeView], expires_at: datetime
) -> CartView:
    quote = preview.quote
    return CartView(
        **vars(cart)
        | {
            "currency": quote.currency if quote else cart.currency,
            "lines": _to_line_views(cart, preview),
            "totals": to_totals_view(quote.breakdown, quote.currency) if quote else None,
            "changes": tuple(changes),
            "readiness": tuple(list_readiness_problems(cart, preview)),
            "expires_at": expires_at,
        }
    )


def to_cart_summary_view(cart: Cart, expires_at: datetime) -> CartSummaryView:
    return CartSummaryView(
        **vars(cart)
        | {
            "line_count": len(cart.lines),
            "unit_count": sum(line.quantity for line in cart.lines),
            "expires_at": expires_at,
        }
    )


def list_readiness_problems(cart: Cart, preview: Preview) -> Iterator[ReadinessProblem]:
    """List the reasons why the cart cannot be checked out."""
    if cart.status is not CartStatus.OPEN:
        yield ReadinessProblem(
            code=CartClosed.code, field="/status", message=f"{CartClosed.title}."
        )
        return
    yield from find_missing_fields(cart)
    lines = [(line.product_id, line.quantity) for line in cart.lines]
    yield from find_unavailable_lines(lines, preview.offers)
    is_address_missing = cart.shipping_address is None
    if preview.error and not (
        is_address_missing and isinstance(preview.error, ShippingUnavailable | RegionRequired)
    ):
        yield pricing_problem(preview.error)


def to_shipping_options_view(preview: Preview) -> ShippingOptionsView:
    quote = preview.quote
    return ShippingOptionsView(
        items=tuple(
            ShippingOptionView(
                code=option.charge.code,
                name=option.charge.name,
                price=Money(amount=option.charge.price, currency=quote.currency),
                delivery=option.delivery,
                pickup=option.pickup,
            )
            for option in (quote.shipping_options if quote else ())
            if quote
        )
    )


def _to_line_views(cart: Cart, preview: Preview) -> tuple[CartLineView, ...]:
    parts = {part.key: part for part in preview.quote.breakdown.lines} if preview.quote else {}
    return tuple(
        _to_line_view(line, preview.offers.get(line.product_id), parts.get(line.product_id))
        for line in cart.lines
    )


def _to_line_view(line: CartLine, offer: Offer | None, part: LineBreakdown | None) -> CartLineView:
    currency = offer.unit_price.currency if offer else ""
    names = ("discount", "tax", "included_tax", "total")
    amounts = money_fields(part, names, currency) if part else {}

    return CartLineView(
        product_id=line.product_id,
        sku=offer.sku if offer else line.sku,
        name=offer.name if offer else line.name,
        quantity=line.quantity,
        available=max(0, offer.available) if offer else 0,
        unit_price=offer.unit_price if offer else None,
        total=_line_total(offer.unit_price, line.quantity) if offer else None,
        discount=amounts.get("discount"),
        tax=amounts.get("tax"),
        included_tax=amounts.get("included_tax"),
        charged=amounts.get("total"),
        discounts=to_discount_views(part.discounts, currency) if part else (),
        tax_lines=(
            to_tax_line_views(part.tax_lines, currency, included=part.prices_include_tax)
            if part
            else ()
        ),
    )


def _line_total(unit_price: Money, quantity: int) -> Money | None:
    """Return None if the amount is out of range; `readiness` then says so."""
    amount = unit_price.amount * quantity
    return None if amount > MAX_AMOUNT else unit_price.model_copy(update={"amount": amount})
