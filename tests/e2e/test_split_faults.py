"""Four processes, and everything that can go wrong between them, under a small steady crowd.

Who needs what is broken is refused in time, who does not need it notices nothing, nobody is asked
in a storm, nothing is lost and nothing doubled, and soon after all is well again.
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
from tests.e2e.load import AMOUNT, CUSTOMERS, Answer, LoadGenerator
from tests.e2e.restartable_server import MAKE_RETRIES_DUE
from tests.e2e.test_crash import BROKEN, UNFINISHED

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
ROUNDS = 20 if FULL else 1
STOCK = 10_000
DEADLINE = 5.0  # the default of MARKETHALL_REQUEST_DEADLINE_SECONDS
SLACK = 2.0 if FULL else 10.0  # a busy machine
LASTS = 2.0
# where nobody is told that anything is wrong, the deadline of some requests must come
SILENCE = DEADLINE + 1 if FULL else 3.5
# the breaker's second, and the second that a refusal asks for, and a busy machine
SOON = 5.0 if FULL else 20.0
CONVERGED = 60.0
MOST_ATTEMPTS = 3

ORDERED = "SELECT order_id FROM orders.order_line WHERE product_id = $1"
SHELF = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id = $1"
TILL = """
SELECT p.captured, p.refunded FROM orders.order_line
JOIN orders."order" USING (order_id) JOIN payments.payment p USING (payment_id)
WHERE product_id = $1
"""

ALL = [
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
# every edge and every kind of fault, though not each on each
FEW = {
    "orders -> users": ["stopped", "answers lost"],
    "orders -> inventory": ["killed", "2 s late", "blackhole"],
    "orders -> payments": ["killed", "stopped", "answers lost"],
    "inventory -> keys of users": ["blackhole"],
    "payments -> keys of orders": ["reset"],
    "users -> keys of orders": ["2 s late"],
    "redis": ["killed and empty", "blackhole"],
    "orders": ["killed"],
    "all leaves": ["stopped"],
}
FAULTS = ALL if FULL else [fault for fault in ALL if fault.kind in FEW.get(fault.where, [])]


@dataclass
class Report:
    """Of all rounds of one fault."""

    rounds: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    attempts: int = 0
    longest: float = 0
    first_order: float = 0
    converged: float = 0

    def add(self, answers: list[Answer], healed: float, at_rest: float) -> None:
        self.rounds += 1
        for answer in answers:
            self.statuses["2xx" if answer.status // 100 == 2 else str(answer.status)] += 1
        self.longest = max(self.longest, *(a.seconds for a in answers if a.status))
        placed = min(
            a.ended for a in answers if a.what == "place" and a.begun > healed and a.status == 201
        )
        self.first_order = max(self.first_order, placed - healed)
        self.converged = max(self.converged, at_rest - healed)

    def count(self, since: "Calls | None", targets: frozenset[str]) -> None:
        """Raises AssertionError for a storm."""
        if since is None:
            return
        for target, calls in since.calls.items():
            assert since.sent[target] <= since.attempts[target] <= MOST_ATTEMPTS * calls, since
        self.calls += sum(since.calls[target] for target in targets)
        self.attempts += sum(since.attempts[target] for target in targets)

    def __str__(self) -> str:
        of = self.statuses
        ratio = f"{self.attempts / self.calls:.2f}" if self.calls else "-"
        return (
            f"{self.rounds} rounds, {of.total()} requests: {of['2xx']} 2xx, {of['503']} 503, "
            f"{of['409']} 409, {of['0']} nobody there; {ratio} attempts per call; "
            f"longest answer {self.longest:.1f} s; whole again: first order after "
            f"{self.first_order:.1f} s, all at rest after {self.converged:.1f} s"
        )


@dataclass(frozen=True)
class Calls:
    """What orders says of its calls, and what went into the lines to its neighbours."""

    pid: int
    calls: Counter[str]
    attempts: Counter[str]
    sent: Counter[str]

    def since(self, before: "Calls") -> "Calls | None":
        """None when the process that counted has died meanwhile."""
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
    # an ordinary run does not wait long for the leases of the dead
    short_ttl_shop = (
        {}
        if FULL
        else {"idempotency_lease": str(DEADLINE + 1), "payment_reconcile_after_seconds": "2"}
    )
    usual = {
        "request_deadline_seconds": str(DEADLINE),
        "rpc_attempt_timeout_seconds": "2",
        "token_ttl": "86400",
    }
    async with fault_setup(scratch / "split-faults", url, **usual, **short_ttl_shop) as server:
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
            await one_round(server, load, database, fault, report)
    finally:
        with capsys.disabled():
            print(f"\n{fault.name}: {report}")  # noqa: T201 - for the report


async def test_events_lost_by_redis_before_consumption_are_republished(
    server: FaultSetup, load: LoadGenerator, database: DatabaseReader
) -> None:
    redis = RedisKilled("redis", "killed and empty")
    for _ in range(ROUNDS):
        await load.opens(STOCK)
        orders = [(buyer, await load.places(buyer)) for buyer in load.buyers]
        server.split.service("orders").stop()
        async with AsyncExitStack() as whole:
            whole.callback(server.split.service("orders").cont)
            for buyer, order in orders:
                await load.pays(buyer, order)
            await all_sent(database)
            await redis.inject(server)
            await redis.heal(server)
        for buyer, order in orders:
            load.sold(buyer, order)

        await comes_to_rest(load, database)
        assert await database.fetch_all(BROKEN) == []
        await nothing_is_lost_or_doubled(load, database)


async def all_sent(database: DatabaseReader) -> None:
    """Payments has put its news into the stream; they are read when orders goes on."""
    unsent = "SELECT count(*) FROM payments.outbox WHERE published_at IS NULL"
    async with asyncio.timeout(CONVERGED):
        while await database.fetch_value(unsent):
            await asyncio.sleep(0.05)


async def one_round(
    server: FaultSetup, load: LoadGenerator, database: DatabaseReader, fault: Fault, report: Report
) -> None:
    await load.opens(STOCK)
    await comes_to_rest(load, database)
    before, struck = await calls(server), time.monotonic()
    healed = await struck_and_healed(server, load, fault)
    assert wrong(load.answers, fault, struck, healed) == []
    await comes_to_rest(load, database)
    at_rest = time.monotonic()

    report.add(load.answers, healed, at_rest)
    report.count((await calls(server)).since(before), fault.asked)
    assert wrong(load.answers, fault, struck, healed) == []
    assert await database.fetch_all(BROKEN) == []
    await nothing_is_lost_or_doubled(load, database)
    assert report.first_order < SOON
    assert report.converged < CONVERGED


async def struck_and_healed(server: FaultSetup, load: LoadGenerator, fault: Fault) -> float:
    """While the crowd is there. When it was whole again, by time.monotonic()."""
    async with AsyncExitStack() as whole:
        whole.push_async_callback(fault.heal, server)
        await fault.prepare(server)
        async with load.shopping():
            await fault.inject(server)
            # so long it lasts; nothing is decided by it
            await asyncio.sleep(SILENCE if fault.is_silent else LASTS)
            await whole.aclose()
            healed = time.monotonic()
            await load.buys(load.buyers[0])
    return healed


async def comes_to_rest(load: LoadGenerator, database: DatabaseReader) -> None:
    """Everybody is served, every order reaches its end, and then nothing is left to do."""
    left: list[object] = ["people or orders on their way"]
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + CONVERGED):
            if not FULL:
                await database.fetch_all(MAKE_RETRIES_DUE)
            await load.is_served()
            await load.settle()
            while left:
                left = [row["what"] for row in await database.fetch_all(UNFINISHED)]
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not at rest after {CONVERGED} s: {left}") from None


def wrong(answers: list[Answer], fault: Fault, struck: float, healed: float) -> list[str]:
    """Answers that nobody should get."""
    return [
        f"{answer.what} {answer.status} after {answer.seconds:.1f} s, "
        f"begun {answer.begun - struck:.1f} s after the fault: {answer.text[:300]}"
        for answer in answers
        if not _is_fair(answer, fault, struck, healed)
    ]


def _is_fair(answer: Answer, fault: Fault, struck: float, healed: float) -> bool:
    meanwhile = answer.ended > struck and answer.begun < healed
    if meanwhile and answer.context in fault.away and answer.status != 500:
        return True
    if answer.seconds > DEADLINE + SLACK:
        return False
    refusable = answer.what in fault.spoils and struck < answer.ended < healed + SOON
    match answer.status:
        case 200 | 201:
            return True
        case 503:
            return refusable and answer.retry_after is not None
        case 409:
            return answer.retry_after is not None
        case _:
            return False


async def nothing_is_lost_or_doubled(load: LoadGenerator, database: DatabaseReader) -> None:
    """Each acknowledged order is there, once, and so are its goods and its money."""
    product, sales = UUID(load.product_id), load.sales
    regretted = sum(sale.cancelled for sale in sales)
    sold = len(sales) - regretted
    found = [str(row["order_id"]) for row in await database.fetch_all(ORDERED, product)]
    assert sorted(found) == sorted(sale.order_id for sale in sales)
    assert [tuple(row) for row in await database.fetch_all(SHELF, product)] == [(STOCK - sold, 0)]
    till = Counter(tuple(row) for row in await database.fetch_all(TILL, product))
    assert till == Counter({(AMOUNT, 0): sold, (AMOUNT, AMOUNT): regretted})


async def calls(server: FaultSetup) -> Calls:
    orders = server.split.service("orders")
    async with httpx2.AsyncClient(timeout=DEADLINE) as http:
        page = (await http.get(f"{orders.url}/metrics")).text
    sent: Counter[str] = Counter()
    for line in server.lines.values():
        for path, count in line.requests.items():
            sent[path.split("/")[2]] += count if path.startswith("/internal/") else 0
    return Calls(orders.pid, _counted(page, "calls"), _counted(page, "attempts"), sent)


def _counted(page: str, what: str) -> Counter[str]:
    """Per target, whatever the method and the outcome."""
    counted: Counter[str] = Counter()
    lines = re.findall(
        rf'^markethall_rpc_client_{what}_total{{.*target="(\w+)".*}} (\S+)$', page, re.MULTILINE
    )
    for target, count in lines:
        counted[target] += int(float(count))
    return counted
