"""Test faults between four processes under load.

Operations that need an unavailable context fail within the deadline, and all others succeed. The
number of retries is bounded, no order is lost or duplicated, and the cluster recovers soon after
the repair.
"""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from tests.e2e.dedicated_server import DatabaseReader, dedicated_database, open_shop
from tests.e2e.faults import (
    Fault,
    FaultSetup,
    RedisKilled,
    context_faults,
    fault_setup,
    jwks_faults,
    process_faults,
    redis_faults,
)
from tests.e2e.load import AMOUNT, CUSTOMERS, LoadGenerator, LoggedResponse
from tests.e2e.restartable_server import MAKE_RETRIES_DUE
from tests.e2e.test_crash import BROKEN, UNFINISHED
from tests.progress import progress_limit

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
ROUNDS = 20 if FULL else 1
STOCK = 10_000
DEADLINE = 5.0  # the default of MARKETHALL_REQUEST_DEADLINE_SECONDS
SLACK = 2.0 if FULL else 10.0  # seconds added to limits, for slow machines
FAULT_SECONDS = 2.0
# The duration of a fault that causes only timeouts (`is_timeout_only`). It must be so long that
# calls between processes time out. In a full run, the requests of clients must also reach their
# deadline.
TIMEOUT_FAULT_SECONDS = DEADLINE + 1 if FULL else 3.5
# the limit of the time from the repair to the first order: 1 s for the circuit breaker, 1 s for
# Retry-After, and a margin for slow machines
RECOVERY_SECONDS = 5.0 if FULL else 20.0
IDLE_TIMEOUT_SECONDS = 60.0
MAX_ATTEMPTS = 3

ORDER_IDS = "SELECT order_id FROM orders.order_line WHERE product_id = $1"
STOCK_ROW = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id = $1"
PAYMENT_AMOUNTS = """
SELECT p.captured, p.refunded FROM orders.order_line
JOIN orders."order" USING (order_id) JOIN payments.payment p USING (payment_id)
WHERE product_id = $1
"""

ALL_FAULTS = [
    *(fault for target in ("users", "inventory", "payments") for fault in context_faults(target)),
    *(fault for reader in ("inventory", "payments") for fault in jwks_faults(reader, "users")),
    *(
        fault
        for reader in ("inventory", "payments", "users")
        for fault in jwks_faults(reader, "orders")
    ),
    *redis_faults(),
    *process_faults(),
]
# the faults of an ordinary run: every connection and every kind, but not all combinations
SAMPLE = {
    "orders -> users": ["stopped", "responses lost"],
    "orders -> inventory": ["killed", "delayed by 2 s", "blackhole"],
    "orders -> payments": ["killed", "stopped", "responses lost"],
    "inventory -> JWKS of users": ["blackhole"],
    "payments -> JWKS of orders": ["reset"],
    "users -> JWKS of orders": ["delayed by 2 s"],
    "redis": ["killed and empty", "blackhole"],
    "orders": ["killed"],
    "all leaves": ["stopped"],
}
FAULTS = (
    ALL_FAULTS
    if FULL
    else [fault for fault in ALL_FAULTS if fault.kind in SAMPLE.get(fault.location, [])]
)


