"""The return: its transitions, the units that have arrived, and its refund."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from markethall.orders.contract import InvalidTransition
from markethall.orders.returns.contract import (
    Disposition,
    ItemCondition,
    ReturnStatus,
    TooMuchReceived,
)
from markethall.orders.totals.domain import LineShare


class ReturnCommand(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"
    RECEIVE = "receive"
    CLOSE = "close"
    CANCEL = "cancel"


_S, _C = ReturnStatus, ReturnCommand
RETURN_TRANSITIONS: Final = (
    (_S.REQUESTED, _C.APPROVE, _S.APPROVED),
    (_S.REQUESTED, _C.REJECT, _S.REJECTED),
    (_S.REQUESTED, _C.CANCEL, _S.CANCELLED),
    (_S.APPROVED, _C.RECEIVE, _S.RECEIVED),
    (_S.APPROVED, _C.CANCEL, _S.CANCELLED),
    (_S.RECEIVED, _C.RECEIVE, _S.RECEIVED),
    (_S.RECEIVED, _C.CLOSE, _S.CLOSED),
)


OPEN_STATUSES: Final = frozenset({_S.REQUESTED, _S.APPROVED, _S.RECEIVED})


@dataclass(frozen=True)
class ReceiptLine:
    line_id: UUID
    quantity: int
    condition: ItemCondition
    disposition: Disposition


@dataclass(frozen=True)
class Receipt:
    """Units that have arrived together."""

    receipt_id: UUID
    received_at: datetime
    actor: str
    lines: tuple[ReceiptLine, ...]


@dataclass(frozen=True)
class ReturnLine:
    """Units of one line of an order. The amounts of the received units are set by `close`."""

    line_id: UUID
    product_id: UUID
    quantity: int
    restocked: int = 0
    scrapped: int = 0
    price: int = 0
    discount: int = 0
    tax: int = 0
    included_tax: int = 0

    @property
    def received(self) -> int:
        return self.restocked + self.scrapped

    @property
    def refund(self) -> int:
        return self.price - self.discount + self.tax


@dataclass
class Return:
    """A return. Amounts are in minor units of the order's currency.

    A command that the status does not accept raises InvalidTransition.
    """

    return_id: UUID
    order_id: UUID
    reason: str
    lines: tuple[ReturnLine, ...]
    created_at: datetime
    updated_at: datetime
    status: ReturnStatus = ReturnStatus.REQUESTED
    receipts: tuple[Receipt, ...] = ()
    # the part of the shipping that is refunded
    shipping_refund: int = 0
    # the amount of the refund that was made; None until it is known
    refunded: int | None = None
    version: int = 1

    @property
    def refund(self) -> int:
        return sum(line.refund for line in self.lines) + self.shipping_refund

    @property
    def quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.quantity for line in self.lines}

    @property
    def received_quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.received for line in self.lines if line.received}

    def approve(self, now: datetime) -> None:
        self._transition(ReturnCommand.APPROVE, now)

    def reject(self, now: datetime) -> None:
        self._transition(ReturnCommand.REJECT, now)

    def cancel(self, now: datetime) -> None:
        self._transition(ReturnCommand.CANCEL, now)

    def receive(self, receipt: Receipt) -> None:
        """Add units that have arrived. Raises TooMuchReceived."""
        self._transition(ReturnCommand.RECEIVE, receipt.received_at)
        restocked = _sum_units(receipt.lines, Disposition.RESTOCK)
        scrapped = _sum_units(receipt.lines, Disposition.SCRAP)
        self._check_expected(restocked + scrapped)
        self.lines = tuple(
            replace(
                line,
                restocked=line.restocked + restocked[line.line_id],
                scrapped=line.scrapped + scrapped[line.line_id],
            )
            for line in self.lines
        )
        self.receipts = (*self.receipts, receipt)

    def close(self, now: datetime) -> None:
        """Close the return. The caller then sets the refund."""
        self._transition(ReturnCommand.CLOSE, now)

    def set_refund(self, shares: Mapping[UUID, LineShare], shipping_refund: int) -> None:
        """Set the refund; `shares` are the amounts of the received units by line id."""
        self.lines = tuple(
            replace(line, **shares[line.line_id]._asdict()) if line.line_id in shares else line
            for line in self.lines
        )
        self.shipping_refund = shipping_refund

    def settle(self, refunded: int, now: datetime) -> None:
        """Record the amount of the refund that was made."""
        self.refunded = refunded
        self._touch(now)

    def _check_expected(self, received: Counter[UUID]) -> None:
        expected = {line.line_id: line.quantity - line.received for line in self.lines}
        excess = [
            {"line_id": str(line_id), "received": quantity, "expected": expected.get(line_id, 0)}
            for line_id, quantity in received.items()
            if quantity > expected.get(line_id, 0)
        ]
        if excess:
            raise TooMuchReceived(lines=excess)

    def _transition(self, command: ReturnCommand, now: datetime) -> None:
        targets = {name: to for status, name, to in RETURN_TRANSITIONS if status is self.status}
        if command not in targets:
            raise InvalidTransition(
                status=self.status.value, allowed=[name.value for name in targets]
            )
        self.status = targets[command]
        self._touch(now)

    def _touch(self, now: datetime) -> None:
        self.updated_at = now
        self.version += 1


def _sum_units(lines: Iterable[ReceiptLine], disposition: Disposition) -> Counter[UUID]:
    units: Counter[UUID] = Counter()
    for line in lines:
        if line.disposition is disposition:
            units[line.line_id] += line.quantity
    return units
