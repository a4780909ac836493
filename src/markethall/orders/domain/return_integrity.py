"""Rules between the lines of orders and their returns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from markethall.orders.domain.order_line import OrderLine
from markethall.orders.returns.contract import ReturnStatus
from markethall.orders.returns.domain import OPEN_STATUSES, Return
from markethall.orders.totals.domain import share_of_units
from markethall.shared.kernel.integrity import OffendingRow


@dataclass(frozen=True)
class ReturnedLine:
    """A line of an order with the sums of its returns. Amounts are in minor units.

    `open_units` are the units of open returns; `received_units` and the amounts after it are those
    of closed returns.
    """

    line_id: UUID
    order_id: UUID
    unit_price: int
    quantity: int
    delivered: int
    in_return: int
    returned: int
    discount: int
    tax: int
    open_units: int
    received_units: int
    returned_price: int
    returned_discount: int
    returned_tax: int


def build_returned_line(line: OrderLine, order_id: UUID, returns: Iterable[Return]) -> ReturnedLine:
    """Sum the returns of a line."""
    found = [
        (entity.status, part)
        for entity in returns
        for part in entity.lines
        if part.line_id == line.line_id
    ]
    closed = [part for status, part in found if status is ReturnStatus.CLOSED]
    return ReturnedLine(
        line_id=line.line_id,
        order_id=order_id,
        unit_price=line.unit_price,
        quantity=line.quantity,
        delivered=line.delivered,
        in_return=line.in_return,
        returned=line.returned,
        discount=line.discount,
        tax=line.tax,
        open_units=sum(part.quantity for status, part in found if status in OPEN_STATUSES),
        received_units=sum(part.received for part in closed),
        returned_price=sum(part.price for part in closed),
        returned_discount=sum(part.discount for part in closed),
        returned_tax=sum(part.tax for part in closed),
    )


def judge_returns(line: ReturnedLine) -> Iterator[OffendingRow]:
    if line.in_return + line.returned > line.delivered:
        yield _line_row(
            line,
            f"{line.in_return + line.returned} units are in returns, {line.delivered} delivered",
        )
    if (line.in_return, line.returned) != (line.open_units, line.received_units):
        yield _line_row(
            line,
            f"in return are {line.in_return}, returned {line.returned} units; of its returns"
            f" {line.open_units} and {line.received_units}",
        )
    found = (line.returned_price, line.returned_discount, line.returned_tax)
    first = max(line.quantity - line.received_units, 0)
    expected = (
        line.unit_price * line.received_units,
        *(
            share_of_units(amount, line.quantity, first, line.received_units)
            for amount in (line.discount, line.tax)
        ),
    )
    if found != expected:
        yield _line_row(
            line,
            "price, discount and tax of its closed returns are {}, {}, {}, of its last {} units"
            " {}, {}, {}".format(*found, line.received_units, *expected),
        )


def _line_row(line: ReturnedLine, problem: str) -> OffendingRow:
    return OffendingRow(
        row=f"order_line line_id={line.line_id} order_id={line.order_id}", problem=problem
    )
