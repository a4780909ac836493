"""What orders needs from outside."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from markethall.orders.contract import OrderQuery, OrderStatusView
from markethall.orders.domain import Fulfilment, Order, TimelineEntry
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.messaging.events import Delivery, Event


class ConcurrentUpdate(Exception):
    """Somebody else has saved the order since it was read: look again."""


class Keyset(NamedTuple):
    """The sort key of a list of orders."""

    timestamp: datetime
    order_id: UUID


class Store(Protocol):
    """Reads and writes of one transaction."""

    async def add_order(self, order: Order) -> int | None:
        """Write the order with its news; its number, or None when it is there already."""

    async def save_order(self, order: Order) -> None:
        """Write the order and its news, if it has any. Raises Changed."""

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None: ...

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None: ...

    async def get_order(self, order_id: UUID) -> Order | None: ...

    async def get_order_status(self, order_id: UUID) -> tuple[UUID, OrderStatusView] | None:
        """With the owner's user id."""

    async def list_timeline_entries(self, order_id: UUID) -> Sequence[TimelineEntry]: ...

    async def get_fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None: ...

    async def list_orders(
        self, query: OrderQuery, owner_id: UUID | None, after: Keyset | None
    ) -> Sequence[Order]:
        """At most one more than query.limit; of one owner or of all."""

    async def list_overdue_orders(
        self, now: datetime, after: Keyset | None, limit: int
    ) -> Sequence[Order]:
        """Pending orders past their time, the oldest first."""

    async def count(self) -> int: ...

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """The event leaves only if this transaction commits."""

    async def mark_processed(self, delivery: Delivery) -> bool:
        """Tick an inbox row off; False when its effect has happened already."""

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""


class Database(Protocol):
    after_publish: Callable[[], None]

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""

    def read_session(self) -> AbstractAsyncContextManager[Store]:
        """Takes no locks. Raises Unavailable."""
