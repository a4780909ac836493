"""The line before a product that everybody wants."""

import asyncio
from uuid import UUID, uuid4

import pytest

from markethall.inventory.service import turns
from markethall.inventory.service.turns import Turns
from markethall.inventory.sql import SqlStore
from markethall.shared.db import Postgres
from tests.inventory.conftest import build

TEA = uuid4()


class Counter:
    """Takes turns, and sees how many have one at the same time."""

    def __init__(self, line: Turns) -> None:
        self._line = line
        self.inside = self.most = 0
        self.order: list[int] = []
        self.goes_on = asyncio.Event()

    async def come(self, number: int, product_id: UUID = TEA) -> None:
        async with self._line.on(product_id):
            self.order.append(number)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.goes_on.wait()
            self.inside -= 1


async def until_all_wait() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_at_a_time_and_in_the_order_in_which_they_came() -> None:
    counter = Counter(Turns(at_once=2, patience=60))
    crowd = [asyncio.create_task(counter.come(number)) for number in range(9)]
    await until_all_wait()
    began = list(counter.order)

    counter.goes_on.set()
    await asyncio.gather(*crowd)

    assert began == [0, 1]
    assert counter.order == list(range(9))
    assert counter.most == 2


async def test_who_wants_something_else_does_not_wait() -> None:
    counter = Counter(Turns(at_once=1, patience=60))
    crowd = [asyncio.create_task(counter.come(n, key)) for n, key in enumerate([TEA, uuid4(), TEA])]

    await until_all_wait()

    assert counter.order == [0, 1]
    counter.goes_on.set()
    await asyncio.gather(*crowd)


async def test_who_has_waited_long_enough_goes_ahead() -> None:
    counter = Counter(Turns(at_once=1, patience=0))
    crowd = [asyncio.create_task(counter.come(number)) for number in range(3)]
    while len(counter.order) < 3:
        await asyncio.sleep(0)

    counter.goes_on.set()
    await asyncio.gather(*crowd)

    assert counter.most == 3


async def test_who_leaves_the_line_takes_no_turn_and_nothing_is_left_of_it() -> None:
    line = Turns(at_once=1, patience=60)
    counter = Counter(line)
    first, second, third = (asyncio.create_task(counter.come(number)) for number in range(3))
    await until_all_wait()

    second.cancel()
    counter.goes_on.set()
    await asyncio.gather(first, third)

    assert counter.order == [0, 2]
    assert not line._lines


async def test_a_failure_ends_a_turn() -> None:
    line = Turns(at_once=1, patience=60)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with line.on(TEA):
                raise ZeroDivisionError

    assert not line._lines


async def test_a_crowd_leaves_connections_for_others(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build("sql", postgres)
    monkeypatch.setattr(house.inventory, "_turns", Turns(turns.AT_ONCE, patience=60))
    tea = await house.product(stock=100)
    asking, most, reserve = 0, 0, SqlStore.reserve_at_once

    async def counted(store: SqlStore, *arguments: object) -> object:
        nonlocal asking, most
        asking, most = asking + 1, max(most, asking + 1)
        try:
            return await reserve(store, *arguments)  # type: ignore[arg-type]  # passed on as given
        finally:
            asking -= 1

    monkeypatch.setattr(SqlStore, "reserve_at_once", counted)
    await asyncio.gather(*(house.reserve({tea.product_id: 1}) for _ in range(60)))

    assert most == turns.AT_ONCE
    assert await house.available(tea.product_id) == 40
