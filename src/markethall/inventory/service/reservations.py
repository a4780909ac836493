"""What neighbours ask for: goods kept for an order, and what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.inventory.contract import (
    Consume,
    Extend,
    OutOfStock,
    Reason,
    ReleasePart,
    Reservation,
    Reserve,
)
from markethall.inventory.domain import (
    Change,
    Goods,
    Hold,
    Limits,
    Line,
    Missing,
    all_from_main,
    closed,
    not_enough,
    units_of,
)
from markethall.inventory.ports import Database, ProductCache, Store
from markethall.inventory.service.plans import Gone, Plan, Plans
from markethall.inventory.service.turns import Turns
from markethall.shared.call import Call
from markethall.shared.clock import Clock
from markethall.shared.ids import new_id


class InventoryService:
    """A contract.Inventory. Whoever locks a customer, a reservation and shelves does it in that
    order, and the shelves in the order of product ids and then of warehouse ids, so that no two
    callers ever wait for each other.
    """

    def __init__(
        self, database: Database, cache: ProductCache, plans: Plans, limits: Limits, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._plans = plans
        self._limits = limits
        self._clock = clock
        self._turns = Turns()

    async def reserve(self, call: Call, command: Reserve) -> Reservation:  # noqa: ARG002 - the contract
        wants = units_of(command.lines)
        hold = await self._at_once(command, wants) or await self._in_steps(command, wants)
        return await self._told(hold)

    async def _at_once(self, command: Reserve, wants: Mapping[UUID, int]) -> Hold | None:
        """One product, in the main warehouse, and nothing in the way: that is most orders."""
        if len(wants) != 1:
            return None
        hold, [goods] = Hold.of(command, self._clock()), all_from_main(wants)
        limits = self._limits if command.limited else None
        async with self._turns.on(goods.product_id), self._database.reading() as shelf:
            line = await shelf.reserve_at_once(hold, goods, limits)
        return replace(hold, lines=(line,)) if line else None

    async def _in_steps(self, command: Reserve, wants: Mapping[UUID, int]) -> Hold:
        """Raises what reserve does."""

        async def reserve(store: Store, plan: Plan | None) -> Hold:
            hold = Hold.of(command, self._clock())
            if not await store.open(hold):
                return await _known(store, hold.reservation_id)
            if command.limited:
                await self._check_limits(store, hold, wants)
            await _take(store, hold, plan or Plan(all_from_main(wants)), wants)
            return hold

        return await self._plans.carry_out(reserve)

    async def extend(self, call: Call, command: Extend) -> Reservation:  # noqa: ARG002 - the contract
        reservation_id, now = command.reservation_id, self._clock()
        async with self._database.transaction() as store:
            hold = await store.extend_held(reservation_id, command.expires_at, now)
            if hold is None:
                ended = await store.find_hold(reservation_id)
                raise closed(reservation_id, ended.standing(now) if ended else None)
        return hold.view(now)

    async def commit(self, call: Call, reservation_id: UUID) -> Reservation:  # noqa: ARG002 - the contract
        async def commit(store: Store, plan: Plan | None) -> Hold:
            return await store.commit_held(reservation_id) or await _commit_late(
                store, reservation_id, plan
            )

        return await self._told(await self._plans.carry_out(commit))

    async def consume(self, call: Call, command: Consume) -> Reservation:
        async with self._database.transaction() as store:
            hold = await _to_change(store, command.reservation_id)
            if not await store.sold(command.fulfilment_id):
                goods = hold.consume(units_of(command.lines))
                await store.save_lines(hold)
                await store.give_back(goods, leaving=True)
                sold = await store.move(self._sales(call, command.fulfilment_id, goods))
                if len(sold) < len(goods):
                    raise await _not_on_hand(store, goods, self._clock())
        return await self._told(hold)

    async def release_part(self, call: Call, command: ReleasePart) -> Reservation:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            hold = await _to_change(store, command.reservation_id)
            if await store.note_release(command.release_id, hold.reservation_id):
                freed = hold.release_part(units_of(command.lines))
                await store.save_lines(hold)
                await store.give_back(freed)
        return await self._told(hold)

    async def release(self, call: Call, reservation_id: UUID) -> Reservation:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            hold = await store.hold(reservation_id)
            if hold is None:
                hold = Hold.tombstone(reservation_id, self._clock())
                if await store.open(hold):
                    return hold.view(self._clock())
                # its reserve has just come in between
                hold = await _known(store, reservation_id)
            freed = hold.release()
            await store.save_hold(hold)
            await store.give_back(freed)
        return await self._told(hold)

    async def _check_limits(self, store: Store, hold: Hold, wants: Mapping[UUID, int]) -> None:
        """Raises TooManyHolds, TooManyUnits."""
        holding = await store.holding(hold, list(wants), hold.held_since)
        self._limits.check(holding, wants)

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
        self._cache.invalidate([line.product_id for line in hold.lines], pages=False)
        return hold.view(self._clock())


async def _known(store: Store, reservation_id: UUID) -> Hold:
    hold = await store.hold(reservation_id)
    if hold is None:
        raise LookupError(f"reservation {reservation_id} was there a moment ago")
    return hold


async def _to_change(store: Store, reservation_id: UUID) -> Hold:
    """Locked. Raises ReservationClosed when it was never made."""
    hold = await store.hold(reservation_id)
    if hold is None:
        raise closed(reservation_id, None)
    return hold


async def _not_on_hand(store: Store, goods: Sequence[Goods], now: datetime) -> OutOfStock:
    """They were promised before they are there."""
    levels = [level for some in goods for level in await store.levels(some.product_id, now)]
    on_hand = {(level.product_id, level.warehouse_id): level.on_hand for level in levels}
    there = [(some, on_hand[some.product_id, some.warehouse_id]) for some in goods]
    short = [(some, units) for some, units in there if units < some.quantity] or there
    return not_enough([Missing(some.product_id, some.quantity, units) for some, units in short])


async def _take(store: Store, hold: Hold, plan: Plan, wants: Mapping[UUID, int]) -> None:
    """Raises Gone."""
    lines: list[Line] = []
    for goods in plan.goods:
        line = await store.take(hold, goods, ahead=plan.ahead)
        if line is None:
            raise Gone(wants, goods)
        lines.append(line)
    hold.lines = tuple(lines)


async def _commit_late(store: Store, reservation_id: UUID, plan: Plan | None) -> Hold:
    """It is not held: done already, expired, or closed. Raises Gone, ReservationClosed."""
    hold = await _to_change(store, reservation_id)
    lost = hold.commit()
    way = plan or Plan(lost)
    for goods in way.goods if lost else ():
        if not await store.take_again(goods, ahead=way.ahead):
            # paid for: it is theirs even if it is not for sale any more
            raise Gone(units_of(lost), goods, for_sale=False)
    if lost and plan:
        hold.move_to(plan.goods)
        await store.move_lines(hold)
    else:
        await store.save_hold(hold)
    return hold
