"""Moving day under load: no order fails, none is doubled, and no promise is broken meanwhile."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from markethall.local.valkey import EmbeddedValkey
from tests.conftest import on_server
from tests.e2e.halls import ADMIN, CONTEXTS, Hall
from tests.e2e.own import Books, own_database
from tests.e2e.rehearsal import ALL, STOCK, Plan, Rehearsal, Street
from tests.e2e.rehearsal_books import Watch, answers_stand, at_rest, holds
from tests.e2e.rehearsal_buyers import AMOUNT, Buyers
from tests.e2e.shop import Shop

FULL = os.environ.get("MARKETHALL_TEST_SWEEP") == "full"
# who was killed with a key in hand is followed sooner than after the 15 s of the product
HASTE = {"idempotency_lease": "1", "reconcile_after": "1"}
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
) -> AsyncIterator[Rehearsal]:
    plan: Plan = request.param
    async with AsyncExitStack() as stack:
        common = await stack.enter_async_context(own_database(server_url, template))
        own = await stack.enter_async_context(own_database(server_url, "template0"))
        folder = scratch / f"rehearsal-{plan.kills}"
        street = Street(folder, plan, stack.enter_context(EmbeddedValkey()))
        address = await stack.enter_async_context(street.open())
        hall = await street.start(ALL, common)
        street.send_to(hall)
        limits = httpx2.Limits(max_connections=None)
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=20, limits=limits))
        shop = Shop(Hall(dict.fromkeys(CONTEXTS, address), (hall.pid,), hall.log), http)
        await shop.sign_in_admin(*ADMIN)
        product = await shop.product(stock=STOCK, amount=AMOUNT)
        if plan.old_reservations:
            await on_server(common, OLD.format(count=plan.old_reservations))
        people = [await shop.customer() for _ in range(5)]
        buyers = Buyers(shop, people, product["product_id"], plan.pace)
        yield Rehearsal(plan, street, common, own, buyers, hall)


async def test_inventory_moves_out_and_in_again_and_no_customer_loses_an_order(
    rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    books, buyers = Books(rehearsal.common), rehearsal.buyers
    watch = Watch(books, Books(rehearsal.own))

    async with watch.watching(), buyers.coming():
        await rehearsal.run()
    await at_rest(books)
    orders, doubled = await holds(books, buyers, STOCK)

    with capsys.disabled():
        report = [*rehearsal.report(), f"{orders} orders in the books, {doubled} doubled"]
        report.append(f"{watch.looks} looks at the invariants, {len(watch.broken)} broken")
        print("\n" + "\n".join(report))  # noqa: T201 - for the report
    assert (buyers.told.failed, doubled, watch.broken) == ([], 0, [])
    assert orders == len(buyers.told.placed) > 20
    assert watch.at_inventory >= watch.looks - 2 > 0
    assert rehearsal.kills == (5 if rehearsal.plan.kills else 0)
    await answers_stand(buyers, buyers.told.sales[:: max(1, orders // 20)])
