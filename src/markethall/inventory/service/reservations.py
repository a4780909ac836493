"""What neighbours ask for: goods kept for an order, and what becomes of them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Consume,
    ProductNotFound,
    Reason,
    Reservation,
    Reserve,
)
from markethall.inventory.domain import (
    Change,
    Goods,
    Hold,
    Missing,
    Shortage,
    closed,
    goods_of,
    not_enough,
)
from markethall.inventory.ports import Database, ProductCache, Store
from markethall.inventory.service.holds import ExpiredHolds
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.ids import new_id


class InventoryService:
    """A contract.Inventory. Whoever locks a reservation and shelves does it in that order, and
    the shelves in product id order, so that no two callers ever wait for each other.
    """

    def __init__(
        self, database: Database, cache: ProductCache, expired: ExpiredHolds, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._expired = expired
        self._clock = clock

    async def reserve(self, call: Call, command: Reserve) -> Reservation:  # noqa: ARG002 - the contract
        now, goods = self._clock(), goods_of(command.lines)

        async def take_all(store: Store) -> Hold:
            hold = Hold.of(command)
            if not await store.open(hold):
                return await _known(store, hold.reservation_id)
            taken = [await store.take(hold, some) for some in goods]
            left = [some for some, line in zip(goods, taken, strict=True) if line is None]
            if left:
                raise await _shortage(store, left, now)
            hold.lines = tuple(line for line in taken if line is not None)
            return hold

        return await self._told(await self._expired.without(take_all))

    async def commit(self, call: Call, reservation_id: UUID) -> Reservation:  # noqa: ARG002 - the contract
        now = self._clock()

        async def commit(store: Store) -> Hold:
            return await store.commit_held(reservation_id) or await _commit_late(
                store, reservation_id, now
            )

        return await self._told(await self._expired.without(commit))

    async def consume(self, call: Call, command: Consume) -> Reservation:
        goods = goods_of(command.lines)
        async with self._database.transaction() as store:
            hold = await store.hold(command.reservation_id)
            if hold is None:
                raise closed(command.reservation_id, None)
            if not await store.sold(command.fulfilment_id):
                hold.consume(goods)
                await store.save_consumed(hold)
                await store.give_back(goods)
                await store.sell(self._sales(call, command.fulfilment_id, goods))
        return await self._told(hold)

    async def release(self, call: Call, reservation_id: UUID) -> Reservation:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            hold = await store.hold(reservation_id)
            if hold is None:
                hold = Hold.tombstone(reservation_id, self._clock())
                if await store.open(hold):
                    return hold.view()
                # its reserve has just come in between
                hold = await _known(store, reservation_id)
            freed = hold.release()
            await store.save_hold(hold)
            await store.give_back(freed)
        return await self._told(hold)

    def _sales(self, call: Call, fulfilment_id: UUID, goods: Sequence[Goods]) -> list[Change]:
        now = self._clock()
        return [
            Change(
                movement_id=new_id(),
                product_id=some.product_id,
                warehouse_id=some.warehouse_id,
                delta=-some.quantity,
                counted=None,
                reason=Reason.SOLD,
                note="",
                reference=fulfilment_id,
                actor=call.actor.known_as,
                created_at=now,
            )
            for some in goods
        ]

    async def _told(self, hold: Hold) -> Reservation:
        """After the commit: what was rendered of these products is old now."""
        await self._cache.forget([line.product_id for line in hold.lines], pages=False)
        return hold.view()


async def _known(store: Store, reservation_id: UUID) -> Hold:
    hold = await store.hold(reservation_id)
    if hold is None:
        raise LookupError(f"reservation {reservation_id} was there a moment ago")
    return hold


async def _commit_late(store: Store, reservation_id: UUID, now: datetime) -> Hold:
    """It is not held: done already, expired, or closed. Raises Shortage, ReservationClosed."""
    hold = await store.hold(reservation_id)
    if hold is None:
        raise closed(reservation_id, None)
    lost = hold.commit()
    left = [some for some in lost if not await store.take_again(some)]
    if left:
        raise await _shortage(store, left, now, for_sale=False)
    await store.save_hold(hold)
    return hold


async def _shortage(
    store: Store, left: Sequence[Goods], now: datetime, *, for_sale: bool = True
) -> Shortage:
    """Why these goods could not be taken. Raises ProductNotFound for what is not for sale."""
    standing = await store.standing([some.product_id for some in left], now)
    unknown = [
        str(some.product_id)
        for some in left
        if for_sale and not (some.product_id in standing and standing[some.product_id].for_sale)
    ]
    if unknown:
        raise ProductNotFound(product_ids=unknown)
    return not_enough([Missing(some, standing[some.product_id].available) for some in left])
