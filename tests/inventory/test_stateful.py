"""Any sequence of commands leaves the shelves as a simple model says."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from markethall.inventory.catalogue.contract.products import ProductView
from markethall.inventory.contract import (
    Extend,
    OutOfStock,
    ReservationClosed,
    ReservationView,
    TooManyUnpaidOrders,
)
from markethall.inventory.stock.contract.movements import NewTransfer, StockLevel, WouldGoNegative
from markethall.inventory.stock.domain.warehouses import MAIN_WAREHOUSE
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.inventory.conftest import (
    ANYONE,
    MAX_UNPAID_ORDERS,
    STAFF,
    InventoryApp,
    build_inventory_app,
    consume_command,
    no_key,
    partial_release_command,
)
from tests.inventory.stock_invariants import invariant_violations
from tests.inventory.warehouse_fixtures import EAST, receive_in_warehouse

T = TypeVar("T")

Pair = tuple[int, int]
QUANTITIES = st.tuples(st.integers(0, 3), st.integers(0, 3))
SOME = QUANTITIES.filter(any)
WHICH = st.integers(0, 1)
PLACES = st.sampled_from([MAIN_WAREHOUSE, EAST])
A_MOMENT = timedelta(milliseconds=1)


def plus(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]


@dataclass
class ExpectedReservation:
    """What the model knows of a reservation."""

    reservation: ReservationView
    wanted: Pair
    reserved_at: datetime
    expires_at: datetime
    regular: bool = False
    status: str = "held"
    consumed: Pair = (0, 0)
    released: Pair = (0, 0)

    @property
    def reservation_id(self) -> UUID:
        return self.reservation.reservation_id

    @property
    def ended(self) -> bool:
        return self.status not in {"held", "committed"}

    def remaining(self, i: int) -> int:
        return self.wanted[i] - self.consumed[i] - self.released[i]

    @property
    def nothing_left(self) -> bool:
        return not self.remaining(0) and not self.remaining(1)

    def has_less_than(self, quantities: Pair) -> bool:
        return any(quantities[i] > self.remaining(i) for i in (0, 1))

    def open(self, now: datetime) -> bool:
        return self.status == "held" and now < self.expires_at

    def live(self, now: datetime) -> bool:
        return self.status == "committed" or self.open(now)

    def undecided(self, now: datetime) -> bool:
        """Overdue: whether it has expired depends on the sweeper."""
        return self.status == "held" and not self.live(now)


def has_reservations(shop: "StockMachine") -> bool:
    return bool(shop.reservations)


class StockMachine(RuleBasedStateMachine):
    """Two products in two warehouses. What is available is what is on hand, less what live promises
    have, wherever it is.
    """

    runner: asyncio.Runner
    storage: str
    postgres: Postgres | None

    def __init__(self) -> None:
        super().__init__()
        self.inventory_app: InventoryApp = build_inventory_app(self.storage, self.postgres)
        self.products: list[ProductView] = sorted(
            [self.run(self.inventory_app.product()) for _ in range(2)], key=lambda p: p.product_id
        )
        for product in self.products:
            self.run(self.inventory_app.adjust(product.product_id, delta=3))
            self.run(receive_in_warehouse(self.inventory_app, product.product_id, EAST, 3))
        self.on_hand = [6, 6]
        self.reservations: list[ExpectedReservation] = []
        self.regular = new_id()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def refused(self, kind: type[DomainError], work: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(kind) as refusal:
            self.run(work)
        return refusal.value

    def now(self) -> datetime:
        return self.inventory_app.clock.now

    def free(self, i: int, but: ExpectedReservation | None = None) -> int:
        kept = (p.remaining(i) for p in self.reservations if p is not but and p.live(self.now()))
        return self.on_hand[i] - sum(kept)

    def requested(self, quantities: Pair) -> dict[Any, int]:
        pairs = zip(self.products, quantities, strict=True)
        return {product.product_id: quantity for product, quantity in pairs if quantity}

    def levels(self, i: int) -> dict[UUID, StockLevel]:
        product_id = self.products[i].product_id
        stock = self.run(self.inventory_app.stockroom.get_stock(STAFF, product_id))
        return {level.warehouse_id: level for level in stock.warehouses}

    @rule(i=WHICH, place=PLACES, units=st.integers(1, 6))
    def goods_come(self, i: int, place: UUID, units: int) -> None:
        product_id = self.products[i].product_id
        self.run(self.inventory_app.adjust(product_id, "received", delta=units, warehouse_id=place))
        self.on_hand[i] += units

    @rule(i=WHICH, place=PLACES, delta=st.integers(-4, 2).filter(bool))
    def goods_are_lost_or_found(self, i: int, place: UUID, delta: int) -> None:
        there = self.levels(i)[place].available
        product_id = self.products[i].product_id
        work = self.inventory_app.adjust(product_id, "adjusted", delta=delta, warehouse_id=place)
        if there + delta < 0:
            self.refused(WouldGoNegative, work)
        else:
            self.run(work)
            self.on_hand[i] += delta

    @rule(i=WHICH, place=PLACES, counted=st.integers(0, 9))
    def goods_are_counted(self, i: int, place: UUID, counted: int) -> None:
        level = self.levels(i)[place]
        product_id = self.products[i].product_id
        work = self.inventory_app.adjust(product_id, "counted", counted=counted, warehouse_id=place)
        if level.available + counted - level.on_hand < 0:
            self.refused(WouldGoNegative, work)
        else:
            self.run(work)
            self.on_hand[i] += counted - level.on_hand

    @rule(i=WHICH, place=PLACES, units=st.integers(1, 4))
    def goods_are_moved(self, i: int, place: UUID, units: int) -> None:
        there = self.levels(i)[place].available
        command = NewTransfer(
            product_id=self.products[i].product_id,
            from_warehouse_id=place,
            to_warehouse_id=EAST if place == MAIN_WAREHOUSE else MAIN_WAREHOUSE,
            quantity=units,
        )
        work = self.inventory_app.stockroom.transfer(STAFF, command, no_key())
        if there < units:
            self.refused(WouldGoNegative, work)
        else:
            self.run(work)

    @rule(quantities=SOME, minutes=st.integers(5, 20), regular=st.booleans())
    def somebody_orders(self, quantities: Pair, minutes: int, regular: bool) -> None:
        command = self.inventory_app.order(self.requested(quantities), minutes=minutes)
        if regular:
            command = command.model_copy(update={"customer_id": self.regular})
        since = self.now()
        open_ = sum(p.regular and p.open(since) for p in self.reservations)
        work = self.inventory_app.inventory.reserve(ANYONE, command)
        short = [i for i in (0, 1) if quantities[i] > self.free(i)]
        if regular and open_ == MAX_UNPAID_ORDERS:
            self.refused(TooManyUnpaidOrders, work)
        elif short:
            refusal = self.refused(OutOfStock, work)
            named = [line["product_id"] for line in refusal.details["lines"]]
            assert named == [str(self.products[i].product_id) for i in short]
        else:
            held = self.run(work)
            latest = min(command.expires_at, since + timedelta(minutes=15))
            assert latest <= held.expires_at < latest + A_MOMENT
            self.reservations.append(
                ExpectedReservation(held, quantities, since, held.expires_at, regular)
            )

    @precondition(has_reservations)
    @rule(data=st.data(), minutes=st.sampled_from([-5, 4, 12, 40]))
    def somebody_asks_for_time(self, data: st.DataObject, minutes: int) -> None:
        promise = self.some_promise(data)
        until = self.now() + timedelta(minutes=minutes)
        command = Extend(reservation_id=promise.reservation_id, expires_at=until)
        work = self.inventory_app.inventory.extend(ANYONE, command)
        if not promise.open(self.now()):
            self.refused(ReservationClosed, work)
            return
        longer = self.run(work).expires_at
        expected = max(promise.expires_at, min(until, promise.reserved_at + timedelta(minutes=30)))
        assert expected <= longer < expected + A_MOMENT
        promise.expires_at = longer

    @precondition(has_reservations)
    @rule(data=st.data())
    def somebody_pays(self, data: st.DataObject) -> None:
        promise = self.some_promise(data)
        work = self.inventory_app.inventory.commit(ANYONE, promise.reservation_id)
        if promise.status == "released":
            self.refused(ReservationClosed, work)
        elif promise.status == "held" and any(
            promise.remaining(i) > self.free(i, but=promise) for i in (0, 1)
        ):
            self.refused(OutOfStock, work)
        else:
            found = self.run(work)
            promise.status = "consumed" if promise.status == "consumed" else "committed"
            assert found.status == promise.status

    @precondition(has_reservations)
    @rule(data=st.data(), quantities=SOME)
    def goods_leave(self, data: st.DataObject, quantities: Pair) -> None:
        promise = self.some_promise(data)
        if promise.undecided(self.now()):
            return
        command = consume_command(promise.reservation_id, self.requested(quantities))
        work = self.inventory_app.inventory.consume(ANYONE, command)
        if promise.ended or promise.has_less_than(quantities):
            self.refused(ReservationClosed, work)
            return
        first = self.run(work)
        assert self.run(self.inventory_app.inventory.consume(ANYONE, command)) == first
        promise.consumed = plus(promise.consumed, quantities)
        self.on_hand = [self.on_hand[i] - quantities[i] for i in (0, 1)]
        promise.status = "consumed" if promise.nothing_left else "committed"
        assert first.status == promise.status

    @precondition(has_reservations)
    @rule(data=st.data(), quantities=SOME)
    def somebody_wants_less(self, data: st.DataObject, quantities: Pair) -> None:
        promise = self.some_promise(data)
        if promise.undecided(self.now()):
            return
        command = partial_release_command(promise.reservation_id, self.requested(quantities))
        work = self.inventory_app.inventory.release_part(ANYONE, command)
        if promise.ended or promise.has_less_than(quantities):
            self.refused(ReservationClosed, work)
            return
        first = self.run(work)
        assert self.run(self.inventory_app.inventory.release_part(ANYONE, command)) == first
        promise.released = plus(promise.released, quantities)
        if promise.nothing_left:
            promise.status = "consumed" if any(promise.consumed) else "released"
        assert first.status == promise.status

    @precondition(has_reservations)
    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        promise = self.some_promise(data)
        found = self.run(self.inventory_app.inventory.release(ANYONE, promise.reservation_id))
        promise.status = "consumed" if promise.status == "consumed" else "released"
        assert found.status == promise.status

    @rule(minutes=st.integers(1, 10))
    def time_goes_by(self, minutes: int) -> None:
        self.inventory_app.clock.advance(minutes=minutes)

    @rule()
    def the_sweeper_comes(self) -> None:
        self.run(self.inventory_app.run_periodic_jobs())

    @invariant()
    def the_shelves_are_as_the_model_says(self) -> None:
        for i in (0, 1):
            levels = self.levels(i).values()
            assert sum(level.on_hand for level in levels) == self.on_hand[i]
            assert sum(level.available for level in levels) == self.free(i)
            for level in levels:
                assert 0 <= level.on_hand - level.available <= level.reserved <= level.on_hand

    def teardown(self) -> None:
        for i, product in enumerate(self.products):
            page = self.run(
                self.inventory_app.stockroom.list_movements(
                    STAFF, product.product_id, PageQuery(limit=100)
                )
            )
            assert sum(movement.delta for movement in page.items) == self.on_hand[i]
        if self.postgres is not None:
            assert self.run(self.lies_in(self.postgres)) == set()

    async def lies_in(self, postgres: Postgres) -> set[str]:
        async with postgres.read_session() as connection:
            return await invariant_violations(connection._driver)

    def some_promise(self, data: st.DataObject) -> ExpectedReservation:
        """The newest more often: the oldest have ended."""
        number = data.draw(st.integers(1, len(self.reservations)) | st.just(1))
        return self.reservations[-number]


def play(kind: str, postgres: Postgres | None, runner: asyncio.Runner, examples: int) -> None:
    machine = type(
        "ThisShop", (StockMachine,), {"storage": kind, "postgres": postgres, "runner": runner}
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_command_sequence_keeps_invariants_in_memory() -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        play("memory", None, runner, examples=120)


def test_any_command_sequence_keeps_invariants_in_postgres(database_url: str) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        postgres = Postgres(database_url, PoolSize(min_size=2, max_size=4, timeout=10))
        play("sql", postgres, runner, examples=40)
        runner.run(postgres.close())
