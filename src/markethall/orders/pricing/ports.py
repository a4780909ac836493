"""The port that prices orders."""

from typing import Protocol

from markethall.orders.pricing.domain import Quote, QuoteRequest


class Pricing(Protocol):
    def refresh(self) -> None:
        """Let the next quotes read the settings and the promotions of the shop again."""

    async def quote(self, request: QuoteRequest) -> Quote:
        """Price an order by the current settings of the shop.

        No SQL statement is executed if the settings are cached, and if neither a voucher nor the
        history of the customer must be read. Raises OrderCurrencyMismatch, CountryNotServed,
        RegionRequired, ShippingUnavailable, VoucherInvalid, VoucherExhausted, TotalTooLarge;
        Unavailable if a calculator or the database does not answer.
        """
