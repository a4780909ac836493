"""The scenario: a fixed sequence of requests that uses all contexts, with many rejections.

Requests are sent one after another. After each request that publishes events the runner waits until
all events are processed, so the result does not depend on timing.
"""

from tests.partitions.scenario.carts import (
    cart_of_a_claimed_guest,
    cart_to_paid_order,
    merged_carts,
)
from tests.partitions.scenario.catalogue import create_products
from tests.partitions.scenario.guests import guest_is_claimed_later, guests_become_users
from tests.partitions.scenario.orders import (
    access_by_others,
    cancelled_orders,
    declined_payment,
    failed_shipments,
    idempotency_keys,
    order_to_delivery,
    rejected_orders,
    returned_units,
)
from tests.partitions.scenario.payments import (
    delayed_provider_outcomes,
    refunds,
    unpaid_orders,
)
from tests.partitions.scenario.users import deactivated_user, register_users, staff_roles
from tests.partitions.scenario_runner import ScenarioRunner


async def play(runner: ScenarioRunner) -> None:
    await runner.sign_in_admin()
    await register_users(runner)
    products = await create_products(runner)
    await order_to_delivery(runner, products)
    await failed_shipments(runner, products)
    await returned_units(runner, products)
    await declined_payment(runner, products)
    await cancelled_orders(runner, products)
    await rejected_orders(runner, products)
    await idempotency_keys(runner, products)
    await access_by_others(runner, products)
    await staff_roles(runner, products)
    await unpaid_orders(runner, products)
    await delayed_provider_outcomes(runner, products)
    await refunds(runner, products)
    await deactivated_user(runner, products)
    await guests_become_users(runner, products)
    await guest_is_claimed_later(runner, products)
    await cart_to_paid_order(runner, products)
    await merged_carts(runner, products)
    await cart_of_a_claimed_guest(runner, products)
    await final_reads(runner, products)


async def final_reads(runner: ScenarioRunner, products: dict[str, str]) -> None:
    await runner.wait_until_idle()
    for user in ("anna", "ben", "carl", "admin"):
        await runner.get("/orders?limit=100", user)
        await runner.get("/payments?limit=100&sort=created_at", user)
    ledger = ("/ledger/accounts", "/ledger/verify", "/ledger/reconciliations")
    for path in ("/transactions?limit=100", *ledger):
        await runner.get(path, "admin")
    for product in products.values():
        await runner.get(f"/products/{product}/stock", "admin")
        await runner.get(f"/products/{product}", "admin")
    for method, path in (("DELETE", "/orders"), ("PUT", "/payments"), ("PATCH", "/products")):
        await runner.request(method, path, "admin")
    await runner.request("GET", "/nowhere")
    await runner.request(
        "POST", "/orders", "anna", headers={"idempotency-key": "x"}, content=b"<order/>"
    )
    await runner.stats("admin")
