"""The limit of concurrent reservations per product."""

import asyncio
from uuid import UUID, uuid4

import pytest

from markethall.inventory.reservations.service.allocation_retry import (
    MAX_CONCURRENT_PER_PRODUCT,
    ProductConcurrencyLimiter,
)
from markethall.inventory.sql import SqlInventoryStore
from markethall.shared.persistence.postgres import Postgres
from tests.inventory.conftest import build_inventory_app

TEA = uuid4()


class ConcurrencyProbe:
    """A probe that counts the slots in use, and records the order in which calls get a slot."""

    def __init__(self, limiter: ProductConcurrencyLimiter) -> None:
        self._limiter = limiter
        self.running = self.max_running = 0
        self.order: list[int] = []
        self.may_continue = asyncio.Event()

    async def use_slot(self, number: int, product_id: UUID = TEA) -> None:
        async with self._limiter.slot(product_id):
            self.order.append(number)
            self.running += 1
            self.max_running = max(self.max_running, self.running)
            await self.may_continue.wait()
            self.running -= 1


async def wait_until_all_blocked() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_concurrency_is_limited_in_fifo_order() -> None:
    probe = ConcurrencyProbe(ProductConcurrencyLimiter(max_concurrent=2, max_wait_seconds=60))
    tasks = [asyncio.create_task(probe.use_slot(number)) for number in range(9)]
    await wait_until_all_blocked()
    started = list(probe.order)

    probe.may_continue.set()
    await asyncio.gather(*tasks)

    assert started == [0, 1]
    assert probe.order == list(range(9))
    assert probe.max_running == 2


async def test_other_product_is_not_limited() -> None:
    probe = ConcurrencyProbe(ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=60))
    tasks = [
        asyncio.create_task(probe.use_slot(n, key)) for n, key in enumerate([TEA, uuid4(), TEA])
    ]

    await wait_until_all_blocked()

    assert probe.order == [0, 1]
    probe.may_continue.set()
    await asyncio.gather(*tasks)


async def test_waiter_proceeds_after_max_wait() -> None:
    probe = ConcurrencyProbe(ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=0))
    tasks = [asyncio.create_task(probe.use_slot(number)) for number in range(3)]
    while len(probe.order) < 3:
        await asyncio.sleep(0)

    probe.may_continue.set()
    await asyncio.gather(*tasks)

    assert probe.max_running == 3


async def test_cancelled_waiter_releases_its_place() -> None:
    limiter = ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=60)
    probe = ConcurrencyProbe(limiter)
    first, second, third = (asyncio.create_task(probe.use_slot(number)) for number in range(3))
    await wait_until_all_blocked()

    second.cancel()
    probe.may_continue.set()
    await asyncio.gather(first, third)

    assert probe.order == [0, 2]
    assert not limiter._slots_by_product


async def test_failure_releases_slot() -> None:
    limiter = ProductConcurrencyLimiter(max_concurrent=1, max_wait_seconds=60)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with limiter.slot(TEA):
                raise ZeroDivisionError

    assert not limiter._slots_by_product


async def test_hot_product_leaves_connections_for_others(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory_app = build_inventory_app("sql", postgres)
    monkeypatch.setattr(
        inventory_app.inventory,
        "_limiter",
        ProductConcurrencyLimiter(MAX_CONCURRENT_PER_PRODUCT, max_wait_seconds=60),
    )
    tea = await inventory_app.product(stock=100)
    running, max_running, reserve = 0, 0, SqlInventoryStore.reserve_single_statement

    async def counting_reserve(store: SqlInventoryStore, *arguments: object) -> object:
        nonlocal running, max_running
        running, max_running = running + 1, max(max_running, running + 1)
        try:
            return await reserve(store, *arguments)  # type: ignore[arg-type]  # arguments pass through
        finally:
            running -= 1

    monkeypatch.setattr(SqlInventoryStore, "reserve_single_statement", counting_reserve)
    await asyncio.gather(*(inventory_app.reserve({tea.product_id: 1}) for _ in range(60)))

    assert max_running == MAX_CONCURRENT_PER_PRODUCT
    assert await inventory_app.available(tea.product_id) == 40
