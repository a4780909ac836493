"""A line of an order, and the shipping of an order."""

from dataclasses import dataclass, replace
from uuid import UUID

from markethall.orders.totals.domain import AppliedDiscount, LineBreakdown, LineShare, TaxLine


@dataclass(frozen=True)
class OrderLine:
    """A line of an order. Prices are in minor units of the order's currency."""

    line_id: UUID
    product_id: UUID
    sku: str
    name: str
    unit_price: int
    quantity: int
    # units in shipments, except lost and returned shipments
    fulfilled: int = 0
    delivered: int = 0
    # units of lost and returned shipments that are not shipped again or cancelled yet
    failed: int = 0
    cancelled: int = 0
    # units of open returns, and units that closed returns have taken back
    in_return: int = 0
    returned: int = 0
    discounts: tuple[AppliedDiscount, ...] = ()
    tax_lines: tuple[TaxLine, ...] = ()
    prices_include_tax: bool = False

    @property
    def total(self) -> int:
        """The price of all units, before discounts and added taxes."""
        return self.unit_price * self.quantity

    @property
    def discount(self) -> int:
        return self._breakdown.discount

    @property
    def tax(self) -> int:
        """The tax that is added to the price."""
        return self._breakdown.tax

    @property
    def included_tax(self) -> int:
        """The tax that the price contains."""
        return self._breakdown.included_tax

    @property
    def charged(self) -> int:
        """The amount that the customer pays for all units."""
        return self._breakdown.total

    def share(self, first: int, units: int) -> LineShare:
        """Return the amounts of `units` consecutive units, from the index `first` on.

        Cancelled units have the lowest indexes of the line, and shipped units the highest. Of the
        shipped units, those that were returned first have the highest indexes.
        """
        return self._breakdown.share(first, units)

    def share_of_next_returned(self, units: int) -> LineShare:
        """Return the amounts of the units that are returned next."""
        return self.share(self.quantity - self.returned - units, units)

    @property
    def _breakdown(self) -> LineBreakdown:
        return LineBreakdown(
            self.line_id,
            self.unit_price,
            self.quantity,
            None,
            self.discounts,
            self.tax_lines,
            self.prices_include_tax,
        )

    @property
    def unfulfilled(self) -> int:
        """The units that the reservation of the order still reserves."""
        return self.quantity - self.fulfilled - self.failed - self.cancelled

    @property
    def unsettled(self) -> int:
        """The units that can be shipped or cancelled."""
        return self.unfulfilled + self.failed

    @property
    def returnable(self) -> int:
        return self.delivered - self.in_return - self.returned

    def cancel(self, units: int) -> "OrderLine":
        """Cancel units, at first failed ones, because unfulfilled ones can still be shipped."""
        failed = self.failed - min(units, self.failed)
        return replace(self, failed=failed, cancelled=self.cancelled + units)

    def ship(self, units: int) -> "OrderLine":
        """Ship units, at first unfulfilled ones, because they are reserved."""
        failed = self.failed - max(units - self.unfulfilled, 0)
        return replace(self, failed=failed, fulfilled=self.fulfilled + units)

    def fail(self, units: int) -> "OrderLine":
        """Record that shipped units were lost or returned."""
        return replace(self, failed=self.failed + units, fulfilled=self.fulfilled - units)


@dataclass(frozen=True)
class ShippingLine:
    """The shipping method of an order, and the breakdown of its price."""

    code: str
    name: str
    breakdown: LineBreakdown
