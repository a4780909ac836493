"""Settings, shipping methods, tax rates and vouchers of the demo shop."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from markethall.local.demo.shop import fixed_id
from markethall.orders.promotions.contract import (
    NewPromotion,
    PromotionNotFound,
    Promotions,
    VoucherCodeTaken,
)
from markethall.orders.shipping.contract import (
    NewShippingMethod,
    ShippingCodeTaken,
    ShippingMethodNotFound,
    ShippingMethods,
)
from markethall.orders.shop.contract import Shop, ShopChange
from markethall.orders.tax.contract import NewTaxRate, TaxRateNotFound, TaxRates, TaxRateTaken
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import PreconditionFailed

# the version of settings that were never changed
_INITIAL_VERSION: Final = 1

SETTINGS: Final = ShopChange.model_validate(
    {
        "name": "Tea House",
        "countries": ["AT", "DE", "NL"],
        "support_email": "help@teahouse.example",
        "address": {
            "recipient": "Tea House",
            "line1": "1 Market Square",
            "postal_code": "10115",
            "city": "Berlin",
            "country": "DE",
        },
        "tax_id": "DE123456789",
    }
)
SHIPPING_METHODS: Final = tuple(
    NewShippingMethod.model_validate({"tax_class": "standard", **fields})
    for fields in (
        {
            "code": "standard",
            "name": "Standard",
            "delivery": "2 to 4 working days",
            "zones": [{"countries": ["AT", "DE", "NL"]}],
            "rate": {"kind": "flat", "currency": "EUR", "price": 490, "free_from": 5000},
        },
        {
            "code": "express",
            "name": "Express",
            "delivery": "the next working day",
            "zones": [{"countries": ["AT", "DE"]}],
            "rate": {"kind": "flat", "currency": "EUR", "price": 1290},
        },
        {
            "code": "pickup",
            "name": "Pick-up in Berlin",
            "delivery": "ready in two hours",
            "pickup": True,
            "rate": {"kind": "flat", "currency": "EUR", "price": 0},
        },
    )
)
# the reduced rate is for tea and books, the standard one for all other products and shipping
_REDUCED_AND_STANDARD: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"AT": ("0.10", "0.20"), "DE": ("0.07", "0.19"), "NL": ("0.09", "0.21")}
)
TAX_RATES: Final = tuple(
    NewTaxRate(country=country, tax_class=tax_class, rate=rate, name="VAT")
    for country, rates in _REDUCED_AND_STANDARD.items()
    for tax_class, rate in zip(("reduced", "standard"), rates, strict=True)
)
VOUCHERS: Final = tuple(
    NewPromotion.model_validate(fields)
    for fields in (
        {"name": "Welcome", "kind": "percent", "percent": "10", "code": "WELCOME10"},
        {"name": "Free shipping", "kind": "free_shipping", "code": "FREESHIP"},
    )
)
VOUCHER_LINE: Final = "Vouchers: WELCOME10 (10 % off), FREESHIP (free shipping)"


@dataclass(frozen=True)
class ConfigurationServices:
    """The services of orders to which the demo data is written."""

    shop: Shop
    shipping_methods: ShippingMethods
    tax_rates: TaxRates
    promotions: Promotions


@dataclass(frozen=True)
class NewItems:
    """The numbers of items that a run has created."""

    shipping_methods: int
    tax_rates: int
    vouchers: int


async def fill_configuration(services: ConfigurationServices, ctx: CallContext) -> NewItems:
    """Create the items that are missing. Existing ones, and changed settings, are not changed."""
    await _change_initial_settings(services.shop, ctx)
    methods = {f"shipping method {method.code}": method for method in SHIPPING_METHODS}
    rates = {f"tax rate {rate.country} {rate.tax_class}": rate for rate in TAX_RATES}
    vouchers = {f"voucher {voucher.code}": voucher for voucher in VOUCHERS}
    return NewItems(
        await _add_missing(services.shipping_methods, ctx, methods),
        await _add_missing(services.tax_rates, ctx, rates),
        await _add_missing(services.promotions, ctx, vouchers),
    )


async def _change_initial_settings(shop: Shop, ctx: CallContext) -> None:
    try:
        await shop.change(ctx, SETTINGS, frozenset({_INITIAL_VERSION}))
    except PreconditionFailed:
        return  # an admin or an earlier run has changed the settings


F_contra = TypeVar("F_contra", contravariant=True)


class _Items(Protocol[F_contra]):
    def get(self, ctx: CallContext, item_id: UUID, /) -> Awaitable[object]: ...

    def create(
        self, ctx: CallContext, fields: F_contra, attempt: IdempotentCommand, /
    ) -> Awaitable[object]: ...


async def _add_missing(
    items: _Items[F_contra], ctx: CallContext, fields_by_name: Mapping[str, F_contra]
) -> int:
    """Create the items whose ids, made of their names, do not exist. Return their number."""
    new = 0
    for name, fields in fields_by_name.items():
        new += await _add(items, ctx, fixed_id(name), fields)
    return new


async def _add(items: _Items[F_contra], ctx: CallContext, item_id: UUID, fields: F_contra) -> bool:
    if await _exists(items, ctx, item_id):
        return False
    try:
        await items.create(ctx, fields, IdempotentCommand.without_key(item_id))
    except (ShippingCodeTaken, TaxRateTaken, VoucherCodeTaken):
        return False
    return True


async def _exists(items: _Items[Any], ctx: CallContext, item_id: UUID) -> bool:
    try:
        await items.get(ctx, item_id)
    except (ShippingMethodNotFound, TaxRateNotFound, PromotionNotFound):
        return False
    return True
