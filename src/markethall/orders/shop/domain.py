"""The rules of the shop, and the destination of an order."""

from markethall.orders.shop.contract import Address, AnyAddress, CountryNotServed, ShopSettings
from markethall.orders.totals.domain import Destination
from markethall.shared.kernel.errors import ValidationFailed


def check_default_currency(settings: ShopSettings) -> None:
    """Raise ValidationFailed if the default is not among the currencies of the shop."""
    if settings.currencies and settings.default_currency not in settings.currencies:
        message = "must be one of the currencies of the shop"
        raise ValidationFailed(
            errors=[{"field": "/default_currency", "code": "unknown", "message": message}]
        )


def choose_currency(requested: str | None, settings: ShopSettings) -> str | None:
    """Return the requested currency, else the default of a shop that lists its currencies.

    None means the currency of the lines.
    """
    return requested or (settings.default_currency if settings.currencies else None)


def home_destination(settings: ShopSettings) -> Destination | None:
    """Return the place of the shop: its address, or its only country. None if it has neither."""
    if known := _known_destination(settings.address or ""):
        return known
    return Destination(settings.countries[0]) if len(settings.countries) == 1 else None


def find_destination(settings: ShopSettings, address: AnyAddress) -> Destination:
    """Return the destination of an order.

    An address that is free text has no country, so the country of the shop is assumed. Raises
    CountryNotServed.
    """
    destination = _known_destination(address)
    if destination is None:
        home = home_destination(settings)
        return Destination(home.country if home else None)
    if settings.countries and destination.country not in settings.countries:
        raise CountryNotServed(country=destination.country, countries=list(settings.countries))
    return destination


def have_same_destination(first: AnyAddress, second: AnyAddress) -> bool:
    """Whether an order costs the same at both addresses with any settings of the shop."""
    return _known_destination(first) == _known_destination(second)


def _known_destination(address: AnyAddress) -> Destination | None:
    """Return None for free text, which all settings treat alike."""
    if not isinstance(address, Address):
        return None
    return Destination(address.country, address.region, address.postal_code)
