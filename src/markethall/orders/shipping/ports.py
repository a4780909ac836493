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

        The result is in the currency of the request. A shop without shipping methods gets none
        from the built-in calculator, and its orders are shipped for nothing. Raises Unavailable
        if the prices cannot be determined now.
        """
