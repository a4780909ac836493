"""Cancellations of orders and of units, and edits of their lines."""

from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from markethall.orders.contract import CancelOrder, EditOrder, OrderView
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.lifecycle.machine import CHOICES, PRODUCTS, UNITS, ShopMachine
from tests.orders.lifecycle.model import ModelOrder


def is_paid(order: ModelOrder) -> bool:
    return order.status == "processing"


class ChangeRules(ShopMachine):
    @precondition(lambda self: self.placed)
    @rule(choice=CHOICES)
    def cancel(self, choice: int) -> None:
        placed = self.pick(choice, is_paid)
        self.check(self._cancel(placed.order), self.model.cancel(placed.expected))

    @precondition(lambda self: self.has(is_paid))
    @rule(choice=CHOICES, index=PRODUCTS, units=UNITS)
    def cancel_units(self, choice: int, index: int, units: int) -> None:
        placed = self.pick(choice, lambda order: index in order.unsettled)
        if index in placed.expected.lines:
            line = {"line_id": self.line_id(placed, index), "quantity": units}
            accepted = self.model.cancel_units(placed.expected, index, units)
            self.check(self._cancel(placed.order, lines=[line]), accepted)

    def _cancel(self, order: OrderView, **fields: Any) -> Coroutine[Any, Any, OrderView]:
        command = CancelOrder.model_validate({"reason": "changed my mind", **fields})
        return self.app.orders.cancel(STAFF, order.order_id, command, attempt_without_key())

    @precondition(lambda self: self.has(lambda order: order.is_editable))
    @rule(choice=CHOICES, index=PRODUCTS, quantity=st.integers(0, 4), pays=st.booleans())
    def edit(self, choice: int, index: int, quantity: int, pays: bool) -> None:
        """Edit a paid order. If the edit must be paid, pay or cancel it.

        The life of an unpaid order is in `tests/orders/test_stateful.py`.
        """
        placed = self.pick(choice, lambda order: order.is_editable)
        if placed.expected.status == "pending":
            return
        order_id, edits = placed.order.order_id, self.app.container.order_edits()
        command = EditOrder.model_validate({"lines": self.lines_of({index: quantity})})
        editing = edits.edit(STAFF, order_id, command, attempt_without_key())
        edited = self.check(editing, self.model.edit(placed.expected, index, quantity, pays=pays))
        if edited is None or edited.open_edit is None:
            return
        if pays:
            self.app.fake_payments.capture(edited.open_edit.payment_id)
        else:
            edit_id = edited.open_edit.edit_id
            self.run(edits.cancel_edit(STAFF, order_id, edit_id, attempt_without_key()))
        self.settle()
