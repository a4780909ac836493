"""Orders in memory, behaving as in Postgres."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.orders.contract import FulfilmentStatus, OrdersQuery, OrderState, OrderStatus
from markethall.orders.domain import Entry, Fulfilment, Order
from markethall.orders.ports import Changed, Place
from markethall.shared.clock import Clock
from markethall.shared.memory import CommonTables, MemoryStore, Table

FIRST_NUMBER = 1001


class Tables(CommonTables):
    def __init__(self) -> None:
        super().__init__()
        self.orders: Table[UUID, Order] = Table()
        self.timeline: Table[UUID, tuple[Entry, ...]] = Table()
        self.fulfilments: Table[UUID, Fulfilment] = Table()


class MemoryOrders(MemoryStore):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def add(self, order: Order) -> int | None:
        if order.order_id in self._tables.orders:
            return None
        number = FIRST_NUMBER + len(self._tables.orders)
        self._write(replace(order, number=number))
        return number

    async def save(self, order: Order) -> None:
        if not order.news:
            return
        standing = self._tables.orders.get(order.order_id)
        if standing is None or standing.version != order.saved_version:
            raise Changed
        self._write(order)

    async def add_fulfilment(self, fulfilment: Fulfilment) -> None:
        self._tables.fulfilments.put(fulfilment.fulfilment_id, fulfilment)

    async def save_fulfilment(self, fulfilment: Fulfilment) -> None:
        standing = self._tables.fulfilments.get(fulfilment.fulfilment_id)
        if standing is None or standing.status is FulfilmentStatus.DELIVERED:
            raise Changed
        self._tables.fulfilments.put(fulfilment.fulfilment_id, fulfilment)

    async def order(self, order_id: UUID) -> Order | None:
        return self._tables.orders.get(order_id)

    async def state(self, order_id: UUID) -> tuple[UUID, OrderState] | None:
        order = self._tables.orders.get(order_id)
        return (order.user_id, _state(order)) if order else None

    async def entries(self, order_id: UUID) -> Sequence[Entry]:
        return self._tables.timeline.get(order_id) or ()

    async def fulfilment(self, fulfilment_id: UUID) -> Fulfilment | None:
        return self._tables.fulfilments.get(fulfilment_id)

    async def orders(
        self, query: OrdersQuery, owner_id: UUID | None, after: Place | None
    ) -> Sequence[Order]:
        newest_first = query.sort.startswith("-")
        found = self._tables.orders.where(_wanted(query, owner_id))
        found.sort(key=_created, reverse=newest_first)
        if after:
            position = (after.at, after.order_id)
            found = [
                order
                for order in found
                if (_created(order) < position if newest_first else _created(order) > position)
            ]
        return found[: query.limit + 1]

    async def overdue(self, now: datetime, after: Place | None, limit: int) -> Sequence[Order]:
        found = self._tables.orders.where(
            lambda order: order.status is OrderStatus.PENDING and order.expires_at <= now
        )
        return _first(found, after, limit)

    async def count(self) -> int:
        return len(self._tables.orders)

    def _write(self, order: Order) -> None:
        told = self._tables.timeline.get(order.order_id) or ()
        self._tables.timeline.put(order.order_id, told + order.news)
        self._tables.orders.put(order.order_id, replace(order, news=()))


def _state(order: Order) -> OrderState:
    return OrderState(
        order_id=order.order_id,
        status=order.status,
        payment_status=order.payment_status,
        fulfilment_status=order.fulfilment_status,
        updated_at=order.updated_at,
    )


def _wanted(query: OrdersQuery, owner_id: UUID | None) -> Callable[[Order], bool]:
    given = query.model_dump(
        include={"status", "payment_status", "fulfilment_status", "user_id"}, exclude_none=True
    )
    number = query.number and int(query.number.removeprefix("MH-"))

    def wanted(order: Order) -> bool:
        return (
            owner_id in {None, order.user_id}
            and all(getattr(order, name) == value for name, value in given.items())
            and number in {None, order.number}
            and (query.created_after is None or order.created_at > query.created_after)
            and (query.created_before is None or order.created_at < query.created_before)
        )

    return wanted


def _first(orders: Iterable[Order], after: Place | None, limit: int) -> list[Order]:
    """The oldest deadlines after a place."""
    in_order = sorted(orders, key=lambda order: (order.expires_at, order.order_id))
    if after:
        place = (after.at, after.order_id)
        in_order = [o for o in in_order if (o.expires_at, o.order_id) > place]
    return in_order[:limit]


def _created(order: Order) -> tuple[datetime, UUID]:
    return order.created_at, order.order_id
