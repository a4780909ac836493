"""The cart: its lines, its fields and its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from markethall.orders.carts.contract import CartClosed, CartStatus, TooManyCartLines
from markethall.orders.carts.domain.lines import CartLine, LineChange, Offer, look_at_lines
from markethall.orders.contract import MAX_LINES, Address
from markethall.orders.pricing.domain import QuoteRequest
from markethall.shared.kernel.metadata import MAX_METADATA_ENTRIES

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

    def look(self, offers: Mapping[UUID, Offer]) -> tuple["Cart", tuple[LineChange, ...]]:
        """Record that the owner has seen the offers. Return the cart, and what has changed since.

        The version stays, because the owner has changed nothing.
        """
        lines, changes = look_at_lines(self.lines, offers)
        return (self if lines == self.lines else replace(self, lines=lines)), changes

    def to_quote_request(self, offers: Mapping[UUID, Offer]) -> QuoteRequest:
        """Build the request for a preview of the lines whose products are still sold."""
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
