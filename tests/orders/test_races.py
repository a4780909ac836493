"""Races over the life of orders in the real contexts: each order ends in one legal state.

The stock and the money of an order must agree with the commands that have succeeded.
"""

from asyncio import gather
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from random import Random
from typing import Any, Final
from uuid import UUID

import pytest

from markethall.inventory.contract import OutOfStock
from markethall.orders.contract import (
    FulfilmentView,
    FulfilOrder,
    OrderStatus,
    OrderView,
    ReturnShipment,
)
from markethall.orders.returns.contract import (
    CloseReturn,
    Disposition,
    ReceiveReturn,
    RejectReturn,
    RequestReturn,
    ReturnView,
)
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from tests.containers import orders_of
from tests.orders.conftest import STAFF, attempt_without_key
from tests.race_rounds import Place, place, race_database, race_rounds
from tests.real_shop import Shop, open_real_shop

__all__ = ["place", "race_database"]  # fixtures

ROUNDS: Final = race_rounds(200, memory=20, near=20, far=10)
# the number of orders that take part in a race at the same time
BATCH: Final = 10
STOCK, PRICE, QUANTITY = 10, 1000, 4
RANDOM: Final = Random(1)
SECOND: Final = timedelta(seconds=1)
SOLD: Final = {OrderStatus.PROCESSING, OrderStatus.COMPLETED}
Command = Coroutine[Any, Any, Any]


@pytest.fixture
async def shop(place: Place, race_database: str) -> AsyncIterator[Shop]:
    async with open_real_shop(*place, race_database) as shop:
        yield shop


@dataclass
class RacedOrder:
    """An order of one product, and the units that commands have shipped and restocked."""

    shop: Shop
    ctx: CallContext
    product_id: UUID
    order: OrderView
    shipped: int = 0
    restocked: int = 0

    @property
    def line_id(self) -> UUID:
        return self.order.lines[0].line_id

    def lines(self, quantity: int) -> list[dict[str, Any]]:
        return [{"line_id": self.line_id, "quantity": quantity}]

    async def pay(self) -> None:
        await self.shop.confirm(self.ctx, self.order)

    async def cancel(self, quantity: int = 0) -> None:
        """Cancel the order, or some units of it."""
        lines = {"lines": self.lines(quantity)} if quantity else {}
        await self.shop.cancel(STAFF, self.order, **lines)

    async def ship(self, quantity: int = 0) -> FulfilmentView:
        """Ship some units, or all remaining units."""
        lines = {"lines": self.lines(quantity)} if quantity else {}
        command = FulfilOrder.model_validate(lines)
        fulfilments = orders_of(self.shop.container).fulfilments()
        made = await fulfilments.fulfil(STAFF, self.order.order_id, command, attempt_without_key())
        self.shipped += sum(line.quantity for line in made.lines)
        return made

    async def deliver(self, fulfilment: FulfilmentView) -> None:
        fulfilments = orders_of(self.shop.container).fulfilments()
        await fulfilments.deliver(STAFF, fulfilment.fulfilment_id, attempt_without_key())

    async def lose(self, fulfilment: FulfilmentView) -> None:
        fulfilments = orders_of(self.shop.container).fulfilments()
        await fulfilments.mark_lost(STAFF, fulfilment.fulfilment_id, attempt_without_key())

    async def take_shipment_back(self, fulfilment: FulfilmentView) -> None:
        fulfilments = orders_of(self.shop.container).fulfilments()
        command = ReturnShipment(restock=True)
        await fulfilments.mark_returned(
            STAFF, fulfilment.fulfilment_id, command, attempt_without_key()
        )
        self.restocked += sum(line.quantity for line in fulfilment.lines)

    async def request_return(self, quantity: int) -> ReturnView:
        fields = {"lines": self.lines(quantity), "reason": "does not fit"}
        return (
            await orders_of(self.shop.container)
            .returns()
            .request(
                self.ctx,
                self.order.order_id,
                RequestReturn.model_validate(fields),
                attempt_without_key(),
            )
        )

    async def receive(
        self, made: ReturnView, quantity: int, disposition: Disposition = Disposition.RESTOCK
    ) -> None:
        line = {**self.lines(quantity)[0], "condition": "opened", "disposition": disposition}
        command = ReceiveReturn.model_validate({"lines": [line]})
        returns = orders_of(self.shop.container).returns()
        await returns.receive(STAFF, made.return_id, command, attempt_without_key())
        self.restocked += quantity * (disposition is Disposition.RESTOCK)

    async def approve(self, made: ReturnView) -> None:
        returns = orders_of(self.shop.container).returns()
        await returns.approve(STAFF, made.return_id, attempt_without_key())

    async def reject(self, made: ReturnView) -> None:
        returns, command = orders_of(self.shop.container).returns(), RejectReturn(reason="late")
        await returns.reject(STAFF, made.return_id, command, attempt_without_key())

    async def cancel_return(self, made: ReturnView) -> None:
        returns = orders_of(self.shop.container).returns()
        await returns.cancel(self.ctx, made.return_id, attempt_without_key())

    async def close(self, made: ReturnView) -> None:
        returns = orders_of(self.shop.container).returns()
        await returns.close(STAFF, made.return_id, CloseReturn(), attempt_without_key())

    async def order_again(self) -> OrderView:
        """Let another guest order the same units."""
        _, ctx = await self.shop.create_guest()
        return await self.shop.place(ctx, self.product_id, QUANTITY)

    async def assert_legal(self) -> OrderView:
        """Check the stock and the money against the state of the order. Return the order."""
        after = await self.shop.read_order(self.order)
        (line,) = after.lines
        waiting = line.quantity - line.fulfilled - line.failed - line.cancelled
        reserved = waiting if after.status in SOLD else 0
        if after.status is OrderStatus.PENDING:
            reserved = line.quantity
        expected = (STOCK - self.shipped + self.restocked, reserved)
        assert await self.shop.stock(self.product_id) == expected, after
        ended_units = line.cancelled + line.returned
        kept = PRICE * (line.quantity - ended_units) if after.status in SOLD else 0
        assert await self.shop.kept_money(self.order) == kept, after
        assert line.delivered <= line.fulfilled <= self.shipped
        return after


