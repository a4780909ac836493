"""One story, the same every time: what a hall is for, and the crossed refusals of its contexts.

Requests come one after the other, and after each that sets events in motion all comes to rest; so
what happens next depends on nothing but the story.
"""

from tests.partitions.scenario.catalogue import shelves
from tests.partitions.scenario.orders import (
    cancelled,
    declined,
    from_order_to_delivery,
    keys,
    refused,
    strangers,
)
from tests.partitions.scenario.payments import (
    money_goes_back,
    nobody_pays,
    the_provider_is_slow_to_say,
)
from tests.partitions.scenario.users import banned, people, staff
from tests.partitions.scenario_runner import ScenarioRunner


async def play(runner: ScenarioRunner) -> None:
    await runner.sign_in_admin()
    await people(runner)
    goods = await shelves(runner)
    await from_order_to_delivery(runner, goods)
    await declined(runner, goods)
    await cancelled(runner, goods)
    await refused(runner, goods)
    await keys(runner, goods)
    await strangers(runner, goods)
    await staff(runner, goods)
    await nobody_pays(runner, goods)
    await the_provider_is_slow_to_say(runner, goods)
    await money_goes_back(runner, goods)
    await banned(runner, goods)
    await the_end(runner, goods)


async def the_end(p: ScenarioRunner, goods: dict[str, str]) -> None:
    await p.wait_until_idle()
    for who in ("anna", "ben", "carl", "admin"):
        await p.get("/orders?limit=100", who)
        await p.get("/payments?limit=100&sort=created_at", who)
    for path in ("/transactions?limit=100", "/ledger/accounts", "/ledger/verify"):
        await p.get(path, "admin")
    for product in goods.values():
        await p.get(f"/products/{product}/stock", "admin")
        await p.get(f"/products/{product}", "admin")
    for method, path in (("DELETE", "/orders"), ("PUT", "/payments"), ("PATCH", "/products")):
        await p.request(method, path, "admin")
    await p.request("GET", "/nowhere")
    await p.request(
        "POST", "/orders", "anna", headers={"idempotency-key": "x"}, content=b"<order/>"
    )
    await p.stats("admin")
