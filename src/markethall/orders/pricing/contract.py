"""The errors of pricing an order."""

from markethall.shared.kernel.errors import DomainError


class OrderCurrencyMismatch(DomainError):
    """The lines have different currencies, or not the requested one.

    Details: currencies; lines (each with product_id, currency) that have another currency than the
    requested one, or without a request than the first line.
    """

    code = "orders.currency_mismatch"
    status = 422
    title = "An order has one currency"
