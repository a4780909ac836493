"""The settings of orders."""

from typing import Annotated

from pydantic import Field

from markethall.shared.composition.settings import ContextSettings


class OrdersSettings(ContextSettings):
    reservation_ttl_seconds: Annotated[
        float,
        # inventory reserves stock for at most 15 minutes
        Field(
            gt=0,
            le=900,
            description="Seconds that stock is reserved for an unpaid order; 900 at most",
        ),
    ] = 900