@dataclass
class Report:
    """The results of all rounds of one fault."""

    rounds: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    attempts: int = 0
    longest_seconds: float = 0
    first_order_seconds: float = 0
    idle_seconds: float = 0

    def add(self, responses: list[LoggedResponse], repaired_at: float, idle_at: float) -> None:
        self.rounds += 1
        for response in responses:
            self.statuses["2xx" if response.status // 100 == 2 else str(response.status)] += 1
        self.longest_seconds = max(
            self.longest_seconds, *(a.seconds for a in responses if a.status)
        )
        placed = min(
            a.ended
            for a in responses
            if a.operation == "place" and a.started > repaired_at and a.status == 201
        )
        self.first_order_seconds = max(self.first_order_seconds, placed - repaired_at)
        self.idle_seconds = max(self.idle_seconds, idle_at - repaired_at)

    def count(self, since: "Calls | None", targets: frozenset[str]) -> None:
        """Add the calls of a round. Raises AssertionError if there were too many attempts."""
        if since is None:
            return
        for target, calls in since.calls.items():
            assert since.sent[target] <= since.attempts[target] <= MAX_ATTEMPTS * calls, since
        self.calls += sum(since.calls[target] for target in targets)
        self.attempts += sum(since.attempts[target] for target in targets)

    def __str__(self) -> str:
        statuses = self.statuses
        ratio = f"{self.attempts / self.calls:.2f}" if self.calls else "-"
        return (
            f"{self.rounds} rounds, {statuses.total()} requests: {statuses['2xx']} 2xx, "
            f"{statuses['503']} 503, "
            f"{statuses['409']} 409, {statuses['0']} without response; {ratio} attempts per call; "
            f"longest response {self.longest_seconds:.1f} s; recovery: first order after "
            f"{self.first_order_seconds:.1f} s, idle after {self.idle_seconds:.1f} s"
        )


@dataclass(frozen=True)
class Calls:
    """Counts by target context.

    `calls` and `attempts` are counts of the `orders` process, whose process id is `pid`. `sent`
    counts the requests that the proxies have forwarded.
    """

    pid: int
    calls: Counter[str]
    attempts: Counter[str]
    sent: Counter[str]

    def since(self, before: "Calls") -> "Calls | None":
        """Return the difference of the counts.

        Return None if the `orders` process was restarted in between, which resets its counters.
        """
        if self.pid != before.pid:
            return None
        calls, attempts = self.calls - before.calls, self.attempts - before.attempts
        return Calls(self.pid, calls, attempts, self.sent - before.sent)


@pytest.fixture(scope="module")
async def url(server_url: str, template: str) -> AsyncIterator[str]:
    async with dedicated_database(server_url, template) as url:
        yield url


@pytest.fixture(scope="module")
async def database(url: str) -> DatabaseReader:
    return DatabaseReader(url)


@pytest.fixture(scope="module")
async def server(url: str, scratch: Path) -> AsyncIterator[FaultSetup]:
    # short leases in an ordinary run, so that it need not wait for the leases of killed processes
    short_leases = (
        {}
        if FULL
        else {"idempotency_lease": str(DEADLINE + 1), "payment_reconcile_after_seconds": "2"}
    )
    settings = {
        "request_deadline_seconds": str(DEADLINE),
        "rpc_attempt_timeout_seconds": "2",
        "token_ttl": "86400",
    }
    async with fault_setup(scratch / "split-faults", url, **settings, **short_leases) as server:
        yield server


@pytest.fixture(scope="module")
async def load(server: FaultSetup) -> AsyncIterator[LoadGenerator]:
    async with open_shop(server.split.server) as shop:
        shop.http.timeout = httpx2.Timeout(DEADLINE + 2 * SLACK)
        yield LoadGenerator(shop, [await shop.customer() for _ in range(CUSTOMERS)])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_faults_between_services_never_lose_orders(
    server: FaultSetup,
    load: LoadGenerator,
    database: DatabaseReader,
    fault: Fault,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report()

    try:
        for _ in range(ROUNDS):
            await run_round(server, load, database, fault, report)
    finally:
        with capsys.disabled():
            print(f"\n{fault.name}: {report}")


async def test_events_lost_by_redis_before_consumption_are_republished(
    server: FaultSetup, load: LoadGenerator, database: DatabaseReader
) -> None:
    redis = RedisKilled("redis", "killed and empty")
    for _ in range(ROUNDS):
        await load.start_round(STOCK)
        orders = [(buyer, await load.place_order(buyer)) for buyer in load.buyers]
        server.split.service("orders").stop()
        async with AsyncExitStack() as stack:
            stack.callback(server.split.service("orders").cont)
            for buyer, order in orders:
                await load.pay(buyer, order)
            await wait_until_published(database)
            await redis.inject(server)
            await redis.repair(server)
        for buyer, order in orders:
            load.record_sale(buyer, order)

        await wait_until_idle(load, database)
        assert await database.fetch_all(BROKEN) == []
        await assert_orders_are_exact(load, database)


async def wait_until_published(database: DatabaseReader) -> None:
    """Wait until the `payments` context has published its events to the stream."""
    unpublished = "SELECT count(*) FROM payments.outbox WHERE published_at IS NULL"
    async with progress_limit(IDLE_TIMEOUT_SECONDS) as limit:
        while count := await database.fetch_value(unpublished):
            limit.note(count)
            await asyncio.sleep(0.05)


async def run_round(
    server: FaultSetup, load: LoadGenerator, database: DatabaseReader, fault: Fault, report: Report
) -> None:
    await load.start_round(STOCK)
    await wait_until_idle(load, database)
    before, injected_at = await calls(server), time.monotonic()
    repaired_at = await inject_and_repair(server, load, fault)
    assert unexpected_responses(load.responses, fault, injected_at, repaired_at) == []
    await wait_until_idle(load, database)
    idle_at = time.monotonic()

    report.add(load.responses, repaired_at, idle_at)
    report.count((await calls(server)).since(before), fault.counted_targets)
    assert unexpected_responses(load.responses, fault, injected_at, repaired_at) == []
    assert await database.fetch_all(BROKEN) == []
    await assert_orders_are_exact(load, database)
    assert report.first_order_seconds < RECOVERY_SECONDS


async def inject_and_repair(server: FaultSetup, load: LoadGenerator, fault: Fault) -> float:
    """Cause and repair the fault under load. Return the time of the repair."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fault.repair, server)
        await fault.prepare(server)
        async with load.running():
            await fault.inject(server)
            await asyncio.sleep(TIMEOUT_FAULT_SECONDS if fault.is_timeout_only else FAULT_SECONDS)
            await stack.aclose()
            repaired_at = time.monotonic()
            await load.buy(load.buyers[0])
    return repaired_at


async def wait_until_idle(load: LoadGenerator, database: DatabaseReader) -> None:
    """Wait until all reads succeed, all orders are final and no work is left."""
    unfinished: list[object] = ["reads or orders not finished"]
    try:
        if not FULL:
            await database.fetch_all(MAKE_RETRIES_DUE)
        async with asyncio.timeout(IDLE_TIMEOUT_SECONDS):
            await load.wait_until_served()
        await load.settle_orders()
        async with progress_limit(IDLE_TIMEOUT_SECONDS) as limit:
            while unfinished:
                unfinished = [row["what"] for row in await database.fetch_all(UNFINISHED)]
                limit.note(unfinished)
                await asyncio.sleep(0.05)
    except TimeoutError:
        message = f"no progress for {IDLE_TIMEOUT_SECONDS} s: {unfinished}"
        raise AssertionError(message) from None


def unexpected_responses(
    responses: list[LoggedResponse], fault: Fault, injected_at: float, repaired_at: float
) -> list[str]:
    """Return descriptions of the responses that the fault does not permit."""
    return [
        f"{response.operation} {response.status} after {response.seconds:.1f} s, "
        f"started {response.started - injected_at:.1f} s after the fault: {response.text[:300]}"
        for response in responses
        if not _is_permitted(response, fault, injected_at, repaired_at)
    ]


def _is_permitted(
    response: LoggedResponse, fault: Fault, injected_at: float, repaired_at: float
) -> bool:
    during_fault = response.ended > injected_at and response.started < repaired_at
    if during_fault and response.context in fault.unavailable and response.status != 500:
        return True
    if response.seconds > DEADLINE + SLACK:
        return False
    may_be_rejected = (
        response.operation in fault.may_fail
        and injected_at < response.ended < repaired_at + RECOVERY_SECONDS
    )
    match response.status:
        case 200 | 201:
            return True
        case 503:
            return may_be_rejected and response.retry_after is not None
        case 409:
            return response.retry_after is not None
        case _:
            return False


async def assert_orders_are_exact(load: LoadGenerator, database: DatabaseReader) -> None:
    """Check that the orders are the acknowledged ones, and that stock and payments match them."""
    product, sales = UUID(load.product_id), load.sales
    cancelled = sum(sale.cancelled for sale in sales)
    sold = len(sales) - cancelled
    found = [str(row["order_id"]) for row in await database.fetch_all(ORDER_IDS, product)]
    assert sorted(found) == sorted(sale.order_id for sale in sales)
    assert [tuple(row) for row in await database.fetch_all(STOCK_ROW, product)] == [
        (STOCK - sold, 0)
    ]
    amounts = Counter(tuple(row) for row in await database.fetch_all(PAYMENT_AMOUNTS, product))
    assert amounts == Counter({(AMOUNT, 0): sold, (AMOUNT, AMOUNT): cancelled})


async def calls(server: FaultSetup) -> Calls:
    orders = server.split.service("orders")
    async with httpx2.AsyncClient(timeout=DEADLINE) as http:
        page = (await http.get(f"{orders.url}/metrics")).text
    sent: Counter[str] = Counter()
    for proxy in server.proxies.values():
        for path, count in proxy.requests.items():
            sent[path.split("/")[2]] += count if path.startswith("/internal/") else 0
    return Calls(
        orders.pid, _count_by_target(page, "calls"), _count_by_target(page, "attempts"), sent
    )


def _count_by_target(page: str, metric: str) -> Counter[str]:
    """Return the count of each target, summed over methods and outcomes."""
    counts: Counter[str] = Counter()
    matches = re.findall(
        rf'^markethall_rpc_client_{metric}_total{{.*target="(\w+)".*}} (\S+)$', page, re.MULTILINE
    )
    for target, count in matches:
        counts[target] += int(float(count))
    return counts
