"""Test that the built-in calculators conform, and that wrong and installed ones are found."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from importlib.metadata import EntryPoint, EntryPoints
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from markethall.orders import settings as orders_settings
from markethall.orders.contract import ShippingUnavailable
from markethall.orders.pricing.service import Pricing
from markethall.orders.settings import (
    SHIPPING_CALCULATORS,
    TAX_CALCULATORS,
    OrdersSettings,
    build_calculator,
)
from markethall.orders.shipping.domain import ShippingOption, ShippingRequest, list_options
from markethall.orders.shipping.ports import ShippingCalculator
from markethall.orders.shipping.service import ShippingRates
from markethall.orders.tax.domain import TaxRequest, calculate_taxes
from markethall.orders.tax.ports import TaxCalculator
from markethall.orders.tax.service import ConfiguredTaxRates
from markethall.orders.totals.domain import ShippingCharge, TaxLine
from markethall.shared.composition.settings import read_one
from markethall.shared.kernel.errors import Unavailable
from markethall.testing import ShippingCalculatorConformance, TaxCalculatorConformance
from tests.orders.conftest import OrdersApp
from tests.orders.test_totals import change_shop

Taxes = Mapping[UUID, tuple[TaxLine, ...]]


class TestShippingRates(ShippingCalculatorConformance):
    @pytest.fixture
    def calculator(self) -> ShippingRates:
        return ShippingRates()


class TestConfiguredTaxRates(TaxCalculatorConformance):
    @pytest.fixture
    def calculator(self) -> ConfiguredTaxRates:
        return ConfiguredTaxRates()


class ChangedShipping:
    """Changes the built-in options, to make a calculator that is wrong."""

    def __init__(self, change: Callable[[list[ShippingOption], ShippingRequest], Any]) -> None:
        self._change = change

    async def list_options(self, request: ShippingRequest) -> Sequence[ShippingOption]:
        options: list[ShippingOption] = self._change(list(list_options(request)), request)
        return options


class ChangedTaxes:
    """Changes the built-in taxes, to make a calculator that is wrong."""

    def __init__(self, change: Callable[[dict[UUID, Any], TaxRequest], Any]) -> None:
        self._change = change

    async def calculate(self, request: TaxRequest) -> Taxes:
        taxes: Taxes = self._change(dict(calculate_taxes(request)), request)
        return taxes


def option(price: Any, code: str = "other") -> ShippingOption:
    return ShippingOption(ShippingCharge(code, code, price))


def tax(amount: Any) -> tuple[TaxLine, ...]:
    return (TaxLine("VAT", Decimal("0.1"), amount),)


numbers = count()
WRONG_SHIPPING = {
    "negative price": ChangedShipping(lambda options, _: [*options, option(-1)]),
    "decimal price": ChangedShipping(lambda options, _: [*options, option(Decimal("4.90"))]),
    "code twice": ChangedShipping(lambda options, _: options * 2),
    "random price": ChangedShipping(lambda options, _: [*options, option(next(numbers))]),
    "first line decides": ChangedShipping(
        lambda _, request: [option(request.lines[0].weight_grams)]
    ),
}
WRONG_TAXES = {
    "negative tax": ChangedTaxes(lambda taxes, r: taxes | {r.parts[0].key: tax(-1)}),
    "decimal tax": ChangedTaxes(lambda taxes, r: taxes | {r.parts[0].key: tax(Decimal("0.5"))}),
    "more than the price": ChangedTaxes(lambda taxes, r: taxes | {r.parts[0].key: tax(1498)}),
    "unknown part": ChangedTaxes(lambda taxes, _: taxes | {UUID(int=99): tax(1)}),
    "free part": ChangedTaxes(
        lambda taxes, r: taxes | {part.key: tax(1) for part in r.parts if not part.taxable}
    ),
    "random tax": ChangedTaxes(lambda taxes, _: taxes | {UUID(int=2): tax(next(numbers) % 90)}),
    "first part decides": ChangedTaxes(lambda taxes, r: taxes | {r.parts[0].key: tax(3)}),
}


@pytest.mark.parametrize("name", WRONG_SHIPPING)
async def test_wrong_shipping_calculator_is_found(name: str) -> None:
    assert await failures(ShippingCalculatorConformance(), WRONG_SHIPPING[name])


@pytest.mark.parametrize("name", WRONG_TAXES)
async def test_wrong_tax_calculator_is_found(name: str) -> None:
    assert await failures(TaxCalculatorConformance(), WRONG_TAXES[name])


async def failures(suite: object, calculator: object) -> list[str]:
    """Return the names of the tests of the suite that fail for the calculator."""
    failed = []
    for name, test in inspect.getmembers(suite, inspect.iscoroutinefunction):
        try:
            await test(calculator)
        except AssertionError:
            failed.append(name)
    return failed


def test_calculators_of_packages_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = EntryPoints(
        [
            EntryPoint("carrier", "tests.orders.test_calculators:ShippingRates", group)
            for group in (SHIPPING_CALCULATORS, TAX_CALCULATORS)
        ]
    )
    monkeypatch.setattr(orders_settings, "entry_points", installed.select)

    settings = read_one(OrdersSettings, {"storage": "memory", "shipping_calculator": "carrier"})

    calculator = build_calculator(SHIPPING_CALCULATORS, settings.shipping_calculator)
    assert isinstance(calculator, ShippingRates)
    with pytest.raises(ValidationError, match="rates, carrier"):
        OrdersSettings.model_validate(settings.model_dump() | {"tax_calculator": "unknown"})


@pytest.mark.parametrize("orders_app", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("shipping", "tax"),
    [
        (WRONG_SHIPPING["negative price"], ConfiguredTaxRates()),
        (WRONG_SHIPPING["decimal price"], ConfiguredTaxRates()),
        (ShippingRates(), WRONG_TAXES["negative tax"]),
        (ShippingRates(), WRONG_TAXES["unknown part"]),
        (ShippingRates(), WRONG_TAXES["free part"]),
    ],
)
async def test_result_that_no_order_may_have_is_an_outage(
    orders_app: OrdersApp, shipping: ShippingCalculator, tax: TaxCalculator
) -> None:
    """The order is not placed, and a retry with the same key can place it later."""
    product = orders_app.fake_inventory.add_product(5, 0)
    await change_shop(orders_app, prices_include_tax=False)
    configuration = orders_app.container.configuration()
    orders_app.container.pricing.override(
        Pricing(configuration, orders_app.container.promotion_finder(), shipping, tax)
    )

    with pytest.raises(Unavailable):
        await orders_app.place(product)


@pytest.mark.parametrize("orders_app", ["memory"], indirect=True)
async def test_tax_that_is_no_whole_number_is_an_outage(orders_app: OrdersApp) -> None:
    product = orders_app.stock_up()
    configuration = orders_app.container.configuration()
    pricing = Pricing(
        configuration,
        orders_app.container.promotion_finder(),
        ShippingRates(),
        WRONG_TAXES["decimal tax"],
    )
    orders_app.container.pricing.override(pricing)

    with pytest.raises(Unavailable):
        await orders_app.place(product)


@pytest.mark.parametrize("orders_app", ["memory"], indirect=True)
async def test_order_for_which_an_installed_calculator_has_no_option_is_rejected(
    orders_app: OrdersApp,
) -> None:
    """Only the built-in calculator ships free of charge in a shop without methods."""
    product = orders_app.stock_up()
    nothing = ChangedShipping(lambda _, __: [])
    configuration = orders_app.container.configuration()
    pricing = Pricing(
        configuration, orders_app.container.promotion_finder(), nothing, ConfiguredTaxRates()
    )
    orders_app.container.pricing.override(pricing)

    with pytest.raises(ShippingUnavailable):
        await orders_app.place(product)
