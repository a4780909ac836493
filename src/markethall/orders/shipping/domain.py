"""The prices of shipping methods."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from markethall.orders.shipping.contract import (
    NewShippingMethod,
    ShippingRate,
    ShippingUnavailable,
    ShippingZone,
)
from markethall.orders.totals.domain import Destination, ShippingCharge, postal_key


@dataclass(frozen=True)
class ShippedLine:
    """Units to ship. `weight_grams` is the weight of one unit."""

    product_id: UUID
    quantity: int
    weight_grams: int


@dataclass(frozen=True)
class ShippingRequest:
    """An order that needs a shipping price. `subtotal` is in minor units, before discounts."""

    currency: str
    destination: Destination
    subtotal: int
    lines: tuple[ShippedLine, ...]
    # the active methods of the shop
    methods: tuple[NewShippingMethod, ...]

    @property
    def weight_grams(self) -> int:
        return sum(line.weight_grams * line.quantity for line in self.lines)


@dataclass(frozen=True)
class ShippingOption:
    """A method that serves the order, with its price."""

    charge: ShippingCharge
    pickup: bool = False
    delivery: str | None = None


def list_options(request: ShippingRequest) -> Iterator[ShippingOption]:
    """Return the methods of the shop that serve the order."""
    for method in request.methods:
        price = rate_price(method.rate, request)
        if price is not None and (method.pickup or _serves(method, request.destination)):
            charge = ShippingCharge(method.code, method.name, price, method.tax_class)
            yield ShippingOption(charge, method.pickup, method.delivery)


def choose_option(options: Sequence[ShippingOption], code: str | None) -> ShippingOption:
    """Return the option with this code, or the cheapest option that is not a pick-up.

    Raises ShippingUnavailable.
    """
    wanted = [
        option for option in options if (option.charge.code == code if code else not option.pickup)
    ]
    if not wanted:
        codes = sorted(option.charge.code for option in options)
        raise ShippingUnavailable(shipping_method=code, available=codes)
    return min(wanted, key=lambda option: (option.charge.price, option.charge.code))


def rate_price(rate: ShippingRate, request: ShippingRequest) -> int | None:
    """Return the price in minor units, or None if the method is not offered for the order."""
    if rate.currency != request.currency:
        return None
    measure = request.weight_grams if rate.kind == "by_weight" else request.subtotal
    if rate.up_to is not None and measure > rate.up_to:
        return None
    price = rate.price
    for tier in rate.tiers:
        if tier.starts_at <= measure:
            price = tier.price
    if price is not None and rate.free_from is not None and request.subtotal >= rate.free_from:
        return 0
    return price


def _serves(method: NewShippingMethod, destination: Destination) -> bool:
    return not method.zones or any(_is_within(zone, destination) for zone in method.zones)


def _is_within(zone: ShippingZone, destination: Destination) -> bool:
    if destination.country not in zone.countries:
        return False
    prefixes = [postal_key(prefix) for prefix in zone.postal_prefixes]
    return not prefixes or any(destination.postal_key.startswith(prefix) for prefix in prefixes)
