"""The port that prices orders."""

from typing import Protocol

from markethall.orders.pricing.domain import Quote, QuoteRequest


class Pricing(Protocol):
    async def quote(self, request: QuoteRequest) -> Quote:
        """Price an order by the current settings of the shop.

        No SQL statement is executed if the settings are cached. Raises OrderCurrencyMismatch,
        CountryNotServed, ShippingUnavailable, VoucherInvalid, TotalTooLarge; Unavailable if a
        calculator does not answer.
        """
