"""A model of orders: the effect of each command, written without the code under test.

The model assumes that all events are handled after each command. An order has two products.
"""

from dataclasses import dataclass, field
from typing import Final

PRICES: Final = (1000, 700)
STOCK: Final = (12, 6)
Quantities = tuple[int, int]


@dataclass
class ModelLine:
    quantity: int
    shipped: int = 0
    delivered: int = 0
    cancelled: int = 0

    @property
    def unfulfilled(self) -> int:
        return self.quantity - self.shipped - self.cancelled


@dataclass
class ModelOrder:
    """An order. `lines` are its lines by the index of the product."""

    lines: dict[int, ModelLine]
    status: str = "pending"
    on_hold: bool = False
    # the amount of the customer's money that the shop keeps
    kept: int = 0

    @property
    def total(self) -> int:
        return sum(PRICES[index] * line.quantity for index, line in self.lines.items())

    @property
    def is_live(self) -> bool:
        return self.status in {"pending", "processing"}

    @property
    def nothing_shipped(self) -> bool:
        return not any(line.shipped for line in self.lines.values())

    @property
    def unfulfilled(self) -> dict[int, int]:
        return {i: line.unfulfilled for i, line in self.lines.items() if line.unfulfilled}

    def complete_if_done(self) -> None:
        if all(one.delivered + one.cancelled == one.quantity for one in self.lines.values()):
            self.status = "completed"


@dataclass
class OrderModel:
    orders: list[ModelOrder] = field(default_factory=list)

    def available(self, index: int) -> int:
        taken = sum(
            line.quantity - line.cancelled
            for order in self.orders
            if order.status in {"pending", "processing", "completed"}
            for i, line in order.lines.items()
            if i == index
        )
        return STOCK[index] - taken

    def place(self, quantities: Quantities) -> bool:
        wanted = {index: number for index, number in enumerate(quantities) if number}
        if any(number > self.available(index) for index, number in wanted.items()):
            return False
        self.orders.append(ModelOrder({i: ModelLine(n) for i, n in wanted.items()}))
        return True

    def pay(self, order: ModelOrder) -> None:
        order.status, order.kept = "processing", order.total

    def edit(self, order: ModelOrder, index: int, quantity: int, *, pays: bool) -> bool:
        """`pays`: whether the customer pays if the edit makes a paid order cost more."""
        before = {i: line.quantity for i, line in order.lines.items()}
        after = {i: n for i, n in (before | {index: quantity}).items() if n}
        is_untouched = not any(line.shipped or line.cancelled for line in order.lines.values())
        total = sum(PRICES[i] * number for i, number in after.items())
        if not (order.is_live and is_untouched and after):
            return False
        if any(number - before.get(i, 0) > self.available(i) for i, number in after.items()):
            return False
        if order.status == "processing" and total > order.total and not pays:
            return True
        order.lines = {i: ModelLine(number) for i, number in after.items()}
        if order.status == "processing":
            order.kept = total
        return True

    def cancel(self, order: ModelOrder) -> bool:
        if not order.is_live:
            return False
        if order.nothing_shipped:
            order.status, order.kept = "cancelled", 0
            return True
        return self._cancel_units(order, order.unfulfilled)

    def cancel_units(self, order: ModelOrder, index: int, quantity: int) -> bool:
        if order.nothing_shipped and order.unfulfilled == {index: quantity}:
            return self.cancel(order)
        return self._cancel_units(order, {index: quantity})

    def _cancel_units(self, order: ModelOrder, quantities: dict[int, int]) -> bool:
        left = order.unfulfilled
        if order.status != "processing" or not quantities or not left:
            return False
        if any(number > left.get(i, 0) for i, number in quantities.items()):
            return False
        for i, number in quantities.items():
            order.lines[i].cancelled += number
            order.kept -= PRICES[i] * number
        order.complete_if_done()
        return True

    def ship(self, order: ModelOrder, index: int, quantity: int) -> bool:
        can_ship = order.status == "processing" and not order.on_hold
        if not can_ship or quantity > order.unfulfilled.get(index, 0):
            return False
        order.lines[index].shipped += quantity
        return True

    def deliver_all(self, order: ModelOrder) -> None:
        for line in order.lines.values():
            line.delivered = line.shipped
        order.complete_if_done()

    def expire_all(self) -> None:
        for order in self.orders:
            if order.status == "pending":
                order.status = "expired"
