"""Ports of returns: the storage."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from markethall.orders.returns.domain import Return


class ReadStore(Protocol):
    """Reads without locks."""

    async def get_return(self, return_id: UUID) -> Return | None: ...

    async def list_returns(
        self, order_id: UUID, after: UUID | None, limit: int
    ) -> Sequence[Return]:
        """Return at most `limit` returns of the order with greater ids, sorted by id."""

    async def has_shipping_refund(self, order_id: UUID) -> bool:
        """Tell whether a return of the order has refunded its shipping."""


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction.

    Each change of a return also changes its order, except `settle`. So two changes of the returns
    of one order never commit together.
    """

    async def add_return(self, requested: Return) -> None: ...

    async def save_return(self, changed: Return) -> bool:
        """Update the return. Return False if the stored version is not the previous one."""
