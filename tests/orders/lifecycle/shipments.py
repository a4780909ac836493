"""Shipments of parts, which are delivered, lost or returned to the sender; and orders on hold."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from markethall.orders.contract import ChangeOrder, FulfilOrder, ReturnShipment
from tests.orders.conftest import STAFF, attempt_without_key
from tests.orders.lifecycle.machine import CHOICES, PRODUCTS, UNITS, Placed, ShopMachine
from tests.orders.lifecycle.model import ModelOrder


def can_be_shipped(order: ModelOrder) -> bool:
    return order.status == "processing" and bool(order.unsettled) and not order.on_hold


def has_open_shipment(order: ModelOrder) -> bool:
    return any(shipment.status == "shipped" for shipment in order.shipments)


class ShipmentRules(ShopMachine):
    @precondition(lambda self: self.placed)
    @rule(choice=CHOICES, on_hold=st.sampled_from([False, False, True]))
    def put_on_hold(self, choice: int, on_hold: bool) -> None:
        placed = self.pick(choice, lambda order: order.on_hold or can_be_shipped(order))
        command = ChangeOrder.model_validate({"on_hold": on_hold})
        placed.expected.on_hold = on_hold
        changes = self.app.container.order_changes()
        self.check(changes.change(STAFF, placed.order.order_id, command, None), accepted=True)

    @precondition(lambda self: self.has(can_be_shipped))
    @rule(choice=CHOICES, index=PRODUCTS, units=UNITS)
    def ship(self, choice: int, index: int, units: int) -> None:
        placed = self.pick(choice, lambda one: can_be_shipped(one) and index in one.unsettled)
        if index in placed.expected.lines:
            self._ship(placed, index, units)

    def _ship(self, placed: Placed, index: int, units: int) -> None:
        line = {"line_id": self.line_id(placed, index), "quantity": units}
        command = FulfilOrder.model_validate({"lines": [line]})
        attempt = attempt_without_key()
        shipping = self.app.fulfilments.fulfil(STAFF, placed.order.order_id, command, attempt)
        if shipped := self.check(shipping, self.model.ship(placed.expected, index, units)):
            placed.fulfilment_ids.append(shipped.fulfilment_id)

    @precondition(lambda self: self.has(has_open_shipment))
    @rule(
        choice=CHOICES,
        which=st.integers(0, 7),
        status=st.sampled_from(["delivered", "delivered", "lost", "restocked", "scrapped"]),
    )
    def end_shipment(self, choice: int, which: int, status: str) -> None:
        """Deliver a shipment, or report that it was lost or has come back."""
        placed = self.pick(choice, has_open_shipment)
        if placed.fulfilment_ids:
            self._end_shipment(placed, which % len(placed.fulfilment_ids), status)

    def _end_shipment(self, placed: Placed, which: int, status: str) -> None:
        fulfilments, attempt = self.app.fulfilments, attempt_without_key()
        fulfilment_id = placed.fulfilment_ids[which]
        shipment = placed.expected.shipments[which]
        accepted = self.model.end_shipment(placed.expected, shipment, status)
        if status == "delivered":
            self.check(fulfilments.deliver(STAFF, fulfilment_id, attempt), accepted)
        elif status == "lost":
            self.check(fulfilments.mark_lost(STAFF, fulfilment_id, attempt), accepted)
        else:
            command = ReturnShipment(restock=status == "restocked")
            returning = fulfilments.mark_returned(STAFF, fulfilment_id, command, attempt)
            self.check(returning, accepted)

    @precondition(lambda self: self.has(can_be_shipped))
    @rule(choice=CHOICES)
    def deliver_all(self, choice: int) -> None:
        """Ship and deliver the rest of an order. Random single steps seldom get that far."""
        placed = self.pick(choice, can_be_shipped)
        for index, units in placed.expected.unsettled.items():
            self._ship(placed, index, units)
        for which, shipment in enumerate(placed.expected.shipments):
            if shipment.status == "shipped":
                self._end_shipment(placed, which, "delivered")
