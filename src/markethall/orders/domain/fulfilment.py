"""The fulfilment: a shipment of an order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from markethall.orders.contract import FulfilmentStatus, InvalidTransition
from markethall.orders.domain.order_line import OrderLine


class FulfilmentLine(NamedTuple):
    line_id: UUID
    product_id: UUID
    quantity: int


@dataclass
class Fulfilment:
    """A shipment of an order. Its status is `shipped`, then `delivered`."""

    fulfilment_id: UUID
    order_id: UUID
    lines: tuple[FulfilmentLine, ...]
    carrier: str
    tracking_number: str
    shipped_at: datetime
    delivered_at: datetime | None = None
    status: FulfilmentStatus = FulfilmentStatus.SHIPPED

    @property
    def quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.quantity for line in self.lines}

    def deliver(self, now: datetime) -> None:
        """Raises InvalidTransition."""
        if self.status is not FulfilmentStatus.SHIPPED:
            raise InvalidTransition(status=self.status.value, allowed=[])
        self.status = FulfilmentStatus.DELIVERED
        self.delivered_at = now


def build_fulfilment_lines(
    lines: Iterable[OrderLine], shipped_quantities: Mapping[UUID, int]
) -> tuple[FulfilmentLine, ...]:
    """Build the lines of a fulfilment, sorted as the lines of the order."""
    return tuple(
        FulfilmentLine(line.line_id, line.product_id, shipped_quantities[line.line_id])
        for line in lines
        if line.line_id in shipped_quantities
    )
