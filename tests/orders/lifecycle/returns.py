"""Returns: requested, approved, received in parts, restocked or scrapped, and refunded."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from markethall.orders.returns.contract import (
    CloseReturn,
    ReceiveReturn,
    RejectReturn,
    RequestReturn,
    Returns,
)
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.lifecycle.machine import CHOICES, PRODUCTS, UNITS, Placed, ShopMachine
from tests.orders.lifecycle.model import ModelOrder, ModelReturn

OPEN_STATUSES = ("requested", "approved", "received")
WHICH = st.integers(0, 7)


def has_returnable(order: ModelOrder) -> bool:
    return any(line.returnable for line in order.lines.values())


def has_open_return(order: ModelOrder) -> bool:
    return any(made.status in OPEN_STATUSES for made in order.returns)


class ReturnRules(ShopMachine):
    @precondition(lambda self: self.has(has_returnable))
    @rule(choice=CHOICES, index=PRODUCTS, units=UNITS)
    def request_return(self, choice: int, index: int, units: int) -> None:
        placed = self.pick(choice, lambda one: index in one.lines and one.lines[index].returnable)
        if index in placed.expected.lines:
            self._request(placed, index, units)

    def _request(self, placed: Placed, index: int, units: int) -> None:
        line = {"line_id": self.line_id(placed, index), "quantity": units}
        command = RequestReturn.model_validate({"lines": [line], "reason": "does not fit"})
        requesting = self.app.container.returns().request(
            self.buyer_context(placed.expected.customer),
            placed.order.order_id,
            command,
            attempt_without_key(),
        )
        accepted = self.model.request_return(placed.expected, index, units)
        if made := self.check(requesting, accepted):
            placed.return_ids.append(made.return_id)

    @precondition(lambda self: self.has(has_open_return))
    @rule(choice=CHOICES, which=WHICH, status=st.sampled_from(["approved"] * 4 + ["rejected"]))
    def decide_return(self, choice: int, which: int, status: str) -> None:
        placed = self.pick(choice, has_open_return)
        if not placed.return_ids:
            return
        made, returns, attempt = (
            which % len(placed.return_ids),
            self._returns,
            attempt_without_key(),
        )
        return_id, expected = placed.return_ids[made], placed.expected.returns[made]
        if status == "approved":
            approving = returns.approve(STAFF, return_id, attempt)
            self.check(approving, self.model.approve_return(expected))
        else:
            rejecting = returns.reject(STAFF, return_id, RejectReturn(reason="used"), attempt)
            accepted = self.model.end_return(placed.expected, expected, "rejected")
            self.check(rejecting, accepted)

    @precondition(lambda self: self.has(has_open_return))
    @rule(choice=CHOICES, which=WHICH)
    def cancel_return(self, choice: int, which: int) -> None:
        placed = self.pick(choice, has_open_return)
        if placed.return_ids:
            made = which % len(placed.return_ids)
            ctx = self.buyer_context(placed.expected.customer)
            cancelling = self._returns.cancel(ctx, placed.return_ids[made], attempt_without_key())
            expected = placed.expected.returns[made]
            accepted = self.model.end_return(placed.expected, expected, "cancelled")
            self.check(cancelling, accepted)

    @precondition(lambda self: self.has(has_open_return))
    @rule(choice=CHOICES, which=WHICH, units=UNITS, restock=st.booleans())
    def receive(self, choice: int, which: int, units: int, restock: bool) -> None:
        placed = self.pick(choice, has_open_return)
        if placed.return_ids:
            self._receive(placed, which % len(placed.return_ids), units, restock)

    def _receive(self, placed: Placed, made: int, units: int, restock: bool) -> None:
        expected = placed.expected.returns[made]
        (index,) = expected.units
        line = {
            "line_id": self.line_id(placed, index),
            "quantity": units,
            "condition": "opened",
            "disposition": "restock" if restock else "scrap",
        }
        command = ReceiveReturn.model_validate({"lines": [line]})
        attempt = attempt_without_key()
        receiving = self._returns.receive(STAFF, placed.return_ids[made], command, attempt)
        self.check(receiving, self.model.receive(expected, index, units, restock=restock))

    @precondition(lambda self: self.has(has_open_return))
    @rule(choice=CHOICES, which=WHICH, refund_shipping=st.booleans())
    def close_return(self, choice: int, which: int, refund_shipping: bool) -> None:
        placed = self.pick(choice, has_open_return)
        if placed.return_ids:
            made = which % len(placed.return_ids)
            self._close(placed, made, placed.expected.returns[made], refund_shipping)

    def _close(
        self, placed: Placed, made: int, expected: ModelReturn, refund_shipping: bool
    ) -> None:
        command = CloseReturn(refund_shipping=refund_shipping)
        attempt = attempt_without_key()
        closing = self._returns.close(STAFF, placed.return_ids[made], command, attempt)
        accepted = self.model.close_return(
            placed.expected, expected, refund_shipping=refund_shipping
        )
        self.check(closing, accepted)

    @precondition(lambda self: self.has(has_returnable))
    @rule(choice=CHOICES, restock=st.booleans())
    def return_one_unit(self, choice: int, restock: bool) -> None:
        """Return one unit, up to the refund. Random single steps seldom reach the refund."""
        placed = self.pick(choice, has_returnable)
        for index, line in placed.expected.lines.items():
            if line.returnable:
                self._request(placed, index, 1)
                made, returns = len(placed.return_ids) - 1, self._returns
                expected = placed.expected.returns[made]
                approving = returns.approve(STAFF, placed.return_ids[made], attempt_without_key())
                self.check(approving, self.model.approve_return(expected))
                self._receive(placed, made, 1, restock)
                self._close(placed, made, expected, refund_shipping=False)
                return

    @property
    def _returns(self) -> Returns:
        return self.app.container.returns()
