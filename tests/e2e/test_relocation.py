"""Test a relocation under load: no order is lost or duplicated, and no invariant is broken."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from markethall.local.valkey import EmbeddedValkey
from tests.conftest import on_server
from tests.e2e.dedicated_server import DatabaseReader, dedicated_database
from tests.e2e.relocation import ALL, STOCK, Plan, RelocationCluster, RelocationRun
from tests.e2e.relocation_invariants import (
    InvariantWatcher,
    assert_orders_are_exact,
    assert_responses_are_replayed,
    wait_until_idle,
)
from tests.e2e.relocation_load import AMOUNT, RelocationLoad
from tests.e2e.servers import ADMIN, CONTEXTS, RunningServer
from tests.e2e.shop import Shop

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# short leases, so that requests of killed processes can be retried after 1 s instead of 15 s
SHORT_LEASES = {"idempotency_lease": "1", "payment_reconcile_after_seconds": "1"}
PLANS = (
    [
        Plan(kills=False, pause=5, old_reservations=100_000),
        Plan(kills=True, pause=5, old_reservations=100_000),
    ]
    if FULL
    else [Plan(kills=True, pause=0.5, interval=0.25, settings=SHORT_LEASES)]
)
# inserts old rows that a relocation has to copy; released reservations reserve no stock
INSERT_RELEASED_RESERVATIONS = """
WITH old AS (
    INSERT INTO inventory.reservation (reservation_id, order_id, customer_id, status, expires_at)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'released', now()
    FROM generate_series(1, {count}) RETURNING reservation_id, status, expires_at
)
INSERT INTO inventory.reservation_line (reservation_id, product_id, warehouse_id, status,
    expires_at, quantity, consumed, sku, name, unit_amount, unit_currency)
SELECT reservation_id, product_id, warehouse_id, status, expires_at, 1, 0, 'S', 'N', 700, 'EUR'
FROM old, inventory.stock
"""


@pytest.fixture(params=PLANS, ids=lambda plan: plan.name)
async def relocation(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[RelocationRun]:
    plan: Plan = request.param
    async with AsyncExitStack() as stack:
        common_url = await stack.enter_async_context(dedicated_database(server_url, template))
        own_url = await stack.enter_async_context(dedicated_database(server_url, "template0"))
        folder = scratch / f"relocation-{plan.kills}"
        cluster = RelocationCluster(folder, plan, stack.enter_context(EmbeddedValkey()))
        address = await stack.enter_async_context(cluster.open())
        server = await cluster.start(ALL, common_url)
        cluster.route_to(server)
        limits = httpx2.Limits(max_connections=None)
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20, limits=limits))
        shop = Shop(
            RunningServer(dict.fromkeys(CONTEXTS, address), (server.pid,), server.log), http
        )
        await shop.sign_in_admin(*ADMIN)
        product = await shop.product(stock=STOCK, amount=AMOUNT)
        if plan.old_reservations:
            await on_server(
                common_url, INSERT_RELEASED_RESERVATIONS.format(count=plan.old_reservations)
            )
        customers = [await shop.customer() for _ in range(5)]
        buyers = RelocationLoad(shop, customers, product["product_id"], plan.interval)
        yield RelocationRun(plan, cluster, common_url, own_url, buyers, server)


async def test_inventory_is_extracted_and_returned_without_losing_orders(
    relocation: RelocationRun, capsys: pytest.CaptureFixture[str]
) -> None:
    database, buyers = DatabaseReader(relocation.common_url), relocation.buyers
    watch = InvariantWatcher(database, DatabaseReader(relocation.own_url))

    async with watch.running(), buyers.running():
        await relocation.run()
    await wait_until_idle(database)
    orders, duplicates = await assert_orders_are_exact(database, buyers, STOCK)

    with capsys.disabled():
        report = [*relocation.report(), f"{orders} orders, {duplicates} duplicated"]
        report.append(f"{watch.checks} checks of the invariants, {len(watch.broken)} broken")
        print("\n" + "\n".join(report))
    assert (buyers.results.failed, duplicates, watch.broken) == ([], 0, [])
    assert orders == len(buyers.results.placed) > 20
    assert watch.inventory_checks >= watch.checks - 2 > 0
    assert relocation.kills == (5 if relocation.plan.kills else 0)
    await assert_responses_are_replayed(buyers, buyers.results.sales[:: max(1, orders // 20)])
