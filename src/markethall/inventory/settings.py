"""The settings of inventory."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from markethall.shared.composition.settings import ContextSettings


class InventorySettings(ContextSettings):
    max_unpaid_orders_per_customer: Annotated[
        int,
        Field(ge=1, description="Unpaid orders per customer that may have reservations at a time"),
    ] = 20
    max_reserved_units_per_customer: Annotated[
        int,
        Field(
            ge=1, description="Units of one product that a customer may have reserved and not paid"
        ),
    ] = 1000
    max_import_bytes: Annotated[
        int, Field(ge=1024, description="Maximum size of a file to import")
    ] = 64 * 1024 * 1024

    @property
    def streaming_body_limits(self) -> Mapping[str, int]:
        return {"/imports": self.max_import_bytes}