async def place_orders(shop: Shop, *, stock: int = STOCK) -> list[RacedOrder]:
    return list(await gather(*(place_order(shop, stock) for _ in range(BATCH))))


async def place_order(shop: Shop, stock: int) -> RacedOrder:
    product_id = await shop.add_product(PRICE, stock)
    _, ctx = await shop.create_guest()
    return RacedOrder(shop, ctx, product_id, await shop.place(ctx, product_id, QUANTITY))


async def paid_orders(shop: Shop) -> list[RacedOrder]:
    orders = await place_orders(shop)
    await gather(*(order.pay() for order in orders))
    await shop.events.drain()
    return orders


async def race(
    shop: Shop, orders: Sequence[RacedOrder], commands_of: Callable[[RacedOrder], list[Command]]
) -> list[list[Any]]:
    """Run the commands of all orders at once, in a random sequence, while events are handled.

    Return the results by order: a result is a value or a domain error. Other errors fail the test.
    """
    commands = [
        (number, each) for number, order in enumerate(orders) for each in commands_of(order)
    ]
    sequence = list(range(len(commands)))
    RANDOM.shuffle(sequence)
    unordered = await shop.events.race(*(commands[index][1] for index in sequence))
    results: list[list[Any]] = [[] for _ in orders]
    for index, result in sorted(zip(sequence, unordered, strict=True), key=itemgetter(0)):
        if isinstance(result, BaseException) and not is_domain_error(result):
            raise result
        results[commands[index][0]].append(result)
    return results


def is_domain_error(result: Any) -> bool:
    return isinstance(result, DomainError) and result.status < 500


def succeeded(results: Iterable[Any]) -> list[Any]:
    return [result for result in results if not isinstance(result, BaseException)]


async def finish(shop: Shop, orders: Sequence[RacedOrder]) -> list[OrderView]:
    """Check each order, and check that the integrity checks find nothing."""
    after = [await order.assert_legal() for order in orders]
    assert await shop.find_offending_rows() == []
    return after


async def test_cancel_pay_and_ship_race_to_one_legal_outcome(shop: Shop, place: Place) -> None:
    """The first race is over the unpaid order, the second over the rest of the order."""
    for _ in range(0, ROUNDS[place], BATCH):
        orders = await place_orders(shop)

        await race(shop, orders, lambda one: [one.pay(), one.cancel(), one.ship(1)])
        await finish(shop, orders)
        await race(
            shop,
            orders,
            lambda one: [one.pay(), one.ship(), one.cancel(), one.cancel(1), one.ship(2)],
        )

        for order in await finish(shop, orders):
            assert order.status is not OrderStatus.PENDING


async def test_paid_order_is_cancelled_or_shipped(shop: Shop, place: Place) -> None:
    for _ in range(0, ROUNDS[place], BATCH):
        orders = await paid_orders(shop)

        results = await race(shop, orders, lambda one: [one.cancel(), one.ship()])

        for after, outcome in zip(await finish(shop, orders), results, strict=True):
            assert len(succeeded(outcome)) == 1
            is_shipped = isinstance(outcome[1], FulfilmentView)
            assert (after.status is OrderStatus.PROCESSING) == is_shipped


