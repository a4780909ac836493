"""The errors of a checkout: those of orders, and the codes of those of other contexts.

The latter are codes, because a router may not import the contracts of other contexts.
"""

from typing import Final

from markethall.orders.contract import (
    CountryNotServed,
    OrderCurrencyMismatch,
    RegionRequired,
    ShippingUnavailable,
    TotalChanged,
    TotalTooLarge,
    VoucherExhausted,
    VoucherInvalid,
)

CHECKOUT_ERRORS: Final = (
    TotalChanged,
    OrderCurrencyMismatch,
    CountryNotServed,
    RegionRequired,
    ShippingUnavailable,
    TotalTooLarge,
    VoucherInvalid,
    VoucherExhausted,
)
# error codes of a checkout, by HTTP status
CHECKOUT_ERROR_CODES: Final[dict[int, tuple[str, ...]]] = {
    403: ("users.inactive",),
    404: ("users.not_found", "inventory.product_not_found"),
    409: (
        "inventory.out_of_stock",
        "inventory.reservation_closed",
        "inventory.too_many_reservations",
        "inventory.too_many_units",
    ),
    422: ("payments.unknown_method",),
}
# error codes of a change of the products of a cart, by HTTP status
PRODUCT_ERROR_CODES: Final[dict[int, tuple[str, ...]]] = {404: ("inventory.product_not_found",)}
