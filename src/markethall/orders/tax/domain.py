"""The tax of an order by the rates of the shop."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from markethall.orders.tax.contract import NewTaxRate, RegionRequired
from markethall.orders.totals.domain import Destination, LineBreakdown, NamedRate, TaxLine, TaxRules


@dataclass(frozen=True)
class TaxRequest:
    """An order that is to be taxed. `parts` are its lines and its shipping after discounts."""

    currency: str
    destination: Destination
    prices_include_tax: bool
    parts: tuple[LineBreakdown, ...]
    customer_id: UUID
    # the rates of the shop
    rates: tuple[NewTaxRate, ...]


def calculate_taxes(request: TaxRequest) -> Mapping[UUID, tuple[TaxLine, ...]]:
    """Return the taxes of each part, by its key."""
    rules = find_rules(request.rates, request.destination, request.prices_include_tax)
    return {part.key: rules.tax_lines(part) for part in request.parts}


def find_rules(
    rates: tuple[NewTaxRate, ...], destination: Destination, prices_include_tax: bool
) -> TaxRules:
    """Return the rates of each tax class at the destination: of its region, else of its country."""
    by_class: dict[str, dict[bool, list[NamedRate]]] = {}
    for rate in rates:
        if rate.country == destination.country and _covers(rate, destination):
            is_regional = rate.region is not None
            found = by_class.setdefault(rate.tax_class, {}).setdefault(is_regional, [])
            found.append(NamedRate(rate.name, rate.value))
    return TaxRules(
        {name: found.get(True) or found[False] for name, found in by_class.items()},
        prices_include_tax,
    )


def find_missing_region(
    rates: Iterable[NewTaxRate], destination: Destination
) -> RegionRequired | None:
    """Return an error if the destination has no region, and its country only has regional rates.

    Otherwise, a customer who omits the region would pay no tax.
    """
    if destination.region_key:
        return None
    regions = [rate.region for rate in rates if rate.country == destination.country]
    if not regions or None in regions:
        return None
    return RegionRequired(country=destination.country)


def region_key(rate: NewTaxRate) -> str:
    return Destination(rate.country, rate.region).region_key


def _covers(rate: NewTaxRate, destination: Destination) -> bool:
    return rate.region is None or region_key(rate) == destination.region_key
