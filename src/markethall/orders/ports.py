"""What orders needs from outside."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.orders.contract import OrdersQuery, OrderState
from markethall.orders.domain import Entry, Fulfilment, Order
from markethall.shared.call import Call
from markethall.shared.events import Delivery, Event
from markethall.shared.idempotency import Attempt


class Changed(Exception):
    """Somebody else has saved the order since it was read: look again."""


@dataclass(frozen=True)
class Place:
    """A place in a list: after this order."""

    at: datetime
    order_id: UUID


class Store(Protocol):
    """Reads and writes of one transaction."""

    async def add(self, order: Order) -> int | None:
        """Write the order with its news; its number, or None when it is there already."""

    async def save(self, order: Order) -> None:
        """Write the order and its news, if it has any. Raises Changed."""

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None: ...

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None: ...

    async def order(self, order_id: UUID) -> Order | None: ...

    async def state(self, order_id: UUID) -> tuple[UUID, OrderState] | None:
        """With the owner's user id."""

    async def entries(self, order_id: UUID) -> Sequence[Entry]: ...

    async def fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None: ...

    async def orders(
        self, query: OrdersQuery, owner_id: UUID | None, after: Place | None
    ) -> Sequence[Order]:
        """At most one more than query.limit; of one owner or of all."""

    async def overdue(self, now: datetime, after: Place | None, limit: int) -> Sequence[Order]:
        """Pending orders past their time, the oldest first."""

    async def count(self) -> int: ...

    async def publish(self, event: Event, call: Call) -> None:
        """The event leaves only if this transaction commits."""

    async def handled(self, delivery: Delivery) -> bool:
        """Tick an inbox row off; False when its effect has happened already."""

    async def finish(self, attempt: Attempt, result: Any) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""


class Database(Protocol):
    on_publish: Callable[[], None]

    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises. Raises Unavailable."""

    def reading(self) -> AbstractAsyncContextManager[Store]:
        """Takes no locks. Raises Unavailable."""
