"""The cart, its lines, and the reasons why it cannot be checked out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from markethall.orders.carts.contract import (
    CartClosed,
    CartStatus,
    LineChangeKind,
    LineChangeView,
    ReadinessProblem,
    TooManyCartLines,
)
from markethall.orders.contract import (
    MAX_LINES,
    MAX_QUANTITY,
    Address,
    CountryNotServed,
    OrderCurrencyMismatch,
    RegionRequired,
    ShippingUnavailable,
    TotalTooLarge,
    VoucherExhausted,
    VoucherInvalid,
)
from markethall.orders.pricing.domain import QuotedLine, QuoteRequest
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.metadata import MAX_METADATA_ENTRIES
from markethall.shared.kernel.money import Money

# fields that a merge takes from the other cart if the cart lacks them
_INHERITED_FIELDS: Final = (
    "email",
    "shipping_address",
    "billing_address",
    "shipping_method",
    "currency",
    "voucher_code",
    "note",
)
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})
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

    def changes(self, offer: Offer | None) -> Iterator[LineChangeView]:
        """List the changes since the owner last looked."""
        if offer is None:
            if self.seen_available is not None:
                yield LineChangeView(kind=LineChangeKind.REMOVED, product_id=self.product_id)
            return
        # a price in another currency is no change of the price: the owner chose the currency
        has_same_currency = offer.unit_price.currency == self.seen_price.currency
        if has_same_currency and offer.unit_price != self.seen_price:
            yield LineChangeView(
                kind=LineChangeKind.PRICE_CHANGED,
                product_id=self.product_id,
                previous_price=self.seen_price,
                price=offer.unit_price,
            )
        if kind := self._availability_change(_usable(offer, self.quantity)):
            yield LineChangeView(
                kind=kind,
                product_id=self.product_id,
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


@dataclass(frozen=True)
class CartRef:
    """A cart and the version whose lines are ordered."""

    cart_id: UUID
    version: int


@dataclass(frozen=True)
class Cart:
    """A cart. A change returns a copy with the next version, or the same object if nothing changes.

    Changes of a closed cart raise CartClosed.
    """

    cart_id: UUID
    # the user or guest who owns the cart
    user_id: UUID
    is_guest: bool
    created_at: datetime
    updated_at: datetime
    lines: tuple[CartLine, ...] = ()
    status: CartStatus = CartStatus.OPEN
    currency: str | None = None
    email: str | None = None
    shipping_address: str | Address | None = None
    billing_address: str | Address | None = None
    shipping_method: str | None = None
    voucher_code: str | None = None
    note: str | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: _NO_METADATA)
    order_id: UUID | None = None
    merged_into: UUID | None = None
    version: int = 1

    @property
    def ref(self) -> CartRef:
        return CartRef(self.cart_id, self.version)

    @property
    def product_ids(self) -> tuple[UUID, ...]:
        return tuple(line.product_id for line in self.lines)

    def require_open(self) -> None:
        """Raises CartClosed."""
        if error := self.closed_error():
            raise error

    def closed_error(self) -> CartClosed | None:
        """Build the error for a change of a closed cart. Return None if the cart is open."""
        if self.status is CartStatus.OPEN:
            return None
        return CartClosed(
            cart_id=str(self.cart_id),
            status=self.status.value,
            order_id=self.order_id and str(self.order_id),
            merged_into=self.merged_into and str(self.merged_into),
        )

    def change(self, fields: Mapping[str, Any], now: datetime) -> "Cart":
        """Set these fields."""
        self.require_open()
        changed = replace(self, **fields)
        return self if changed == self else changed.touch(now)

    def touch(self, now: datetime) -> "Cart":
        """Return the next version, without another change."""
        return replace(self, updated_at=now, version=self.version + 1)

    def claimed_by(self, user_id: UUID) -> "Cart":
        """Return the cart of the user who has claimed the guest. The version stays."""
        return replace(self, user_id=user_id, is_guest=False)

    def set_line(self, offer: Offer, quantity: int, now: datetime) -> "Cart":
        """Set the quantity of a product. Raises TooManyCartLines."""
        known = {line.product_id: line for line in self.lines}
        line = known.get(offer.product_id) or CartLine.from_offer(offer, quantity)
        known[offer.product_id] = replace(line, quantity=quantity)
        return self.change({"lines": _limited(known)}, now)

    def remove_line(self, product_id: UUID, now: datetime) -> "Cart":
        left = tuple(line for line in self.lines if line.product_id != product_id)
        return self.change({"lines": left}, now)

    def absorb(self, source: "Cart", now: datetime) -> "Cart":
        """Add the lines of another cart, and take the fields that this cart lacks.

        Raises TooManyCartLines.
        """
        known = {line.product_id: line for line in self.lines}
        for line in source.lines:
            own = known.get(line.product_id)
            known[line.product_id] = own.add(line.quantity) if own else line
        inherited = {
            name: getattr(source, name) for name in _INHERITED_FIELDS if getattr(self, name) is None
        }
        metadata = _inherit_metadata(self.metadata, source.metadata)
        return self.change({"lines": _limited(known), "metadata": metadata, **inherited}, now)

    def close_into(self, cart_id: UUID, now: datetime) -> "Cart":
        """Close the cart after its lines were added to another cart."""
        return self.change({"status": CartStatus.MERGED, "merged_into": cart_id}, now)

    def look(self, offers: Mapping[UUID, Offer]) -> tuple["Cart", tuple[LineChangeView, ...]]:
        """Record that the owner has seen the offers. Return the cart and the changes of its lines.

        The version stays, because the owner has changed nothing.
        """
        seen = [(line, offers.get(line.product_id)) for line in self.lines]
        lines = tuple(line.look(offer) for line, offer in seen)
        changes = tuple(change for line, offer in seen for change in line.changes(offer))
        return (self if lines == self.lines else replace(self, lines=lines)), changes

    def to_quote_request(self, offers: Mapping[UUID, Offer]) -> QuoteRequest:
        """Build the request for a preview of the price, without the products that are not sold."""
        return QuoteRequest(
            customer_id=self.user_id,
            lines=tuple(
                offers[line.product_id].to_quoted_line(line.quantity)
                for line in self.lines
                if line.product_id in offers
            ),
            # an empty address has no country, like every address that is free text
            shipping_address=self.shipping_address or "",
            currency=self.currency,
            shipping_method=self.shipping_method,
            voucher_code=self.voucher_code,
            is_preview=True,
        )


def _inherit_metadata(own: Mapping[str, str], other: Mapping[str, str]) -> Mapping[str, str]:
    """Add the entries that the cart lacks, by name, as far as the limit allows."""
    room = MAX_METADATA_ENTRIES - len(own)
    added = sorted(other.keys() - own.keys())[:room]
    return MappingProxyType({**own, **{name: other[name] for name in added}})


def _limited(lines: Mapping[UUID, CartLine]) -> tuple[CartLine, ...]:
    if len(lines) > MAX_LINES:
        raise TooManyCartLines(limit=MAX_LINES)
    return tuple(lines.values())


def find_missing_fields(cart: Cart) -> Iterator[ReadinessProblem]:
    if not cart.lines:
        yield _missing("/lines", "The cart is empty.")
    if cart.shipping_address is None:
        yield _missing("/shipping_address", "The cart has no shipping address.")
    if cart.is_guest and cart.email is None:
        yield _missing("/email", "A guest must give an e-mail address.")


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
