"""Kill the server at any write of an order whose client gives up at the first lost answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest

from tests.e2e.restartable_server import TIMEOUT_SECONDS, RetryingShop
from tests.e2e.shop import Person, Shop
from tests.e2e.test_crash import AMOUNT, FULL, STOCK, crash_points, evenly_spread
from tests.progress import progress_limit

# an unpaid order ends after this time; it is longer than a journey takes
RESERVATION_TTL_SECONDS: Final = 8.0
# the number of crash points that an ordinary run tries
SAMPLE_SIZE: Final = 4

# finds work that a killed server left unfinished; stock reserved for a paid order is not such work
UNSETTLED: Final = """
SELECT 'event not sent' AS what FROM orders.outbox WHERE published_at IS NULL
UNION ALL SELECT 'event not sent' FROM payments.outbox WHERE published_at IS NULL
UNION ALL SELECT 'event not handled: ' || handler || ' ' || error FROM orders.inbox
  WHERE state <> 'done'
UNION ALL SELECT 'operation is ' || status FROM payments.operation
  WHERE status IN ('pending', 'unknown')
UNION ALL SELECT 'payment is ' || status FROM payments.payment
  WHERE status IN ('created', 'processing', 'unknown', 'failed') AND order_id IS NOT NULL
UNION ALL SELECT 'order is pending' FROM orders."order" WHERE status = 'pending'
UNION ALL SELECT 'reservation is held' FROM inventory.reservation WHERE status = 'held'
"""


class ClientGone(Exception):
    """Signals that the client has got no answer and sends no more requests."""


class AbandoningShop(Shop):
    """A shop client that gives up at the first request without an answer."""

    def __init__(self, retrying: RetryingShop) -> None:
        super().__init__(retrying.server, retrying.http)
        self.admin, self.restartable = retrying.admin, retrying.restartable

    async def send(
        self, method: str, path: str, person: Person | None = None, **options: Any
    ) -> httpx2.Response:
        try:
            return await super().send(method, path, person, **options)
        except httpx2.TransportError:
            raise ClientGone from None


@dataclass(frozen=True)
class AbandonedJourney:
    """A journey whose client gives up at the first request without an answer.

    `run` gets the buyer and the id of a product. `outcome_of` checks the order of a product and
    returns its outcome in words; without a crash, the outcome is `complete`.
    """

    name: str
    run: Callable[[AbandoningShop, Person, str], Awaitable[None]]
    outcome_of: Callable[[RetryingShop, str], Awaitable[str]]
    complete: str

    async def kill_at_each_write(
        self, shop: RetryingShop, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An ordinary run tries a few crash points; `make test-crash-recovery` tries all."""
        buyer, restarts = await shop.customer(), shop.restartable.restarts
        writes = await self._record_writes(shop, buyer)
        points, outcomes = crash_points(writes), Counter[str]()

        for number, moment in points if FULL else evenly_spread(points, SAMPLE_SIZE):
            product_id = await new_product(shop)
            shop.restartable.kill_at_write(number, moment)
            await self._run_until_settled(shop, buyer, product_id)
            shop.restartable.clear_kill_plan()
            try:
                outcomes[await self.outcome_of(shop, product_id)] += 1
            except AssertionError as error:
                error.add_note(f"killed {moment} write {number}: {writes[number - 1]}")
                raise

        crashes = shop.restartable.restarts - restarts
        report(capsys, self.name, len(points), crashes, outcomes)
        assert crashes >= (len(points) * 2 // 3 if FULL else SAMPLE_SIZE - 2)

    async def _record_writes(self, shop: RetryingShop, buyer: Person) -> list[str]:
        product_id = await new_product(shop)
        shop.restartable.kill_at_write(10**9, "after")
        await self._run_until_settled(shop, buyer, product_id)
        writes = shop.restartable.written_since_plan()
        shop.restartable.clear_kill_plan()
        assert await self.outcome_of(shop, product_id) == self.complete
        return writes

    async def _run_until_settled(self, shop: RetryingShop, buyer: Person, product_id: str) -> None:
        try:
            await self.run(AbandoningShop(shop), buyer, product_id)
        except ClientGone:
            await shop.restartable.restart()
        await wait_until_settled(shop)


async def new_product(shop: RetryingShop) -> str:
    """Create a product, on a server without unsettled work, and return its id."""
    product = await shop.product(stock=STOCK, amount=AMOUNT)
    await wait_until_settled(shop)
    return str(product["product_id"])


async def wait_until_settled(shop: RetryingShop) -> None:
    """Wait until no work is left. If the server is killed during the wait, restart it.

    Raises TimeoutError when there is no progress.
    """
    unsettled: list[str] = [""]
    async with progress_limit(TIMEOUT_SECONDS) as limit:
        while unsettled or shop.restartable.has_exited:
            await shop.get("/health")
            rows = await shop.restartable.database.fetch_all(UNSETTLED)
            unsettled = [row["what"] for row in rows]
            limit.note(unsettled)
            await asyncio.sleep(0.02)


def report(
    capsys: pytest.CaptureFixture[str],
    name: str,
    points: int,
    crashes: int,
    outcomes: Counter[str],
) -> None:
    with capsys.disabled():
        counts = ", ".join(f"{what}: {count}" for what, count in outcomes.items())
        print(f"\n{name}: {points} crash points, {crashes} crashes. {counts}")