async def test_shipment_is_delivered_lost_or_returned_once(shop: Shop, place: Place) -> None:
    for _ in range(0, ROUNDS[place], BATCH):
        await race_for_shipments(shop)


async def race_for_shipments(shop: Shop) -> None:
    """End shipments while other units are shipped or cancelled. Then ship or cancel the rest."""
    orders = await paid_orders(shop)
    shipped = await gather(*(one.ship(2) for one in orders))
    shipments = {one.product_id: made for one, made in zip(orders, shipped, strict=True)}

    def end_shipment(one: RacedOrder) -> list[Command]:
        shipment = shipments[one.product_id]
        ends = [one.deliver(shipment), one.lose(shipment), one.take_shipment_back(shipment)]
        return [*ends, one.ship(2), one.cancel(1), one.cancel()]

    results = await race(shop, orders, end_shipment)
    await finish(shop, orders)
    for outcome in results:
        assert len(succeeded(outcome[:3])) == 1
    await race(shop, orders, lambda one: [one.ship(2), one.ship(1), one.cancel(2), one.cancel()])
    await finish(shop, orders)


async def test_units_of_a_return_are_restocked_and_refunded_once(shop: Shop, place: Place) -> None:
    for _ in range(0, ROUNDS[place], BATCH):
        await race_for_returns(shop)


async def race_for_returns(shop: Shop) -> None:
    orders = await delivered_orders(shop)
    requests = await race(shop, orders, lambda one: [one.request_return(3), one.request_return(2)])
    requested = [succeeded(outcome) for outcome in requests]
    assert [len(found) for found in requested] == [1] * BATCH
    returns = {one.product_id: found[0] for one, found in zip(orders, requested, strict=True)}

    await race(shop, orders, lambda one: decide(one, returns[one.product_id]))
    await finish(shop, orders)
    await race(shop, orders, lambda one: settle(one, returns[one.product_id]))

    for after, one in zip(await finish(shop, orders), orders, strict=True):
        assert after.lines[0].returned + after.lines[0].in_return <= QUANTITY
        assert one.restocked <= returns[one.product_id].lines[0].quantity


async def delivered_orders(shop: Shop) -> list[RacedOrder]:
    orders = await paid_orders(shop)
    shipments = await gather(*(one.ship() for one in orders))
    await gather(*(one.deliver(made) for one, made in zip(orders, shipments, strict=True)))
    await shop.events.drain()
    return orders


def decide(one: RacedOrder, made: ReturnView) -> list[Command]:
    return [
        one.approve(made),
        one.reject(made),
        one.cancel_return(made),
        one.receive(made, 1),
        one.receive(made, 1),
        one.close(made),
    ]


def settle(one: RacedOrder, made: ReturnView) -> list[Command]:
    return [
        one.receive(made, 1),
        one.receive(made, 2),
        one.receive(made, 1, Disposition.SCRAP),
        one.close(made),
        one.close(made),
        one.request_return(2),
    ]


async def test_overdue_order_is_sold_with_its_stock_or_its_money_is_refunded(
    shop: Shop, place: Place
) -> None:
    for _ in range(0, ROUNDS[place], BATCH):
        await race_for_late_payments(shop)
    assert await shop.find_offending_rows() == []


async def race_for_late_payments(shop: Shop) -> None:
    """Let late payments race with new orders for all units, while the old orders expire."""
    orders = await place_orders(shop, stock=QUANTITY)
    waiting = orders[: BATCH // 2]
    for one in waiting:
        await shop.confirm(one.ctx, one.order, "sandbox_action_required")
    await shop.events.drain()
    shop.clock.now = max(one.order.expires_at for one in orders) + SECOND

    def pay_late(one: RacedOrder) -> list[Command]:
        pay = shop.pay_at_the_provider(one.order) if one in waiting else one.pay()
        return [pay, one.order_again(), shop.run_periodic_jobs()]

    results = await race(shop, orders, pay_late)

    for one, outcome in zip(orders, results, strict=True):
        after, again = await shop.read_order(one.order), outcome[1]
        is_sold, is_taken = after.status is OrderStatus.PROCESSING, isinstance(again, OrderView)
        assert is_sold or after.status is OrderStatus.EXPIRED
        assert not (is_sold and is_taken)
        assert is_taken or isinstance(again, OutOfStock)
        assert await shop.kept_money(one.order) == (after.total.amount if is_sold else 0)
        assert await shop.stock(one.product_id) == (QUANTITY, QUANTITY * (is_sold or is_taken))
