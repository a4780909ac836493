"""The lines of a cart, and the changes of their products since the owner last looked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from markethall.orders.carts.contract import LineChangeKind
from markethall.orders.contract import MAX_QUANTITY
from markethall.orders.pricing.domain import QuotedLine
from markethall.shared.kernel.money import Money


@dataclass(frozen=True)
class Offer:
    """The current price and availability of a product, and the fields that determine the totals."""

    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    available: int
    tax_class: str = "standard"
    weight_grams: int = 0
    category: str | None = None
    tags: tuple[str, ...] = ()

    def to_quoted_line(self, quantity: int) -> QuotedLine:
        return QuotedLine(
            line_id=self.product_id,  # unique within a cart
            product_id=self.product_id,
            unit_price=self.unit_price,
            quantity=quantity,
            tax_class=self.tax_class,
            weight_grams=self.weight_grams,
            category=self.category,
            tags=frozenset(self.tags),
        )


@dataclass(frozen=True)
class LineChange:
    """A change of the product of a line. Only the fields of its kind are set."""

    kind: LineChangeKind
    product_id: UUID
    previous_price: Money | None = None
    price: Money | None = None
    previous_available: int | None = None
    available: int | None = None


@dataclass(frozen=True)
class CartLine:
    """Units of a product, and the offer that the owner saw last.

    `seen_available` never exceeds the quantity. So sales to other customers are no change while
    enough units are left. `seen_available` is None if the product was no longer sold.
    """

    product_id: UUID
    quantity: int
    sku: str
    name: str
    seen_price: Money
    seen_available: int | None

    @classmethod
    def from_offer(cls, offer: Offer, quantity: int) -> "CartLine":
        return cls(
            product_id=offer.product_id,
            quantity=quantity,
            sku=offer.sku,
            name=offer.name,
            seen_price=offer.unit_price,
            seen_available=_usable(offer, quantity),
        )

    def add(self, quantity: int) -> "CartLine":
        """Return the line with more units, at most MAX_QUANTITY."""
        return replace(self, quantity=min(MAX_QUANTITY, self.quantity + quantity))

    def look(self, offer: Offer | None) -> "CartLine":
        """Return the line after the owner has seen this offer; without an offer it is not sold."""
        if offer is None:
            return replace(self, seen_available=None)
        return CartLine.from_offer(offer, self.quantity)

    def changes(self, offer: Offer | None) -> Iterator[LineChange]:
        """List what has changed since the owner last looked."""
        if offer is None:
            if self.seen_available is not None:
                yield LineChange(LineChangeKind.REMOVED, self.product_id)
            return
        # a price in another currency is no change of the price: the owner chose the currency
        has_same_currency = offer.unit_price.currency == self.seen_price.currency
        if has_same_currency and offer.unit_price != self.seen_price:
            yield LineChange(
                LineChangeKind.PRICE_CHANGED,
                self.product_id,
                previous_price=self.seen_price,
                price=offer.unit_price,
            )
        if kind := self._availability_change(_usable(offer, self.quantity)):
            yield LineChange(
                kind,
                self.product_id,
                previous_available=self.seen_available or 0,
                available=_usable(offer, self.quantity),
            )

    def _availability_change(self, available: int) -> LineChangeKind | None:
        seen = self.seen_available or 0
        if not available:
            return LineChangeKind.UNAVAILABLE if seen or self.seen_available is None else None
        if not seen:
            return LineChangeKind.AVAILABLE_AGAIN
        return LineChangeKind.LESS_AVAILABLE if available < seen else None


def _usable(offer: Offer, quantity: int) -> int:
    """Return the available units, at most the quantity."""
    return max(0, min(offer.available, quantity))


def look_at_lines(
    lines: tuple[CartLine, ...], offers: Mapping[UUID, Offer]
) -> tuple[tuple[CartLine, ...], tuple[LineChange, ...]]:
    """Return the lines after the owner has seen the offers, and the changes since the last look."""
    changes = [change for line in lines for change in line.changes(offers.get(line.product_id))]
    return tuple(line.look(offers.get(line.product_id)) for line in lines), tuple(changes)
