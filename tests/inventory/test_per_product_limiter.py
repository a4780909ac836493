"""The line before a product that everybody wants."""

import asyncio
from uuid import UUID, uuid4

import pytest

from markethall.inventory.reservations.service import per_product_limiter
from markethall.inventory.reservations.service.per_product_limiter import ProductConcurrencyLimiter
from markethall.inventory.sql import SqlInventoryStore
from markethall.shared.persistence.postgres import Postgres
from tests.inventory.conftest import build_inventory_app

TEA = uuid4()


class ConcurrencyProbe:
    """Takes turns, and sees how many have one at the same time."""

    def __init__(self, line: ProductConcurrencyLimiter) -> None:
        self._line = line
        self.running = self.max_running = 0
        self.order: list[int] = []
        self.may_continue = asyncio.Event()

    async def use_slot(self, number: int, product_id: UUID = TEA) -> None:
        async with self._line.slot(product_id):
            self.order.append(number)
            self.running += 1
            self.max_running = max(self.max_running, self.running)
            await self.may_continue.wait()
            self.running -= 1


async def until_all_wait() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_concurrency_is_limited_in_fifo_order() -> None:
    counter = ConcurrencyProbe(ProductConcurrencyLimiter(max_concurrent=2, max_wait_seconds=60))
    crowd = [asyncio.create_task(counter.use_slot(number)) for number in range(9)]
    await until_all_wait()
    began = list(counter.order)

    counter.may_continue.set()
    await asyncio.gather(*crowd)

    assert began == [0, 1]
    assert counter.order == list(range(9))
    assert counter.max_running == 2


async def test_other_product_is_not_limited() -> None:
    counter = ConcurrencyProbe(ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=60))
    crowd = [
        asyncio.create_task(counter.use_slot(n, key)) for n, key in enumerate([TEA, uuid4(), TEA])
    ]

    await until_all_wait()

    assert counter.order == [0, 1]
    counter.may_continue.set()
    await asyncio.gather(*crowd)


async def test_waiter_proceeds_after_max_wait() -> None:
    counter = ConcurrencyProbe(ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=0))
    crowd = [asyncio.create_task(counter.use_slot(number)) for number in range(3)]
    while len(counter.order) < 3:
        await asyncio.sleep(0)

    counter.may_continue.set()
    await asyncio.gather(*crowd)

    assert counter.max_running == 3


async def test_cancelled_waiter_releases_its_place() -> None:
    line = ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=60)
    counter = ConcurrencyProbe(line)
    first, second, third = (asyncio.create_task(counter.use_slot(number)) for number in range(3))
    await until_all_wait()

    second.cancel()
    counter.may_continue.set()
    await asyncio.gather(first, third)

    assert counter.order == [0, 2]
    assert not line._slots_by_product


async def test_failure_releases_slot() -> None:
    line = ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=60)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with line.slot(TEA):
                raise ZeroDivisionError

    assert not line._slots_by_product


async def test_hot_product_leaves_connections_for_others(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory_app = build_inventory_app("sql", postgres)
    monkeypatch.setattr(
        inventory_app.inventory,
        "_limiter",
        ProductConcurrencyLimiter(
            per_product_limiter.MAX_CONCURRENT_PER_PRODUCT, max_wait_seconds=60
        ),
    )
    tea = await inventory_app.product(stock=100)
    asking, most, reserve = 0, 0, SqlInventoryStore.reserve_single_statement

    async def counted(store: SqlInventoryStore, *arguments: object) -> object:
        nonlocal asking, most
        asking, most = asking + 1, max(most, asking + 1)
        try:
            return await reserve(store, *arguments)  # type: ignore[arg-type]  # passed on as given
        finally:
            asking -= 1

    monkeypatch.setattr(SqlInventoryStore, "reserve_single_statement", counted)
    await asyncio.gather(*(inventory_app.reserve({tea.product_id: 1}) for _ in range(60)))

    assert most == per_product_limiter.MAX_CONCURRENT_PER_PRODUCT
    assert await inventory_app.available(tea.product_id) == 40
