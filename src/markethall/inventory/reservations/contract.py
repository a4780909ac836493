"""The contract of reservations for the HTTP API. Other contexts use inventory/contract.py."""

from typing import Protocol

from markethall.inventory.contract import ReservationView
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import Page, PageQuery


class ReservationQuery(PageQuery):
    order_id: Id


class Reservations(Protocol):
    async def list_reservations(
        self, ctx: CallContext, query: ReservationQuery
    ) -> Page[ReservationView]:
        """Return the reservations of one order, sorted by id. Raises CursorInvalid."""
