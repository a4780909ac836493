"""Test that the stock equals that of a simple model after any sequence of commands."""

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
    MAX_EXTENDED_DURATION,
    Extend,
    OutOfStock,
    RequestedLine,
    ReservationClosed,
    ReservationView,
    Restock,
    TooManyUnpaidOrders,
)
from markethall.inventory.stock.contract import NewTransfer, StockLevel, WouldGoNegative
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from markethall.shared.persistence.postgres import PoolSize, Postgres
from tests.integrity_checks import find_violations
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
NON_ZERO = QUANTITIES.filter(any)
PRODUCT_INDEX = st.integers(0, 1)
WAREHOUSES = st.sampled_from([MAIN_WAREHOUSE, EAST])
# a grace so long that the integrity checks report no overdue reservation
NO_OVERDUE = timedelta(days=365)
CLOCK_TOLERANCE = timedelta(milliseconds=1)


def plus(left: Pair, right: Pair) -> Pair:
    return left[0] + right[0], left[1] + right[1]


@dataclass
class ExpectedReservation:
    """A reservation in the model."""

    reservation: ReservationView
    quantities: Pair
    reserved_at: datetime
    expires_at: datetime
    # true if it belongs to the customer whose limit of unpaid orders the model checks
    regular: bool = False
    status: str = "held"
    consumed: Pair = (0, 0)
    released: Pair = (0, 0)

    @property
    def reservation_id(self) -> UUID:
        return self.reservation.reservation_id

    @property
    def is_closed(self) -> bool:
        return self.status not in {"held", "committed"}

    def remaining(self, i: int) -> int:
        return self.quantities[i] - self.consumed[i] - self.released[i]

    @property
    def is_used_up(self) -> bool:
        return not self.remaining(0) and not self.remaining(1)

    def has_less_than(self, quantities: Pair) -> bool:
        return any(quantities[i] > self.remaining(i) for i in (0, 1))

    def is_open(self, now: datetime) -> bool:
        return self.status == "held" and now < self.expires_at

    def is_live(self, now: datetime) -> bool:
        return self.status == "committed" or self.is_open(now)

    def may_have_expired(self, now: datetime) -> bool:
        """Tell whether the reservation is overdue.

        The model does not know whether the application has already marked it as expired.
        """
        return self.status == "held" and not self.is_live(now)


def has_reservations(machine: "StockMachine") -> bool:
    return bool(machine.reservations)


