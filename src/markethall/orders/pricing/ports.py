"""The port that prices orders."""

from typing import Protocol

from markethall.orders.pricing.domain import Quote, QuoteRequest


class Pricing(Protocol):
    def refresh(self) -> None:
        """Let the next quotes read the settings and the promotions of the shop again."""

    async def choose_currency(self, requested: str | None) -> str | None:
        """Return the requested currency, or the default currency of the shop.

        None means the currency of the lines: none is requested, and the shop does not list its
        currencies. Raises Unavailable if the settings cannot be read.
        """

    async def quote(self, request: QuoteRequest) -> Quote:
        """Price an order by the current settings of the shop.

        No SQL statement is executed if the settings are cached, and if neither a voucher nor the
        history of the customer must be read. Raises OrderCurrencyMismatch, CountryNotServed,
        RegionRequired, ShippingUnavailable, VoucherInvalid, VoucherExhausted, TotalTooLarge;
        Unavailable if a calculator or the database does not answer.
        """
