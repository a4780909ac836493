"""An order whose commands change its status and add timeline entries."""

from datetime import datetime
from typing import NoReturn

from markethall.orders.contract import EditOpen, InvalidTransition
from markethall.orders.domain.order_command import OrderCommand
from markethall.orders.domain.order_state import OrderState
from markethall.orders.domain.timeline import AuditInfo, TimelineEntry
from markethall.orders.domain.transitions import TRANSITIONS, allowed_commands


class RecordedOrder(OrderState):
    def _transition(self, command: OrderCommand, now: datetime) -> None:
        """Raises InvalidTransition, or EditOpen if the open edit prevents the transition."""
        for row in TRANSITIONS:
            if (row.status, row.command) == (self.status, command) and row.guard(self, now):
                self.status = row.to
                return
        self._reject(now)

    def _reject(self, now: datetime) -> NoReturn:
        if edit := self.open_edit:
            raise EditOpen(edit_id=str(edit.edit_id), payment_id=str(edit.payment_id))
        raise InvalidTransition(status=self.status.value, allowed=allowed_commands(self, now))

    def _record(self, change: str, audit: AuditInfo) -> None:
        self.version += 1
        self.updated_at = audit.at
        entry = TimelineEntry(
            version=self.version,
            change=change,
            actor=audit.actor,
            at=audit.at,
            reason=audit.reason,
            status=self.status,
            payment_status=self.payment_status,
            fulfilment_status=self.fulfilment_status,
        )
        self.pending_timeline_entries = (*self.pending_timeline_entries, entry)