class StockMachine(RuleBasedStateMachine):
    """A model of two products in two warehouses.

    The available units are those on hand minus those of live reservations, in both warehouses.
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

    def expect_error(self, error_type: type[DomainError], work: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(error_type) as raised:
            self.run(work)
        return raised.value

    def now(self) -> datetime:
        return self.inventory_app.clock.now

    def available(self, i: int, ignored: ExpectedReservation | None = None) -> int:
        reserved = (
            expected.remaining(i)
            for expected in self.reservations
            if expected is not ignored and expected.is_live(self.now())
        )
        return self.on_hand[i] - sum(reserved)

    def requested(self, quantities: Pair) -> dict[Any, int]:
        pairs = zip(self.products, quantities, strict=True)
        return {product.product_id: quantity for product, quantity in pairs if quantity}

    def levels(self, i: int) -> dict[UUID, StockLevel]:
        product_id = self.products[i].product_id
        stock = self.run(self.inventory_app.stockroom.get_stock(STAFF, product_id))
        return {level.warehouse_id: level for level in stock.warehouses}

    @rule(i=PRODUCT_INDEX, warehouse_id=WAREHOUSES, quantity=st.integers(1, 6))
    def receive_stock(self, i: int, warehouse_id: UUID, quantity: int) -> None:
        product_id = self.products[i].product_id
        self.run(
            self.inventory_app.adjust(
                product_id, "received", delta=quantity, warehouse_id=warehouse_id
            )
        )
        self.on_hand[i] += quantity

    @rule(i=PRODUCT_INDEX, warehouse_id=WAREHOUSES, delta=st.integers(-4, 2).filter(bool))
    def adjust_stock(self, i: int, warehouse_id: UUID, delta: int) -> None:
        available = self.levels(i)[warehouse_id].available
        product_id = self.products[i].product_id
        work = self.inventory_app.adjust(
            product_id, "adjusted", delta=delta, warehouse_id=warehouse_id
        )
        if available + delta < 0:
            self.expect_error(WouldGoNegative, work)
        else:
            self.run(work)
            self.on_hand[i] += delta

    @rule(i=PRODUCT_INDEX, warehouse_id=WAREHOUSES, counted=st.integers(0, 9))
    def count_stock(self, i: int, warehouse_id: UUID, counted: int) -> None:
        level = self.levels(i)[warehouse_id]
        product_id = self.products[i].product_id
        work = self.inventory_app.adjust(
            product_id, "counted", counted=counted, warehouse_id=warehouse_id
        )
        if level.available + counted - level.on_hand < 0:
            self.expect_error(WouldGoNegative, work)
        else:
            self.run(work)
            self.on_hand[i] += counted - level.on_hand

    @rule(i=PRODUCT_INDEX, warehouse_id=WAREHOUSES, quantity=st.integers(1, 4))
    def transfer_stock(self, i: int, warehouse_id: UUID, quantity: int) -> None:
        available = self.levels(i)[warehouse_id].available
        command = NewTransfer(
            product_id=self.products[i].product_id,
            from_warehouse_id=warehouse_id,
            to_warehouse_id=EAST if warehouse_id == MAIN_WAREHOUSE else MAIN_WAREHOUSE,
            quantity=quantity,
        )
        work = self.inventory_app.stockroom.transfer(STAFF, command, no_key())
        if available < quantity:
            self.expect_error(WouldGoNegative, work)
        else:
            self.run(work)

    @rule(quantities=NON_ZERO, minutes=st.integers(5, 20), regular=st.booleans())
    def reserve(self, quantities: Pair, minutes: int, regular: bool) -> None:
        command = self.inventory_app.order(self.requested(quantities), minutes=minutes)
        if regular:
            command = command.model_copy(update={"customer_id": self.regular})
        start = self.now()
        open_count = sum(
            expected.regular and expected.is_open(start) for expected in self.reservations
        )
        work = self.inventory_app.inventory.reserve(ANYONE, command)
        short = [i for i in (0, 1) if quantities[i] > self.available(i)]
        if regular and open_count == MAX_UNPAID_ORDERS:
            self.expect_error(TooManyUnpaidOrders, work)
        elif short:
            error = self.expect_error(OutOfStock, work)
            short_ids = [line["product_id"] for line in error.details["lines"]]
            assert short_ids == [str(self.products[i].product_id) for i in short]
        else:
            held = self.run(work)
            latest = min(command.expires_at, start + timedelta(minutes=15))
            assert latest <= held.expires_at < latest + CLOCK_TOLERANCE
            self.reservations.append(
                ExpectedReservation(held, quantities, start, held.expires_at, regular)
            )

    @precondition(has_reservations)
    @rule(data=st.data(), minutes=st.sampled_from([-5, 4, 12, 40, 200_000]))
    def extend(self, data: st.DataObject, minutes: int) -> None:
        expected = self.draw_reservation(data)
        until = self.now() + timedelta(minutes=minutes)
        command = Extend(reservation_id=expected.reservation_id, expires_at=until)
        work = self.inventory_app.inventory.extend(ANYONE, command)
        if not expected.is_open(self.now()):
            self.expect_error(ReservationClosed, work)
            return
        expires_at = self.run(work).expires_at
        longest = min(until, expected.reserved_at + MAX_EXTENDED_DURATION)
        earliest = max(expected.expires_at, longest)
        assert earliest <= expires_at < earliest + CLOCK_TOLERANCE
        expected.expires_at = expires_at

    @precondition(has_reservations)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        expected = self.draw_reservation(data)
        work = self.inventory_app.inventory.commit(ANYONE, expected.reservation_id)
        if expected.status == "released":
            self.expect_error(ReservationClosed, work)
        elif expected.status == "held" and any(
            expected.remaining(i) > self.available(i, ignored=expected) for i in (0, 1)
        ):
            self.expect_error(OutOfStock, work)
        else:
            found = self.run(work)
            expected.status = "consumed" if expected.status == "consumed" else "committed"
            assert found.status == expected.status

    @precondition(has_reservations)
    @rule(data=st.data(), quantities=NON_ZERO)
    def consume(self, data: st.DataObject, quantities: Pair) -> None:
        expected = self.draw_reservation(data)
        if expected.may_have_expired(self.now()):
            return
        command = consume_command(expected.reservation_id, self.requested(quantities))
        work = self.inventory_app.inventory.consume(ANYONE, command)
        if expected.is_closed or expected.has_less_than(quantities):
            self.expect_error(ReservationClosed, work)
            return
        first = self.run(work)
        assert self.run(self.inventory_app.inventory.consume(ANYONE, command)) == first
        expected.consumed = plus(expected.consumed, quantities)
        self.on_hand = [self.on_hand[i] - quantities[i] for i in (0, 1)]
        expected.status = "consumed" if expected.is_used_up else "committed"
        assert first.status == expected.status

    @precondition(has_reservations)
    @rule(data=st.data(), quantities=NON_ZERO)
    def release_part(self, data: st.DataObject, quantities: Pair) -> None:
        expected = self.draw_reservation(data)
        if expected.may_have_expired(self.now()):
            return
        command = partial_release_command(expected.reservation_id, self.requested(quantities))
        work = self.inventory_app.inventory.release_part(ANYONE, command)
        if expected.is_closed or expected.has_less_than(quantities):
            self.expect_error(ReservationClosed, work)
            return
        first = self.run(work)
        assert self.run(self.inventory_app.inventory.release_part(ANYONE, command)) == first
        expected.released = plus(expected.released, quantities)
        if expected.is_used_up:
            expected.status = "consumed" if any(expected.consumed) else "released"
        assert first.status == expected.status

    @precondition(has_reservations)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        expected = self.draw_reservation(data)
        found = self.run(self.inventory_app.inventory.release(ANYONE, expected.reservation_id))
        expected.status = "consumed" if expected.status == "consumed" else "released"
        assert found.status == expected.status

    @rule(quantities=NON_ZERO)
    def restock(self, quantities: Pair) -> None:
        lines = (
            RequestedLine(product_id=product_id, quantity=quantity)
            for product_id, quantity in self.requested(quantities).items()
        )
        command = Restock(restock_id=new_id(), lines=tuple(lines))
        self.run(self.inventory_app.inventory.restock(ANYONE, command))
        self.run(self.inventory_app.inventory.restock(ANYONE, command))
        self.on_hand = list(plus((self.on_hand[0], self.on_hand[1]), quantities))

    @rule(minutes=st.integers(1, 10))
    def advance_clock(self, minutes: int) -> None:
        self.inventory_app.clock.advance(minutes=minutes)

    @rule()
    def run_periodic_jobs(self) -> None:
        self.run(self.inventory_app.run_periodic_jobs())

    @invariant()
    def stock_equals_model(self) -> None:
        for i in (0, 1):
            levels = self.levels(i).values()
            assert sum(level.on_hand for level in levels) == self.on_hand[i]
            assert sum(level.available for level in levels) == self.available(i)
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
        checks = self.inventory_app.container.integrity_checks()
        assert self.run(find_violations(checks, NO_OVERDUE)) == {}
        if self.postgres is not None:
            assert self.run(self.violations(self.postgres)) == set()

    async def violations(self, postgres: Postgres) -> set[str]:
        async with postgres.read_session() as connection:
            return await invariant_violations(connection._driver)

    def draw_reservation(self, data: st.DataObject) -> ExpectedReservation:
        """Draw a reservation. Draw the newest more often, because old ones are mostly closed."""
        number = data.draw(st.integers(1, len(self.reservations)) | st.just(1))
        return self.reservations[-number]


def run_machine(
    storage: str, postgres: Postgres | None, runner: asyncio.Runner, examples: int
) -> None:
    machine = type(
        "ConfiguredStockMachine",
        (StockMachine,),
        {"storage": storage, "postgres": postgres, "runner": runner},
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
        run_machine("memory", None, runner, examples=120)


def test_any_command_sequence_keeps_invariants_in_postgres(database_url: str) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        postgres = Postgres(database_url, PoolSize(min_size=2, max_size=4, timeout=10))
        run_machine("sql", postgres, runner, examples=40)
        runner.run(postgres.close())
