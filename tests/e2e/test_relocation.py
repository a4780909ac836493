"""Moving day under load: no order fails, none is doubled, and no promise is broken meanwhile."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from markethall.local.valkey import EmbeddedValkey
from tests.conftest import on_server
from tests.e2e.dedicated_server import DatabaseReader, dedicated_database
from tests.e2e.relocation import ALL, STOCK, Plan, ProxyChain, RelocationRun
from tests.e2e.relocation_invariants import (
    InvariantWatcher,
    invariants_hold,
    is_idle,
    responses_are_consistent,
)
from tests.e2e.relocation_load import AMOUNT, RelocationLoad
from tests.e2e.servers import ADMIN, CONTEXTS, RunningServer
from tests.e2e.shop import Shop

FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# who was killed with a key in hand is followed sooner than after the 15 s of the product
HASTE = {"idempotency_lease": "1", "payment_reconcile_after_seconds": "1"}
PLANS = (
    [
        Plan(kills=False, calm=5, old_reservations=100_000),
        Plan(kills=True, calm=5, old_reservations=100_000),
    ]
    if FULL
    else [Plan(kills=True, calm=0.5, pace=0.25, settings=HASTE)]
)
# of reservations that have come to their end, and hold no stock
OLD = """
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
async def rehearsal(
    request: pytest.FixtureRequest, scratch: Path, server_url: str, template: str
) -> AsyncIterator[RelocationRun]:
    plan: Plan = request.param
    async with AsyncExitStack() as stack:
        common = await stack.enter_async_context(dedicated_database(server_url, template))
        own = await stack.enter_async_context(dedicated_database(server_url, "template0"))
        folder = scratch / f"rehearsal-{plan.kills}"
        street = ProxyChain(folder, plan, stack.enter_context(EmbeddedValkey()))
        address = await stack.enter_async_context(street.open())
        server = await street.start(ALL, common)
        street.send_to(server)
        limits = httpx2.Limits(max_connections=None)
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20, limits=limits))
        shop = Shop(
            RunningServer(dict.fromkeys(CONTEXTS, address), (server.pid,), server.log), http
        )
        await shop.sign_in_admin(*ADMIN)
        product = await shop.product(stock=STOCK, amount=AMOUNT)
        if plan.old_reservations:
            await on_server(common, OLD.format(count=plan.old_reservations))
        people = [await shop.customer() for _ in range(5)]
        buyers = RelocationLoad(shop, people, product["product_id"], plan.pace)
        yield RelocationRun(plan, street, common, own, buyers, server)


async def test_inventory_is_extracted_and_returned_without_losing_orders(
    rehearsal: RelocationRun, capsys: pytest.CaptureFixture[str]
) -> None:
    database, buyers = DatabaseReader(rehearsal.common), rehearsal.buyers
    watch = InvariantWatcher(database, DatabaseReader(rehearsal.own))

    async with watch.watching(), buyers.coming():
        await rehearsal.run()
    await is_idle(database)
    orders, doubled = await invariants_hold(database, buyers, STOCK)

    with capsys.disabled():
        report = [*rehearsal.report(), f"{orders} orders in the books, {doubled} doubled"]
        report.append(f"{watch.looks} looks at the invariants, {len(watch.broken)} broken")
        print("\n" + "\n".join(report))  # noqa: T201 - for the report
    assert (buyers.told.failed, doubled, watch.broken) == ([], 0, [])
    assert orders == len(buyers.told.placed) > 20
    assert watch.at_inventory >= watch.looks - 2 > 0
    assert rehearsal.kills == (5 if rehearsal.plan.kills else 0)
    await responses_are_consistent(buyers, buyers.told.sales[:: max(1, orders // 20)])
