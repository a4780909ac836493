"""The errors of pricing an order."""

from markethall.shared.kernel.errors import DomainError


class OrderCurrencyMismatch(DomainError):
    """The lines have different currencies, or not the requested one.

    Details: currencies; lines (each with product_id, currency). These are the lines whose currency
    differs from the requested currency or, if none was requested, from that of the first line.
    """

    code = "orders.currency_mismatch"
    status = 422
    title = "An order has one currency"
