"""The choice of shipping methods and of tax rates."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from markethall.orders.contract import Address
from markethall.orders.shipping.contract import (
    NewShippingMethod,
    ShippingRate,
    ShippingUnavailable,
    ShippingZone,
)
from markethall.orders.shipping.domain import (
    ShippedLine,
    ShippingRequest,
    choose_option,
    list_options,
    rate_price,
)
from markethall.orders.shop.contract import CountryNotServed, ShopSettings
from markethall.orders.shop.domain import find_destination, home_destination
from markethall.orders.tax.contract import NewTaxRate
from markethall.orders.tax.domain import find_missing_region, find_rules
from markethall.orders.totals.domain import Destination

BERLIN = Destination("DE", "BE", "10 115")
TIERS = [{"starts_at": 0, "price": 490}, {"starts_at": 1000, "price": 690}]


def rate(kind: str = "flat", **fields: Any) -> ShippingRate:
    given = {"price": 490} if kind == "flat" else {"tiers": TIERS}
    return ShippingRate.model_validate({"kind": kind, "currency": "EUR", **given, **fields})


def method(code: str, **fields: Any) -> NewShippingMethod:
    given = {"code": code, "name": code, "rate": rate(), **fields}
    return NewShippingMethod.model_validate(given)


def request(
    *methods: NewShippingMethod,
    destination: Destination = BERLIN,
    subtotal: int = 2000,
    grams: int = 250,
    currency: str = "EUR",
) -> ShippingRequest:
    line = ShippedLine(UUID(int=1), 2, grams)
    return ShippingRequest(currency, destination, subtotal, (line,), methods)


@pytest.mark.parametrize(
    ("given", "subtotal", "grams", "price"),
    [
        (rate(), 2000, 0, 490),
        (rate(free_from=2001), 2000, 0, 490),
        (rate(free_from=2000), 2000, 0, 0),
        (rate("by_weight"), 2000, 499, 490),
        (rate("by_weight"), 2000, 500, 690),
        (rate("by_weight", up_to=1000), 2000, 500, 690),
        (rate("by_weight", up_to=1000), 2000, 501, None),
        (rate("by_total"), 999, 5000, 490),
        (rate("by_total"), 1000, 0, 690),
        (rate("by_total", tiers=[{"starts_at": 1000, "price": 0}]), 999, 0, None),
        (rate(currency="CHF"), 2000, 0, None),
    ],
)
def test_price_of_a_rate(given: ShippingRate, subtotal: int, grams: int, price: int | None) -> None:
    assert rate_price(given, request(subtotal=subtotal, grams=grams)) == price


def test_methods_serve_their_zones() -> None:
    methods = (
        method("everywhere"),
        method("germany", zones=[{"countries": ["DE"]}]),
        method("berlin", zones=[{"countries": ["DE"], "postal_prefixes": ["101", "10 2"]}]),
        method("austria", zones=[{"countries": ["AT"]}]),
        method("shop", pickup=True, zones=[{"countries": ["AT"]}]),
    )

    def codes(destination: Destination) -> list[str]:
        options = list_options(request(*methods, destination=destination))
        return [option.charge.code for option in options]

    assert codes(BERLIN) == ["everywhere", "germany", "berlin", "shop"]
    assert codes(Destination("DE", None, "80331")) == ["everywhere", "germany", "shop"]
    assert codes(Destination()) == ["everywhere", "shop"]


def test_cheapest_method_is_chosen_without_a_code() -> None:
    methods = (
        method("courier", rate=rate(price=990)),
        method("post"),
        method("shop", pickup=True, rate=rate(price=0)),
    )
    options = list(list_options(request(*methods)))

    assert choose_option(options, None).charge.code == "post"
    assert choose_option(options, "shop").charge.price == 0
    with pytest.raises(ShippingUnavailable) as refused:
        choose_option(options, "drone")
    assert refused.value.details["available"] == ["courier", "post", "shop"]
    with pytest.raises(ShippingUnavailable):
        choose_option([], None)


@pytest.mark.parametrize(
    "fields",
    [
        {"price": None},
        {"tiers": TIERS},
        {"kind": "by_weight", "price": 1, "tiers": TIERS},
        {"kind": "by_weight", "price": None, "tiers": []},
        {"kind": "by_weight", "price": None, "tiers": TIERS[::-1]},
        {"kind": "by_total", "price": None, "tiers": [TIERS[0], TIERS[0]]},
        {"price": -1},
        {"price": 10**15 + 1},
    ],
)
def test_contradictory_rates_are_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ShippingRate.model_validate({"kind": "flat", "currency": "EUR", "price": 490, **fields})


def test_rates_of_a_region_replace_those_of_its_country() -> None:
    rates = (
        tax("US", "0.05", name="federal"),
        tax("US", "0.04", region="NY", name="state"),
        tax("US", "0.045", region="us-ny", name="city"),
        tax("US", "0.02", tax_class="reduced"),
        tax("DE", "0.19"),
    )

    def found(country: str, region: str | None, tax_class: str = "standard") -> Decimal:
        rules = find_rules(rates, Destination(country, region), prices_include_tax=False)
        return sum((rate.rate for rate in rules.rates.get(tax_class, ())), Decimal())

    assert found("US", " ny ") == Decimal("0.085")
    assert found("US", "NY", "reduced") == Decimal("0.02")
    assert found("US", "CA") == found("US", None) == Decimal("0.05")
    assert found("DE", "NY") == Decimal("0.19")
    assert found("FR", None) == 0


@pytest.mark.parametrize(
    ("destination", "is_missing"),
    [
        (Destination("US", "NY"), False),
        (Destination("US", "OR"), False),  # a region without a tax
        (Destination("US"), True),
        (Destination("US", "US-"), True),
        (Destination("ES"), False),  # the rate of the country applies
        (Destination("FR"), False),
        (Destination(), False),
    ],
)
def test_region_is_required_where_only_regions_have_rates(
    destination: Destination, is_missing: bool
) -> None:
    rates = [
        tax("US", "0.04", region="NY"),
        tax("US", "0.0625", region="TX"),
        tax("ES", "0.21"),
        tax("ES", "0.07", region="CN"),
    ]

    error = find_missing_region(rates, destination)

    assert (error is not None) is is_missing
    assert error is None or error.details == {"country": "US"}


def tax(country: str, value: str, **fields: str) -> NewTaxRate:
    return NewTaxRate.model_validate({"country": country, "rate": value, "name": "tax", **fields})


@pytest.mark.parametrize("value", ["1.1", "-0.1", "0.1234567", "1e-2", "19 %", "", "00.1", "0,19"])
def test_rates_are_decimals_from_0_to_1(value: str) -> None:
    with pytest.raises(ValidationError):
        tax("DE", value)


def test_address_without_country_is_in_the_country_of_the_shop() -> None:
    address = Address(
        recipient="Ada", line1="Market 1", city="Berlin", postal_code="10115", country="DE"
    )

    assert find_destination(ShopSettings(), address) == Destination("DE", None, "10115")
    assert find_destination(ShopSettings(), "Market 1") == Destination()
    assert find_destination(ShopSettings(address=address), "Market 1") == Destination("DE")
    assert find_destination(ShopSettings(countries=("AT",)), "Market 1") == Destination("AT")
    with pytest.raises(CountryNotServed):
        find_destination(ShopSettings(countries=("AT",)), address)


def test_pickup_is_taxed_at_the_address_of_the_shop() -> None:
    address = Address(
        recipient="Shop",
        line1="Broadway 1",
        city="New York",
        region="NY",
        postal_code="10001",
        country="US",
    )

    assert home_destination(ShopSettings(address=address)) == Destination("US", "NY", "10001")
    assert home_destination(ShopSettings(address="Broadway 1")) is None
    assert home_destination(ShopSettings(countries=("AT",))) == Destination("AT")


def test_postal_codes_are_compared_without_spaces_and_hyphens() -> None:
    zone = {"countries": ["PL"], "postal_prefixes": ["00-0"]}
    parcel = method("parcel", zones=[zone])

    def is_served(postal_code: str) -> bool:
        destination = Destination("PL", None, postal_code)
        return bool(list(list_options(request(parcel, destination=destination))))

    assert [is_served(code) for code in ("00-001", "00001", "00 001", "01-001", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("prefix", [" ", "-", " - "])
def test_postal_prefix_without_a_letter_or_digit_is_rejected(prefix: str) -> None:
    """Such a prefix would match every postal code, because spaces and hyphens are ignored."""
    with pytest.raises(ValidationError):
        ShippingZone(countries=("DE",), postal_prefixes=(prefix,))


@pytest.mark.parametrize("region", ["US-", "us-", " US- "])
def test_region_that_is_only_the_country_is_rejected(region: str) -> None:
    """Such a region would match each address without a region."""
    with pytest.raises(ValidationError):
        tax("US", "0.04", region=region)
