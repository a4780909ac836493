"""Any sequence of commands leaves the shelf as a simple model says."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from markethall.inventory.contract import (
    OutOfStock,
    Product,
    ReservationClosed,
    WouldGoNegative,
)
from markethall.shared.db import PoolSize, Postgres
from markethall.shared.errors import Refusal
from markethall.shared.pages import PageQuery
from tests.inventory.conftest import ANYONE, STAFF, House, build, leaving

T = TypeVar("T")

QUANTITIES = st.tuples(st.integers(0, 3), st.integers(0, 3))
WHICH = st.integers(0, 1)


@dataclass
class Promise:
    """What the model knows of a reservation."""

    reservation: Any
    wanted: tuple[int, int]
    expires_at: datetime
    status: str = "held"
    gone: tuple[int, int] = (0, 0)

    def left(self, i: int) -> int:
        return self.wanted[i] - self.gone[i]

    def live(self, now: datetime) -> bool:
        return self.status == "committed" or (self.status == "held" and now < self.expires_at)


class Shop(RuleBasedStateMachine):
    """Two products; what is available is what is on hand, less what live promises have."""

    runner: asyncio.Runner
    storage: str
    postgres: Postgres | None

    def __init__(self) -> None:
        super().__init__()
        self.house: House = build(self.storage, self.postgres)
        self.products: list[Product] = sorted(
            [self.run(self.house.product()) for _ in range(2)], key=lambda p: p.product_id
        )
        self.on_hand = [0, 0]
        self.promises: list[Promise] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def refused(self, kind: type[Refusal], work: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(kind) as refusal:
            self.run(work)
        return refusal.value

    def now(self) -> datetime:
        return self.house.watch.now

    def free(self, i: int, but: Promise | None = None) -> int:
        kept = (p.left(i) for p in self.promises if p is not but and p.live(self.now()))
        return self.on_hand[i] - sum(kept)

    def wants(self, quantities: tuple[int, int]) -> dict[Any, int]:
        pairs = zip(self.products, quantities, strict=True)
        return {product.product_id: quantity for product, quantity in pairs if quantity}

    @rule(i=WHICH, delta=st.integers(-4, 6).filter(bool))
    def goods_come_or_go(self, i: int, delta: int) -> None:
        work = self.house.adjust(self.products[i].product_id, "adjusted", delta=delta)
        if self.free(i) + delta < 0:
            self.refused(WouldGoNegative, work)
        else:
            self.run(work)
            self.on_hand[i] += delta

    @rule(i=WHICH, counted=st.integers(0, 9))
    def goods_are_counted(self, i: int, counted: int) -> None:
        work = self.house.adjust(self.products[i].product_id, "counted", counted=counted)
        if self.free(i) + counted - self.on_hand[i] < 0:
            self.refused(WouldGoNegative, work)
        else:
            self.run(work)
            self.on_hand[i] = counted

    @rule(quantities=QUANTITIES, minutes=st.integers(5, 15))
    def somebody_orders(self, quantities: tuple[int, int], minutes: int) -> None:
        command = self.house.order(self.wants(quantities), minutes=minutes)
        work = self.house.inventory.reserve(ANYONE, command)
        short = [i for i in (0, 1) if quantities[i] > self.free(i)]
        if short:
            refusal = self.refused(OutOfStock, work)
            named = [line["product_id"] for line in refusal.details["lines"]]
            assert named == [str(self.products[i].product_id) for i in short]
        else:
            reservation = self.run(work)
            self.promises.append(Promise(reservation, quantities, command.expires_at))

    @rule(data=st.data())
    def somebody_pays(self, data: st.DataObject) -> None:
        promise = self.some_promise(data)
        if promise is None:
            return
        work = self.house.inventory.commit(ANYONE, promise.reservation.reservation_id)
        if promise.status == "released":
            self.refused(ReservationClosed, work)
        elif promise.status == "held" and any(
            promise.left(i) > self.free(i, but=promise) for i in (0, 1)
        ):
            self.refused(OutOfStock, work)
        else:
            found = self.run(work)
            promise.status = "consumed" if promise.status == "consumed" else "committed"
            assert found.status == promise.status

    @rule(data=st.data(), quantities=QUANTITIES)
    def goods_leave(self, data: st.DataObject, quantities: tuple[int, int]) -> None:
        promise = self.some_promise(data)
        if promise is None or not any(quantities):
            return
        if promise.status == "held" and not promise.live(self.now()):
            return  # whether it has expired depends on the sweeper
        reservation_id = promise.reservation.reservation_id
        command = leaving(reservation_id, self.wants(quantities))
        work = self.house.inventory.consume(ANYONE, command)
        open_ = promise.status in {"held", "committed"}
        if not open_ or any(quantities[i] > promise.left(i) for i in (0, 1)):
            self.refused(ReservationClosed, work)
            return
        first = self.run(work)
        assert self.run(self.house.inventory.consume(ANYONE, command)) == first
        promise.gone = (promise.gone[0] + quantities[0], promise.gone[1] + quantities[1])
        self.on_hand = [self.on_hand[i] - quantities[i] for i in (0, 1)]
        promise.status = "committed" if any(promise.left(i) for i in (0, 1)) else "consumed"
        assert first.status == promise.status

    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        promise = self.some_promise(data)
        if promise is None:
            return
        found = self.run(self.house.inventory.release(ANYONE, promise.reservation.reservation_id))
        promise.status = "consumed" if promise.status == "consumed" else "released"
        assert found.status == promise.status

    @rule(minutes=st.integers(1, 10))
    def time_goes_by(self, minutes: int) -> None:
        self.house.watch.forward(minutes=minutes)

    @rule()
    def the_sweeper_comes(self) -> None:
        self.run(self.house.sweep())

    @invariant()
    def the_shelf_is_as_the_model_says(self) -> None:
        for i, product in enumerate(self.products):
            stock = self.run(self.house.stockroom.stock(STAFF, product.product_id))
            level = stock.warehouses[0]
            assert level.on_hand == self.on_hand[i]
            assert level.available == self.free(i)
            assert 0 <= level.on_hand - level.available <= level.reserved <= level.on_hand

    def teardown(self) -> None:
        for i, product in enumerate(self.products):
            page = self.run(
                self.house.stockroom.movements(STAFF, product.product_id, PageQuery(limit=100))
            )
            assert sum(movement.delta for movement in page.items) == self.on_hand[i]

    def some_promise(self, data: st.DataObject) -> Promise | None:
        return data.draw(st.sampled_from(self.promises)) if self.promises else None


def play(kind: str, postgres: Postgres | None, runner: asyncio.Runner, examples: int) -> None:
    machine = type("ThisShop", (Shop,), {"storage": kind, "postgres": postgres, "runner": runner})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_sequence_of_commands_in_memory() -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        play("memory", None, runner, examples=60)


def test_any_sequence_of_commands_in_postgres(database_url: str) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        postgres = Postgres(database_url, PoolSize(least=2, most=4, timeout=10))
        play("sql", postgres, runner, examples=40)
        runner.run(postgres.close())
