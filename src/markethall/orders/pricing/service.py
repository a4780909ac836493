"""Price orders: read the settings of the shop, then compute shipping, then taxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from markethall.orders.configuration.domain import ConfigurationItem, ItemKind
from markethall.orders.configuration.service import ConfigurationCache, items_by_kind
from markethall.orders.pricing.domain import Quote, QuoteRequest, find_currency
from markethall.orders.promotions.domain import ApplicablePromotions, Promotion, PromotionRequest
from markethall.orders.promotions.service import PromotionFinder, parse_promotion
from markethall.orders.shipping.contract import NewShippingMethod, ShippingUnavailable
from markethall.orders.shipping.domain import ShippingOption, ShippingRequest, choose_option
from markethall.orders.shipping.ports import ShippingCalculator
from markethall.orders.shipping.service import SHIPPING_METHODS, ShippingRates
from markethall.orders.shop.contract import ShopSettings
from markethall.orders.shop.domain import choose_currency, find_destination, home_destination
from markethall.orders.shop.service import parse_shop
from markethall.orders.tax.contract import NewTaxRate
from markethall.orders.tax.domain import TaxRequest, find_missing_region
from markethall.orders.tax.ports import TaxCalculator
from markethall.orders.tax.service import TAX_RATES
from markethall.orders.totals.domain import (
    Destination,
    DiscountedOrder,
    PricedLine,
    TaxLine,
    add_taxes,
    apply_promotions,
    check_subtotal,
)
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.model import MAX_AMOUNT

log = structlog.get_logger("markethall.orders")


@dataclass(frozen=True)
class PricingRules:
    """The configuration of the shop, parsed."""

    shop: ShopSettings
    # the active methods
    shipping_methods: tuple[NewShippingMethod, ...]
    tax_rates: tuple[NewTaxRate, ...]
    # whether the shop has shipping methods, active or not
    has_methods: bool
    # the active promotions without a code
    promotions: tuple[Promotion, ...]


_NO_ITEMS: Final[tuple[ConfigurationItem, ...]] = ()


class Pricing:
    def __init__(
        self,
        configuration: ConfigurationCache,
        promotions: PromotionFinder,
        shipping: ShippingCalculator,
        tax: TaxCalculator,
    ) -> None:
        self._configuration = configuration
        self._promotions = promotions
        self._shipping = shipping
        self._tax = tax
        self._items = _NO_ITEMS
        self._rules = parse_rules(_NO_ITEMS)

    async def choose_currency(self, requested: str | None) -> str | None:
        """Return the requested currency, or the default currency of the shop.

        None means the currency of the lines: none is requested, and the shop does not list its
        currencies. Raises Unavailable if the settings cannot be read.
        """
        return choose_currency(requested, (await self._get_rules()).shop)

    async def quote(self, request: QuoteRequest) -> Quote:
        """Price an order by the current settings of the shop.

        No SQL statement is executed if the settings are cached, and if neither a voucher nor the
        history of the customer must be read. Raises OrderCurrencyMismatch, CountryNotServed,
        RegionRequired, ShippingUnavailable, VoucherInvalid, VoucherExhausted, TotalTooLarge;
        Unavailable if a calculator or the database does not answer.
        """
        rules = await self._get_rules()
        requested = choose_currency(request.currency, rules.shop)
        currency = find_currency(request.lines, requested, rules.shop.currencies)
        destination = find_destination(rules.shop, request.shipping_address)
        lines = [line.to_priced_line() for line in request.lines]
        check_subtotal(lines)
        options = await self._list_options(request, rules, currency, destination)
        option, shipping_error = self._choose(options, rules, request)
        charge = option.charge if option else None
        applicable = await self._find_promotions(request, rules, currency, lines)
        discounted = apply_promotions(lines, applicable.rules, charge)
        if shipping_error is None:
            applicable.check_voucher(discounted)
        if option and option.pickup:
            destination = home_destination(rules.shop) or destination
        region_error = find_missing_region(rules.tax_rates, destination)
        if region_error and not request.is_preview:
            raise region_error
        taxes = await self._calculate_taxes(request, rules, currency, destination, discounted)
        breakdown = add_taxes(
            [line.key for line in lines], discounted, charge, taxes, rules.shop.prices_include_tax
        )
        return Quote(
            currency,
            breakdown,
            rules.shop.order_number_prefix,
            tuple(
                rule.with_products_of(lines)
                for rule in applicable.rules
                if rule.promotion_id in discounted.promotion_ids
            ),
            tuple(options),
            shipping_error or region_error,
        )

    def refresh(self) -> None:
        """Let the next quotes read the settings and the promotions of the shop again."""
        self._configuration.invalidate()

    async def _get_rules(self) -> PricingRules:
        items = await self._configuration.list_all()
        if items is not self._items:
            self._items, self._rules = items, parse_rules(items)
        return self._rules

    async def _list_options(
        self, request: QuoteRequest, rules: PricingRules, currency: str, destination: Destination
    ) -> Sequence[ShippingOption]:
        options = await self._shipping.list_options(
            ShippingRequest(
                currency=currency,
                destination=destination,
                subtotal=sum(line.unit_price.amount * line.quantity for line in request.lines),
                lines=tuple(line.to_shipped_line() for line in request.lines),
                methods=rules.shipping_methods,
            )
        )
        for option in options:
            price = option.charge.price
            if not (isinstance(price, int) and 0 <= price <= MAX_AMOUNT):
                raise _unusable("shipping_calculator", f"the price of {option.charge.code}")
        return options

    async def _find_promotions(
        self, request: QuoteRequest, rules: PricingRules, currency: str, lines: Sequence[PricedLine]
    ) -> ApplicablePromotions:
        """Raises VoucherInvalid, VoucherExhausted, Unavailable."""
        if request.promotions is not None:
            return ApplicablePromotions(request.promotions)
        return await self._promotions.find(
            rules.promotions,
            PromotionRequest(request.customer_id, currency, lines, request.voucher_code),
        )

    async def _calculate_taxes(
        self,
        request: QuoteRequest,
        rules: PricingRules,
        currency: str,
        destination: Destination,
        order: DiscountedOrder,
    ) -> Mapping[UUID, tuple[TaxLine, ...]]:
        taxes = await self._tax.calculate(
            TaxRequest(
                currency=currency,
                destination=destination,
                prices_include_tax=rules.shop.prices_include_tax,
                parts=order.parts,
                customer_id=request.customer_id,
                rates=rules.tax_rates,
            )
        )
        _check_taxes(taxes, order, rules.shop.prices_include_tax)
        return taxes

    def _choose(
        self, options: Sequence[ShippingOption], rules: PricingRules, request: QuoteRequest
    ) -> tuple[ShippingOption | None, ShippingUnavailable | None]:
        """Choose the shipping option. A shop without shipping methods has none.

        If no method serves the order, raise the error. For a preview, return it beside the missing
        option.
        """
        is_built_in = isinstance(self._shipping, ShippingRates)
        if is_built_in and not rules.has_methods and request.shipping_method is None:
            return None, None
        try:
            return choose_option(options, request.shipping_method), None
        except ShippingUnavailable as error:
            if request.is_preview:
                return None, error
            raise


def parse_rules(items: Sequence[ConfigurationItem]) -> PricingRules:
    kinds = items_by_kind(items)
    methods = map(SHIPPING_METHODS.parse, kinds[ItemKind.SHIPPING_METHOD])
    return PricingRules(
        shop=parse_shop(next(iter(kinds[ItemKind.SHOP]), None)),
        shipping_methods=tuple(method for method in methods if method.is_active),
        tax_rates=tuple(map(TAX_RATES.parse, kinds[ItemKind.TAX_RATE])),
        has_methods=bool(kinds[ItemKind.SHIPPING_METHOD]),
        promotions=tuple(map(parse_promotion, kinds[ItemKind.PROMOTION])),
    )


def _check_taxes(
    taxes: Mapping[UUID, tuple[TaxLine, ...]], order: DiscountedOrder, prices_include_tax: bool
) -> None:
    """Raises Unavailable if a calculator has returned invalid taxes."""
    if unknown := taxes.keys() - {part.key for part in order.parts}:
        raise _unusable("tax_calculator", f"taxes of unknown parts: {unknown}")
    for part in order.parts:
        amounts = [line.amount for line in taxes.get(part.key, ())]
        # an added tax is not limited here, because `add_taxes` checks the total
        limit = part.taxable if prices_include_tax or not part.taxable else sum(amounts)
        is_whole = all(isinstance(amount, int) for amount in amounts)
        if not is_whole or min(amounts, default=0) < 0 or sum(amounts) > limit:
            raise _unusable("tax_calculator", f"the tax of {part.key}")


def _unusable(dependency: str, problem: str) -> Unavailable:
    """Log that the result of a calculator is invalid, and build the error."""
    log.error("order.calculator_failed", calculator=dependency, problem=problem)
    return Unavailable(dependency=dependency)
