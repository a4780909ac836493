"""The port of shipping prices.

A package adds a calculator by an entry point in the group `markethall.shipping_calculators` that
names a function without arguments, or a class, which returns a `ShippingCalculator`. The setting
`MARKETHALL_SHIPPING_CALCULATOR` selects it.
"""

from collections.abc import Sequence
from typing import Protocol

from markethall.orders.shipping.domain import ShippingOption, ShippingRequest


class ShippingCalculator(Protocol):
    async def list_options(self, request: ShippingRequest) -> Sequence[ShippingOption]:
        """Return the options for an order. Their codes differ and no price is negative.

        Prices are in minor units (`int`) of the currency of the request. An order without options
        is rejected, with one exception: in a shop that has no shipping methods, not even inactive
        ones, orders are shipped free of charge if the calculator is the built-in one. Raises
        Unavailable if the prices cannot be determined now.
        """
