"""The port of tax amounts.

A package adds a calculator by an entry point in the group `markethall.tax_calculators` that names a
function without arguments, or a class, which returns a `TaxCalculator`. The setting
`MARKETHALL_TAX_CALCULATOR` selects it.
"""

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from markethall.orders.tax.domain import TaxRequest
from markethall.orders.totals.domain import TaxLine


class TaxCalculator(Protocol):
    async def calculate(self, request: TaxRequest) -> Mapping[UUID, tuple[TaxLine, ...]]:
        """Return the taxes of each part, by its key; a part without taxes may be left out.

        Amounts are in minor units (`int`). No amount is negative, and a part whose `taxable` amount
        is 0 has no tax. If prices include tax, the amounts are contained in the price of the part,
        so their sum is at most its `taxable` amount. Raises Unavailable if the taxes cannot be
        determined now.
        """
