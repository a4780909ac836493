"""The reasons why a cart cannot be checked out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from uuid import UUID

from markethall.orders.carts.contract import ReadinessProblem
from markethall.orders.carts.domain.cart import Cart
from markethall.orders.carts.domain.lines import Offer
from markethall.orders.contract import (
    CountryNotServed,
    OrderCurrencyMismatch,
    RegionRequired,
    ShippingUnavailable,
    TotalTooLarge,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.shared.kernel.errors import DomainError

# the field of the cart that causes an error of pricing
_FIELD_BY_ERROR: Final[Mapping[type[DomainError], str]] = {
    OrderCurrencyMismatch: "/currency",
    CountryNotServed: "/shipping_address/country",
    RegionRequired: "/shipping_address/region",
    ShippingUnavailable: "/shipping_method",
    TotalTooLarge: "/lines",
    VoucherInvalid: "/voucher_code",
    VoucherExhausted: "/voucher_code",
}


def find_missing_fields(cart: Cart) -> Iterator[ReadinessProblem]:
    if not cart.lines:
        yield _missing("/lines", "The cart is empty.")
    if cart.shipping_address is None:
        yield _missing("/shipping_address", "The cart has no shipping address.")
    if cart.is_guest and cart.email is None:
        yield _missing("/email", "A guest must give an e-mail address.")


def find_line_problems(cart: Cart, offers: Mapping[UUID, Offer]) -> Iterator[ReadinessProblem]:
    lines = [(line.product_id, line.quantity) for line in cart.lines]
    return find_unavailable_lines(lines, offers)


def find_unavailable_lines(
    lines: Iterable[tuple[UUID, int]], offers: Mapping[UUID, Offer]
) -> Iterator[ReadinessProblem]:
    """List the lines whose products are not sold, or of which too few units are available.

    A line is given as its product and quantity.
    """
    for index, (product_id, quantity) in enumerate(lines):
        offer = offers.get(product_id)
        if offer is None:
            yield ReadinessProblem(
                code="inventory.product_not_found",
                field=f"/lines/{index}/product_id",
                message="The product is no longer sold.",
            )
        elif offer.available < quantity:
            yield ReadinessProblem(
                code="inventory.out_of_stock",
                field=f"/lines/{index}/quantity",
                message=f"Only {max(0, offer.available)} of this product are available.",
            )


def pricing_problem(error: DomainError) -> ReadinessProblem:
    return ReadinessProblem(
        code=error.code, field=_FIELD_BY_ERROR.get(type(error), ""), message=error.detail
    )


def _missing(field: str, message: str) -> ReadinessProblem:
    return ReadinessProblem(code="missing", field=field, message=message)
