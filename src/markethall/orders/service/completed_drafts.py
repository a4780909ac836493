"""The completion of a draft order: its buyer, and conflicts with changes of the draft."""

from dataclasses import dataclass

from markethall.inventory.contract import ReservationView
from markethall.orders.contract import PlaceOrder
from markethall.orders.drafts.contract import DraftOrderChanged
from markethall.orders.drafts.domain import DraftOrder, DraftRef
from markethall.shared.kernel.errors import DomainError
from markethall.users.contract import Customer


@dataclass(frozen=True)
class CompletedDraft:
    """A draft that is being completed. `completed_by` is the actor for the timeline.

    `buyer` is None if the buyer has an account or is a guest of the context users.
    """

    ref: DraftRef
    completed_by: str
    buyer: Customer | None

    def check_reserved_lines(self, command: PlaceOrder, reservation: ReservationView) -> None:
        """Raise DraftOrderChanged if an earlier attempt has reserved other lines."""
        quantities: dict[object, int] = {}
        for line in command.lines:
            quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
        if quantities != {line.product_id: line.quantity for line in reservation.lines}:
            raise self._changed()

    def conflict(self, current: DraftOrder | None) -> DomainError:
        """Build the error for a draft that could not be completed. `current` is the stored one."""
        if current and current.order_id:
            return current.completed_error()
        return self._changed()

    def _changed(self) -> DraftOrderChanged:
        return DraftOrderChanged(draft_order_id=str(self.ref.draft_order_id))
