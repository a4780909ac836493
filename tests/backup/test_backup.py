"""Test backup, loss and restore with the commands of docs/backup.md, with orders in flight."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from tests.backup.commands import run_block
from tests.conftest import on_server, plain, url_of
from tests.e2e.dedicated_server import dedicated_process, open_shop
from tests.e2e.shop import Person, Shop, expect_status
from tests.test_cli import markethall

# the number of customers who buy while the backup is made
LOADS = 3


@dataclass
class Databases:
    """Databases of one test on the test server, which are dropped at its end."""

    server_url: str
    template: str
    names: list[str]
    folder: Path
    major: int

    async def create(self) -> str:
        name = self._new_name()
        await on_server(self.server_url, f"CREATE DATABASE {name} TEMPLATE {self.template}")
        return url_of(self.server_url, name)

    def _new_name(self) -> str:
        self.names.append(f"backup_{new_id().hex}")
        return self.names[-1]

    async def back_up(self, url: str) -> Path:
        path = self.folder / f"{new_id().hex}.dump"
        await asyncio.to_thread(
            run_block, "backup", self.major, DATABASE_URL=plain(url), BACKUP=str(path)
        )
        return path

    async def lose(self, url: str) -> None:
        await on_server(self.server_url, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    async def restore(self, path: Path) -> str:
        url = url_of(self.server_url, self._new_name())
        await asyncio.to_thread(
            run_block,
            "restore",
            self.major,
            MAINTENANCE_URL=plain(self.server_url),
            NAME=self.names[-1],
            RESTORED_URL=plain(url),
            BACKUP=str(path),
        )
        return url


@pytest.fixture
async def databases(server_url: str, template: str, scratch: Path) -> AsyncIterator[Databases]:
    connection = await asyncpg.connect(plain(server_url))
    major = connection.get_server_version().major
    await connection.close()
    databases = Databases(server_url, template, [], scratch, major)
    yield databases
    for name in databases.names:
        await on_server(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@asynccontextmanager
async def shop_on(scratch: Path, url: str, **settings: str) -> AsyncIterator[Shop]:
    """Run a shop. All shops of a test have the same data directory, which has their keys."""
    settings = {"database_url": url, "payment_reconcile_after_seconds": "1", **settings}
    with dedicated_process(scratch, "backed-up", **settings) as (_, server):
        async with open_shop(server) as shop:
            yield shop


def run_doctor(scratch: Path, url: str, grace: str = "0", **settings: str) -> tuple[int, str]:
    """Return the exit code and the output. `grace` is the time in seconds for unfinished work."""
    settings = {"database_url": url, "data_dir": str(scratch / "own-backed-up"), **settings}
    done = markethall("doctor", "--grace", grace, **settings)
    return done.returncode, done.stdout


async def wait_until_sound(scratch: Path, url: str, **settings: str) -> None:
    """Wait until all work is finished and `doctor` finds nothing. Raises TimeoutError."""
    async with asyncio.timeout(120):
        while (await asyncio.to_thread(lambda: run_doctor(scratch, url, **settings)))[0] != 0:
            await asyncio.sleep(0.1)


async def place(shop: Shop, buyer: Person, product_id: str) -> dict[str, Any]:
    return expect_status(await shop.place(buyer, product_id), 201)


async def pay(shop: Shop, buyer: Person, order: dict[str, Any]) -> None:
    expect_status(await shop.confirm(buyer, order["payment"]["payment_id"]), 200)
    await shop.wait_for_status(buyer, order["order_id"], status="processing")


async def buy_forever(shop: Shop, product_id: str) -> None:
    while True:
        buyer = await shop.customer()
        for _ in range(3):
            await pay(shop, buyer, await place(shop, buyer, product_id))


async def list_orders(shop: Shop) -> list[dict[str, Any]]:
    answer = await shop.get("/orders?limit=100", shop.admin)
    orders: list[dict[str, Any]] = expect_status(answer, 200)["items"]
    return orders


async def test_orders_go_on_after_backup_loss_and_restore(
    scratch: Path, databases: Databases
) -> None:
    url = await databases.create()
    async with shop_on(scratch, url) as shop:
        buyer, product = await shop.customer(), await shop.product(stock=1000)
        unpaid = await place(shop, buyer, product["product_id"])
        unknown = await place(shop, buyer, product["product_id"])
        payment_id = unknown["payment"]["payment_id"]
        expect_status(await shop.confirm(buyer, payment_id, "sandbox_timeout_after"), 202)
        load = [asyncio.create_task(buy_forever(shop, product["product_id"])) for _ in range(LOADS)]
        path = await databases.back_up(url)
        lost = await place(shop, buyer, product["product_id"])
        for task in load:
            task.cancel()
        assert all(isinstance(end, asyncio.CancelledError) for end in await end_all(load))
    await databases.lose(url)

    url = await databases.restore(path)
    restored = run_doctor(scratch, url, grace="120")
    async with shop_on(scratch, url) as shop:
        gone = await shop.get(f"/orders/{lost['order_id']}", buyer)
        await pay(shop, buyer, unpaid)
        await shop.wait_for_status(buyer, unknown["order_id"], status="processing")
        await pay(shop, buyer, await place(shop, buyer, product["product_id"]))
        orders = await list_orders(shop)
        available = await shop.available(product["product_id"])
        await wait_until_sound(scratch, url)

    assert restored[0] == 0, restored[1]
    assert gone.status_code == 404
    assert len(orders) >= 3
    # an order that was not complete at the backup may have a reservation, which expires later
    assert 1000 - len(orders) - LOADS <= available <= 1000 - len(orders)


async def end_all(tasks: "list[asyncio.Task[None]]") -> list[BaseException | None]:
    return await asyncio.gather(*tasks, return_exceptions=True)


# Databases that are restored to different points in time


@dataclass
class Purchases:
    """Backups of two databases before and after a payment and a purchase."""

    buyer: Person
    paid_between: dict[str, Any]
    placed_between: dict[str, Any]
    before: tuple[Path, Path]
    after: tuple[Path, Path]


async def purchase_between_backups(scratch: Path, databases: Databases) -> Purchases:
    main, payments = await databases.create(), await databases.create()
    async with shop_on(scratch, main, database_urls=json.dumps({"payments": payments})) as shop:
        buyer, product = await shop.customer(), await shop.product()
        first = await place(shop, buyer, product["product_id"])
        before = await databases.back_up(main), await databases.back_up(payments)
        await pay(shop, buyer, first)
        second = await place(shop, buyer, product["product_id"])
        await pay(shop, buyer, second)
        after = await databases.back_up(main), await databases.back_up(payments)
    for url in (main, payments):
        await databases.lose(url)
    return Purchases(buyer, first, second, before, after)


async def test_payments_that_are_newer_are_refunded_or_applied(
    scratch: Path, databases: Databases
) -> None:
    made = await purchase_between_backups(scratch, databases)
    main = await databases.restore(made.before[0])
    payments = await databases.restore(made.after[1])
    urls = json.dumps({"payments": payments})

    payment_id = made.placed_between["payment"]["payment_id"]
    async with shop_on(scratch, main, database_urls=urls) as shop:
        order_id = made.paid_between["order_id"]
        await shop.wait_for_status(made.buyer, order_id, status="processing")
        found = run_doctor(scratch, main, database_urls=urls)
        path, body = f"/payments/{payment_id}/refunds", {"reason": "the order is lost"}
        refund = expect_status(await shop.post(path, shop.admin, json=body), 201)
        await wait_until_sound(scratch, main, database_urls=urls)

    assert found[0] == 1
    assert (refund["status"], refund["amount"]["amount"]) == ("succeeded", 1999)
    assert f"payment payment_id={payment_id}: 1999 EUR are captured, but there" in found[1]


async def test_payments_that_are_older_need_the_other_databases_of_that_time(
    scratch: Path, databases: Databases
) -> None:
    made = await purchase_between_backups(scratch, databases)
    main = await databases.restore(made.after[0])
    payments = await databases.restore(made.before[1])
    urls = json.dumps({"payments": payments})

    found = run_doctor(scratch, main, database_urls=urls)
    older = await databases.restore(made.before[0])

    assert found[0] == 1
    for order in (made.paid_between, made.placed_between):
        assert f"order order_id={order['order_id']}: " in found[1]
    assert run_doctor(scratch, older, database_urls=urls)[0] == 0
