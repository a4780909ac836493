"""The use cases of shipping methods, and the built-in calculator."""

from collections.abc import Sequence
from typing import Final

from markethall.orders.configuration.domain import ItemKind
from markethall.orders.configuration.service import ItemType
from markethall.orders.shipping.contract import (
    NewShippingMethod,
    ShippingCodeTaken,
    ShippingMethodNotFound,
    ShippingMethodView,
)
from markethall.orders.shipping.domain import ShippingOption, ShippingRequest, list_options

SHIPPING_METHODS: Final = ItemType(
    kind=ItemKind.SHIPPING_METHOD,
    fields=NewShippingMethod,
    view=ShippingMethodView,
    id_name="shipping_method_id",
    not_found=ShippingMethodNotFound,
    taken=ShippingCodeTaken,
    key_of=lambda fields: fields.code,
)


class ShippingRates:
    """Implementation of `ShippingCalculator`: the rates of the shop's own methods."""

    async def list_options(self, request: ShippingRequest) -> Sequence[ShippingOption]:
        return list(list_options(request))
