"""The conformance test suites for shipping and tax calculators.

The author of a calculator inherits from `ShippingCalculatorConformance` or
`TaxCalculatorConformance` and writes a fixture `calculator`. Every test passes for a correct
calculator.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from markethall.orders.shipping.contract import NewShippingMethod
from markethall.orders.shipping.domain import ShippedLine, ShippingOption, ShippingRequest
from markethall.orders.shipping.ports import ShippingCalculator
from markethall.orders.tax.contract import NewTaxRate
from markethall.orders.tax.domain import TaxRequest
from markethall.orders.tax.ports import TaxCalculator
from markethall.orders.totals.domain import SHIPPING_KEY, Destination, LineBreakdown
from markethall.shared.kernel.model import MAX_AMOUNT
from markethall.testing.gateway_testbed import expect

_DESTINATIONS: Final = (
    Destination("DE", "BE", "10115"),
    Destination("US", "NY", "10001"),
    Destination("JP", None, "100-0001"),
    Destination("DE"),
    Destination(),
)
_METHOD: Final = NewShippingMethod.model_validate(
    {"code": "post", "name": "Post", "rate": {"kind": "flat", "currency": "EUR", "price": 490}}
)
_RATES: Final = (
    NewTaxRate(country="DE", rate="0.19", name="VAT"),
    NewTaxRate(country="DE", rate="0.07", name="VAT", tax_class="reduced"),
    NewTaxRate(country="US", region="NY", rate="0.08875", name="Sales tax"),
)
_CUSTOMER: Final = UUID(int=1)


def shipping_requests() -> list[ShippingRequest]:
    """Build requests with all destinations, with and without weights and methods of the shop."""
    lines = (ShippedLine(UUID(int=1), 2, 250), ShippedLine(UUID(int=2), 1, 0))
    return [
        ShippingRequest("EUR", destination, 2500, lines, methods)
        for destination in _DESTINATIONS
        for methods in ((), (_METHOD,))
    ]


def tax_requests() -> list[TaxRequest]:
    """Build requests with all destinations, for prices with and without tax."""
    parts = (
        LineBreakdown(UUID(int=1), 499, 3, "reduced"),
        LineBreakdown(UUID(int=2), 5995, 1, "standard"),
        LineBreakdown(UUID(int=3), 1, 1, "standard"),
        LineBreakdown(UUID(int=4), 0, 5, "standard"),
        LineBreakdown(UUID(int=5), 100, 1, "a class that no shop has"),
        LineBreakdown(SHIPPING_KEY, 490, 1, "standard"),
    )
    return [
        TaxRequest("EUR", destination, is_included, parts, _CUSTOMER, _RATES)
        for destination in _DESTINATIONS
        for is_included in (True, False)
    ]


class ShippingCalculatorConformance:
    """The tests of a `ShippingCalculator`. Name the subclass `Test…` for pytest."""

    async def test_prices_are_in_range(self, calculator: ShippingCalculator) -> None:
        for request in shipping_requests():
            for option in await calculator.list_options(request):
                price = option.charge.price
                is_in_range = isinstance(price, int) and 0 <= price <= MAX_AMOUNT
                expect(is_in_range, f"{option.charge.code} costs {price!r}")

    async def test_codes_differ(self, calculator: ShippingCalculator) -> None:
        for request in shipping_requests():
            codes = _codes(await calculator.list_options(request))
            expect(len(set(codes)) == len(codes), f"a code occurs twice: {codes}")
            expect(all(codes), "an option has no code")

    async def test_same_request_has_the_same_options(self, calculator: ShippingCalculator) -> None:
        for request in shipping_requests():
            first = await calculator.list_options(request)
            again = await calculator.list_options(request)
            expect(list(first) == list(again), f"{again} after {first}")

    async def test_order_of_lines_does_not_matter(self, calculator: ShippingCalculator) -> None:
        for request in shipping_requests():
            turned = replace(request, lines=request.lines[::-1])
            first = await calculator.list_options(request)
            expect(
                list(first) == list(await calculator.list_options(turned)),
                "the options depend on the order of the lines",
            )

    async def test_concurrent_requests_are_independent(
        self, calculator: ShippingCalculator
    ) -> None:
        requests = shipping_requests()
        alone = [list(await calculator.list_options(request)) for request in requests]
        together = await asyncio.gather(*map(calculator.list_options, requests))
        expect(alone == [list(options) for options in together], "concurrent requests are mixed")


class TaxCalculatorConformance:
    """The tests of a `TaxCalculator`. Name the subclass `Test…` for pytest."""

    async def test_amounts_are_in_range(self, calculator: TaxCalculator) -> None:
        for request in tax_requests():
            taxes = await calculator.calculate(request)
            for part in request.parts:
                amounts = [line.amount for line in taxes.get(part.key, ())]
                limit = part.taxable if request.prices_include_tax else MAX_AMOUNT
                is_whole = all(isinstance(amount, int) for amount in amounts)
                expect(is_whole, f"a tax of {part} is no whole number: {amounts}")
                expect(min(amounts, default=0) >= 0, f"a tax of {part} is negative: {amounts}")
                expect(sum(amounts) <= limit, f"the tax of {part} is too large: {amounts}")

    async def test_only_requested_parts_are_taxed(self, calculator: TaxCalculator) -> None:
        for request in tax_requests():
            unknown = set(await calculator.calculate(request)) - {p.key for p in request.parts}
            expect(not unknown, f"parts that were not requested are taxed: {unknown}")

    async def test_free_part_has_no_tax(self, calculator: TaxCalculator) -> None:
        for request in tax_requests():
            taxes = await calculator.calculate(request)
            for part in request.parts:
                tax = sum(line.amount for line in taxes.get(part.key, ()))
                expect(bool(part.taxable) or not tax, f"the free {part} has a tax of {tax}")

    async def test_same_request_has_the_same_taxes(self, calculator: TaxCalculator) -> None:
        for request in tax_requests():
            first = await calculator.calculate(request)
            again = await calculator.calculate(request)
            expect(dict(first) == dict(again), f"{again} after {first}")

    async def test_order_of_parts_does_not_matter(self, calculator: TaxCalculator) -> None:
        for request in tax_requests():
            turned = replace(request, parts=request.parts[::-1])
            first = await calculator.calculate(request)
            expect(
                dict(first) == dict(await calculator.calculate(turned)),
                "the taxes depend on the order of the parts",
            )

    async def test_concurrent_requests_are_independent(self, calculator: TaxCalculator) -> None:
        requests = tax_requests()
        alone = [dict(await calculator.calculate(request)) for request in requests]
        together = await asyncio.gather(*map(calculator.calculate, requests))
        expect(alone == [dict(taxes) for taxes in together], "concurrent requests are mixed")


def _codes(options: Sequence[ShippingOption]) -> list[str]:
    return [option.charge.code for option in options]
