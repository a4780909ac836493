"""The use cases of tax rates, and the built-in calculator."""

import json
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from markethall.orders.configuration.domain import ItemKind
from markethall.orders.configuration.service import ItemType
from markethall.orders.tax.contract import NewTaxRate, TaxRateNotFound, TaxRateTaken, TaxRateView
from markethall.orders.tax.domain import TaxRequest, calculate_taxes, region_key
from markethall.orders.totals.domain import TaxLine

TAX_RATES: Final = ItemType(
    kind=ItemKind.TAX_RATE,
    fields=NewTaxRate,
    view=TaxRateView,
    id_name="tax_rate_id",
    not_found=TaxRateNotFound,
    taken=TaxRateTaken,
    key_of=lambda fields: json.dumps(
        [fields.country, region_key(fields), fields.tax_class, fields.name]
    ),
)


class ConfiguredTaxRates:
    """Implementation of `TaxCalculator`: the rates of the shop."""

    async def calculate(self, request: TaxRequest) -> Mapping[UUID, tuple[TaxLine, ...]]:
        return calculate_taxes(request)
