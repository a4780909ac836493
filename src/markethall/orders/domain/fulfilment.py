"""The fulfilment: a shipment of an order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from markethall.orders.contract import FulfilmentStatus, InvalidTransition
from markethall.orders.domain.order_line import OrderLine


class FulfilmentCommand(StrEnum):
    DELIVER = "deliver"
    LOST = "lost"
    RETURNED = "returned"


_S, _C = FulfilmentStatus, FulfilmentCommand
FULFILMENT_TRANSITIONS: Final = (
    (_S.SHIPPED, _C.DELIVER, _S.DELIVERED),
    (_S.SHIPPED, _C.LOST, _S.LOST),
    (_S.SHIPPED, _C.RETURNED, _S.RETURNED_TO_SENDER),
)


class FulfilmentLine(NamedTuple):
    line_id: UUID
    product_id: UUID
    quantity: int


@dataclass
class Fulfilment:
    """A shipment of an order. A command that the status does not accept raises InvalidTransition.

    `failed_at` is the time at which the shipment was reported as lost or returned.
    """

    fulfilment_id: UUID
    order_id: UUID
    lines: tuple[FulfilmentLine, ...]
    carrier: str | None
    tracking_number: str | None
    shipped_at: datetime
    delivered_at: datetime | None = None
    failed_at: datetime | None = None
    restocked: bool = False
    status: FulfilmentStatus = FulfilmentStatus.SHIPPED

    @property
    def quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.quantity for line in self.lines}

    @property
    def label(self) -> str:
        """The carrier and the tracking number, for the timeline."""
        return " ".join(part for part in (self.carrier, self.tracking_number) if part)

    def deliver(self, now: datetime) -> None:
        self._transition(FulfilmentCommand.DELIVER)
        self.delivered_at = now

    def mark_lost(self, now: datetime) -> None:
        self._transition(FulfilmentCommand.LOST)
        self.failed_at = now

    def mark_returned(self, *, restock: bool, now: datetime) -> None:
        """Record that the shipment has come back. With `restock`, its units are sold again."""
        self._transition(FulfilmentCommand.RETURNED)
        self.failed_at, self.restocked = now, restock

    def _transition(self, command: FulfilmentCommand) -> None:
        targets = {name: to for status, name, to in FULFILMENT_TRANSITIONS if status is self.status}
        if command not in targets:
            raise InvalidTransition(
                status=self.status.value, allowed=[name.value for name in targets]
            )
        self.status = targets[command]


def build_fulfilment_lines(
    lines: Iterable[OrderLine], shipped_quantities: Mapping[UUID, int]
) -> tuple[FulfilmentLine, ...]:
    """Build the lines of a fulfilment, sorted as the lines of the order."""
    return tuple(
        FulfilmentLine(line.line_id, line.product_id, shipped_quantities[line.line_id])
        for line in lines
        if line.line_id in shipped_quantities
    )
